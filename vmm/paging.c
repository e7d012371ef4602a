// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/paging.h"

#include <asm/processor-flags.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Intel SDM volume 4, IA32_EFER. */
#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)

/* Intel SDM volume 3A, section 4.3 ff.: bits of paging-structure entries. */
#define ENTRY_PRESENT 0x1ull
#define ENTRY_WRITABLE 0x2ull
#define ENTRY_USER 0x4ull
#define ENTRY_ACCESSED 0x20ull
#define ENTRY_DIRTY 0x40ull
#define ENTRY_LARGE 0x80ull
#define ENTRY_ADDR 0x000ffffffffff000ull
#define ENTRY_NX (1ull << 63)

/* How one paging mode splits a linear address, top level first. */
struct paging_mode {
	unsigned levels;
	unsigned entry_size;
	unsigned index_bits;   /* of every level but the top one of PAE, which has two */
	unsigned address_bits; /* width of a linear address */
	unsigned large_levels; /* bit n: an entry of level n (1 = page table) may map a page */
	uint64_t table_mask;   /* bits of CR3 that address the top table */
};

static const struct paging_mode mode_32bit = {2, 4, 10, 32, 0, 0xfffff000};
static const struct paging_mode mode_32bit_pse = {2, 4, 10, 32, 1u << 2, 0xfffff000};
static const struct paging_mode mode_pae = {3, 8, 9, 32, 1u << 2, 0xffffffe0};
static const struct paging_mode mode_4level = {4, 8, 9, 48, 1u << 2 | 1u << 3, ENTRY_ADDR};
static const struct paging_mode mode_5level = {5, 8, 9, 57, 1u << 2 | 1u << 3, ENTRY_ADDR};

static const struct paging_mode *paging_mode_of(const struct kvm_sregs *sregs)
{
	if (sregs->efer & EFER_LMA)
		return sregs->cr4 & X86_CR4_LA57 ? &mode_5level : &mode_4level;
	if (sregs->cr4 & X86_CR4_PAE)
		return &mode_pae;
	return sregs->cr4 & X86_CR4_PSE ? &mode_32bit_pse : &mode_32bit;
}

/* Is the address one that exists in this mode: 32 bits, or canonical? */
static bool paging_address_exists(const struct paging_mode *mode, uint64_t gva)
{
	if (mode->address_bits == 32)
		return gva >> 32 == 0;

	int64_t sign = (int64_t)gva >> (mode->address_bits - 1);

	return sign == 0 || sign == -1;
}

/* Base of the page that a large entry maps; shift is the log2 of its size. */
static uint64_t paging_large_base(const struct paging_mode *mode, uint64_t entry, unsigned shift)
{
	uint64_t size_mask = (1ull << shift) - 1;

	/* PSE-36: bits 20:13 of the entry are bits 39:32 of the address (SDM 3A, table 4-4). */
	if (mode->entry_size == 4)
		return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
	return entry & ENTRY_ADDR & ~size_mask;
}

/* What a walk saw. */
struct walk {
	gpa_t gpa;
	unsigned count; /* of entries, from the top on; 0 without paging */
	struct {
		uint64_t gpa;
		uint64_t value;
	} entry[5];
	const struct paging_mode *mode; /* NULL without paging */
};

/* -EFAULT if not mapped, -ENXIO if a table is not in RAM. */
static int paging_walk(const struct memory *mem, const struct kvm_sregs *sregs, gva_t gva,
		       struct walk *w)
{
	*w = (struct walk){0};
	if (!(sregs->cr0 & X86_CR0_PG)) {
		w->gpa = GPA(gva.v);
		return gva.v >> 32 ? -EFAULT : 0;
	}

	const struct paging_mode *mode = paging_mode_of(sregs);

	w->mode = mode;
	if (!paging_address_exists(mode, gva.v))
		return -EFAULT;

