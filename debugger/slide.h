/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A kernel that has moved itself away from where its file says (KASLR): how far. */
#ifndef DEBUGGER_SLIDE_H
#define DEBUGGER_SLIDE_H

#include "debugger/symbols.h"
#include "vmm/machine.h"

/*
 * By the entries that the guest has given its CPU, as it is now, for system calls and page faults, and by where Linux's
 * symbols for them are in the file (no slide applied). They must agree, and on a whole number of pages. False where they do
 * not, or one of them is not known: early in the guest's life, or in another kernel.
 */
bool slide_find(const struct symbols *kernel, const struct machine *m, uint64_t *slide);

#endif
