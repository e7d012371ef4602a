/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Plain arrays that grow, and arrays sorted by a number. */
#ifndef DEBUGGER_ARRAY_H
#define DEBUGGER_ARRAY_H

#include "base/types.h"

#include <stdlib.h>
#include <string.h>

/* Room for one more element in an array whose capacity is the next power of two. */
static inline bool array_grow(void **array, size_t len, size_t elem_size)
{
	void *p;

	if ((len & (len - 1)) != 0)
		return true;
	p = reallocarray(*array, len ? len * 2 : 1, elem_size);
	if (!p)
		return false;
	*array = p;
	return true;
}

#define COMPARE(a, b) ((a) < (b) ? -1 : (a) > (b))

/* How many elements of a sorted array have a key up to this one. Each begins with its key, a
 * uint64_t. */
static inline size_t array_count_up_to(const void *array, size_t n, size_t elem_size, uint64_t key)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		uint64_t v;

		memcpy(&v, (const char *)array + mid * elem_size, sizeof(v));
		if (v <= key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The last element with a key up to this one, or NULL. */
static inline void *array_last_up_to(void *array, size_t n, size_t elem_size, uint64_t key)
{
	size_t count = array_count_up_to(array, n, elem_size, key);

	return count ? (char *)array + (count - 1) * elem_size : NULL;
}

/* For qsort: by key. */
static inline int array_compare_keys(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return COMPARE(x, y);
}

#endif
