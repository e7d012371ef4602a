// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/where.h"

#include "debugger/timeline.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Longer than any run; so that a number of ns is no surprise. */
#define SECONDS_MAX 1e9

static bool parse_position(const char *text, struct position *at)
{
	char *end;

	*at = (struct position){0};
	errno = 0;
	at->boundary = strtoull(text, &end, 10);
	if (!errno && *end == '+' && end[1] >= '0' && end[1] <= '9')
		at->steps = strtoull(end + 1, &end, 10);
	return !errno && !*end;
}

static bool parse_measure(const char *text, struct where *w)
{
	static const struct {
		const char *name;
		double seconds;
	} units[] = {{"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}};
	char *end;
	double n = strtod(text, &end);

	if (!isfinite(n))
		return false;
	if (strcmp(end, "%") == 0) {
		w->kind = WHERE_PERCENT;
		w->percent = n;
		return n <= 100;
	}
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(end, units[i].name) != 0)
			continue;
		w->vtime = (uint64_t)(n * units[i].seconds * (double)NSEC_PER_SEC + 0.5);
		/* No time at all is the start. */
		w->kind = w->vtime ? WHERE_TIME : WHERE_POSITION;
		w->position = (struct position){0};
		return n * units[i].seconds <= SECONDS_MAX;
	}
	return false;
}

int where_parse(const char *text, struct where *w, struct err *err)
{
	*w = (struct where){.kind = WHERE_POSITION};
	/* No sign, no space, no number that is written otherwise. */
	if (*text >= '0' && *text <= '9' && text[strspn(text, "0123456789.+%smun")] == 0 &&
	    (parse_position(text, &w->position) || parse_measure(text, w)))
		return 0;
	return err_set(err, EINVAL, "\"%s\" is not a position; write BOUNDARY or BOUNDARY+STEPS, like 1234+56, or 40%%, or "
		       "guest time like 1.5s", text);
}

int where_position(const struct where *w, const char *trace, struct position *at, struct err *err)
{
	uint64_t last;
	int rc;

	*at = w->position;
	if (w->kind != WHERE_PERCENT)
		return 0;
	rc = replay_file_last(trace, &last, err);
	if (rc == 0)
		*at = (struct position){(uint64_t)((double)last * w->percent / 100), 0};
	return rc;
}

int where_find(struct timeline *t, const struct where *w, struct position *at, struct err *err)
{
	int rc;

	if (w->kind != WHERE_TIME)
		return where_position(w, timeline_path(t), at, err);
	rc = timeline_seek_time(t, w->vtime, err);
	*at = timeline_at_end(t) ? (struct position){UINT64_MAX, 0} : timeline_position(t);
	return rc;
}
