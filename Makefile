# SPDX-License-Identifier: GPL-3.0-or-later
# hindsight: make, make demo, make test, make linux, make fuzz, make bench. V=1 shows commands, SAN=1 builds with ASan+UBSan,
# CC=clang works as well. Everything built goes to build/ (build-san/ with SAN=1).

CC ?= gcc
BUILD ?= $(if $(SAN),build-san,build)
Q := $(if $(V),,@)
# How what has much to build is made, unless the user has said how many jobs.
ON_ALL_CPUS = --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wsign-compare -Wconversion -Werror
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=c17 -D_GNU_SOURCE $(WARN) $(CFLAGS) -I. -MMD -MP -pthread -I/usr/include/libdwarf
ALL_LDFLAGS := -pthread $(LDFLAGS)
LIBS := -lZydis -lz -llzma -lzstd -llz4 -lxxhash -lelf -ldwarf -lslirp
ifdef SAN
ALL_CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
ALL_LDFLAGS += -fsanitize=address,undefined
endif

base_SRC := base/err.c base/buf.c base/new_file.c
dev_SRC := vmm/dev/pic.c vmm/dev/pit.c vmm/dev/uart.c vmm/dev/rtc.c vmm/dev/i8042.c vmm/dev/debugport.c \
	vmm/dev/virtio.c vmm/dev/disk.c vmm/dev/virtio_blk.c vmm/dev/virtio_rng.c vmm/dev/virtio_console.c \
	vmm/dev/virtio_net.c
vmm_SRC := vmm/walk.c vmm/stat.c vmm/memory.c vmm/paging.c vmm/cpuid.c vmm/vcpu.c vmm/breakpoint.c vmm/step.c vmm/syscall_repair.c vmm/user_return.c vmm/vcpu_state.c vmm/kick.c vmm/machine.c vmm/watched.c \
	vmm/devices.c vmm/state.c vmm/witness.c vmm/assist.c vmm/assist_exec.c vmm/assist_xsave.c vmm/assist_system.c vmm/rewrite.c vmm/user_code.c vmm/modules.c vmm/load.c vmm/load_elf.c \
	vmm/load_linux.c vmm/load_boot64.c vmm/load_bzimage.c vmm/load_multiboot.c vmm/probe.c vmm/probe_guest.c vmm/probe_cpu.c \
	vmm/probe_memory.c $(dev_SRC)
replay_SRC := replay/trace.c replay/input.c replay/file.c replay/event.c replay/ends.c replay/recorder.c replay/approach.c replay/landmark.c replay/progress.c replay/mark.c replay/fault.c replay/replayer.c replay/replay.c \
	replay/divergence.c
debugger_SRC := debugger/stops.c debugger/where.c debugger/timeline.c debugger/timeline_stops.c debugger/timeline_place.c debugger/index.c debugger/fallback.c debugger/begin.c debugger/landing.c debugger/live.c debugger/branch.c debugger/options.c debugger/session.c debugger/net_user.c debugger/terminal.c debugger/linux.c debugger/lines.c debugger/slide.c debugger/symbols.c \
	debugger/symset.c debugger/module.c debugger/cmd_run.c \
	debugger/cmd_replay.c debugger/cmd_index.c debugger/cmd_snapshot.c debugger/cmd_info.c debugger/cmd_last_write.c debugger/cmd_doctor.c \
	debugger/cmd_gdb.c debugger/gdb_target.c debugger/gdb_regs.c debugger/gdb_monitor.c

gdbstub_SRC := gdbstub/packet.c gdbstub/conn.c gdbstub/listen.c gdbstub/request.c gdbstub/regs.c gdbstub/expr.c gdbstub/point.c \
	gdbstub/session.c gdbstub/session_run.c gdbstub/session_query.c

snapshot_SRC := snapshot/spill.c snapshot/store.c snapshot/map.c snapshot/snapshot.c snapshot/branch.c snapshot/export.c \
	snapshot/import.c

LIB_SRC := $(base_SRC) $(vmm_SRC) $(replay_SRC) $(snapshot_SRC) $(gdbstub_SRC) $(debugger_SRC)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)

unit_TESTS := test_base test_trace test_trace_frames test_event test_progress test_approach test_devices test_virtio test_virtio_blk test_virtio_ports test_device_pic test_device_pit test_device_rtc \
	test_loader test_loader_bzimage test_loader_multiboot test_symbols test_module test_linux test_rewrite test_modules test_user_code test_paging test_assist test_assist_exec test_assist_xsave \
	test_gdbstub_packet test_gdbstub_expr test_gdbstub_request test_gdbstub_session test_gdbstub_hostile \
	test_page_store test_snapshot_file test_index_file
