/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Assist: completes in user space what the host's KVM fails to emulate (KVM_EXIT_INTERNAL_ERROR,
 * suberror 1). A table keyed by the decoded instruction; what is not in it ends the run with the
 * instruction named. An assist is not a boundary: on other hosts the same instruction runs
 * natively. So it must leave exactly what the CPU would: registers, flags, faults with their error
 * codes, and accessed and dirty bits in the guest's page tables.
 */
#ifndef VMM_ASSIST_H
#define VMM_ASSIST_H

#include "base/err.h"
#include "vmm/vcpu.h"

/* Rows of the table, also the index of vcpu->assists[]. */
enum assist_kind {
	ASSIST_INT3,  /* #BP; a breakpoint planted by us never gets here */
	ASSIST_INT_N, /* at CPL0 only */
	ASSIST_CMPXCHG16B,
	ASSIST_CLAC_STAC, /* #UD unless CR4.SMAP: the guest's CPU has no SMAP */
	ASSIST_FWAIT,
	ASSIST_MXCSR,	  /* LDMXCSR and STMXCSR */
	ASSIST_SSE_MOVE,  /* MOVD, MOVQ and other moves between xmm, GPR and memory */
	ASSIST_SSE_LOGIC, /* integer and bitwise SSE2 operations, shuffles */
	ASSIST_XGETBV,
	ASSIST_KINDS
};

/* Instruction or group, for statistics. */
const char *assist_name(enum assist_kind kind);

/*
 * Execute the instruction at the vCPU's RIP and advance RIP, or inject the exception it raises. The
 * failed instruction must have had no effect yet. -EOPNOTSUPP with the instruction's text, address
 * and bytes in err if the table has no row for it; -EFAULT if its bytes cannot be read.
 */
int assist_execute(struct vcpu *v, struct err *err);

#endif
