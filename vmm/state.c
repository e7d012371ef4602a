// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/machine.h"

#include <errno.h>

/* What a run depends on besides what the guest can see. */
static void walk_run(struct machine *m, struct walker *w)
{
	uint32_t end = m->end;

	walk_component(w, "run");
	walk_u32(w, "end", &end);
	walk_u32(w, "end_code", &m->end_code);
	walk_bool(w, "between", &m->between);
	walk_bool(w, "started", &m->started);
	/* Not always what devices_update_deadline would make of the devices at this moment. */
	walk_u64(w, "deadline", &m->deadline);
	if (w->op != WALK_RESTORE)
		return;
	if (end >= END_COUNT)
		walk_refuse(w);
	m->end = end;
	m->pause = false;
}

int machine_walk(struct machine *m, struct walker *w, struct err *err)
{
	int rc = w->op == WALK_RESTORE ? vcpu_abandon(&m->vcpu[0], err)
				       : vcpu_complete(&m->vcpu[0], err);

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
	if (w->exact)
		walk_run(m, w);
	else if (w->op == WALK_RESTORE)
		devices_update_deadline(m);
	return vcpu_walk(&m->vcpu[0], w, err);
}

int machine_save(struct machine *m, struct buf *out, struct err *err)
{
	struct walker w;
	int rc = vcpu_complete(&m->vcpu[0], err);

	if (rc < 0)
		return rc;
	if (m->vcpu[0].exit_stashed)
		return err_set(err, EBUSY,
			       "the guest is in the middle of an instruction at 0x%llx; try one boundary later",
			       vcpu_regs(&m->vcpu[0])->rip);
	walker_init_save(&w);
	w.exact = true;
	rc = machine_walk(m, &w, err);
	if (rc == 0) {
		buf_put_u64(out, w.layout);
		buf_put(out, w.out.data, w.out.len);
		if (out->failed || walker_failed(&w))
			rc = err_set(err, ENOMEM, "out of memory for the machine's state");
	}
	walker_fini(&w);
	return rc;
}

/* The removal of a slot can mean waiting for all CPUs. Where KVM has resolved no page fault since the last one, as
 * when it emulates kernel code, it has derived nothing from the guest's page tables either. */
int machine_forget_tables(struct machine *m, struct err *err)
{
	uint64_t faults;
	bool counted = kvm_stat_read(&m->vcpu[0].faults, &faults);
	int rc;

	if (m->caps.table_flush != TABLES_BY_SLOT || (counted && faults == m->faults_forgotten))
		return 0;
	rc = memory_drop_shadow(m->mem, err);
	if (rc == 0 && counted)
		m->faults_forgotten = faults;
	return rc;
}

int machine_restore(struct machine *m, const void *state, size_t len, struct err *err)
{
	struct reader head = reader_init(state, len);
	uint64_t layout = reader_u64(&head);
	size_t left = reader_left(&head);
	struct walker w;
	int rc = machine_forget_tables(m, err);

	if (rc < 0)
		return rc;
	walker_init_restore(&w, reader_take(&head, left), left);
	w.exact = true;
	rc = machine_walk(m, &w, err);
	if (rc == 0 && (w.layout != layout || reader_left(&w.in) != 0))
		rc = err_set(err, EINVAL, "the saved state is that of another version of hindsight");
	walker_fini(&w);
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
