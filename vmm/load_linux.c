// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Linux as a vmlinux, entered by the 64-bit boot protocol
 * (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol", and zero-page.rst).
 */
#include "vmm/load_internal.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINUX_CODE_SELECTOR 0x10 /* __BOOT_CS */
#define LINUX_DATA_SELECTOR 0x18 /* __BOOT_DS */
#define LINUX_CR4 0x20u		 /* PAE */
#define LINUX_EFER 0x500u	 /* LME LMA */

#define LINUX_HEADER_MAGIC 0x53726448u /* "HdrS" */
#define LINUX_BOOT_FLAG 0xaa55
#define LINUX_PROTOCOL 0x020f
#define LINUX_LOADER_UNDEFINED 0xff
#define LINUX_KERNEL_ALIGNMENT 0x1000000
#define LINUX_COMMAND_LINE_SIZE 2048 /* arch/x86/include/asm/setup.h */
/* Highest last byte of an initrd, as every bzImage's initrd_addr_max says. */
#define LINUX_INITRD_MAX 0x37ffffff

/* init/version.c: "Linux version 6.1.0 (user@host) (compiler) #1 SMP date\n". */
#define LINUX_BANNER "Linux version "
#define LINUX_BANNER_MAX 1024u

/* Notes that only Linux has: include/linux/elfnote-lto.h, build-salt.h; Xen's guest OS name. */
#define LINUX_NOTE_NAME "Linux"
#define LINUX_NOTE_BUILD_SALT 0x100u
#define XEN_NOTE_NAME "Xen"
#define XEN_NOTE_GUEST_OS 6u
#define XEN_NOTE_PHYS32_ENTRY 18u

/* The banner proper, not a mention of it: release number, builder in parentheses, build number. */
static bool is_banner(const char *p, size_t left)
{
	size_t max = left < LINUX_BANNER_MAX ? left : LINUX_BANNER_MAX;
	const char *number = p + strlen(LINUX_BANNER);
	const char *end = memchr(p, '\n', max);

	return end && number < end && *number >= '0' && *number <= '9' &&
	       memmem(number, (size_t)(end - number), " (", 2) &&
	       memmem(number, (size_t)(end - number), " #", 2);
}

static bool has_banner(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data;
	const char *end = p + size;

	while ((p = memmem(p, (size_t)(end - p), LINUX_BANNER, strlen(LINUX_BANNER)))) {
		if (is_banner(p, (size_t)(end - p)))
			return true;
		p++;
	}
	return false;
}

static bool has_linux_note(const struct elf_view *elf)
{
	const uint8_t *desc;
	uint32_t size;

	if (elf_find_note(elf, XEN_NOTE_NAME, XEN_NOTE_GUEST_OS, &desc, &size) && size >= 5 &&
	    memcmp(desc, "linux", 5) == 0)
		return true;
	/* The salt alone is also in Linux's vDSO, which nobody boots. */
	return elf_find_note(elf, LINUX_NOTE_NAME, LINUX_NOTE_BUILD_SALT, NULL, NULL) &&
	       elf_find_note(elf, XEN_NOTE_NAME, XEN_NOTE_PHYS32_ENTRY, NULL, NULL);
}

bool load_linux_claims(const struct elf_view *elf)
{
	if (!elf->is64)
		return false;
	if (has_linux_note(elf))
		return true;
	for (uint64_t i = 0; i < elf->phnum; i++) {
		Elf64_Phdr p = elf_phdr(elf, i);

		if (p.p_type == PT_LOAD && load_range_ok(p.p_offset, p.p_filesz, elf->size) &&
		    has_banner(elf->data + p.p_offset, p.p_filesz))
			return true;
	}
	return false;
}

static int write_boot_params(struct load *l, uint64_t initrd, struct err *err)
{
	struct load_map_entry map[LOAD_MAP_MAX];
	size_t n = load_memory_map(l, map);
	struct boot_params *bp;
	int ret;

	_Static_assert(sizeof(*bp) == 4096 && sizeof(*bp) <= LOW_INFO_SIZE, "zero-page.rst");
	bp = calloc(1, sizeof(*bp));
	if (!bp)
		return err_set(err, ENOMEM, "out of memory for boot_params");
	for (size_t i = 0; i < n; i++)
		bp->e820_table[i] =
			(struct boot_e820_entry){map[i].start, map[i].size, map[i].type};
	bp->e820_entries = (uint8_t)n;
	bp->hdr.boot_flag = LINUX_BOOT_FLAG;
	bp->hdr.header = LINUX_HEADER_MAGIC;
	bp->hdr.version = LINUX_PROTOCOL;
	bp->hdr.type_of_loader = LINUX_LOADER_UNDEFINED;
	bp->hdr.loadflags = LOADED_HIGH;
	bp->hdr.cmd_line_ptr = LOW_CMDLINE;
	bp->hdr.cmdline_size = LINUX_COMMAND_LINE_SIZE - 1;
	bp->hdr.initrd_addr_max = LINUX_INITRD_MAX;
	bp->hdr.kernel_alignment = LINUX_KERNEL_ALIGNMENT;
	if (l->image->initrd_size > 0) {
		bp->hdr.ramdisk_image = (uint32_t)initrd;
		bp->hdr.ramdisk_size = (uint32_t)l->image->initrd_size;
	}
	ret = load_low_write(l, LOW_INFO, bp, sizeof(*bp), err);
	free(bp);
	return ret;
}

int load_enter_linux(struct load *l, uint64_t initrd, struct err *err)
{
	int ret = load_cmdline(l, LINUX_COMMAND_LINE_SIZE, err);

	if (!ret)
		ret = write_boot_params(l, initrd, err);
	if (!ret)
		ret = load_enter_long(l, LINUX_CODE_SELECTOR, LINUX_DATA_SELECTOR, LINUX_CR4,
				      LINUX_EFER, err);
	l->entry->regs.rsi = LOW_INFO;
	return ret;
}

int load_linux(struct load *l, const struct elf_view *elf, struct err *err)
{
	uint64_t initrd = 0;
	int ret = elf_load(l, elf, HIGH_RAM_START, err);

	if (!ret)
		ret = elf_entry(l, elf, true, err);
	if (!ret && l->image->initrd_size > 0)
		ret = load_initrd_high(l, LINUX_INITRD_MAX + 1ull, &initrd, err);
	return ret ? ret : load_enter_linux(l, initrd, err);
}
