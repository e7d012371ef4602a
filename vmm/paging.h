/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Guest page-table walk in software, for the VMM's own accesses by virtual address. It sets no
 * accessed or dirty bits and checks no permissions: a debugger's view. Intel SDM volume 3A, chapter
 * 4: no paging, 32-bit, PAE, 4-level and 5-level.
 */
#ifndef VMM_PAGING_H
#define VMM_PAGING_H

#include "vmm/memory.h"

#include <linux/kvm.h>

/* -EFAULT if the address is not mapped or a table is not in RAM. */
int paging_translate(const struct memory *mem, const struct kvm_sregs *sregs, gva_t gva,
		     gpa_t *gpa);
/* Copy from or to guest-virtual memory, page by page. -EFAULT if any byte is not mapped to RAM;
 * a write is then not begun. */
int paging_read(const struct memory *mem, const struct kvm_sregs *sregs, gva_t gva, void *out,
		size_t len);
int paging_write(struct memory *mem, const struct kvm_sregs *sregs, gva_t gva, const void *data,
		 size_t len);

#endif
