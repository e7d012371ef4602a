/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What single-stepping must know of the instruction it steps over. Used by vcpu.c only. */
#ifndef VMM_STEP_H
#define VMM_STEP_H

#include "vmm/vcpu.h"

/*
 * Instructions that need care under a step. PUSHF and SYSCALL store RFLAGS, where the host's TF would show
 * (SDM 3B 18.3.1.4). HLT comes out as a step on some hosts, and its own exit is lost: it is not stepped. A
 * step over IRET runs one instruction more on some: a breakpoint at its target stops right. A return to
 * user mode does not stop at all where user code cannot be stepped: user_return.h makes it.
 */
enum step_care { CARE_NONE, CARE_PUSHF, CARE_SYSCALL, CARE_HLT, CARE_IRET, CARE_TO_USER };

/* What the instruction at RIP needs; target: where an IRET goes. */
enum step_care step_care_find(const struct vcpu *v, gva_t *target);
/* After a step over such an instruction: take the host's TF out of what it stored. */
void step_hide_flag(struct vcpu *v, enum step_care what);
/* After a step, or what began as one, from these registers: if the instruction faulted, its exception's frame. */
void step_hide_flag_in_frame(struct vcpu *v, const struct kvm_regs *before);

#endif
