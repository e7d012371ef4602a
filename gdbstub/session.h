/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One gdb, from its first packet to its leaving. Nothing of it outlives it: the next gdb finds the
 * target where this one left it, without breakpoints, however it left.
 */
#ifndef GDBSTUB_SESSION_H
#define GDBSTUB_SESSION_H

#include "gdbstub/target.h"

#include <signal.h>

enum gdb_end {
	GDB_END_LOST,	  /* the connection ended; err has a sentence if that was our doing */
	GDB_END_DETACHED, /* gdb's "detach", or its end: the guest may go on */
	GDB_END_KILLED,	  /* gdb's "kill" */
};

struct gdb_session_options {
	int listen_fd; /* on which others are turned away meanwhile; -1 if there is none */
	int stall_ms;  /* a peer that does not read for so long is dropped; 0: GDB_STALL_MS */
	const volatile sig_atomic_t *quit; /* ends the session with -EINTR; may be NULL */
};

/* Longer than a gdb that is stopped in its own debugger for a moment, shorter than patience. */
#define GDB_STALL_MS 10000

/* Serve the gdb at fd, and close it. Returns 0 with *end, -EINTR on quit, or -ENOMEM. */
int gdb_session_serve(int fd, const struct gdb_session_options *o, const struct gdb_target *target,
		      enum gdb_end *end, struct err *err);

#endif
