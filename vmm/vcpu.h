/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One virtual CPU: entering the guest, and making what comes back mean the same on every host. The quirks of
 * a host (emulation failures, SYSCALL that does not switch, breakpoints that hit again) end here; above this
 * header an exit is one of enum vcpu_stop.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "base/err.h"
#include "vmm/caps.h"
#include "vmm/cpuid.h"
#include "vmm/memory.h"
#include "vmm/stat.h"
#include "vmm/walk.h"

#include <linux/kvm.h>
#include <signal.h>

#define VCPU_ASSISTS_MAX 16

/* More than that at a time are refused. */
#define BREAKPOINTS_MAX 512

/* A set of addresses; the memory is the caller's. */
struct breakpoint_set {
	const gva_t *address;
	unsigned len; /* up to BREAKPOINTS_MAX */
};

/* A byte planted over an instruction. */
struct plant {
	uint8_t *at; /* NULL: none */
	uint8_t original, planted;
};

struct vcpu {
	/* Set once. */
	int fd;
	struct kvm_stat clock;  /* insn_emulation */
	struct kvm_stat faults; /* pf_taken: page faults that KVM has resolved from the guest's tables */
	uint64_t uncounted;    /* instructions made in user space that it does not count; less those it counts too often */
	uint64_t arrivals;     /* see vcpu_progress */
	struct kvm_run *run;
	size_t run_size;
	const struct host_caps *caps;
	struct memory *mem;

	/* Makes a store on the guest's behalf (assist), so that a watch on memory sees it. Set by the
	 * machine; NULL: memory is just written. */
	int (*store)(void *ctx, gpa_t gpa, const void *data, size_t len, struct err *err);
	/* An assist has loaded [gpa, gpa+len) on the guest's behalf; may be NULL. */
	void (*loaded)(void *ctx, gpa_t gpa, size_t len);
	void *store_ctx;

	bool regs_dirty;         /* run->s.regs.regs must go back into KVM */
	bool completion_pending; /* an I/O, MMIO or MSR access waits for re-entry */
	bool exit_continues;     /* the last exit was such a one: its instruction is that of the exit before */
	bool exit_stashed;       /* completing one access gave the next exit (string I/O, split MMIO) */
	bool sregs_synced;       /* run->s.regs.sregs is current */
	bool event_queued;       /* an interrupt or exception is to be delivered at the next entry */
	uint8_t event_vector;
	volatile sig_atomic_t kicked;

	/* Debug state as armed in KVM, to spare the ioctl when nothing changes. */
	struct kvm_guest_debug armed;
	bool armed_stale; /* must be set again before a step */

	struct plant *plants; /* of a set, while the guest runs; room for BREAKPOINTS_MAX from the first set on */
	unsigned planted;

	/* SYSCALL repair (hosts where !caps->syscall_works). */
	bool syscall_repair; /* the guest has enabled EFER.SCE */
	bool pf_judged;      /* stands at the #PF handler for a fault that is no SYSCALL */
	gva_t pf_entry;      /* its #PF handler, from IDT[14] */

	uint64_t xfeatures;		    /* what the guest's CPU has of XCR0; 0: no XSAVE */
	struct xsave_layout layout;	    /* of struct kvm_xsave */
	struct assist_exec *exec;	    /* made at the first need */
	uint64_t assists[VCPU_ASSISTS_MAX]; /* by enum assist_kind */
	uint64_t syscalls_repaired;
	uint64_t entries; /* KVM_RUN calls */
	uint64_t free_ns; /* host time in KVM_RUN while not stepping */
};

/* Why vcpu_run came back. */
enum vcpu_stop {
	VCPU_BOUNDARY, /* the guest caused it: run->exit_reason is IO, MMIO, HLT, X86_RDMSR/WRMSR or
			  SHUTDOWN */
	VCPU_KICK,     /* a signal; nothing happened to the guest */
	VCPU_STEP,     /* one instruction done (or, for string instructions, some iterations) */
	VCPU_BREAK,    /* about to execute the instruction at the breakpoint */
	VCPU_WINDOW,   /* interrupt window open */
	VCPU_ENTRY,    /* user code has entered the kernel, by SYSCALL or with a page fault */
	VCPU_UNDELIVERED /* memory is watched, and KVM cannot push the frame of an exception, which stays injected */
};

