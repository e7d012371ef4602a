/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A set of pages of guest memory that may hold more than was put in, but never less: of a fixed size, and exact up to
 * 128 MiB of it. */
#ifndef DEBUGGER_PAGE_SET_H
#define DEBUGGER_PAGE_SET_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define PAGE_SET_BITS 32768u

struct page_set {
	uint64_t word[PAGE_SET_BITS / 64];
};

static inline void page_set_add(struct page_set *s, uint64_t page)
{
	s->word[page % PAGE_SET_BITS / 64] |= 1ull << page % 64;
}

static inline bool page_set_has(const struct page_set *s, uint64_t page)
{
	return s->word[page % PAGE_SET_BITS / 64] >> page % 64 & 1;
}

static inline void page_set_join(struct page_set *s, const struct page_set *other)
{
	for (unsigned i = 0; i < PAGE_SET_BITS / 64; i++)
		s->word[i] |= other->word[i];
}

static inline void page_set_clear(struct page_set *s)
{
	memset(s, 0, sizeof(*s));
}

#endif
