// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/stops.h"

#include <errno.h>
#include <stdlib.h>

bool stops_watch_sees(const struct timeline_watch *w, const struct timeline_stop *access, gpa_t *byte)
{
	unsigned kinds = access->load ? WATCH_LOADS : WATCH_STORES | WATCH_CHANGES;

	if (!(w->kinds & kinds))
		return false;
	for (unsigned i = 0; i < access->len; i++) {
		uint64_t at = access->gpa.v + i;
		bool changed = ((access->old ^ access->now) >> (8 * i) & 0xff) != 0;

		if (at < w->gpa.v || at - w->gpa.v >= w->len ||
		    !(access->load || changed || (w->kinds & WATCH_STORES)))
			continue;
		*byte = GPA(at);
		return true;
	}
	return false;
}

bool stops_see(const struct timeline_stops *stops, const struct timeline_stop *access)
{
	gpa_t byte;

	for (size_t i = 0; i < stops->n_watches; i++)
		if (stops_watch_sees(&stops->watches[i], access, &byte))
			return true;
	return false;
}

static void note(struct stops_seen *seen, struct machine *m, const struct timeline_stop *access)
{
	if (!seen->stops || !stops_see(seen->stops, access))
		return;
	m->pause = true;
	if (!seen->hit)
		seen->first = *access;
	seen->hit = true;
}

void stops_note_store(struct stops_seen *seen, struct machine *m, gpa_t gpa, unsigned len, uint64_t old, uint64_t now)
{
	const struct timeline_stop access = {
		.reason = TIMELINE_WATCH, .gpa = gpa, .len = len, .old = old, .now = now,
		.device = !m->dma ? NULL : m->accessed ? m->accessed->ops->name : "a device",
		.input = m->dma && !m->accessed,
		/* A string instruction is not over. */
		.rip = vcpu_regs(&m->vcpu[0])->rip + vcpu_in_string_instruction(&m->vcpu[0], NULL)};

	note(seen, m, &access);
}

void stops_note_load(struct stops_seen *seen, struct machine *m, gpa_t gpa, unsigned len, uint64_t value)
{
	const struct timeline_stop access = {
		.reason = TIMELINE_WATCH, .load = true, .gpa = gpa, .len = len, .old = value, .now = value};

	note(seen, m, &access);
}

int stops_arm(const struct timeline_stops *stops, struct memory *mem, struct err *err)
{
	struct memory_watch *pages;
	int rc;

	if (!stops->n_watches)
		return 0;
	pages = calloc(stops->n_watches, sizeof(*pages));
	if (!pages)
		return err_set(err, ENOMEM, "out of memory for watches");
	for (size_t i = 0; i < stops->n_watches; i++)
		pages[i] = (struct memory_watch){.gpa = stops->watches[i].gpa,
						 .len = stops->watches[i].len,
						 .loads = (stops->watches[i].kinds & WATCH_LOADS) != 0};
	rc = memory_watch_all(mem, pages, stops->n_watches, err);
	free(pages);
	return rc;
}

int stops_disarm(const struct timeline_stops *stops, struct memory *mem, int rc, struct err *err)
{
	int ended = stops->n_watches ? memory_unwatch(mem, rc < 0 ? NULL : err) : 0;

	return rc < 0 ? rc : ended;
}
