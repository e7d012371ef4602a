# SPDX-License-Identifier: GPL-3.0-or-later
# hindsight: make, make demo, make test, make bench. V=1 shows commands, SAN=1 builds with ASan+UBSan,
# CC=clang works as well. Everything built goes to build/ (build-san/ with SAN=1).

CC ?= gcc
BUILD ?= $(if $(SAN),build-san,build)
Q := $(if $(V),,@)

WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wsign-compare -Wconversion -Werror
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=c17 -D_GNU_SOURCE $(WARN) $(CFLAGS) -I. -MMD -MP -pthread -I/usr/include/libdwarf
ALL_LDFLAGS := -pthread $(LDFLAGS)
LIBS := -lZydis -lzstd -lxxhash -lelf -ldwarf
ifdef SAN
ALL_CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
ALL_LDFLAGS += -fsanitize=address,undefined
endif

base_SRC := base/err.c base/buf.c
dev_SRC := vmm/dev/pic.c vmm/dev/pit.c vmm/dev/uart.c vmm/dev/rtc.c vmm/dev/i8042.c vmm/dev/debugport.c
vmm_SRC := vmm/walk.c vmm/memory.c vmm/paging.c vmm/cpuid.c vmm/vcpu.c vmm/vcpu_state.c vmm/kick.c vmm/machine.c \
	vmm/devices.c vmm/state.c vmm/assist.c vmm/assist_sse.c vmm/rewrite.c vmm/load.c vmm/load_elf.c \
	vmm/load_linux.c vmm/load_multiboot.c vmm/probe.c vmm/probe_guest.c vmm/probe_cpu.c \
	vmm/probe_memory.c $(dev_SRC)
replay_SRC := replay/trace.c replay/file.c replay/event.c replay/recorder.c replay/landmark.c replay/replayer.c replay/replay.c \
	replay/divergence.c
debugger_SRC := debugger/options.c debugger/session.c debugger/symbols.c debugger/cmd_run.c \
	debugger/cmd_replay.c debugger/cmd_info.c debugger/cmd_last_write.c debugger/cmd_doctor.c

LIB_SRC := $(base_SRC) $(vmm_SRC) $(replay_SRC) $(debugger_SRC)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)

.PHONY: all
all: $(BUILD)/hindsight

$(BUILD)/hindsight: $(BUILD)/obj/debugger/main.o $(LIB_OBJ)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

-include examples/guests.mk
-include $(LIB_OBJ:.o=.d) $(BUILD)/obj/debugger/main.d
