/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Names and source lines of guest addresses, from the ELF symbol table (.symtab, else .dynsym) and
 * DWARF of the kernel file. A file that is no ELF file, or has neither, gives empty answers, and so
 * does a NULL symbols.
 *
 * The file is hostile. Symbols go through libelf, which checks what it reads. DWARF goes through
 * libdwarf, which is less careful, and is therefore not touched before the first symbols_line.
 */
#ifndef DEBUGGER_SYMBOLS_H
#define DEBUGGER_SYMBOLS_H

#include "base/err.h"
#include "base/types.h"

struct symbols;

/* The bytes [elf, elf+size) are not copied and must outlive the result. Damage that makes the
 * symbol table unreadable is -EINVAL. */
int symbols_open(const void *elf, size_t size, struct symbols **symbols, struct err *err);
/* NULL is allowed. */
void symbols_close(struct symbols *symbols);

/* From now on all lies so many bytes above where the file says: a kernel that has moved itself (KASLR). Modulo 2^64. */
void symbols_slide(struct symbols *symbols, uint64_t slide);

/*
 * The innermost symbol whose [start, start+size) holds addr; if there is none, the nearest one at
 * or before addr in the same section. name lives as long as symbols; size may be 0 (assembly
 * labels). Any out parameter may be NULL.
 */
bool symbols_find(const struct symbols *symbols, gva_t addr, const char **name, uint64_t *offset,
		  uint64_t *size);
/* Address of a name; of several, a global one goes before a weak and a weak before a local one. */
bool symbols_lookup(const struct symbols *symbols, const char *name, gva_t *addr, uint64_t *size);
/* File and line that the instruction at addr comes from. The file is named as in DWARF, without the
 * compilation directory; the string lives as long as symbols. */
bool symbols_line(struct symbols *symbols, gva_t addr, const char **file, unsigned *line);

/* "func+0x1a/0x80 file.c:123" as far as it is known, else the address in hex. Always terminated;
 * bytes that are not printable ASCII become '?', so that a file cannot send control codes to the
 * terminal. */
void symbols_format(struct symbols *symbols, gva_t addr, char *out, size_t n);

#endif