kvm_TESTS := test_probe test_divergence test_positions test_watch test_restore test_snapshots test_fallback test_timeline test_stops test_index test_branch test_other_host
TESTS := $(unit_TESTS:%=$(BUILD)/tests/%) $(kvm_TESTS:%=$(BUILD)/tests/%)
SCRIPT_TESTS := tests/commands.sh tests/console.sh tests/robustness.sh tests/moves.sh "tests/hostile.sh -n 20000" tests/virtio.sh tests/gdb_remote.sh tests/gdb_replay.sh tests/gdb_live.sh tests/slid.sh \
	"tests/example.sh stale_pointer" "tests/example.sh irq_race"
RESULTS := $(BUILD)/results/results.txt

# On the second kind of host kernel code is so fast that these guests end before they are interrupted, unless they have
# more to do. User code under a kernel that keeps interrupts off is not interrupted there (docs/determinism.md, Known
# failures): the outcomes of `user` are alike.
BATTERY_NPT := -r 4 -s user -a paging:n=5000 -a selfmod:n=10000 -a shadows:n=600 -a sse:n=500 -m 1000

# Objects stay: test_module reads its own.
.SECONDARY:

.PHONY: all
all: $(BUILD)/hindsight

$(BUILD)/hindsight: $(BUILD)/obj/debugger/main.o $(LIB_OBJ)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

$(BUILD)/tests/%: $(BUILD)/obj/tests/kvm/%.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

# The stub's tests and its fuzzers look at a model instead of a machine.
$(BUILD)/tests/test_gdbstub_session $(BUILD)/tests/test_gdbstub_hostile: $(BUILD)/obj/tests/gdb/fake_target.o

$(BUILD)/tests/fake_server: $(BUILD)/obj/tests/gdb/fake_server.o $(BUILD)/obj/tests/gdb/fake_target.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# What gdb takes the fake target's symbols from; no file for the host to run.
$(BUILD)/tests/fake_program.elf: tests/gdb/fake_program.S
	@mkdir -p $(@D)
	$(Q)$(CC) -g -static -nostdlib -no-pie -Wl,-Ttext=0x1000,-e,main,--build-id=none,-z,max-page-size=4096 -o $@ $<

$(BUILD)/tests/bench $(BUILD)/tests/bench_snapshot $(BUILD)/tests/bench_timeline: $(BUILD)/tests/%: $(BUILD)/obj/tests/bench/%.o \
		$(BUILD)/obj/tests/bench/bench_loop.o $(BUILD)/obj/tests/bench/figure.o $(LIB_OBJ)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

-include examples/guests.mk
include tests/fuzz/fuzz.mk
include tests/fuzz/gdbstub.mk
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

.PHONY: tests
tests: $(TESTS) $(BUILD)/tests/fake_server $(BUILD)/tests/fake_program.elf

# --- what a user runs: each installs what is missing first --------------------------------------

.PHONY: demo
demo:
	$(Q)scripts/deps.sh build
	$(Q)$(MAKE) $(ON_ALL_CPUS) all guests
	$(Q)BUILD=$(BUILD) examples/stale_pointer/session.sh

.PHONY: test
test:
	$(Q)scripts/deps.sh build test clang
	$(Q)$(MAKE) --no-print-directory check-source
	$(Q)$(MAKE) $(ON_ALL_CPUS) all tests guests
	$(Q)$(MAKE) $(ON_ALL_CPUS) SAN=1 CC=clang BUILD=build-san all tests-san
	$(Q)examples/debian_kernel/fetch.sh $(BUILD)/debian_kernel
	$(Q)$(MAKE) --no-print-directory fuzz-gdbstub FUZZ_GDB_SECONDS=30
	$(Q)BUILD=$(BUILD) tests/run.sh $(RESULTS) "tests/debian_kernel.sh -q 0.7 $(BUILD)/debian_kernel/vmlinux" \
		$(TESTS) $(unit_TESTS:%=build-san/tests/%_san) $(SCRIPT_TESTS) -- tests/battery.sh

# Real input: a small Linux, its workload recorded, and the bug in its module found.
.PHONY: test-linux
test-linux:
	$(Q)scripts/deps.sh build test linux
	$(Q)$(MAKE) --no-print-directory all linux
	$(Q)examples/memtest/fetch.sh $(BUILD)/memtest
	$(Q)examples/debian_kernel/fetch.sh $(BUILD)/debian_kernel
	$(Q)BUILD=$(BUILD) tests/run.sh $(BUILD)/results/linux.txt "tests/linux_gdb.sh $(BUILD)/linux" "tests/example.sh linux" \
		"tests/memtest.sh $(BUILD)/memtest/memtest86+x64.bin" "tests/debian_kernel.sh -q 5 $(BUILD)/debian_kernel/vmlinux" \
		-- "tests/small_linux.sh $(BUILD)/linux"

# Anywhere in a recording, and from there to a recorded digest: so often, which makes twice as many seeks.
SEEK_COUNT ?= 5000
.PHONY: test-seeks
test-seeks:
	$(Q)scripts/deps.sh build test
	$(Q)$(MAKE) $(ON_ALL_CPUS) all tests guests
	$(Q)BUILD=$(BUILD) tests/run.sh $(BUILD)/results/seeks.txt "$(BUILD)/tests/test_timeline $(SEEK_COUNT)"

