// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/fault.h"

#include <errno.h>

int fault_inject(struct replay_fault *fault, struct machine *m, bool at_landmark, struct err *err)
{
	uint8_t *p;
	int rc;

	if (fault->boundary != m->boundary || fault->at_landmark != at_landmark)
		return 0;
	if (fault->kind == FAULT_LATE && fault->where-- == 0) {
		if (fault->again) {
			fault->again--;
			fault->where = 0;
			fault->boundary += fault->apart;
		}
		return err_set(err, EAGAIN, "a fault on purpose: the replay ran past a landmark");
	}
	if (fault->kind != FAULT_MEMORY && fault->kind != FAULT_REGISTER)
		return 0;
	rc = vcpu_complete(&m->vcpu[0], err);
	if (rc < 0)
		return rc;
	if (fault->kind == FAULT_MEMORY) {
		p = memory_at_dirty(m->mem, GPA(fault->where), 1);
		if (p)
			*p ^= 1;
	} else {
		((uint64_t *)vcpu_regs_mut(&m->vcpu[0]))[fault->where % REGS_COUNT] ^= 1;
	}
	return 0;
}
