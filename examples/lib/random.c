// SPDX-License-Identifier: GPL-3.0-or-later
/* Where a guest gets its unpredictability from. */
#include "guest.h"

#define CPUID_1_ECX_RDRAND (1u << 30)

static bool have_rdrand(void)
{
	uint32_t eax = 1, ebx, ecx = 0, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return ecx & CPUID_1_ECX_RDRAND;
}

static uint64_t rdrand(void)
{
	uint64_t v;

	__asm__ volatile("1: rdrand %0; jnc 1b" : "=r"(v)::"cc");
	return v;
}

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

uint64_t random_seed(void)
{
	uint64_t seed = cmdline_get_u64("seed", 0);

	if (!seed)
		seed = have_rdrand() ? rdrand() : rdtsc() * 0x9e3779b97f4a7c15;
	return seed ? seed : 1;
}
