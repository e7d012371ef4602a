/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The connection to one gdb: packets over a socket that never blocks for longer than it may.
 */
#ifndef GDBSTUB_CONN_H
#define GDBSTUB_CONN_H

#include "gdbstub/packet.h"

#include <signal.h>

struct gdb_conn {
	int fd;
	int listen_fd; /* where another gdb may knock while this one is served, or -1 */
	int stall_ms;  /* a peer that takes nothing for so long is dropped */
	const volatile sig_atomic_t *quit; /* set when hindsight itself is to end; may be NULL */
	struct gdb_decoder in;
	struct buf out;	 /* not yet sent */
	struct buf last; /* last packet, for a peer that asks for it again */
	bool gone;	 /* nothing more comes or goes */
	struct err why;	 /* if gone, unless the peer closed: then empty */
};

/* Takes over fd and makes it non-blocking. */
int gdb_conn_open(struct gdb_conn *c, int fd, struct err *err);
void gdb_conn_close(struct gdb_conn *c);

/*
 * Wait up to timeout_ms (0: not at all, -1: for ever) for something from the peer, and take in what
 * there is. A second gdb that knocks is told so, and turned away.
 */
void gdb_conn_wait(struct gdb_conn *c, int timeout_ms);
/* Send a packet; waits while the peer reads, for stall_ms at a time. */
void gdb_conn_send(struct gdb_conn *c, const void *payload, size_t n);

/* hindsight is to end. */
static inline bool gdb_conn_quit(const struct gdb_conn *c)
{
	return c->quit && *c->quit;
}

#endif
