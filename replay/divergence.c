// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/divergence.h"

#include "replay/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Instructions compared one by one inside the boundary in which a difference arose; beyond it the report
 * names the boundary only. At about 0.2 ms a step and comparison, some ten seconds. */
#define STEPS_MAX 50000
#define BYTES_SHOWN 8

/* A twin that cannot go on as recorded has got as far as it gets: that is no error here. */
static int twin_run(struct replay *t, struct position to, bool *stopped, struct err *err)
{
	int rc;

	if (t->machine->end) {
		*stopped = true;
		return 0;
	}
	replay_set_target(t, to);
	rc = replay_run(t, err);
	if (rc == -EILSEQ) {
		*stopped = true;
		return 0;
	}
	*stopped = *stopped || t->machine->end != END_NONE;
	return rc;
}

static void show_bytes(const struct machine *m, gpa_t at, char *out, size_t size)
{
	uint8_t bytes[BYTES_SHOWN] = {0};
	size_t n = 0;

	memory_read(m->mem, at, bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes) && n + 4 < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%02x ", bytes[i]);
}

/* Do the twins differ now? `what` names the first difference. */
static int compare(struct replay *a, struct replay *b, bool *differ, char *what, size_t size,
		   struct err *err)
{
	struct machine_digest da, db;
	struct walker save, cmp;
	int rc = machine_digest(a->machine, &da, err);

	*differ = false;
	if (rc == 0)
		rc = machine_digest(b->machine, &db, err);
	if (rc < 0 || (da.state == db.state && da.memory == db.memory))
		return rc;
	*differ = true;
	if (da.state != db.state) {
		walker_init_save(&save);
		rc = machine_walk(b->machine, &save, err);
		if (rc == 0) {
			walker_init_compare(&cmp, save.out.data, save.out.len);
			rc = machine_walk(a->machine, &cmp, err);
			if (cmp.differs) {
				int n = snprintf(what, size, "%s: ", cmp.diff);

				for (size_t i = cmp.diff_len; i-- > 0 && n > 0 && (size_t)n + 8 < size;)
					n += snprintf(what + n, size - (size_t)n, "%02x", cmp.diff_now[i]);
				n += snprintf(what + n, size - (size_t)n, ", elsewhere ");
				for (size_t i = cmp.diff_len; i-- > 0 && n > 0 && (size_t)n + 8 < size;)
					n += snprintf(what + n, size - (size_t)n, "%02x", cmp.diff_then[i]);
			}
			walker_fini(&cmp);
		}
		walker_fini(&save);
	} else {
		char now[64], then[64];
		gpa_t at;

		if (memory_first_difference(a->machine->mem, b->machine->mem, &at)) {
			show_bytes(a->machine, at, now, sizeof(now));
			show_bytes(b->machine, at, then, sizeof(then));
			snprintf(what, size,
				 "guest memory at physical 0x%" PRIx64 " (page 0x%" PRIx64 "): %s, elsewhere %s",
				 at.v, (uint64_t)(at.v & PAGE_MASK), now, then);
		}
	}
	return rc;
}

/* Options to replay as before, up to a position. */
static struct replay_options replay_to(const struct replay_options *as_replayed, struct position at)
{
	return (struct replay_options){.interrupted = as_replayed->interrupted,
				       .disk = as_replayed->disk,
				       .begin = as_replayed->begin,
				       .fault = as_replayed->fault,
				       .has_target = true,
				       .target = at};
}

static int open_twins(struct replay *a, struct replay *b, const char *path,
		      const struct replay_options *as_replayed, struct position at, bool *stopped,
		      struct err *err)
{
	bool use_clock = as_replayed->clock == CLOCK_EMUL;
	struct replay_options same = replay_to(as_replayed, at), plain;
	int rc;

	same.blind = true;
	plain = same;
	plain.fault = (struct replay_fault){0};
	*a = *b = (struct replay){0};
	*stopped = false;
	rc = replay_open(a, path, use_clock, &same, NULL, NULL, err);
	if (rc == 0)
		rc = replay_open(b, path, use_clock, &plain, NULL, NULL, err);
	if (rc == 0)
		rc = twin_run(a, at, stopped, err);
	if (rc == 0)
		rc = twin_run(b, at, stopped, err);
	return rc;
}