# gdb for the second kind of host, with what it is written in: where its Python looks for itself, gdb tells. And tools of
# which busybox has less.
NPT_FILES = $$(for tool in gdb nm truncate sort tr setpriv; do command -v $$tool; done) /usr/share/gdb $$(gdb -nx -batch -ex 'python import os; print(os.path.dirname(os.__file__))')

# The second kind of host: real kvm_amd with nested paging, inside QEMU. NPT_ALSO: what else is to run there, for where
# there is no first kind.
NPT_ALSO ?=
.PHONY: test-npt
test-npt:
	$(Q)scripts/deps.sh build test npt
	$(Q)$(MAKE) $(ON_ALL_CPUS) all tests guests
	$(Q)scripts/npt-host.sh -t 3600 -o $(BUILD)/npt/results -f build/hindsight -f build/guests \
		-f build/tests -f tests -f examples -f gdbstub $$(printf -- '-f %s ' $(NPT_FILES)) -- tests/npt.sh \
		build/tests/test_probe build/tests/test_divergence build/tests/test_positions build/tests/test_watch build/tests/test_restore \
		build/tests/test_snapshots build/tests/test_fallback build/tests/test_timeline build/tests/test_stops build/tests/test_index build/tests/test_branch "tests/virtio.sh -r 2" tests/gdb_replay.sh tests/gdb_live.sh tests/slid.sh \
		build/tests/test_other_host tests/moves.sh $(NPT_ALSO) \
		"tests/example.sh stale_pointer" "tests/example.sh irq_race" "tests/battery.sh $(BATTERY_NPT)"; status=$$?; \
	tests/side_by_side.sh $(RESULTS) $(BUILD)/npt/results/out/results.txt; exit $$status

# Linux there: the small one's workload, and Debian's own kernel with its user space. More than half an hour on a slow machine.
.PHONY: test-npt-linux
test-npt-linux:
	$(Q)scripts/deps.sh build test linux npt
	$(Q)$(MAKE) --no-print-directory all linux
	$(Q)examples/debian_kernel/fetch.sh $(BUILD)/debian_kernel
	$(Q)scripts/npt-host.sh -t 3600 -o $(BUILD)/npt/linux -f build/hindsight -f build/linux \
		-f build/debian_kernel/vmlinux -f tests -- tests/npt.sh "tests/small_linux.sh build/linux" \
		"tests/debian_kernel.sh build/debian_kernel/vmlinux build/linux/initramfs.cpio"

# The hostile guest, one on each CPU, for some ten minutes or as long as one likes; make test has it for a short while.
ACCESSES ?= 10000000
.PHONY: hostile
hostile:
	$(Q)scripts/deps.sh build clang
	$(Q)$(MAKE) $(ON_ALL_CPUS) guests
	$(Q)$(MAKE) $(ON_ALL_CPUS) SAN=1 CC=clang BUILD=build-san all
	$(Q)BUILD=$(BUILD) tests/hostile.sh -n $(ACCESSES) -g $$(nproc) -t 86400

# A Linux guest to try: kernel, modules and initial RAM disk in build/linux (examples/linux).
.PHONY: linux
linux:
	$(Q)examples/linux/build.sh -p tests/linux/untrapped.c $(BUILD)/linux tests/linux/clocks.c

.PHONY: bench
bench:
	$(Q)scripts/deps.sh build
	$(Q)$(MAKE) $(ON_ALL_CPUS) all guests $(BUILD)/tests/bench \
		$(BUILD)/tests/bench_snapshot $(BUILD)/tests/bench_timeline
	$(Q)$(BUILD)/tests/bench
	$(Q)$(BUILD)/tests/bench_snapshot
	$(Q)$(BUILD)/tests/bench_timeline

# gdb's waiting times, beside QEMU's record/replay; two minutes.
.PHONY: bench-gdb
bench-gdb:
	$(Q)scripts/deps.sh build bench
	$(Q)$(MAKE) $(ON_ALL_CPUS) all $(BUILD)/guests/stale_pointer_pvh.elf
	$(Q)BUILD=$(BUILD) tests/bench/gdb.sh

.PHONY: bench-linux
bench-linux:
	$(Q)scripts/deps.sh build linux npt
	$(Q)$(MAKE) --no-print-directory all linux
	$(Q)BUILD=$(BUILD) tests/bench/linux.sh $(BUILD)/linux

# --- checks -------------------------------------------------------------------------------------

.PHONY: check-source
check-source:
	$(Q)scripts/check-includes.sh
	$(Q)scripts/check-style.sh

# Unit tests built with clang and sanitizers; named apart, so that results tell them from the others.
.PHONY: tests-san
tests-san: $(unit_TESTS:%=$(BUILD)/tests/%_san)

$(BUILD)/tests/%_san: $(BUILD)/tests/%
	$(Q)ln -sf $(notdir $<) $@

.PHONY: clean
clean:
	rm -rf build build-san
