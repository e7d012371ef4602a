/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a run is to stop at, and what it has stopped at: for a recording, forward and back, and for a live machine. */
#ifndef DEBUGGER_STOPS_H
#define DEBUGGER_STOPS_H

#include "vmm/machine.h"

struct timeline;

/* Which accesses to watched memory count. */
enum {
	WATCH_CHANGES = 1, /* stores that change a byte of it */
	WATCH_STORES = 2,  /* all stores */
	WATCH_LOADS = 4,   /* of the guest; what devices read is not seen */
};

struct timeline_watch {
	gpa_t gpa;
	uint64_t len;
	unsigned kinds;
};

/* What to stop at while going forward or back. */
struct timeline_stops {
	struct breakpoint_set breakpoints;
	bool here; /* going forward, the present place counts as well */
	/* Asked at each hit of a breakpoint, with the machine standing there; false: it does not count. May be NULL.
	 * t is NULL for a live machine. */
	bool (*wanted)(void *ctx, struct timeline *t);
	void *ctx;
	const struct timeline_watch *watches;
	size_t n_watches;
};

enum timeline_reason {
	TIMELINE_BREAKPOINT,
	TIMELINE_WATCH, /* forward: the access is made; back: it is about to be */
	TIMELINE_BEGIN, /* of the trace */
	TIMELINE_END,
};

struct timeline_stop {
	enum timeline_reason reason;
	struct position at; /* where it shows: an access, behind it */
	/* TIMELINE_WATCH: the access. Of a load both values are what was loaded. */
	bool load;
	/* Back: it was made at this RIP in user code, where this host cannot stop; the machine stands where that code was
	 * entered, before this and perhaps other accesses. Forward: 0. */
	uint64_t user_rip;
	gpa_t gpa;
	unsigned len; /* at most 8 */
	uint64_t old, now;
	const char *device; /* whose DMA it was; NULL: an instruction's access */
	bool input;         /* the DMA of what came from outside: no instruction asked for it */
	uint64_t rip;       /* of a store: behind a byte of the instruction */
	/* Found by comparing what memory holds (timeline_stops.c): a store that changed nothing is not seen, and gpa and len are
	 * those of the watched word in which something changed. */
	bool compared;
};

/* The first byte of w for which the access counts; false if there is none. */
bool stops_watch_sees(const struct timeline_watch *w, const struct timeline_stop *access, gpa_t *byte);
/* The access counts for one of them. */
bool stops_see(const struct timeline_stops *stops, const struct timeline_stop *access);
/* What a run has seen of watched memory. */
struct stops_seen {
	const struct timeline_stops *stops; /* NULL: none count */
	bool hit;
	struct timeline_stop first; /* of several accesses of one instruction this is told */
};

/* As nondet_ops.watched and .loaded report it; the machine pauses if it counts. */
void stops_note_store(struct stops_seen *seen, struct machine *m, gpa_t gpa, unsigned len, uint64_t old, uint64_t now);
void stops_note_load(struct stops_seen *seen, struct machine *m, gpa_t gpa, unsigned len, uint64_t value);
/* Have accesses to the watched memory reported, by memory_watch_all; nothing without watches. */
int stops_arm(const struct timeline_stops *stops, struct memory *mem, struct err *err);
/* And no longer. rc: what the run has returned, which is what is returned if it is an error. */
int stops_disarm(const struct timeline_stops *stops, struct memory *mem, int rc, struct err *err);

#endif
