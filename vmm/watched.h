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

/*
 * An event is about to be delivered whose frame lies in watched memory: KVM cannot push it there. The watch is lifted
 * and the request becomes a step, which is the delivery; watched_delivered tells of what has been written and watches
 * again. Nothing in all other cases.
 */
struct watched_delivery {
	bool lifted;
	struct step_frames frames; /* where it may be pushed ... */
	uint64_t before[1 + TSS_ISTS][STEP_PUSHED_WORDS]; /* ... and what was there */
};

int watched_deliver(struct machine *m, struct vcpu_request *req, struct watched_delivery *d, struct err *err);
int watched_delivered(struct machine *m, const struct watched_delivery *d, int rc, struct err *err);

#endif
