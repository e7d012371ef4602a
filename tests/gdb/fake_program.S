/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The program of the fake target (fake_target.c has its bytes) for gdb to take symbols and lines from; linked at
 * 0x1000. That both are the same is checked by gdb's compare-sections.
 */
	.text
	.globl main
	.type main, @function
main:
	push %rbp
	mov %rsp, %rbp
1:	call work
	dec %rcx
	jnz 1b
	pop %rbp
	hlt
	.size main, . - main

	.globl work
	.type work, @function
work:
	push %rbp
	mov %rsp, %rbp
	inc %rax
	mov %rax, (%rdi)
	mov %rax, (%rdi)
	mov (%rdi), %rdx
	pop %rbp
	ret
	.size work, . - work

	.section .note.GNU-stack, "", @progbits