/* The boundary by which twins that differ must do so. What differs at a landmark, or at an end that did not come, may have
 * begun behind the boundary before it. */
static uint64_t last_boundary(const struct divergence *d)
{
	return d->at.boundary + (d->event != EVENT_DIGEST);
}

/* Walk both from `from` to the first position where they differ; by boundaries or by steps. */
static int walk(struct replay *a, struct replay *b, struct position from, uint64_t last, bool by_steps,
		struct divergence_site *site, struct err *err)
{
	struct position at = from;
	bool stopped = false;

	for (;;) {
		bool differ;
		int rc = compare(a, b, &differ, site->what, sizeof(site->what), err);

		if (rc < 0)
			return rc;
		if (differ) {
			site->found = true;
			site->at = at;
			/* The last step led to the next boundary. */
			if (a->machine->boundary > at.boundary)
				site->at = (struct position){a->machine->boundary, 0};
			return 0;
		}
		if (stopped || (by_steps ? at.steps : at.boundary) >= last)
			return 0;
		if (by_steps)
			at.steps++;
		else
			at.boundary++;
		rc = twin_run(a, at, &stopped, err);
		if (rc == 0)
			rc = twin_run(b, at, &stopped, err);
		if (rc < 0)
			return rc;
		if (by_steps && a->machine->boundary > at.boundary && b->machine->boundary > at.boundary)
			stopped = true;
	}
}

int divergence_locate(const char *path, const struct replay_options *as_replayed,
		      const struct divergence *d, struct divergence_site *site, struct err *err)
{
	struct position from = {.boundary = d->last_good};
	struct divergence_site finer = {0};
	struct replay a, b;
	bool stopped;
	int rc;

	*site = (struct divergence_site){0};
	rc = open_twins(&a, &b, path, as_replayed, from, &stopped, err);
	if (rc == 0)
		rc = walk(&a, &b, from, last_boundary(d), false, site, err);
	replay_close(&a);
	replay_close(&b);
	if (rc < 0 || !site->found || site->at.boundary == 0)
		return rc;
	/* It arose on the way to this boundary: look there instruction by instruction. */
	from.boundary = site->at.boundary - 1;
	rc = open_twins(&a, &b, path, as_replayed, from, &stopped, err);
	if (rc == 0 && !stopped)
		rc = walk(&a, &b, from, STEPS_MAX, true, &finer, err);
	replay_close(&a);
	replay_close(&b);
	if (rc == 0 && finer.found && finer.at.boundary + (finer.at.steps > 0) <= site->at.boundary)
		*site = finer;
	return rc;
}

int divergence_recurs(const char *path, const struct replay_options *as_replayed, const struct divergence *d, bool *recurs,
		      struct err *err)
{
	struct replay_options again = replay_to(as_replayed, (struct position){last_boundary(d), 0});
	struct replay r;
	int rc = replay_open(&r, path, as_replayed->clock == CLOCK_EMUL, &again, NULL, NULL, err);

	if (rc == 0)
		rc = replay_run(&r, err);
	replay_close(&r);
	*recurs = rc == -EILSEQ;
	return *recurs ? 0 : rc;
}

void divergence_print(FILE *out, const struct replayer *r)
{
	const struct divergence *d = replayer_divergence(r);
	struct event recent[REPLAY_RECENT];
	unsigned n = replayer_recent(r, recent);

	fprintf(out, "divergence noticed at position %" PRIu64 " (comparing with a recorded %s)\n",
		d->at.boundary, event_type_name(d->event));
	fprintf(out, "  first difference: %s\n", d->what);
	fprintf(out, "  last event that agreed: at boundary %" PRIu64 "\n", d->last_good);
	fprintf(out, "  last events:\n");
	for (unsigned i = 0; i < n; i++)
		fprintf(out, "    %-8s at boundary %" PRIu64 "\n", event_type_name(recent[i].type),
			recent[i].boundary);
}
