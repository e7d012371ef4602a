// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Going to a place where a run stopped. Its position is not always known: without an instruction clock a free run counts
 * no steps, and a string store to watched memory is counted otherwise than without the watch, which moves the steps
 * behind it.
 */
#include "debugger/timeline_private.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static bool has_regs(struct timeline *t, const struct timeline_place *place)
{
	struct kvm_regs now = event_regs(&timeline_machine(t)->vcpu[0]);

	return memcmp(&now, &place->regs, sizeof(now)) == 0;
}

static int not_found(const struct timeline_place *place, struct err *err)
{
	return err_set(err, ENOTSUP,
		       "the place at boundary %" PRIu64
		       " is inside an instruction, or in code that cannot be stepped on this host; steps do not lead "
		       "to it",
		       place->position.boundary);
}

/* Stop there once more, to know all of the machine. */
static int see_place(struct timeline *t, const struct timeline_stops *stops, const struct timeline_place *place,
		     struct machine_digest *digest, struct err *err)
{
	struct timeline_stops again = *stops;
	struct timeline_stop stop;
	int rc = timeline_seek(t, place->from, err);

	/* The present place counted when the search began there. */
	again.here = true;
	for (unsigned i = 0; i < place->nth && rc == 0; i++) {
		rc = timeline_run_to_stop(t, &again, &stop, err);
		again.here = false;
	}
	if (rc == 0 && !has_regs(t, place))
		rc = not_found(place, err);
	return rc < 0 ? rc : machine_digest(timeline_machine(t), digest, err);
}

/* Registers alone are not enough: a loop comes to the same ones again. */
static int is_here(struct timeline *t, const struct timeline_place *place, const struct machine_digest *digest,
		   bool *here, struct err *err)
{
	struct machine_digest now;
	int rc = vcpu_complete(&timeline_machine(t)->vcpu[0], err);

	*here = false;
	if (rc < 0 || !has_regs(t, place))
		return rc;
	rc = machine_digest(timeline_machine(t), &now, err);
	*here = rc == 0 && now.state == digest->state && now.memory == digest->memory;
	return rc;
}

/* Step on, within its boundary, to the place where the machine is this. */
static int step_to(struct timeline *t, const struct timeline_place *place, const struct machine_digest *digest,
		   struct err *err)
{
	bool here = false;
	int rc = 0;

	while (rc == 0 && !timeline_at_end(t) && timeline_position(t).boundary == place->position.boundary) {
		rc = is_here(t, place, digest, &here, err);
		if (rc < 0 || here)
			return rc;
		rc = timeline_step(t, 1, err);
	}
	return rc < 0 ? rc : not_found(place, err);
}

int timeline_learn_position(struct timeline *t, struct err *err)
{
	struct timeline_place place = {.position = {timeline_position(t).boundary, 0}};
	struct machine_digest digest;
	int rc = machine_digest(timeline_machine(t), &digest, err);

	place.regs = event_regs(&timeline_machine(t)->vcpu[0]);
	if (rc == 0)
		rc = timeline_seek(t, place.position, err);
	return rc < 0 ? rc : step_to(t, &place, &digest, err);
}

int timeline_find_place(struct timeline *t, const struct timeline_stops *stops, const struct timeline_place *place,
			struct err *err)
{
	struct machine_digest digest;
	int rc = timeline_seek(t, place->position, err);

	if (rc < 0 || place->in_user || (place->known && has_regs(t, place)))
		return rc;
	rc = see_place(t, stops, place, &digest, err);
	/* Where steps are not counted, to stop there was to find it. */
	if (rc < 0 || !place->known)
		return rc;
	rc = timeline_seek(t, place->from, err);
	return rc < 0 ? rc : step_to(t, place, &digest, err);
}
