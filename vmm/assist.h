/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Assist: completes in user space what the host's KVM fails to emulate (KVM_EXIT_INTERNAL_ERROR,
 * suberror 1). Arithmetic is executed by the host's CPU on a copy of the operands, the rest by a
 * table keyed by the decoded instruction; what neither serves ends the run with the instruction
 * named. An assist is not a boundary: on other hosts the same instruction runs
 * natively. So it must leave exactly what the CPU would: registers, flags, faults with their error
 * codes, and accessed and dirty bits in the guest's page tables.
 */
#ifndef VMM_ASSIST_H
#define VMM_ASSIST_H

#include "base/err.h"
#include "vmm/vcpu.h"

/* Also the index of vcpu->assists[]. */
enum assist_kind {
	ASSIST_INT3,  /* #BP; a breakpoint planted by us never gets here */
	ASSIST_INT_N, /* at CPL0 only */
	ASSIST_CMPXCHG16B,
	ASSIST_CLAC_STAC, /* #UD unless CR4.SMAP: the guest's CPU has no SMAP */
	ASSIST_X87,	  /* x87 with FWAIT, MMX */
	ASSIST_SSE,	  /* with LDMXCSR and STMXCSR */
	ASSIST_AVX,	  /* AVX to AVX-512 */
	ASSIST_INTEGER,	  /* BMI, POPCNT, MOVBE and others on general registers */
	ASSIST_XSAVE,	  /* XSAVE and XRSTOR */
	ASSIST_XCR,	  /* XGETBV and XSETBV */
	ASSIST_DESCRIPTOR, /* LAR, LSL, VERR, VERW */
	ASSIST_UNDEFINED, /* #UD for what the guest's CPU does not have */
	ASSIST_KINDS
};

/* Instruction or group, for statistics. */
const char *assist_name(enum assist_kind kind);

/* How often the host's KVM was helped out, by kind. */
#define ASSIST_NAME_MAX 24
#define ASSIST_COUNTS_MAX 32

struct assist_counts {
	unsigned len;
	struct {
		char name[ASSIST_NAME_MAX];
		uint64_t count;
	} of[ASSIST_COUNTS_MAX];
};

/* Kinds that occurred; a SYSCALL that vcpu.c repaired is one. Empty on a host that needs no help. */
void assist_count(const struct vcpu *v, struct assist_counts *counts);

/*
 * Execute the instruction at the vCPU's RIP and advance RIP, or inject the exception it raises. The
 * failed instruction must have had no effect yet. -EOPNOTSUPP with the instruction's text, address
 * and bytes in err if nothing serves it; -EFAULT if its bytes cannot be read.
 */
int assist_execute(struct vcpu *v, struct err *err);

/* Free what a vCPU's assists have made; NULL: nothing. */
void assist_exec_destroy(struct assist_exec *x);

#endif
