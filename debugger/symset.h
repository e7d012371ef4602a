/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * All that gives names to addresses of one guest: its kernel file, or the file that --symbols gives in its
 * stead, and its modules.
 */
#ifndef DEBUGGER_SYMSET_H
#define DEBUGGER_SYMSET_H

#include "base/err.h"
#include "debugger/options.h"
#include "debugger/symbols.h"
#include "vmm/machine.h"

struct symset;

/*
 * image: the guest's files as recorded. Of files of o->symbols those that are relocatable are modules. A
 * kernel given so is refused if its build id is another than that of the recorded one. On failure *set is
 * NULL.
 */
int symset_open(struct symset **set, const struct options *o, const struct guest_image *image,
		struct err *err);
/* NULL is allowed. */
void symset_close(struct symset *set);

/*
 * How far the kernel has moved (slide.h), from the guest as it is now; said on stderr if it has. Where it cannot be told,
 * all stays where it was.
 */
void symset_find_slide(struct symset *set, const struct machine *m);
/*
 * Find the modules whose address was not given in the guest as it is now; those found before are looked for
 * again. One that is not loaded has no names: said on stderr, no failure.
 */
void symset_find_modules(struct symset *set, const struct machine *m);

/* As symbols_find and symbols_format, over all files. */
bool symset_find(const struct symset *set, gva_t addr, const char **name, uint64_t *offset, uint64_t *size);
void symset_format(const struct symset *set, gva_t addr, char *out, size_t n);

#endif
