#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What runs inside the second kind of host (scripts/npt-host.sh): doctor, and the tests given. Results go to out/,
# from where they come back.
set -uo pipefail

export REQUIRE_KVM=1
mkdir -p out
build/hindsight doctor | tee out/doctor.txt
build/hindsight doctor --json >out/doctor.json
tests/run.sh out/results.txt "$@"
status=$?
[[ ! -e out/battery.log ]] || tail -n 40 out/battery.log
for failed in build/*-failed; do
	[[ ! -d $failed ]] || cp -r "$failed" out/
done
exit $status
