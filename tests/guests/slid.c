// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * A kernel that moves away from where its file says, as Linux does with KASLR: it maps itself a second time, gives the CPU
 * its entries there, under the names that Linux has for them, and goes on there.
 */
#include "test.h"

#define SLIDE 0x41000000UL
#define MSR_LSTAR 0xc0000082
#define VECTOR_PAGE_FAULT 14
#define ROUNDS 20

extern char guest_image_start[], guest_image_end[];
void entry_SYSCALL_64(void);
void asm_exc_page_fault(void);
void slid_run(void) __attribute__((noreturn));

__asm__(".text\n"
	".globl entry_SYSCALL_64, asm_exc_page_fault\n"
	".type entry_SYSCALL_64, @function\n"
	"entry_SYSCALL_64:\n"
	"	sysretq\n"
	".size entry_SYSCALL_64, . - entry_SYSCALL_64\n"
	".type asm_exc_page_fault, @function\n"
	"asm_exc_page_fault:\n"
	"	hlt\n"
	"	jmp asm_exc_page_fault\n"
	".size asm_exc_page_fault, . - asm_exc_page_fault\n");

volatile uint64_t slid_word;

static __attribute__((noinline)) void slid_store(uint64_t value)
{
	slid_word = value;
}

void slid_run(void)
{
	uint64_t sum = 0;

	kprintf("slid: from here on elsewhere\n");
	for (uint64_t i = 1; i <= ROUNDS; i++) {
		slid_store(i);
		sum = fold(sum, slid_word);
	}
	kprintf("slid: ok, %lu rounds, %016lx\n", slid_word, sum);
	guest_exit(0);
}

static void move_page_fault_gate(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint64_t base;
	} idt;
	uint64_t handler = (uint64_t)asm_exc_page_fault + SLIDE;
	uint16_t *gate;

	__asm__ volatile("sidt %0" : "=m"(idt));
	gate = (uint16_t *)(idt.base + VECTOR_PAGE_FAULT * 16);
	gate[0] = (uint16_t)handler;
	gate[3] = (uint16_t)(handler >> 16);
	gate[4] = (uint16_t)(handler >> 32);
	gate[5] = (uint16_t)(handler >> 48);
}

void guest_main(void)
{
	void (*volatile go_on)(void) = (void (*)(void))((uint64_t)slid_run + SLIDE);

	for (uint64_t at = (uint64_t)guest_image_start; at < (uint64_t)guest_image_end; at += PAGE_SIZE)
		page_map(at + SLIDE, at, PAGE_PRESENT | PAGE_WRITE);
	wrmsr(MSR_LSTAR, (uint64_t)entry_SYSCALL_64 + SLIDE);
	move_page_fault_gate();
	go_on();
}
