// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/commands.h"
#include "debugger/index.h"
#include "debugger/session.h"
#include "vmm/kick.h"

#include <errno.h>
#include <inttypes.h>

static int make(const struct options *o, struct err *err)
{
	struct index_options options = {.every = o->every,
					.memory = o->snapshot_memory,
					.output = o->output,
					.use_clock = o->clock != CLOCK_CHOICE_STATE,
					.disk = o->disk,
					.interrupted = session_catch_interrupts()};
	struct index_figures f;
	int rc = host_pin_thread(err);

	if (rc == 0)
		rc = index_make(o->file, &options, &f, err);
	if (rc == 0)
		fprintf(stderr, "hindsight: %s: %" PRIu64 " checkpoints of %" PRIu64 " different pages, %" PRIu64
			" bytes\n", o->output ? o->output : o->file, f.checkpoints, f.pages, f.bytes);
	return rc;
}

int cmd_index(int argc, char **argv)
{
	unsigned takes = TAKES_FILE | TAKES_INDEX | TAKES_CLOCK | TAKES_DISK | TAKES_MEMORY;
	struct options o;
	struct err err = {0};
	int rc;

	if (options_parse(argc, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s FILE [OPTIONS]\n\n"
		       "Replay a trace once and leave checkpoints in it, so that gdb, replay --to and last-write reach any\n"
		       "place without replaying from the start. The trace is written anew, whole or not at all; an index\n"
		       "that it has is replaced.\n\n", argv[0]);
		options_help(stdout, takes);
		printf("\nExit status: 0; 1 on a divergence; 125 if it cannot be done; 130 interrupted. In all but the first\n"
		       "the trace is as it was.\n");
		return STATUS_OK;
	}
	rc = make(&o, &err);
	if (rc == 0)
		return STATUS_OK;
	session_fail(&err);
	return rc == -EILSEQ ? STATUS_DIVERGED : rc == -EINTR ? STATUS_INTERRUPTED : STATUS_FAILED;
}
