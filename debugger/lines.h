/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Source lines of an ELF file's DWARF. The file is hostile, libdwarf careless: nothing is read before the first question. */
#ifndef DEBUGGER_LINES_H
#define DEBUGGER_LINES_H

#include "base/types.h"

#include <libelf.h>

struct lines;

/* elf must outlive it. NULL: out of memory. */
struct lines *lines_create(Elf *elf);
/* NULL is allowed. */
void lines_destroy(struct lines *l);
/* As symbols_line, for an address in one of the file's sections. */
bool lines_find(struct lines *l, gva_t addr, const char **file, unsigned *line);

#endif
