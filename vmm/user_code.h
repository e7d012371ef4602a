/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Instructions in user code whose results no host lets us decide: RDTSC, RDTSCP, RDPID, RDRAND, RDSEED. (Kernel code
 * is rewritten, vmm/rewrite.h.) They cannot be prevented, but they can be found: whatever user code may execute lies in
 * pages that its page tables map executable. Where such an instruction is, is a likelihood, since user code has no
 * symbols here: a linear decode of the page, as most disassemblers do it, must come upon it.
 */
#ifndef VMM_USER_CODE_H
#define VMM_USER_CODE_H

#include "vmm/memory.h"

#include <linux/kvm.h>

enum user_instruction {
	USER_RDTSC,
	USER_RDTSCP,
	USER_RDPID,
	USER_RDRAND,
	USER_RDSEED,
	USER_INSTRUCTIONS
};

#define USER_CODE_PLACES 8

struct user_code_place {
	enum user_instruction instruction;
	gva_t gva;
	uint64_t cr3; /* of whose address space */
};

struct user_code;

int user_code_create(struct user_code **u, struct err *err);
void user_code_destroy(struct user_code *u);
/* Look at the executable user pages of the address space that sregs names (long mode, four levels), as far as they have
 * not been looked at with their present content. The cost is a hash for each page known, a decode for each new one. */
void user_code_scan(struct user_code *u, const struct memory *mem, const struct kvm_sregs *sregs);
/* How many places were found in all; the first USER_CODE_PLACES of them are in place. */
unsigned user_code_places(const struct user_code *u, const struct user_code_place **place);
const char *user_instruction_name(enum user_instruction i);

#endif
