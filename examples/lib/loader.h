/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Shared by boot.S, trap.S and the C files: how the guest was entered, and the selectors of its
 * GDT. */
#ifndef GUEST_LOADER_H
#define GUEST_LOADER_H

#define LOADER_ELF64 0
#define LOADER_PVH 1
#define LOADER_MULTIBOOT1 2
#define LOADER_MULTIBOOT2 3

#define SEL_KERNEL_CODE 0x08
#define SEL_KERNEL_DATA 0x10
#define SEL_SYSRET_BASE 0x1b
#define SEL_USER_DATA 0x23
#define SEL_USER_CODE 0x2b
#define SEL_TSS 0x30

#endif
