/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Accesses to watched memory (memory_watch_all): made, told to nondet_ops, and no boundary. Used by machine.c. */
#ifndef VMM_WATCHED_H
#define VMM_WATCHED_H

#include "vmm/machine.h"
#include "vmm/step.h"

/* What an assist loads and stores is seen as well. */
void watched_attach(struct machine *m);
/* The exit at hand, which looks like a boundary, is such an access: make it. */
int watched_try(struct machine *m, bool *was, struct err *err);
/* It has been made and completed, and to the guest its instruction is over: what was asked for may have come true. Sets
 * *stop and returns true if so. */
bool watched_stops(struct vcpu *v, const struct vcpu_request *req, enum vcpu_stop *stop);

/* Of the words below a stack's top: a frame, an error code, and what the handler's first instruction pushes. */
#define WATCHED_WORDS 8u

/*
 * An event is about to be delivered whose frame lies in watched memory: KVM cannot push it there. The watch is lifted
 * and the request becomes a step, which is the delivery; watched_delivered tells of what has been written and watches
 * again.
 *
 * An exception comes without notice, and what happens depends on the host (watched_unfinished). Where KVM makes a double
 * fault of it, the guest is stopped at the handler of that, which has a stack of its own; the double fault is taken back,
 * and the instruction made once more, as above. Newer KVMs say so (VCPU_UNDELIVERED); others try again and again, for ever,
 * until a kick shows it as injected: then it is delivered as above. So that there is a kick, the machine has a timer of its
 * own while memory is watched.
 */
struct watched_delivery {
	bool lifted;
	bool timed; /* kicked from time to time */
	bool again; /* for the instruction of which a double fault was taken back */
	struct step_frames frames; /* where it may be pushed ... */
	uint64_t before[1 + TSS_ISTS][WATCHED_WORDS]; /* ... and what was there */

	/* Where a double fault would show. */
	bool guarded;
	gva_t double_fault; /* its handler */
	gva_t frame;	    /* of WATCHED_WORDS, at its stack's top */
	uint64_t words[WATCHED_WORDS];
	struct kvm_regs regs; /* before the run */
	bool stepped;
	const struct breakpoint_set *wanted;
	struct breakpoint_set set; /* the breakpoints that were asked for, and the handler: in machine.guard */
};

/* Before the guest runs, and behind; rc: how that went. Nothing where no memory is watched. */
int watched_deliver(struct machine *m, struct vcpu_request *req, struct watched_delivery *d, struct err *err);
int watched_delivered(struct machine *m, const struct watched_delivery *d, int rc, struct err *err);
/* The guest has been stopped by an exception without a frame only: to the caller nothing has happened. Otherwise *was is
 * false. */
int watched_unfinished(struct machine *m, const struct watched_delivery *d, enum vcpu_stop stop, bool *was, struct err *err);

#endif