	uint64_t table = sregs->cr3 & mode->table_mask;
	unsigned shift = PAGE_SHIFT + mode->levels * mode->index_bits;
	uint64_t linear = gva.v & ((1ull << mode->address_bits) - 1);

	for (unsigned level = mode->levels; level > 0; level--) {
		shift -= mode->index_bits;
		uint64_t index = linear >> shift & ((1ull << mode->index_bits) - 1);
		uint64_t where = table + index * mode->entry_size;
		uint64_t entry = 0;

		if (memory_read(mem, GPA(where), &entry, mode->entry_size))
			return -ENXIO;
		if (!(entry & ENTRY_PRESENT))
			return -EFAULT;
		w->entry[w->count].gpa = where;
		w->entry[w->count++].value = entry;
		if (level > 1 && (entry & ENTRY_LARGE) && (mode->large_levels & 1u << level)) {
			w->gpa = GPA(paging_large_base(mode, entry, shift) |
				     (linear & ((1ull << shift) - 1)));
			return 0;
		}
		table = entry & ENTRY_ADDR;
	}
	w->gpa = GPA(table | (linear & ~PAGE_MASK));
	return 0;
}

int paging_translate(const struct memory *mem, const struct kvm_sregs *sregs, gva_t gva, gpa_t *gpa)
{
	struct walk w;

	if (paging_walk(mem, sregs, gva, &w))
		return -EFAULT;
	*gpa = w.gpa;
	return 0;
}

static bool paging_executable(const struct kvm_sregs *sregs, const struct walk *w)
{
	for (unsigned i = 0; i < w->count && (sregs->efer & EFER_NXE); i++) {
		if (w->entry[i].value & ENTRY_NX)
			return false;
	}
	return true;
}

bool paging_find_executable(const struct memory *mem, const struct kvm_sregs *sregs, gva_t *at,
			    gva_t end, gpa_t *gpa)
{
	while (at->v < end.v) {
		struct walk w;
		uint64_t step = PAGE_SIZE;
		int ret = paging_walk(mem, sregs, *at, &w);

		if (!ret && paging_executable(sregs, &w)) {
			*gpa = GPA(w.gpa.v & PAGE_MASK);
			at->v &= PAGE_MASK;
			return true;
		}
		/* Past all that the missing entry would have mapped. */
		if (ret && w.mode && w.count < w.mode->levels)
			step <<= (w.mode->levels - w.count - 1) * w.mode->index_bits;
		if ((at->v | (step - 1)) == UINT64_MAX)
			return false;
		at->v = (at->v | (step - 1)) + 1;
	}
	return false;
}

/* The first entry that has permissions and an accessed bit: PAE's top level has neither. */
static unsigned paging_first_entry(const struct walk *w)
{
	return w->mode == &mode_pae ? 1 : 0;
}

static bool paging_permits(const struct kvm_sregs *sregs, const struct walk *w, unsigned access)
{
	uint64_t bits = ENTRY_WRITABLE | ENTRY_USER;

	for (unsigned i = paging_first_entry(w); i < w->count; i++)
		bits &= w->entry[i].value;
	if ((access & PAGING_USER) && !(bits & ENTRY_USER))
		return false;
	if ((access & PAGING_NO_USER_PAGES) && (bits & ENTRY_USER))
		return false;
	if (!(access & PAGING_WRITE) || (bits & ENTRY_WRITABLE))
		return true;
	return !(access & PAGING_USER) && !(sregs->cr0 & X86_CR0_WP);
}

