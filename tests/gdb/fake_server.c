// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Serve the fake target to real gdbs, one after the other, until SIGTERM:
 * fake_server ADDRESS [ROUNDS [SLICE_US]]. Prints what happens, a line each.
 */
#include "gdbstub/listen.h"
#include "gdbstub/session.h"
#include "tests/gdb/fake_target.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t quit;

static void on_signal(int sig)
{
	(void)sig;
	quit = 1;
}

static int serve(struct gdb_listener *l, struct fake *f, struct err *err)
{
	static const char *const ends[] = {[GDB_END_LOST] = "lost",
					   [GDB_END_DETACHED] = "detached",
					   [GDB_END_KILLED] = "killed"};
	const struct gdb_session_options options = {.listen_fd = l->fd, .quit = &quit};

	for (;;) {
		enum gdb_end end;
		int fd, rc = gdb_listener_accept(l, -1, &quit, &fd, err);

		if (rc >= 0)
			rc = gdb_session_serve(fd, &options, &f->target, &end, err);
		if (rc < 0)
			return rc;
		printf("%s at %" PRIu64 "%s%s\n", ends[end], f->position, err->text[0] ? ": " : "",
		       err->text);
	}
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct gdb_listener listener;
	struct fake *f;
	struct err err;

	if (argc < 2)
		return 2;
	f = fake_create(argc > 2 ? strtoull(argv[2], NULL, 10) : 1000, false);
	if (!f)
		return 1;
	f->slice_us = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
	sigaction(SIGTERM, &sa, NULL);
	if (gdb_listener_open(&listener, argv[1], false, &err)) {
		fprintf(stderr, "fake_server: %s\n", err.text);
		fake_destroy(f);
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("listening on %s\n", listener.name);
	serve(&listener, f, &err);
	printf("%s\n", err.text);
	gdb_listener_close(&listener);
	fake_destroy(f);
	return 0;
}
