#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The session of an example as a test: tests/example.sh NAME
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
require_kvm
# shellcheck disable=SC2154
exec "$repo/examples/$1/session.sh"
