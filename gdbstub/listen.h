/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where gdb connects: a Unix socket, or a TCP port of this machine. Whoever reaches it owns the
 * guest and can read what is in it, so anything else is refused unless the user insists.
 */
#ifndef GDBSTUB_LISTEN_H
#define GDBSTUB_LISTEN_H

#include "base/err.h"
#include "base/types.h"

#include <signal.h>
#include <sys/un.h>

struct gdb_listener {
	int fd;
	bool remote; /* other machines may reach it: worth a warning */
	char name[sizeof(
		((struct sockaddr_un *)0)->sun_path)]; /* what to tell gdb's "target remote" */
	bool is_path; /* name is a socket file of ours, removed at the end */
};

/*
 * address: a path (with a '/' in it, or "unix:PATH"), or "PORT", ":PORT", "HOST:PORT" where HOST is
 * "localhost" or a numeric address, IPv6 in brackets; port 0 lets the kernel choose. Without
 * allow_remote, -EPERM if HOST is not of the loopback. A path gets mode 0600; one left by a process
 * that is gone is replaced.
 */
int gdb_listener_open(struct gdb_listener *l, const char *address, bool allow_remote,
		      struct err *err);
void gdb_listener_close(struct gdb_listener *l);

/* Wait up to timeout_ms (0: not at all, -1: for ever) for a gdb. Returns 1 and *fd, 0 if none came,
 * -EINTR once *quit (may be NULL) is set. */
int gdb_listener_accept(struct gdb_listener *l, int timeout_ms, const volatile sig_atomic_t *quit,
			int *fd, struct err *err);

#endif
