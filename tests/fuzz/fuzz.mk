# SPDX-License-Identifier: GPL-3.0-or-later
# Fuzzers: one libFuzzer program for each device, built by clang with sanitizers. Included by the top-level
# Makefile. What each has found so far stays in $(FUZZ)/corpus/NAME and is where the next run begins.
#
#   make fuzz [FUZZ_SECONDS=20] [FUZZERS="blk net"]

FUZZ := $(BUILD)/fuzz
FUZZ_SECONDS ?= 20
FUZZERS_VIRTIO := blk rng console net
FUZZERS_PIO := pic pit uart rtc i8042 debugport
FUZZERS ?= $(FUZZERS_VIRTIO) $(FUZZERS_PIO)
FUZZ_CFLAGS := -std=c17 -D_GNU_SOURCE $(WARN) -O1 -g -I. \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_SRC := base/buf.c base/err.c vmm/walk.c $(dev_SRC)
FUZZ_DEPS := $(FUZZ_SRC) $(wildcard base/*.h vmm/dev/*.h vmm/walk.h tests/fuzz/*.h) \
	tests/unit/virtio_rig.h tests/unit/device_board.h

$(FUZZERS_VIRTIO:%=$(FUZZ)/%): $(FUZZ)/%: tests/fuzz/fuzz_virtio.c $(FUZZ_DEPS)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  FUZZ  $@")
	$(Q)clang $(FUZZ_CFLAGS) -DFUZZ_$(shell echo $* | tr a-z A-Z) -o $@ $< $(FUZZ_SRC) -lxxhash

$(FUZZERS_PIO:%=$(FUZZ)/%): $(FUZZ)/%: tests/fuzz/fuzz_pio.c $(FUZZ_DEPS)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  FUZZ  $@")
	$(Q)clang $(FUZZ_CFLAGS) -DFUZZ_DEVICE=$* -o $@ $< $(FUZZ_SRC) -lxxhash -lcmocka

.PHONY: fuzz
fuzz:
	$(Q)scripts/deps.sh build test fuzz
	$(Q)$(MAKE) $(ON_ALL_CPUS) $(FUZZERS:%=$(FUZZ)/%)
	$(Q)tests/fuzz/run.sh $(FUZZ) $(FUZZ_SECONDS) $(FUZZERS)
