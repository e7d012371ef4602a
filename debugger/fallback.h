/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Replaying with something to fall back to. A run that went past a landmark cannot be undone, and where timers are often
 * late a long trace would never be over if each such run meant to begin again, as it does for replay_run. So a
 * snapshot is kept behind the present.
 */
#ifndef DEBUGGER_FALLBACK_H
#define DEBUGGER_FALLBACK_H

#include "replay/replay.h"

struct fallback_options {
	uint64_t memory;  /* bytes that the snapshots may take */
	uint64_t spacing; /* ns of CPU time from one to the next; 0: FALLBACK_SPACING_NS */
};

/* What a late timer costs at most, beside which a snapshot costs little. */
#define FALLBACK_SPACING_NS (250 * NSEC_PER_MSEC)

/* As replay_run, from where r stands, which counts the returns as restarts. Where the host cannot restore a machine it
 * is replay_run. */
int fallback_run(struct replay *r, const struct fallback_options *o, struct err *err);

#endif
