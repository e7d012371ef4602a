// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/slide.h"

#include "vmm/step.h"

#define VECTOR_PF 14
#define MSR_LSTAR 0xc0000082u /* SDM 4, table 2-2 */

bool slide_find(const struct symbols *kernel, const struct machine *m, uint64_t *slide)
{
	/* Of Linux since 5.8, and before. */
	static const char *const fault_names[] = {"asm_exc_page_fault", "page_fault"};
	const struct vcpu *v = &m->vcpu[0];
	struct kvm_sregs sregs;
	gva_t call, fault, linked;
	bool found = false;

	if (!symbols_lookup(kernel, "entry_SYSCALL_64", &linked, NULL) || vcpu_get_sregs(v, &sregs, NULL) < 0 ||
	    vcpu_get_msr(v, MSR_LSTAR, &call.v, NULL) < 0 || !step_handler(v, &sregs, VECTOR_PF, &fault))
		return false;
	*slide = call.v - linked.v;
	for (size_t i = 0; i < ARRAY_SIZE(fault_names) && !found; i++)
		found = symbols_lookup(kernel, fault_names[i], &linked, NULL) && fault.v - linked.v == *slide;
	return found && *slide % PAGE_SIZE == 0;
}
