// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * Exits and little else: port accesses of all widths, with string instructions too, MSRs, loads and
 * stores where there is no memory, HLT. What was written somewhere must be read back.
 */
#include "test.h"

#define TICK_HZ 2000
#define SCRATCH (COM1 + 7)
#define CMOS_FREE 0x40
#define CMOS_FREE_BYTES 32
#define NOBODY 0x3d8 /* a CGA register; there is no CGA */
#define MSR_TSC_AUX 0xc0000103
#define STRING_BYTES 24

static uint64_t sum, wrong;

static void expect(bool holds)
{
	wrong += !holds;
}

static void ports(uint64_t x)
{
	uint8_t reg = (uint8_t)(CMOS_FREE + x % CMOS_FREE_BYTES);

	outb(SCRATCH, (uint8_t)x);
	expect(inb(SCRATCH) == (uint8_t)x);
	outb(CMOS_INDEX, reg);
	outb(CMOS_DATA, (uint8_t)(x >> 8));
	expect(inb(CMOS_DATA) == (uint8_t)(x >> 8));
	outw(NOBODY, (uint16_t)x);
	sum = fold(sum, inw(NOBODY));
	sum = fold(sum, inl(NOBODY));
	/* Masks of both PICs; line 0 is on, and 2 is where the second one hangs. */
	expect((inb(PIC_MASTER + 1) & 5) == 0);
	expect(inb(PIC_SLAVE + 1) == 0xff);
}

/* One instruction, many exits. */
static void string_ports(uint64_t x)
{
	uint8_t out[STRING_BYTES], in[STRING_BYTES] = {0};
	const uint8_t *src = out;
	uint8_t *dst = in;
	uint64_t n = STRING_BYTES;

	for (unsigned i = 0; i < STRING_BYTES; i++)
		out[i] = (uint8_t)(x >> (i & 31));
	__asm__ volatile("rep outsb" : "+S"(src), "+c"(n) : "d"(SCRATCH) : "memory");
	n = STRING_BYTES;
	__asm__ volatile("rep insb" : "+D"(dst), "+c"(n) : "d"(SCRATCH) : "memory");
	for (unsigned i = 0; i < STRING_BYTES; i++)
		expect(in[i] == out[STRING_BYTES - 1]);
	src = out;
	n = STRING_BYTES / 4;
	__asm__ volatile("rep outsl" : "+S"(src), "+c"(n) : "d"(NOBODY) : "memory");
	expect(src == out + STRING_BYTES);
}

static void memory_mapped(uint64_t x)
{
	/* The identity map reaches to 1 GiB; a guest with that much RAM has no hole to look at. */
	uint64_t hole = (1UL << 30) - PAGE_SIZE + (x & 0xff8);

	if (guest_ram_bytes() > 1UL << 29 || strcmp(guest_loader(), "elf64") != 0)
		return;
	*(volatile uint64_t *)hole = x;
	sum = fold(sum, *(volatile uint64_t *)hole);
	*(volatile uint8_t *)(hole + 3) = (uint8_t)x;
	sum = fold(sum, *(volatile uint16_t *)(hole + 2));
	/* Across the edge of a page and of an aligned word. */
	sum = fold(sum, *(volatile uint32_t *)(hole - 2));
}

static void msrs(uint64_t x)
{
	wrmsr(MSR_TSC_AUX, (uint32_t)x);
	expect(rdmsr(MSR_TSC_AUX) == (uint32_t)x);
	expect(rdmsr(MSR_TSC_AUX) == (uint32_t)x);
}

void guest_main(void)
{
	uint64_t n = cmdline_get_u64("n", 250), x = 11;

	timer_start(TICK_HZ);
	irq_enable();
	for (uint64_t i = 0; i < n; i++) {
		x = lcg(x);
		ports(x >> 20);
		if (i % 16 == 0)
			string_ports(x >> 10);
		if (i % 4 == 1)
			memory_mapped(x >> 30);
		if (i % 4 == 2)
			msrs(x >> 24);
		if (i % 8 == 3)
			cpu_halt();
	}
	irq_disable();
	kprintf("storm: %s, %lu rounds, sum %016lx\n", wrong ? "WRONG" : "ok", n, sum);
	guest_exit(wrong != 0);
}
