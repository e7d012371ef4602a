// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * Code that changes code: a routine in plain memory gets new immediates and other instructions
 * before each call, changes an instruction of its own just before executing it, and the interrupt
 * handler changes and calls a routine of its own in the same page. Before it changes a routine it reads
 * it, as a kernel does that decides by what it finds how to patch: nothing else may have changed it.
 */
#include "test.h"

#define TICK_HZ 1000

#define OPCODE_ADD 0x01 /* add %ecx, %eax */
#define OPCODE_SUB 0x29
#define OPCODE_XOR 0x31
#define OPCODE_RET 0xc3

#define AT_IMMEDIATE_A 1
#define AT_IMMEDIATE_B 6
#define AT_OPCODE_CALLER 10
#define HANDLER_ROUTINE 2048

extern const char routine[], routine_ahead[], routine_end[];

/* Runs as a copy. The constants above are offsets of what the caller changes. */
__asm__(".text\n"
	".globl routine, routine_ahead, routine_end\n"
	".type routine, @function\n"
	"routine:\n"
	"	movl $0x11111111, %eax\n"
	"	movl $0x22222222, %ecx\n"
	"	addl %ecx, %eax\n"
	"	movb %dil, routine_ahead(%rip)\n"
	"	jmp routine_ahead\n"
	"	ud2\n"
	"routine_ahead:\n"
	"	addl %edx, %eax\n"
	"	.fill 240, 1, 0x90\n" /* NOPs: half of the guest's time, so that it is interrupted here */
	"	ret\n"
	"routine_end:\n"
	".size routine, . - routine\n");

static uint8_t code[PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t left[PAGE_SIZE]; /* what the code was left like */
static uint64_t handler_mismatches;

static bool is_as_left(unsigned at)
{
	uint64_t is, was;

	for (const char *c = routine; c < routine_end; c += sizeof(is), at += sizeof(is)) {
		__builtin_memcpy(&is, code + at, sizeof(is));
		__builtin_memcpy(&was, left + at, sizeof(was));
		if (is != was)
			return false;
	}
	return true;
}

/* EDI: opcode of the instruction that the routine changes itself. */
static uint32_t call(unsigned at, uint32_t opcode_ahead, uint32_t edx)
{
	uint32_t result;

	__asm__ volatile("call *%1"
			 : "=&a"(result)
			 : "r"(code + at), "D"(opcode_ahead), "d"(edx)
			 : "rcx", "memory", "cc");
	return result;
}

static void patch(uint8_t *at, uint32_t a, uint32_t b, uint8_t opcode)
{
	__builtin_memcpy(at + AT_IMMEDIATE_A, &a, 4);
	__builtin_memcpy(at + AT_IMMEDIATE_B, &b, 4);
	at[AT_OPCODE_CALLER] = opcode;
	/* For the compiler; the CPU sees a store to code at the next branch at the latest. */
	__asm__ volatile("" ::: "memory");
}

static uint32_t operate(uint8_t opcode, uint32_t a, uint32_t b)
{
	return opcode == OPCODE_ADD ? a + b : opcode == OPCODE_SUB ? a - b : a ^ b;
}

/* One call with operands and operations taken from x; false if the result is wrong, or the routine was not what it was
 * left like. */
static bool round_is_right(unsigned at, uint64_t x, uint64_t *sum)
{
	static const uint8_t opcode[4] = {OPCODE_ADD, OPCODE_SUB, OPCODE_XOR, OPCODE_ADD};
	uint32_t a = (uint32_t)(x >> 32), b = (uint32_t)(x >> 16), c = (uint32_t)(x >> 8);
	uint8_t caller = opcode[x >> 62], ahead = opcode[x >> 60 & 3];
	bool as_left = is_as_left(at);
	uint32_t result;

	patch(code + at, a, b, caller);
	patch(left + at, a, b, caller);
	result = call(at, ahead, c);
	left[at + (size_t)(routine_ahead - routine)] = ahead;
	*sum = fold(*sum, result);
	return as_left && result == operate(ahead, operate(caller, a, b), c);
}

static void tick(void)
{
	static uint64_t x = 99, unused;

	x = lcg(x);
	handler_mismatches += !round_is_right(HANDLER_ROUTINE, x, &unused);
}

void guest_main(void)
{
	uint64_t n = cmdline_get_u64("n", 50);
	uint64_t x = 1, sum = 0, mismatches = 0;

	memcpy(code, routine, (size_t)(routine_end - routine));
	memcpy(code + HANDLER_ROUTINE, routine, (size_t)(routine_end - routine));
	memcpy(left, code, sizeof(left));
	timer_set_callback(tick);
	timer_start(TICK_HZ);
	irq_enable();
	for (uint64_t i = 0; i < n; i++) {
		x = lcg(x);
		mismatches += !round_is_right(0, x, &sum);
	}
	irq_disable();
	kprintf("selfmod: %lu calls, %lu wrong, %lu wrong in the handler, sum %016lx\n", n,
		mismatches, handler_mismatches, sum);
	guest_exit(mismatches || handler_mismatches);
}
