// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A Linux program that executes what no host lets hindsight decide in user mode, and prints what it got;
 * tests/small_linux.sh looks whether each is reported. What the CPU does not have is an illegal instruction. It does so
 * again and again: code that is there for a moment only can be missed.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>

#define ROUNDS 40

static sigjmp_buf back;

static void on_illegal(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

static void rdtsc(uint64_t *value)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	*value = (uint64_t)high << 32 | low;
}

static void rdtscp(uint64_t *value)
{
	uint32_t low, high, aux;

	__asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
	*value = (uint64_t)high << 32 | low;
}

static void rdrand(uint64_t *value)
{
	__asm__ volatile("rdrand %0" : "=r"(*value) : : "cc");
}

int main(void)
{
	static const struct {
		const char *name;
		void (*execute)(uint64_t *value);
	} all[] = {{"rdtsc", rdtsc}, {"rdtscp", rdtscp}, {"rdrand", rdrand}};
	enum { COUNT = sizeof(all) / sizeof(all[0]) };
	/* Kept over siglongjmp(). */
	static uint64_t value;
	static unsigned n;

	signal(SIGILL, on_illegal);
	for (n = 0; n < ROUNDS * COUNT; n++) {
		if (sigsetjmp(back, 1)) {
			printf("untrapped: %s is illegal\n", all[n % COUNT].name);
			continue;
		}
		all[n % COUNT].execute(&value);
		printf("untrapped: %s gave 0x%016lx\n", all[n % COUNT].name, (unsigned long)value);
	}
	return 0;
}
