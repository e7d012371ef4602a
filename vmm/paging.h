/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Guest page-table walk in software. paging_translate, paging_read and paging_write set no accessed
 * or dirty bits and check no permissions: a debugger's view. paging_access is the CPU's view. Intel
 * SDM volume 3A, chapter 4: no paging, 32-bit, PAE, 4-level and 5-level.
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

/*
 * The first page in [*at, end) that is mapped and that the kernel may execute: *at receives its address
 * and *gpa where it lies. False if there is none. Costs a walk for each table that there is in the range,
 * not for each page.
 */
bool paging_find_executable(const struct memory *mem, const struct kvm_sregs *sregs, gva_t *at,
			    gva_t end, gpa_t *gpa);

/* Is the page at gpa one of the tables that the CPU translates by now (all that CR3 leads to)? -ENOMEM. */
int paging_is_table(const struct memory *mem, const struct kvm_sregs *sregs, gpa_t gpa, bool *is);

/* Kinds of data access, or'ed; the first two with the bits of a page fault's error code (SDM
 * 3A 4.7). */
#define PAGING_WRITE 0x2u
#define PAGING_USER 0x4u
#define PAGING_NO_USER_PAGES 0x8u /* supervisor access under SMAP */

/*
 * Translate for a data access as the CPU does: permissions checked, accessed and dirty bits set.
 * -EFAULT and the page fault's error code if the access faults; -ENXIO if a table is not in RAM.
 */
int paging_access(struct memory *mem, const struct kvm_sregs *sregs, gva_t gva, unsigned access,
		  gpa_t *gpa, uint32_t *error);

#endif
