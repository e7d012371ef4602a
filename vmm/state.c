// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/machine.h"

#include <errno.h>

int machine_walk(struct machine *m, struct walker *w, struct err *err)
{
	int rc = vcpu_complete(&m->vcpu[0], err);

	if (rc < 0)
		return rc;
	walk_component(w, "machine");
	walk_u64(w, "vtime", &m->vtime);
	walk_u64(w, "boundary", &m->boundary);
	walk_u64(w, "io_history", &m->io_history);
	walk_u64(w, "entropy", &m->entropy);
	walk_u64(w, "dev_entropy", &m->dev_entropy);
	walk_u64(w, "tsc_offset", &m->tsc_offset);
	walk_u64(w, "tsc_aux", &m->tsc_aux);
	walk_bool(w, "halted", &m->halted);
	for (unsigned i = 0; i < m->devices; i++) {
		walk_component(w, m->device[i].ops->name);
		m->device[i].ops->walk(m->device[i].state, w);
	}
	rc = vcpu_walk(&m->vcpu[0], w, err);
	if (rc == 0 && w->op == WALK_RESTORE)
		devices_update_deadline(m);
	return rc;
}

int machine_digest(struct machine *m, struct machine_digest *digest, struct err *err)
{
	struct walker w;
	int rc = walker_init_digest(&w);

	if (rc < 0)
		return err_set(err, ENOMEM, "out of memory");
	rc = machine_walk(m, &w, err);
	if (rc == 0) {
		digest->state = walker_digest(&w);
		rc = memory_digest(m->mem, &digest->memory, err);
	}
	walker_fini(&w);
	return rc;
}
