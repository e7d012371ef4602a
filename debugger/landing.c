// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/landing.h"

#include "vmm/breakpoint.h"
#include "vmm/paging.h"
#include "vmm/step.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR_PF 14
/* Of a page fault's error code: present, and a fetch by the kernel (SDM 3A 4.7). */
#define ERROR_MASK 0x15u
#define ERROR_KERNEL_FETCH 0x11u

static bool is_data(const struct machine *m, const struct kvm_sregs *sregs, gva_t at)
{
	gva_t page = GVA(at.v & PAGE_MASK);
	gpa_t gpa;

	return paging_translate(m->mem, sregs, at, &gpa) == 0 &&
	       !paging_find_executable(m->mem, sregs, &page, GVA(page.v + PAGE_SIZE), &gpa);
}

int landing_begin(struct landing *l, const struct machine *m, const struct breakpoint_set *wanted, struct err *err)
{
	const struct vcpu *v = &m->vcpu[0];
	struct kvm_sregs sregs;
	bool any = false;
	int rc = vcpu_get_sregs(v, &sregs, err);

	*l = (struct landing){.wanted = wanted, .set = *wanted};
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < wanted->len && !any; i++)
		any = is_data(m, &sregs, wanted->address[i]);
	/* With as many as there can be, the fault is the guest's. */
	if (!any || !sregs.cs.l || wanted->len == BREAKPOINTS_MAX || !step_handler(v, &sregs, VECTOR_PF, &l->handler) ||
	    breakpoint_set_has(wanted, l->handler.v))
		return 0;
	l->address = calloc(wanted->len + 1, sizeof(*l->address));
	if (!l->address)
		return err_set(err, ENOMEM, "out of memory for breakpoints");
	memcpy(l->address, wanted->address, wanted->len * sizeof(*l->address));
	l->address[wanted->len] = l->handler;
	l->set = (struct breakpoint_set){l->address, wanted->len + 1};
	l->on = true;
	return 0;
}

void landing_end(struct landing *l)
{
	free(l->address);
	*l = (struct landing){0};
}

int landing_look(const struct landing *l, struct machine *m, bool *at_handler, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct step_fault fault;
	struct kvm_sregs sregs;
	int rc;

	*at_handler = l->on && vcpu_regs(v)->rip == l->handler.v;
	if (!*at_handler)
		return 0;
	rc = vcpu_get_sregs(v, &sregs, err);
	if (rc < 0 || paging_read(m->mem, &sregs, GVA(vcpu_regs(v)->rsp), &fault, sizeof(fault)) < 0 ||
	    (fault.error & ERROR_MASK) != ERROR_KERNEL_FETCH || fault.rip != sregs.cr2 || !breakpoint_set_has(l->wanted, fault.rip))
		return rc;
	*at_handler = false;
	step_take_back(v, &fault);
	return 0;
}