struct vcpu_request {
	bool step;            /* stop after one instruction */
	bool window;          /* stop when an interrupt can be injected */
	bool entry;           /* stop at VCPU_ENTRY, on hosts where SYSCALL is repaired */
	bool has_breakpoint;
	gva_t breakpoint;     /* stop before executing this address; may equal RIP: then the next time */
	/* Stop before executing any of these too (NULL: none); at RIP itself as well, unless `over`. In kernel
	 * code; in user code where the host can. */
	const struct breakpoint_set *set;
	bool over;
};

/* xfeatures: see cpuid.h. */
int vcpu_create(struct vcpu *v, int kvm_fd, int vm_fd, const struct host_caps *caps,
		struct memory *mem, uint64_t xfeatures, struct err *err);
void vcpu_destroy(struct vcpu *v);

/* Enter the guest until one of the above. */
int vcpu_run(struct vcpu *v, const struct vcpu_request *req, enum vcpu_stop *stop, struct err *err);
/* Let a pending IN, MMIO or MSR access take effect without executing anything further. */
int vcpu_complete(struct vcpu *v, struct err *err);
/* Bring an access in progress to an end, with whatever data: before all of the state is replaced. */
int vcpu_abandon(struct vcpu *v, struct err *err);
/* KVM has filled the parts of the run area that it was asked for. */
void vcpu_after_sync(struct vcpu *v);
/* Make a running or about-to-run vcpu_run come back with VCPU_KICK; async-signal-safe. */
void vcpu_kick(struct vcpu *v);

/* General registers, valid whenever the guest is not running. */
static inline const struct kvm_regs *vcpu_regs(const struct vcpu *v)
{
	return &v->run->s.regs.regs;
}

static inline struct kvm_regs *vcpu_regs_mut(struct vcpu *v)
{
	v->regs_dirty = true;
	return &v->run->s.regs.regs;
}

int vcpu_get_sregs(const struct vcpu *v, struct kvm_sregs *sregs, struct err *err);
int vcpu_set_sregs(struct vcpu *v, const struct kvm_sregs *sregs, struct err *err);
/* What it is after a reset where the guest's CPU has no XSAVE. */
int vcpu_get_xcr0(const struct vcpu *v, uint64_t *xcr0, struct err *err);
/* Queue an exception for the next entry; RIP must be right for its kind (fault: on it; trap: past). */
int vcpu_inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error,
			  struct err *err);
/* An external interrupt can be taken before the next instruction. */
static inline bool vcpu_interruptible(const struct vcpu *v)
{
	return v->run->ready_for_interrupt_injection && v->run->if_flag;
}
/* An exception that KVM has raised and not delivered becomes a queued event. *was: there was one. */
int vcpu_queue_exception(struct vcpu *v, bool *was, struct err *err);
int vcpu_interrupt(struct vcpu *v, uint8_t vector, struct err *err);
/* Nothing is half-done: no shadow after STI or MOV SS, no event being delivered. */
int vcpu_is_clean(const struct vcpu *v, bool *clean, struct err *err);

/* At a string instruction with REP: some elements may be done, and no host can be stopped between the same two again.
 * *element, if not NULL, receives the bytes of one. */
bool vcpu_in_string_instruction(const struct vcpu *v, unsigned *element);
/* The next instruction is an IRET or SYSRET to user mode. */
bool vcpu_returns_to_user(const struct vcpu *v);
/* RIP may lie in the shadow of an STI or MOV SS that the host has forgotten: some lose it when they are
 * interrupted there. Judged by the bytes before RIP, so it holds for a place and not for a run. */
bool vcpu_after_shadow(const struct vcpu *v);

/* Instructions counted since the vCPU was made; 0 where the host has no such count. */
uint64_t vcpu_clock(const struct vcpu *v);

/*
 * How far the guest has come: its clock, and one for each time it arrived in its kernel without an instruction being
 * counted (an event was delivered; user code made a system call or a page fault). Grows with every step.
 * 0 where the host has no clock.
 */
static inline uint64_t vcpu_progress(const struct vcpu *v)
{
	return v->clock.fd < 0 ? 0 : vcpu_clock(v) + v->arrivals;
}

/* Privilege level 0-3 (from SS.DPL). */
/* -errno if KVM does not know the MSR. */
int vcpu_get_msr(const struct vcpu *v, uint32_t index, uint64_t *value, struct err *err);
int vcpu_cpl(const struct vcpu *v, struct err *err);

/* Visit registers, system registers, x87/SSE/AVX, MSRs, debug registers and pending events. Before a RESTORE
 * nothing may be in progress (vcpu_abandon). */
int vcpu_walk(struct vcpu *v, struct walker *w, struct err *err);

#endif
