/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Guest loaders. The kind is found by looking at the file, never at its name; the first that claims
 * the file wins, in the order of enum guest_kind.
 */
#ifndef VMM_LOADER_H
#define VMM_LOADER_H

#include "base/err.h"
#include "base/types.h"
#include "vmm/memory.h"

#include <linux/kvm.h>

enum guest_kind {
	GUEST_LINUX,      /* ELF64 with Linux's banner or a Linux PVH note: 64-bit boot protocol */
	GUEST_BOOT64,     /* Linux's boot header without a vmlinux: 64-bit boot protocol */
	GUEST_MULTIBOOT2, /* header in the first 32 KiB */
	GUEST_MULTIBOOT1, /* header in the first 8 KiB */
	GUEST_PVH,        /* ELF with XEN_ELFNOTE_PHYS32_ENTRY */
	GUEST_ELF64,      /* any other ELF64: long mode, see docs/architecture.md */
};

/* Files are whole in memory, read-only and hostile. */
struct guest_image {
	const uint8_t *kernel;
	size_t kernel_size;
	const uint8_t *initrd; /* NULL if none */
	size_t initrd_size;
	const char *cmdline;   /* never NULL */
	/* Not the loaders' business: what the block device holds, if the machine has one. Stays in use as
	 * long as the machine. */
	const uint8_t *disk;
	size_t disk_size;
};

/* A run of executable bytes as loaded: what the rewriter decodes. */
struct text_range {
	gva_t gva;       /* address the code is linked at */
	gpa_t gpa;       /* where it lies */
	uint64_t size;
	char name[48];   /* ELF section name, or "" */
};

struct guest_entry {
	enum guest_kind kind;
	struct kvm_regs regs;
	struct kvm_sregs sregs; /* complete: derived from the reset state passed in */
	struct text_range *text;
	size_t text_len;
};

/*
 * If the kernel is a bzImage with a vmlinux, unpack the vmlinux in it and let image->kernel be that; *unpacked is then
 * what the caller frees, when the image is used no more. Other files are left as they are, with *unpacked
 * NULL. At most 1 GiB; damage and unknown packings are refused.
 */
int loader_unpack(struct guest_image *image, uint8_t **unpacked, struct err *err);

/* True if the file, unpacked or not, is Linux. */
bool loader_is_linux(const struct guest_image *image);
/* A program with the boot header of a bzImage that packs no vmlinux, and can be entered in 64-bit mode. */
bool loader_is_boot64(const struct guest_image *image);

/*
 * Load the image, which is no bzImage any more, into RAM and describe how to enter it. RAM must be fresh, that is zero: what the
 * kernel wants zeroed is not written. vmm/load_internal.h has the map of low memory. sregs_reset:
 * what KVM_GET_SREGS gave for a fresh vCPU. On success the caller frees entry->text, which is
 * sorted by gpa and has no overlaps. On failure RAM may be partly written. Every size and offset in the
 * files is checked; errors name the field and what is wrong with it.
 */
int loader_load(struct memory *mem, const struct guest_image *image,
		const struct kvm_sregs *sregs_reset, struct guest_entry *entry, struct err *err);

const char *guest_kind_name(enum guest_kind kind);

#endif
