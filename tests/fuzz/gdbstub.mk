# SPDX-License-Identifier: GPL-3.0-or-later
# Fuzzers of the gdb stub, built by clang with libFuzzer and sanitizers. Included by the top-level Makefile. What
# they have found so far stays in $(FUZZ_GDB)/corpus and is where the next run begins.
#
#   make fuzz-gdbstub [FUZZ_GDB_SECONDS=60]    make fuzz-gdbstub-nightly: 5,000,000 runs each

FUZZ_GDB := $(BUILD)/fuzz-gdbstub
FUZZ_GDB_SECONDS ?= 60
FUZZ_GDB_RUNS ?= 5000000
FUZZ_GDB_NAMES := request session
FUZZ_GDB_CFLAGS := -std=c17 -D_GNU_SOURCE $(WARN) -O1 -g -I. \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_GDB_SRC := $(base_SRC) $(gdbstub_SRC) tests/gdb/fake_target.c

$(FUZZ_GDB)/%: tests/fuzz/fuzz_gdb_%.c $(FUZZ_GDB_SRC) $(wildcard base/*.h gdbstub/*.h tests/gdb/*.h)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  FUZZ  $@")
	$(Q)clang $(FUZZ_GDB_CFLAGS) -o $@ $< $(FUZZ_GDB_SRC)

.PHONY: fuzz-gdbstub fuzz-gdbstub-nightly
fuzz-gdbstub:
	$(Q)scripts/deps.sh build fuzz
	$(Q)$(MAKE) $(ON_ALL_CPUS) $(FUZZ_GDB_NAMES:%=$(FUZZ_GDB)/%)
	$(Q)tests/fuzz/gdbstub.sh $(FUZZ_GDB) -max_total_time=$(FUZZ_GDB_SECONDS) $(FUZZ_GDB_NAMES)

fuzz-gdbstub-nightly:
	$(Q)scripts/deps.sh build fuzz
	$(Q)$(MAKE) $(ON_ALL_CPUS) $(FUZZ_GDB_NAMES:%=$(FUZZ_GDB)/%)
	$(Q)tests/fuzz/gdbstub.sh $(FUZZ_GDB) -runs=$(FUZZ_GDB_RUNS) $(FUZZ_GDB_NAMES)
