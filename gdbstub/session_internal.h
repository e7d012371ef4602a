/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What session.c and session_run.c share. */
#ifndef GDBSTUB_SESSION_INTERNAL_H
#define GDBSTUB_SESSION_INTERNAL_H

#include "gdbstub/conn.h"
#include "gdbstub/request.h"
#include "gdbstub/session.h"

struct gdb_session {
	struct gdb_conn conn;
	const struct gdb_target *target;
	struct gdb_request request;
	struct buf reply; /* to the request; sent once, when it has been carried out */
	bool silent;	  /* the request has no reply */

	struct gdb_points points;

	/* What gdb said of itself. */
	bool error_text; /* E.text is fine as a reply to anything */
	bool soft_stops, hard_stops;
	bool extended;

	/* What gdb has chosen. */
	bool physical;
	unsigned step_flags; /* STEP_* */
	int general_thread;  /* Hg: whose registers; never ANY or ALL */
	int run_thread;	     /* Hc */
	int stopped_thread;

	/* An operation that takes time. */
	struct buf console; /* text for the user that is not yet sent */
	bool console_open;  /* gdb takes it now */
	bool running; /* it is one that ends in a stop reply, for which gdb waits without end */
	bool interrupted;
	bool abandoned;		/* gdb has sent the next request instead of waiting */
	uint64_t late_break_ns; /* when an interrupt byte last came while nothing ran; 0: never */

	enum gdb_end end;
	bool ended;
};

/* qemu.sstep, as QEMU numbers it (include/hw/core/cpu.h, SSTEP_*). */
enum { STEP_ENABLE = 1, STEP_NO_IRQ = 2, STEP_NO_TIMER = 4 };

void session_reply_error(struct gdb_session *s, int rc, const struct err *err);
/* As above where gdb has a place for text in any case. */
void session_reply_error_text(struct gdb_session *s, const struct err *err);

/* The request lets gdb wait for something that takes time and may print. */
void session_begin(struct gdb_session *s, bool running);
void session_end(struct gdb_session *s);

uint64_t session_now(void); /* CLOCK_MONOTONIC in ns */

/* Registers of several groups. */
int session_read_registers(struct gdb_session *s, unsigned groups, struct gdb_registers *r,
			   struct err *err);

/* session_run.c: requests that move the guest, each ending in a stop reply. */
void session_run_forward(struct gdb_session *s);
void session_run_reverse(struct gdb_session *s, enum gdb_run run);
void session_restart(struct gdb_session *s);
void session_stop_reason(struct gdb_session *s);

/* session_query.c: requests about memory at large, descriptions, threads and the monitor. */
void session_search(struct gdb_session *s);
void session_crc(struct gdb_session *s);
void session_read_object(struct gdb_session *s);
void session_features(struct gdb_session *s);
void session_threads(struct gdb_session *s);
void session_thread_info(struct gdb_session *s);
void session_monitor(struct gdb_session *s);

#endif
