/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Entry. Without a macro: hindsight's plain ELF64 entry, long mode at CPL0 with low memory identity
 * mapped, RDI = address of the command line, RSI = bytes of RAM. With GUEST_PVH, GUEST_MULTIBOOT1 or
 * GUEST_MULTIBOOT2: 32-bit protected mode without paging, EBX = address of the loader's structure.
 * All ways lead to own page tables, GDT and stack, then to guest_boot() in loader.c.
 */
#include "loader.h"

#define BOOT_STACK_SIZE 16384

#if defined(GUEST_PVH)
/* ELF note 18, XEN_ELFNOTE_PHYS32_ENTRY: address of the 32-bit entry. */
	.section .note.pvh, "a", @note
	.align 4
	.long 4
	.long 8
	.long 18
	.asciz "Xen"
	.quad start32
#elif defined(GUEST_MULTIBOOT1)
/*
 * Flags: page-align modules, give memory sizes, and (bit 16) use the addresses below: Multiboot 1
 * loaders may refuse a 64-bit ELF file otherwise.
 */
#define MB1_FLAGS 0x10003
	.section .boot.header, "a"
	.align 4
multiboot_header:
	.long 0x1badb002
	.long MB1_FLAGS
	.long -(0x1badb002 + MB1_FLAGS)
	.long multiboot_header
	.long guest_image_start
	.long guest_load_end
	.long guest_image_end
	.long start32
#elif defined(GUEST_MULTIBOOT2)
	.section .boot.header, "a"
	.align 8
multiboot_header:
	.long 0xe85250d6
	.long 0			/* i386 protected mode */
	.long multiboot_header_end - multiboot_header
	.long -(0xe85250d6 + (multiboot_header_end - multiboot_header))
	.short 3		/* entry address tag */
	.short 0
	.long 12
	.long start32
	.align 8
	.short 0		/* end tag */
	.short 0
	.long 8
multiboot_header_end:
#endif

	.section .boot.text, "ax"

#if defined(GUEST_PVH) || defined(GUEST_MULTIBOOT1) || defined(GUEST_MULTIBOOT2)
#if defined(GUEST_PVH)
#define BOOT_LOADER LOADER_PVH
#elif defined(GUEST_MULTIBOOT1)
#define BOOT_LOADER LOADER_MULTIBOOT1
#else
#define BOOT_LOADER LOADER_MULTIBOOT2
#endif
	.code32
	.globl start32
	.type start32, @function
start32:
	cli
	cld
	movl %ebx, boot_info
	movl $BOOT_LOADER, boot_loader
	movl %cr4, %eax
	orl $0x20, %eax			/* PAE */
	movl %eax, %cr4
	movl $page_pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER: LME, NXE, SCE */
	movl $0x901, %eax
	xorl %edx, %edx
	wrmsr
	movl $0x80010031, %eax		/* PG, WP, NE, ET, PE */
	movl %eax, %cr0
	lgdtl gdt_pointer
	ljmpl $SEL_KERNEL_CODE, $start64
	.size start32, . - start32
	.code64
#endif

/* Named in the ELF header; with the 32-bit protocols nobody enters here. */
	.globl _start
	.type _start, @function
_start:
	cli
	cld
	movq %rdi, boot_info
	movq %rsi, boot_ram_bytes
	movl $page_pml4, %eax
	movq %rax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x801, %eax		/* NXE, SCE */
	wrmsr
	movq %cr0, %rax
	orl $0x10020, %eax		/* WP, NE */
	movq %rax, %cr0
	lgdt gdt_pointer
	movl $boot_stack_top, %esp
	pushq $SEL_KERNEL_CODE
	pushq $start64
	lretq
	.size _start, . - _start

	.globl start64
	.type start64, @function
start64:
	movl $SEL_KERNEL_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl $boot_stack_top, %esp
	xorl %ebp, %ebp			/* ends every back-trace */
	call guest_boot
1:	hlt
	jmp 1b
	.size start64, . - start64

	.section .data
	.align 16
	.globl gdt
/* SYSRET takes SS = base + 8 and CS = base + 16 from one base (STAR), which fixes this order. */
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* kernel code */
	.quad 0x00cf93000000ffff	/* kernel data */
	.quad 0x00cffb000000ffff	/* user code, 32 bit: only the base for SYSRET */
	.quad 0x00cff3000000ffff	/* user data */
	.quad 0x00affb000000ffff	/* user code */
	.quad 0, 0			/* TSS, filled in by cpu_init() */
gdt_end:
	.align 8
gdt_pointer:
	.short gdt_end - gdt - 1
	.quad gdt

	.globl boot_info, boot_ram_bytes, boot_loader
boot_info:
	.quad 0
boot_ram_bytes:
	.quad 0
boot_loader:
	.long LOADER_ELF64

/* First 1 GiB, identity, 2 MiB pages. Upper levels allow user access: the last level decides. */
	.align 4096
	.globl page_pml4
page_pml4:
	.quad page_pdpt + 7
	.fill 511, 8, 0
page_pdpt:
	.quad page_directory + 7
	.fill 511, 8, 0
page_directory:
	.set address, 0
	.rept 512
	.quad address + 0x83
	.set address, address + 0x200000
	.endr

	.section .bss
	.align 4096
boot_stack:
	.skip BOOT_STACK_SIZE
	.globl boot_stack_top
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
