// SPDX-License-Identifier: GPL-3.0-or-later
/* Page tables: 4 KiB mappings on top of the boot map, from a fixed pool of tables. */
#include "guest.h"

#define POOL_TABLES 32
#define PAGE_LARGE 0x80UL
#define PAGE_ADDRESS 0x000ffffffffff000UL
#define TABLE_FLAGS (PAGE_PRESENT | PAGE_WRITE | PAGE_USER)
#define ENTRIES 512

extern uint64_t page_pml4[];

static uint64_t pool[POOL_TABLES][ENTRIES] __attribute__((aligned(4096)));
static unsigned pool_used;

static uint64_t *table_new(void)
{
	if (pool_used == POOL_TABLES)
		panic("out of page tables");
	return pool[pool_used++];
}

static uint64_t *table_below(uint64_t entry)
{
	return (uint64_t *)(entry & PAGE_ADDRESS);
}

static void large_split(uint64_t *entry)
{
	uint64_t *table = table_new();

	for (uint64_t i = 0; i < ENTRIES; i++)
		table[i] = (*entry & ~PAGE_LARGE) + i * PAGE_SIZE;
	*entry = (uint64_t)table | TABLE_FLAGS;
}

/* The last-level entry, or NULL; with create, tables are added and large pages split on the way. */
static uint64_t *walk(uint64_t gva, bool create)
{
	uint64_t *table = page_pml4;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t *entry = &table[gva >> shift & (ENTRIES - 1)];

		if (!(*entry & PAGE_PRESENT)) {
			if (!create)
				return NULL;
			*entry = (uint64_t)table_new() | TABLE_FLAGS;
		} else if (*entry & PAGE_LARGE) {
			if (!create)
				return NULL;
			large_split(entry);
		}
		table = table_below(*entry);
	}
	return &table[gva >> 12 & (ENTRIES - 1)];
}

void page_map(uint64_t gva, uint64_t gpa, uint64_t flags)
{
	*walk(gva, true) = (gpa & PAGE_ADDRESS) | flags;
	tlb_flush(gva);
}

void page_unmap(uint64_t gva)
{
	*walk(gva, true) = 0;
	tlb_flush(gva);
}

uint64_t *page_entry(uint64_t gva)
{
	return walk(gva, false);
}

static void table_open(uint64_t *table, unsigned levels)
{
	for (unsigned i = 0; i < ENTRIES; i++) {
		if (!(table[i] & PAGE_PRESENT))
			continue;
		table[i] |= PAGE_USER;
		if (levels > 1 && !(table[i] & PAGE_LARGE))
			table_open(table_below(table[i]), levels - 1);
	}
}

void page_open_all(void)
{
	table_open(page_pml4, 4);
	__asm__ volatile("movq %0, %%cr3" ::"r"(read_cr3()) : "memory"); /* forget what was cached */
}

void tlb_flush(uint64_t gva)
{
	__asm__ volatile("invlpg (%0)" ::"r"(gva) : "memory");
}
