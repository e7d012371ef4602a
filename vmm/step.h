/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What single-stepping must know of the instruction it steps over, and what is known of what the CPU pushes. */
#ifndef VMM_STEP_H
#define VMM_STEP_H

#include "vmm/vcpu.h"

/*
 * Instructions that need care under a step. PUSHF and SYSCALL store RFLAGS, where the host's TF
 * would show (SDM 3B 18.3.1.4). HLT comes out as a step on some hosts, and its own exit is lost: it
 * is not stepped. A step over IRET runs one instruction more on some: a breakpoint at its target
 * stops right. A return to user mode does not stop at all where user code cannot be stepped:
 * user_return.h makes it.
 */
enum step_care { CARE_NONE, CARE_PUSHF, CARE_SYSCALL, CARE_HLT, CARE_IRET, CARE_TO_USER };

/* What the instruction at RIP needs; target: where an IRET goes. */
enum step_care step_care_find(const struct vcpu *v, gva_t *target);
/* Linear address of the handler that the IDT names for a vector (SDM 3A 6.14.1); false if it cannot
 * be read. */
bool step_handler(const struct vcpu *v, const struct kvm_sregs *sregs, unsigned vector,
		  gva_t *entry);
/* The top of the stack that the IDT of long mode has for a vector; false if it has none of its own, or it cannot be read. */
bool step_handler_stack(const struct vcpu *v, const struct kvm_sregs *sregs, unsigned vector, uint64_t *stack);
/* After a step over such an instruction: take the host's TF out of what it stored. */
void step_hide_flag(struct vcpu *v, enum step_care what);

/* What the CPU pushes in long mode for an exception with an error code, as it lies in memory (SDM 3A 6.14.2). */
struct step_fault {
	uint64_t error, rip, cs, rflags, rsp, ss;
};

/* Undo its delivery, all but segments and what was written to memory. */
void step_take_back(struct vcpu *v, const struct step_fault *f);

#define STEP_FRAME_WORDS 3u /* RIP, CS, RFLAGS */
#define STEP_PUSHED_WORDS 5u /* and RSP, SS; without an error code */
#define TSS_ISTS 7u

/* Where an exception in a step may push its frame, and what is there before the step. */
struct step_frames {
	struct kvm_sregs sregs; /* before the step: the frame is pushed with this mapping */
	uint64_t rip;
	unsigned n;
	struct step_frame {
		gva_t at;
		uint64_t words[STEP_FRAME_WORDS];
	} frame[1 + TSS_ISTS];
};

/*
 * An instruction that faults under a step pushes the host's TF into the exception's frame, and the
 * handler may run under the step, so that only the remains of the frame are left in memory, for
 * good. Called before a step and after it, or after what began as one: takes TF out of a frame that
 * the step has written.
 */
void step_note_frames(const struct vcpu *v, struct step_frames *f);
/* The frames alone, with f->sregs given, of long mode, and a stack pointer. */
void step_note_stacks(const struct vcpu *v, struct step_frames *f, uint64_t rsp);
void step_hide_flag_in_frames(struct vcpu *v, const struct step_frames *f);

/*
 * The store with which the guest has come out was made by one element of the REP instruction at RIP, not the last, and
 * KVM's emulator will begin and count that instruction anew, which in other memory it would not do here.
 */
bool step_begins_again(const struct vcpu *v);

#endif
