/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A timeline over a recording, for tests. Include after <cmocka.h>. */
#ifndef OPENED_H
#define OPENED_H

#include "debugger/timeline.h"
#include "tests/kvm/recording.h"

#include <inttypes.h>

static inline struct timeline *open_timeline_spaced(const struct recording *rec, bool use_clock, uint64_t spacing)
{
	const struct timeline_options options = {.spacing = spacing};
	struct timeline *t;
	struct err err;

	assert_ok(timeline_open(&t, rec->path, use_clock, &options, NULL, NULL, &err), err);
	return t;
}

static inline struct timeline *open_timeline(const struct recording *rec, bool use_clock)
{
	return open_timeline_spaced(rec, use_clock, 0);
}

/* To the end, comparing with everything that was recorded. */
static inline void assert_ends_as_recorded(struct timeline *t, const struct recording *rec)
{
	struct err err;

	assert_ok(timeline_seek(t, (struct position){UINT64_MAX, 0}, &err), err);
	assert_true(timeline_at_end(t));
	assert_int_equal(timeline_machine(t)->end, END_EXIT);
	assert_int_equal(timeline_machine(t)->boundary, rec->boundaries);
}

#endif
