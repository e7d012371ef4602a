// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/breakpoint.h"

#include "vmm/paging.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* DR7: G2 and G3 enable execution breakpoints 2 and 3; bit 10 is always one (SDM 3B 18.2.4). */
#define DR7_ONE (1u << 10)
#define DR7_G2 (1u << 5)
#define DR7_G3 (1u << 7)
#define FREE_REGISTERS 2

int breakpoint_plant(struct vcpu *v, gva_t where, uint8_t byte, struct plant *p, struct err *err)
{
	struct kvm_sregs sregs;
	gpa_t gpa;
	int rc = vcpu_get_sregs(v, &sregs, err);

	if (rc < 0)
		return rc;
	if (paging_translate(v->mem, &sregs, where, &gpa) < 0)
		return err_set(err, EFAULT,
			       "cannot place a breakpoint at 0x%" PRIx64 ": the page is not mapped",
			       where.v);
	/* Not marked as written: it is as it was before anybody looks. To the recorder a page that was written is one whose
	 * code the guest keeps changing. */
	p->at = (uint8_t *)memory_at(v->mem, gpa, 1);
	if (!p->at)
		return err_set(err, EFAULT, "cannot place a breakpoint at 0x%" PRIx64 ": not RAM",
			       where.v);
	p->original = *p->at;
	p->planted = byte;
	*p->at = byte;
	return 0;
}

void breakpoint_unplant(struct plant *p)
{
	/* If the guest has written over it, what it wrote stays. */
	if (p->at && *p->at == p->planted)
		*p->at = p->original;
	p->at = NULL;
}

bool breakpoint_set_has(const struct breakpoint_set *set, uint64_t address)
{
	for (unsigned i = 0; set && i < set->len; i++)
		if (set->address[i].v == address)
			return true;
	return false;
}

int breakpoint_set_arm(struct vcpu *v, const struct breakpoint_set *set, struct kvm_guest_debug *debug,
		       struct err *err)
{
	enum bp_mechanism planted = caps_breakpoint_planted(v->caps);
	unsigned i = 0;

	if (caps_breakpoint(v->caps) == BP_HW) {
		for (; i < set->len && i < FREE_REGISTERS; i++) {
			debug->control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
			debug->arch.debugreg[2 + i] = set->address[i].v;
			debug->arch.debugreg[7] |= DR7_ONE | (i ? DR7_G3 : DR7_G2);
		}
	}
	if (i < set->len && planted == BP_NONE)
		return err_set(err, ENOTSUP, "this host has breakpoints for %u addresses at a time only", i);
	if (i < set->len && planted == BP_INT3 && v->caps->int3[0] == INT3_DEBUG)
		debug->control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	if (i < set->len && !v->plants)
		v->plants = calloc(BREAKPOINTS_MAX, sizeof(*v->plants));
	if (i < set->len && !v->plants)
		return err_set(err, ENOMEM, "no memory for breakpoints");
	for (; i < set->len; i++) {
		struct plant *p = &v->plants[v->planted];
		struct err unmapped;

		if (breakpoint_plant(v, set->address[i], planted == BP_INT3 ? 0xcc : 0xf4, p, &unmapped) == 0)
			v->planted++;
	}
	return 0;
}

void breakpoint_set_disarm(struct vcpu *v)
{
	/* The other way round, so that equal addresses get the right byte back. */
	while (v->planted)
		breakpoint_unplant(&v->plants[--v->planted]);
}
