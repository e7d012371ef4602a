/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Address types. Three kinds of address meet in a VMM, and mixing two of them is the classic
 * mistake; one-field structs make the compiler refuse it.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096ull
#define PAGE_MASK (~(PAGE_SIZE - 1))

/* Guest-physical address. */
typedef struct {
	uint64_t v;
} gpa_t;

/* Guest-virtual (linear) address. */
typedef struct {
	uint64_t v;
} gva_t;

#define GPA(x) ((gpa_t){(x)})
#define GVA(x) ((gva_t){(x)})

/* RAM that does not fit below this address continues at 4 GiB (as on a PC: room for MMIO). */
#define MEMORY_LOW_MAX 0xc0000000ull

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define NSEC_PER_SEC 1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_USEC 1000ull

/* vtime or deadline value that means "never". */
#define TIME_NEVER UINT64_MAX

#endif
