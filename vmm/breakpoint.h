/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Breakpoints in any number, as their user wants them: a set of addresses. What is in guest memory is there only while
 * the guest runs, so that no reader, digest or snapshot ever finds one. Used by vcpu.c.
 */
#ifndef VMM_BREAKPOINT_H
#define VMM_BREAKPOINT_H

#include "vmm/vcpu.h"

/* Plant `byte` at an address. -EFAULT: it is not mapped to RAM. */
int breakpoint_plant(struct vcpu *v, gva_t where, uint8_t byte, struct plant *p, struct err *err);
void breakpoint_unplant(struct plant *p);

bool breakpoint_set_has(const struct breakpoint_set *set, uint64_t address);
/*
 * Make all of the set that can be hit stop the guest during the coming entry: the first in the free debug registers of
 * `debug`, where those work, the others planted. Those that are not mapped cannot be hit.
 */
int breakpoint_set_arm(struct vcpu *v, const struct breakpoint_set *set, struct kvm_guest_debug *debug,
		       struct err *err);
void breakpoint_set_disarm(struct vcpu *v);

#endif
