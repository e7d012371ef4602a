/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Ways into the kernel after boot: 256 vector stubs of 16 bytes (cpu_init() counts on the size) that
 * build a struct trap_frame, and the SYSCALL entry.
 */
#include "loader.h"

	.text

	.align 16
	.globl trap_stubs
	.type trap_stubs, @function
trap_stubs:
	.set vector, 0
	.rept 256
	.align 16
	/* The CPU pushes an error code itself for #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX. */
	.if (vector != 8) && (vector != 10) && (vector != 11) && (vector != 12) && \
	    (vector != 13) && (vector != 14) && (vector != 17) && (vector != 21) && \
	    (vector != 29) && (vector != 30)
	pushq $0
	.endif
	pushq $vector
	jmp trap_common
	.set vector, vector + 1
	.endr
	.size trap_stubs, . - trap_stubs

	.align 16
	.globl trap_common
	.type trap_common, @function
trap_common:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi
	/* A frame record that continues at the interrupted code: back-traces walk through it. */
	pushq 136(%rsp)
	pushq %rbp
	movq %rsp, %rbp
	call trap_dispatch
	addq $16, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq
	.size trap_common, . - trap_common

/*
 * SYSCALL: RAX number, RDI, RSI, RDX arguments; RAX result, RCX and R11 lost as the instruction
 * prescribes, all other registers kept. Interrupts are off (SFMASK); a handler may enable them.
 */
	.align 16
	.globl syscall_entry
	.type syscall_entry, @function
syscall_entry:
	movq %rsp, syscall_user_rsp
	movq $kernel_stack_top, %rsp
	pushq syscall_user_rsp
	pushq %rcx
	pushq %r11
	pushq %rdi
	pushq %rsi
	pushq %rdx
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %rbp
	xorl %ebp, %ebp
	movq %rdx, %rcx
	movq %rsi, %rdx
	movq %rdi, %rsi
	movq %rax, %rdi
	cld
	call syscall_dispatch
	cli
	popq %rbp
	popq %r10
	popq %r9
	popq %r8
	popq %rdx
	popq %rsi
	popq %rdi
	popq %r11
	popq %rcx
	popq %rsp
	sysretq
	.size syscall_entry, . - syscall_entry

/* void user_jump(void (*fn)(void), void *stack_top) */
	.globl user_jump
	.type user_jump, @function
user_jump:
	pushq $SEL_USER_DATA
	pushq %rsi
	pushq $0x202			/* RFLAGS: IF */
	pushq $SEL_USER_CODE
	pushq %rdi
	xorl %ebp, %ebp
	iretq
	.size user_jump, . - user_jump

	.section .bss
	.align 16
syscall_user_rsp:
	.skip 8
	.align 4096
	.skip 8192
	.globl kernel_stack_top
kernel_stack_top:
	.skip 4096
	.globl fault_stack_top
fault_stack_top:

	.section .note.GNU-stack, "", @progbits
