// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/commands.h"
#include "debugger/index.h"
#include "debugger/session.h"
#include "debugger/timeline.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* User code may be the cause: what was seen while recording, which stands at the trace's end, or what there is now. */
static void name_user_code(const struct session *s)
{
	struct machine *m = s->replay.machine;
	struct user_code_found found[USER_INSTRUCTIONS];
	struct kvm_sregs sregs;
	struct user_code *u;
	struct event e;

	if (user_code_create(&u, NULL) < 0)
		return;
	if (vcpu_get_sregs(&m->vcpu[0], &sregs, NULL) == 0)
		user_code_scan(u, m->mem, &sregs);
	memcpy(found, user_code_found(u), sizeof(found));
	user_code_destroy(u);
	while (replay_file_next(s->replay.file, &e, NULL) > 0)
		;
	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++)
		if (s->replay.file->end.user_code[i].places)
			found[i] = s->replay.file->end.user_code[i];
	session_print_user_code(found);
}

/* Replays agree with each other: with the recording too? Then this one went wrong when it went back. */
static void report_agreement(const struct session *s, const char *path, const struct replay_options *as_replayed)
{
	bool recurs = true;
	struct err err = {0};

	fprintf(stderr, "  two more replays agree with each other%s\n", s->replay.restarts ? "; comparing a third with the recording ..." : "");
	if (s->replay.restarts &&
	    divergence_recurs(path, as_replayed, replayer_divergence(s->replay.replayer), &recurs, &err) < 0) {
		fprintf(stderr, "  not compared: %s\n", err.text);
		return;
	}
	if (recurs)
		fprintf(stderr, "  the recording did what no replay does\n");
	else
		fprintf(stderr, "  they agree: this replay went wrong when it went back to an earlier place, %u times\n",
			s->replay.restarts);
	fprintf(stderr, "  a source of nondeterminism is open; see docs/determinism.md\n");
}

/* Tell all there is to know about a divergence. */
static void report_divergence(const struct session *s, const char *path)
{
	const struct divergence *d = replayer_divergence(s->replay.replayer);
	struct replay_options as_replayed = {.clock = s->replay.options.clock,
					     .disk = s->replay.options.disk,
					     .begin = s->replay.options.begin};
	struct divergence_site site;
	struct err err = {0};

	divergence_print(stderr, s->replay.replayer);
	name_user_code(s);
	fprintf(stderr, "  looking for where it began: replaying twice from boundary %" PRIu64 " ...\n",
		d->last_good);
	if (divergence_locate(path, &as_replayed, d, &site, &err) < 0)
		fprintf(stderr, "  not found: %s\n", err.text);
	else if (site.found)
		fprintf(stderr, "  began at position %" PRIu64 "+%" PRIu64 ": %s\n", site.at.boundary,
			site.at.steps, site.what);
	else
		report_agreement(s, path, &as_replayed);
}

/* Where the replay was to stop; nothing comes before a time. */
static void report_target(const struct replay_options *ro, struct position at)
{
	if (ro->target_time || position_order(at, ro->target) == 0)
		return;
	fprintf(stderr, "hindsight: there is no position %" PRIu64 "+%" PRIu64 ": this one came first\n",
		ro->target.boundary, ro->target.steps);
}

static int run(struct session *s, const struct options *o, bool verify, struct err *err)
{
	const struct replay_counts *c;
	const struct machine *m;
	struct position at;
	int rc = session_run(s, o, err);

	if (rc == -EILSEQ) {
		session_fail(err);
		report_divergence(s, o->file);
		return STATUS_DIVERGED;
	}
	if (rc < 0) {
		session_fail(err);
		return rc == -EINTR ? STATUS_INTERRUPTED : STATUS_FAILED;
	}
	m = s->replay.machine;
	c = replayer_counts(s->replay.replayer);
	at = replayer_position(s->replay.replayer);
	if (m->end == END_NONE) {
		fflush(stdout);
		fprintf(stderr, "hindsight: stopped at position %" PRIu64 "+%" PRIu64 ", guest time %.6f s\n",
			at.boundary, at.steps, (double)m->vtime / (double)NSEC_PER_SEC);
		report_target(&s->replay.options, at);
		session_print_registers(stderr, m);
		return STATUS_OK;
	}
	session_report_end(m, verify ? "verified" : "replayed");
	if (!verify)
		return session_status(m);
	fprintf(stderr,
		"hindsight: %s: %" PRIu64 " landmarks, %" PRIu64 " digests and %" PRIu64
		" inputs agree (clock %s, %" PRIu64 " stops, %" PRIu64 " ambiguous, %u restarts); 0 divergences\n",
		o->file, c->landmarks, c->digests, c->inputs, clock_kind_name(s->replay.options.clock),
		c->stops, c->ambiguous, s->replay.restarts);
	if (m->end == END_OF_TRACE)
		fprintf(stderr, "hindsight: the recorder was cut off: the trace is whole up to its last whole frame\n");
	return STATUS_OK;
}

static int command(int argc, char **argv, bool verify)
{
	unsigned takes = TAKES_FILE | TAKES_CLOCK | TAKES_DISK | (verify ? 0 : TAKES_TO | TAKES_PORT_OUTPUT | TAKES_MEMORY);
	struct replay_options ro = {0};
	struct session s;
	struct options o;
	struct err err = {0};
	int status;

	if (options_parse(argc, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s FILE [OPTIONS]\n\n%s\n\n", argv[0],
		       verify ? "Replay a trace to its end and compare every digest."
			      : "Replay a trace; the guest's serial output goes to stdout.");
		options_help(stdout, takes);
		printf("\nExit status: %s\n",
		       verify ? "0 if everything agreed, 1 on a divergence, 125 if the trace cannot be replayed."
			      : "the guest's own, as in the recording; 0 at --to; 1 on a divergence.");
		return STATUS_OK;
	}
	if (o.gdb)
		return gdb_serve_replay(&o);
	ro.has_target = o.has_to;
	if (o.has_to && o.to.kind == WHERE_TIME) {
		ro.target = (struct position){UINT64_MAX, 0};
		ro.target_time = o.to.vtime;
	} else if (where_position(&o.to, o.file, &ro.target, &err) < 0) {
		return session_fail(&err);
	}
	if (session_open(&s, &o, &ro, verify, &err) < 0)
		return session_fail(&err);
	if (o.has_to && index_enter(&s.replay, ro.target.boundary, ro.target_time, o.snapshot_memory, &err) < 0)
		status = session_fail(&err);
	else
		status = run(&s, &o, verify, &err);
	session_close(&s);
	return status;
}

int cmd_replay(int argc, char **argv)
{
	return command(argc, argv, false);
}

int cmd_verify(int argc, char **argv)
{
	return command(argc, argv, true);
}
