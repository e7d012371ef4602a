// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Page tables under change: pages remapped, write-protected and freed, accessed and dirty bits
 * cleared and expected to come back. The timer interrupt scans other pages the way a kernel looks
 * for those in use; what it finds depends on when it came.
 */
#include "test.h"

#define TICK_HZ 250
#define WINDOW 0x40000000UL
#define SCANNED (WINDOW + 0x800000UL)
#define FRAMES 8
#define SCANNED_PAGES 16
#define VECTOR_PAGE_FAULT 14
#define ERROR_PRESENT 1
#define ERROR_WRITE 2
#define ENTRY_FLAGS (PAGE_PRESENT | PAGE_WRITE)

static uint8_t memory[FRAMES][PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t scanned_memory[SCANNED_PAGES][PAGE_SIZE] __attribute__((aligned(4096)));
static uint64_t errors, faults, scans, scan_sum;
static volatile uint64_t expected_fault, expected_error;

static void expect(bool holds, const char *what)
{
	if (!holds && errors++ < 10)
		kprintf("paging: %s\n", what);
}

static volatile uint64_t *word(uint64_t page)
{
	return (volatile uint64_t *)(WINDOW + page * PAGE_SIZE);
}

static uint64_t bits(uint64_t gva)
{
	return *page_entry(gva) & (PAGE_ACCESSED | PAGE_DIRTY);
}

static void clear_bits(uint64_t gva, uint64_t which)
{
	*(volatile uint64_t *)page_entry(gva) &= ~which;
	tlb_flush(gva);
}

/* Gives the faulting page what it lacks: the access is then repeated. */
static void page_fault(struct trap_frame *frame)
{
	uint64_t gva = read_cr2();

	if (gva != expected_fault || frame->error != expected_error)
		panic("page fault at %lx, error %lx; expected %lx, %lx", gva, frame->error,
		      expected_fault, expected_error);
	expected_fault = 0;
	faults++;
	if (frame->error & ERROR_PRESENT) {
		*page_entry(gva) |= PAGE_WRITE;
		tlb_flush(gva);
	} else {
		page_map(gva, (uint64_t)memory[(gva - WINDOW) / PAGE_SIZE % FRAMES], ENTRY_FLAGS);
	}
}

static void expect_fault(volatile uint64_t *at, uint64_t error)
{
	expected_fault = (uint64_t)at;
	expected_error = error;
}

static void scan(void)
{
	uint64_t seen = 0;

	/* A quarter of the pages at a time. */
	for (unsigned i = 0; i < SCANNED_PAGES / 4; i++) {
		uint64_t gva = SCANNED + (scans % 4 * SCANNED_PAGES / 4 + i) * PAGE_SIZE;

		seen = seen << 2 | bits(gva) >> 5;
		clear_bits(gva, PAGE_ACCESSED | PAGE_DIRTY);
	}
	scans++;
	scan_sum = fold(scan_sum, seen);
}

static void check_bits(uint64_t page, uint64_t x)
{
	uint64_t gva = (uint64_t)word(page), frame = page % FRAMES;
	volatile uint64_t *direct = (volatile uint64_t *)memory[frame];

	page_map(gva, (uint64_t)direct, ENTRY_FLAGS);
	expect(!(bits(gva) & PAGE_DIRTY), "dirty before any access");
	*direct = x;
	expect(*word(page) == x, "a read through the mapping");
	expect(bits(gva) == PAGE_ACCESSED, "accessed and not dirty after a read");
	*word(page) = x + 1;
	expect(*direct == x + 1, "a write through the mapping");
	expect(bits(gva) == (PAGE_ACCESSED | PAGE_DIRTY), "dirty after a write");
	clear_bits(gva, PAGE_DIRTY);
	(void)*word(page);
	expect(bits(gva) == PAGE_ACCESSED, "not dirty after a read");
	clear_bits(gva, PAGE_ACCESSED);
	(*word(page))++;
	expect(bits(gva) == (PAGE_ACCESSED | PAGE_DIRTY), "both after a read and write");
}

static void check_remap(uint64_t page, uint64_t x)
{
	uint64_t gva = (uint64_t)word(page);
	unsigned from = x % FRAMES, to = (x >> 8) % FRAMES;

	for (unsigned f = 0; f < FRAMES; f++)
		*(volatile uint64_t *)memory[f] = x + f;
	page_map(gva, (uint64_t)memory[from], ENTRY_FLAGS);
	expect(*word(page) == x + from, "the first mapping");
	page_map(gva, (uint64_t)memory[to], ENTRY_FLAGS);
	expect(*word(page) == x + to, "the new mapping");
	*word(page) = ~x;
	expect(*(volatile uint64_t *)memory[to] == ~x, "a write through the new mapping");
}

static void check_faults(uint64_t page, uint64_t x)
{
	uint64_t gva = (uint64_t)word(page);

	page_map(gva, (uint64_t)memory[page % FRAMES], PAGE_PRESENT);
	*(volatile uint64_t *)memory[page % FRAMES] = x;
	expect(*word(page) == x, "a read of a read-only page");
	expect_fault(word(page), ERROR_PRESENT | ERROR_WRITE);
	*word(page) = x ^ 1;
	expect(*word(page) == (x ^ 1) && !expected_fault, "a write that faulted once");
	page_unmap(gva);
	expect_fault(word(page), x & 1 ? ERROR_WRITE : 0);
	if (x & 1)
		*word(page) = x;
	else
		(void)*word(page);
	expect(!expected_fault, "an access to a page that was missing");
}

static void touch_scanned(uint64_t x)
{
	volatile uint64_t *p =
		(volatile uint64_t *)(SCANNED + x % SCANNED_PAGES * PAGE_SIZE + (x >> 8 & 0xff8));

	if (x & 1 << 20)
		*p += x;
	else
		(void)*p;
}

void guest_main(void)
{
	uint64_t n = cmdline_get_u64("n", 250), x = 3;

	for (uint64_t i = 0; i < SCANNED_PAGES; i++)
		page_map(SCANNED + i * PAGE_SIZE, (uint64_t)scanned_memory[i], ENTRY_FLAGS);
	trap_set_handler(VECTOR_PAGE_FAULT, page_fault);
	timer_set_callback(scan);
	timer_start(TICK_HZ);
	irq_enable();
	for (uint64_t i = 0; i < n; i++) {
		x = lcg(x);
		check_bits(i % 64, x >> 30);
		check_remap(64 + i % 64, x >> 20);
		check_faults(128 + i % 64, x >> 10);
		for (unsigned k = 0; k < 4; k++)
			touch_scanned(x >> (8 * k + 8));
	}
	irq_disable();
	expect(faults == 2 * n, "another number of page faults");
	kprintf("paging: %s, %lu rounds, %lu faults, %lu ticks, scans %016lx\n",
		errors ? "WRONG" : "ok", n, faults, timer_ticks, scan_sum);
	guest_exit(errors != 0);
}
