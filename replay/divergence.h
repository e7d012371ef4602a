/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What to tell about a divergence: what was noticed, the events before it, and where it began, found by
 * running two more replays side by side between the last event that agreed and the place where it was
 * noticed.
 */
#ifndef REPLAY_DIVERGENCE_H
#define REPLAY_DIVERGENCE_H

#include "replay/replayer.h"

#include <stdio.h>

struct divergence_site {
	bool found;
	struct position at;
	char what[256]; /* first differing register, device field or page with bytes */
};

/* Print position, first difference and last events. */
void divergence_print(FILE *out, const struct replayer *r);
/*
 * Replay twice more, once as `as_replayed` (with its fault, if any) and once plain, and find the first
 * place after d->last_good where they differ. site->found is false if they never do: then the recording
 * itself did what no replay does. as_replayed's target and callbacks are not used.
 */
int divergence_locate(const char *path, const struct replay_options *as_replayed,
		      const struct divergence *d, struct divergence_site *site, struct err *err);
/* Replay once more from the start, and never from a snapshot: does that, too, differ from the recording up to the place
 * where d was noticed? as_replayed's target and callbacks are not used. */
int divergence_recurs(const char *path, const struct replay_options *as_replayed, const struct divergence *d, bool *recurs,
		      struct err *err);

#endif
