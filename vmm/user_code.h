/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Instructions in user code whose results no host lets us decide: RDTSC, RDTSCP, RDPID, RDRAND, RDSEED. (Kernel code
 * is rewritten, vmm/rewrite.h.) They cannot be prevented, but they can be found: whatever user code may execute lies in
 * pages that its page tables map executable. Where such an instruction is, is a likelihood, since user code has no
 * symbols here: a linear decode of the page, as most disassemblers do it, must come upon it. Pages are known by their
 * content, wherever they are mapped: Linux maps one page of its own into every process, each time elsewhere.
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

/* What was found of one instruction: in how many places, and the first of them. */
struct user_code_found {
	uint64_t places;
	gva_t gva;
	uint64_t cr3; /* of whose address space */
};

struct user_code;

int user_code_create(struct user_code **u, struct err *err);
void user_code_destroy(struct user_code *u);
/* Look at the executable user pages of the address space that sregs names (long mode, four levels), as far as they have
 * not been looked at with their present content. The cost is a hash for each page known, a decode for each new one. */
void user_code_scan(struct user_code *u, const struct memory *mem, const struct kvm_sregs *sregs);
/* True as often as scans may be made that shall take a thirty-second part of the host's time at most. */
bool user_code_is_due(const struct user_code *u);
/* USER_INSTRUCTIONS of them, by enum user_instruction. */
const struct user_code_found *user_code_found(const struct user_code *u);
const char *user_instruction_name(enum user_instruction i);

#endif
