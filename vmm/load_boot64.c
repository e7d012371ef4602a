// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A program that looks to boot loaders like a bzImage but packs no vmlinux, such as memtest86+: its protected-mode
 * code is put where its header says and entered by the 64-bit boot protocol (Documentation/arch/x86/boot.rst),
 * 0x200 bytes in.
 */
#include "vmm/load_internal.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* In the file: struct setup_header lies at 0x1f1. The first version whose header says all that is used here. */
#define HEADER_AT 0x1f1
#define HEADER_MAGIC 0x53726448u /* "HdrS" */
#define VERSION_XLOADFLAGS 0x020c
#define SECTOR 512u
#define SETUP_SECTS_DEFAULT 4
#define ENTRY_64 0x200u

static bool read_header(const struct guest_image *image, struct setup_header *h)
{
	*h = (struct setup_header){0};
	if (!load_range_ok(HEADER_AT, sizeof(*h), image->kernel_size))
		return false;
	memcpy(h, image->kernel + HEADER_AT, sizeof(*h));
	return h->header == HEADER_MAGIC;
}

bool loader_is_boot64(const struct guest_image *image)
{
	struct setup_header h;

	return read_header(image, &h) && h.version >= VERSION_XLOADFLAGS && h.payload_length == 0 &&
	       (h.xloadflags & XLF_KERNEL_64);
}

int load_boot64(struct load *l, struct err *err)
{
	const struct guest_image *image = l->image;
	struct kvm_regs *r = &l->entry->regs;
	struct setup_header h;
	uint64_t initrd = 0, start, size;
	int ret;

	read_header(image, &h);
	start = ((h.setup_sects ? h.setup_sects : SETUP_SECTS_DEFAULT) + 1u) * SECTOR;
	if (start >= image->kernel_size || image->kernel_size - start <= ENTRY_64)
		return err_set(err, ENOEXEC,
			       "the boot header's setup_sects is %u, which leaves no code in a file of %zu bytes",
			       h.setup_sects, image->kernel_size);
	size = image->kernel_size - start;
	if (h.init_size < size)
		return err_set(err, ENOEXEC,
			       "the boot header's init_size is 0x%x, less than the code of 0x%" PRIx64 " bytes",
			       h.init_size, size);
	ret = load_copy(l, h.pref_address, image->kernel + start, size, h.init_size, "the program", err);
	if (!ret)
		ret = load_add_text(l, h.pref_address, h.pref_address, size, "", err);
	if (!ret && image->initrd_size > 0)
		ret = load_initrd_high(l, h.initrd_addr_max + 1ull, &initrd, err);
	if (!ret)
		ret = load_enter_linux(l, initrd, err);
	r->rip = h.pref_address + ENTRY_64;
	return ret;
}