int paging_access(struct memory *mem, const struct kvm_sregs *sregs, gva_t gva, unsigned access,
		  gpa_t *gpa, uint32_t *error)
{
	struct walk w;
	int ret = paging_walk(mem, sregs, gva, &w);

	*error = access & (PAGING_WRITE | PAGING_USER);
	if (ret)
		return ret;
	*gpa = w.gpa;
	if (!w.count)
		return 0;
	if (!paging_permits(sregs, &w, access)) {
		*error |= (uint32_t)ENTRY_PRESENT;
		return -EFAULT;
	}
	for (unsigned i = paging_first_entry(&w); i < w.count; i++) {
		uint64_t set = ENTRY_ACCESSED;

		if (i == w.count - 1 && (access & PAGING_WRITE))
			set |= ENTRY_DIRTY;
		if ((w.entry[i].value & set) == set)
			continue;
		w.entry[i].value |= set;
		if (memory_write(mem, GPA(w.entry[i].gpa), &w.entry[i].value, w.mode->entry_size))
			return -ENXIO;
	}
	return 0;
}

/* Bytes from an address to the end of its page, at most len. */
static size_t paging_chunk(uint64_t gva, size_t len)
{
	size_t room = (size_t)(PAGE_SIZE - (gva & ~PAGE_MASK));

	return len < room ? len : room;
}

int paging_read(const struct memory *mem, const struct kvm_sregs *sregs, gva_t gva, void *out,
		size_t len)
{
	uint8_t *to = out;

	while (len) {
		size_t n = paging_chunk(gva.v, len);
		gpa_t gpa;

		if (paging_translate(mem, sregs, gva, &gpa) || memory_read(mem, gpa, to, n))
			return -EFAULT;
		gva.v += n;
		to += n;
		len -= n;
	}
	return 0;
}

int paging_write(struct memory *mem, const struct kvm_sregs *sregs, gva_t gva, const void *data,
		 size_t len)
{
	const uint8_t *from = data;
	gpa_t gpa;

	for (size_t done = 0; done < len;) {
		size_t n = paging_chunk(gva.v + done, len - done);

		if (paging_translate(mem, sregs, GVA(gva.v + done), &gpa) ||
		    !memory_at(mem, gpa, n))
			return -EFAULT;
		done += n;
	}
	while (len) {
		size_t n = paging_chunk(gva.v, len);

		/* Fails only if this very write has just unmapped its own next page. */
		if (paging_translate(mem, sregs, gva, &gpa) || memory_write(mem, gpa, from, n))
			return -EFAULT;
		gva.v += n;
		from += n;
		len -= n;
	}
	return 0;
}

/* A page is looked at once for each level, however often the guest has tables point to it. */
struct table_search {
	const struct memory *mem;
	const struct paging_mode *mode;
	uint64_t wanted; /* page number */
	uint64_t pages;
	uint8_t *seen; /* bit n: level n + 1 */
};

static bool is_below(struct table_search *s, uint64_t table, unsigned level)
{
	uint64_t page = memory_page_number(GPA(table & PAGE_MASK));
	const uint8_t *entries;

	if (page >= s->pages || s->seen[page] >> (level - 1) & 1)
		return false;
	if (page == s->wanted)
		return true;
	s->seen[page] |= (uint8_t)(1u << (level - 1));
	entries = memory_page(s->mem, page);
	for (unsigned at = 0; level > 1 && at < PAGE_SIZE; at += s->mode->entry_size) {
		uint64_t entry = 0;

		memcpy(&entry, entries + at, s->mode->entry_size);
		if ((entry & ENTRY_PRESENT) && !((entry & ENTRY_LARGE) && (s->mode->large_levels >> level & 1)) &&
		    is_below(s, entry & ENTRY_ADDR, level - 1))
			return true;
	}
	return false;
}

int paging_is_table(const struct memory *mem, const struct kvm_sregs *sregs, gpa_t gpa, bool *is)
{
	struct table_search s = {.mem = mem, .wanted = memory_page_number(gpa), .pages = memory_pages(mem)};

	*is = false;
	if (!(sregs->cr0 & X86_CR0_PG))
		return 0;
	s.mode = paging_mode_of(sregs);
	s.seen = calloc(s.pages, 1);
	if (!s.seen)
		return -ENOMEM;
	*is = is_below(&s, sregs->cr3 & s.mode->table_mask, s.mode->levels);
	free(s.seen);
	return 0;
}
