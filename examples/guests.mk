# SPDX-License-Identifier: GPL-3.0-or-later
# Guests: included by the top-level Makefile, which sets BUILD and Q. Needs gcc and binutils only.
#
#   $(BUILD)/guests/NAME.elf            from examples/NAME/*.c, examples/lib/hello.c or tests/guests/NAME.c
#   $(BUILD)/guests/NAME_pvh.elf        the same with another boot header (_pvh, _multiboot1,
#                                       _multiboot2), for instance to run it under another VMM
#
# tests/guests/guests.mk lists TEST_GUESTS (names without .elf).

GUEST_CC ?= gcc
GUEST_CFLAGS := -std=gnu17 -O1 -g -Wall -Wextra -Werror -ffreestanding -fno-builtin -fno-pie \
	-mno-red-zone -mno-sse -mno-mmx -mgeneral-regs-only -fno-omit-frame-pointer \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
	-ffile-prefix-map=$(CURDIR)=. -Iexamples/lib -MMD -MP
GUEST_LDFLAGS := -no-pie -nostdlib -static -Wl,--build-id=none -Wl,-z,max-page-size=4096 \
	-Wl,-z,noseparate-code -Wl,-z,noexecstack -T examples/lib/guest.ld

GUEST_EXAMPLES := $(patsubst examples/%/,%,$(wildcard examples/stale_pointer/ examples/irq_race/))
TEST_GUESTS :=
-include tests/guests/guests.mk

GUEST_NAMES := hello $(GUEST_EXAMPLES) $(TEST_GUESTS)
GUESTS := $(GUEST_NAMES:%=$(BUILD)/guests/%.elf) $(BUILD)/guests/hello_pvh.elf \
	$(BUILD)/guests/hello_multiboot1.elf $(BUILD)/guests/hello_multiboot2.elf

GUEST_OBJ := $(BUILD)/guests/obj
GUEST_LIB_OBJ := $(patsubst %,$(GUEST_OBJ)/examples/lib/%.o,trap loader console cpu timer heap page \
	string random)

# The objects of one guest beside boot header and library.
guest_sources = $(if $(filter hello,$1),examples/lib/hello.c,$(if $(filter $1,$(GUEST_EXAMPLES)),\
	$(sort $(wildcard examples/$1/*.c)),tests/guests/$1.c))
guest_objects = $(patsubst %.c,$(GUEST_OBJ)/%.o,$(call guest_sources,$1))

.PHONY: guests
guests: $(GUESTS)

$(GUEST_OBJ)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -c -o $@ $<

$(GUEST_OBJ)/%.o: %.S
	@mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -c -o $@ $<

$(GUEST_OBJ)/examples/lib/boot_pvh.o: GUEST_BOOT := -DGUEST_PVH
$(GUEST_OBJ)/examples/lib/boot_multiboot1.o: GUEST_BOOT := -DGUEST_MULTIBOOT1
$(GUEST_OBJ)/examples/lib/boot_multiboot2.o: GUEST_BOOT := -DGUEST_MULTIBOOT2
$(patsubst %,$(GUEST_OBJ)/examples/lib/boot_%.o,pvh multiboot1 multiboot2): examples/lib/boot.S
	@mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) $(GUEST_BOOT) -c -o $@ $<

# $1: name, $2: suffix of the boot header's object and of the guest
define guest_rule
$(BUILD)/guests/$1$2.elf: $(GUEST_OBJ)/examples/lib/boot$2.o $(call guest_objects,$1) \
		$(GUEST_LIB_OBJ) examples/lib/guest.ld
	$(Q)$(GUEST_CC) $(GUEST_LDFLAGS) -o $$@ $$(filter %.o,$$^)
endef
$(foreach name,$(GUEST_NAMES),$(foreach boot,_ _pvh _multiboot1 _multiboot2,\
	$(eval $(call guest_rule,$(name),$(filter-out _,$(boot))))))

-include $(wildcard $(GUEST_OBJ)/*/*/*.d)
