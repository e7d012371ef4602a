/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where a replayer stands in its trace, as bytes that can be kept beside a snapshot of its machine, also in a file.
 * docs/trace-format.md has them one by one.
 */
#ifndef REPLAY_MARK_H
#define REPLAY_MARK_H

#include "replay/replayer.h"

struct replay_mark {
	struct replay_file_place next; /* of the event to come */
	struct replay_counts counts;
	bool at_boundary; /* the guest has not run since the last boundary */
	bool counting;    /* positions were told by a clock */
	bool ran;         /* they were not, and the steps since the boundary are not known */
	uint64_t events;  /* before `next` */
	uint64_t last_good;
	uint64_t steps;
	/* Clocks only ever grow, so their readings are kept as distances from the present. */
	uint64_t done, last_span, searched;
};

void replay_mark_encode(const struct replay_mark *mark, struct buf *out);
/* -EBADMSG if these bytes are none. */
int replay_mark_decode(struct reader *in, struct replay_mark *mark, struct err *err);

#endif
