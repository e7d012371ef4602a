// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * User code that writes to a port by leave of the bitmap in the TSS, as Linux' ioperm() gives it. Whatever brings a
 * virtual CPU back to an earlier place must bring that back too.
 */
#include "test.h"

#define TICK_HZ 1000
#define DEBUG_PORT 0xe9
#define ROUND 500 /* steps of lcg() from letter to letter */
#define START 0x1234567UL
#define USER_STACK_BYTES 4096

static uint64_t user_letters USER_DATA = 0;
static uint8_t user_stack[USER_STACK_BYTES] USER_DATA __attribute__((aligned(16)));

static USER_TEXT void user_main(void)
{
	uint64_t own = START;

	for (uint64_t n = 0; n < user_letters; n++) {
		for (unsigned i = 0; i < ROUND; i++)
			own = lcg(own);
		__asm__ volatile("outb %0, %1" ::"a"((uint8_t)('a' + (own >> 32) % 26)), "N"(DEBUG_PORT));
	}
	usyscall(own, 0, 0, 0);
}

static uint64_t on_syscall(uint64_t own, uint64_t a, uint64_t b, uint64_t c)
{
	bool ok = own == lcg_jump(START, user_letters * ROUND);

	(void)a;
	(void)b;
	(void)c;
	kprintf("\nports: %s\n", ok ? "ok" : "CORRUPTED");
	guest_exit(!ok);
}

void guest_main(void)
{
	user_letters = cmdline_get_u64("n", 300);
	user_pages_open();
	user_allow_port(DEBUG_PORT);
	syscall_set_handler(on_syscall);
	timer_start(TICK_HZ);
	user_enter(user_main, user_stack + USER_STACK_BYTES);
}
