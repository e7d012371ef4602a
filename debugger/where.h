/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A place in a recording as a user writes it: a position, how far in, or when. */
#ifndef DEBUGGER_WHERE_H
#define DEBUGGER_WHERE_H

#include "base/err.h"
#include "vmm/machine.h"

struct timeline;

struct where {
	enum { WHERE_POSITION, WHERE_PERCENT, WHERE_TIME } kind;
	struct position position;
	double percent; /* of the boundaries, 0 to 100 */
	uint64_t vtime; /* the first boundary with this guest time in ns, or a later one; never 0 */
};

/* "123", "123+45", "40%", or "1.5s" (also ms, us, ns). */
int where_parse(const char *text, struct where *w, struct err *err);
/* Its position in the trace that lies there, for all but WHERE_TIME. */
int where_position(const struct where *w, const char *trace, struct position *at, struct err *err);
/* The same of any kind. To find a time the timeline goes there. */
int where_find(struct timeline *t, const struct where *w, struct position *at, struct err *err);

#endif
