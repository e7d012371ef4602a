// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/commands.h"
#include "debugger/index.h"
#include "debugger/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct summary {
	uint64_t events[EVENT_TIME + 1];
	struct event last; /* type 0: no event at all */
	bool truncated;
	uint64_t size; /* without the index */
	struct index_figures index;
};

static int read_events(struct replay_file *f, bool list, struct summary *sum, struct err *err)
{
	struct event e;
	int rc;

	while ((rc = replay_file_next(f, &e, err)) > 0) {
		sum->events[e.type]++;
		sum->last = e;
		if (list)
			session_print_event(stdout, &e);
	}
	sum->truncated = replay_file_truncated(f);
	sum->size = trace_reader_offset(f->reader);
	return rc;
}

/* All of it is looked at, as of the rest of the trace. */
static int read_index(const char *trace, struct index_figures *f, struct err *err)
{
	struct snapshots *t;
	int rc = snapshots_create(&t, INDEX_MEMORY, INDEX_SPILL_DIR, err);

	if (rc < 0)
		return rc;
	rc = index_load(t, trace, f, err);
	snapshots_destroy(t);
	return rc;
}

/* JSON string; the text comes from a hostile file. */
static void print_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

/* Digest of the last state the trace knows. */
static const struct machine_digest *last_digest(const struct event *e)
{
	switch (e->type) {
	case EVENT_LANDMARK:
		return &e->landmark.digest;
	case EVENT_DIGEST:
		return &e->digest.digest;
	case EVENT_END:
		return e->end.has_digest ? &e->end.digest : NULL;
	default:
		return NULL;
	}
}

static void print_json_counts(const char *name, const struct assist_counts *counts)
{
	printf(",\n \"%s\": {", name);
	for (unsigned i = 0; i < counts->len; i++) {
		printf("%s", i ? ", " : "");
		print_json_string(counts->of[i].name);
		printf(": %" PRIu64, counts->of[i].count);
	}
	printf("}");
}

static void print_json_modules(const struct trace_end *end)
{
	print_json_counts("rewritten_in_modules", &end->modules);
	printf(",\n \"module_sites\": [");
	for (unsigned i = 0; i < end->notes; i++) {
		printf("%s{\"address\": \"0x%" PRIx64 "\", \"instruction\": ", i ? ",\n  " : "", end->note[i].gva.v);
		print_json_string(rewrite_kind_name(end->note[i].kind));
		printf(", \"module\": ");
		print_json_string(end->note[i].module);
		printf("}");
	}
	printf("]");
}

static void print_json_user_code(const struct user_code_found found[USER_INSTRUCTIONS])
{
	bool any = false;

	printf(",\n \"user_code\": {");
	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++) {
		if (!found[i].places)
			continue;
		printf("%s\"%s\": {\"places\": %" PRIu64 ", \"first\": \"0x%" PRIx64 "\"}", any ? ", " : "",
		       user_instruction_name(i), found[i].places, found[i].gva.v);
		any = true;
	}
	printf("}");
}

static void print_json(const struct replay_file *f, const struct summary *sum)
{
	const struct trace_machine *tm = &f->tm;
	const struct machine_digest *d = last_digest(&sum->last);

	printf("{\"version\": %d, \"bytes\": %" PRIu64 ", \"complete\": %s, \"clock\": \"%s\",\n", TRACE_VERSION,
	       sum->size + sum->index.bytes, sum->truncated ? "false" : "true", clock_kind_name(tm->clock));
	printf(" \"machine\": {\"mem\": %" PRIu64 ", \"seed\": %" PRIu64 ", \"epoch\": %" PRId64
	       ", \"quantum_ns\": %" PRIu64 ", \"time_rate\": %g, \"cmdline\": ",
	       tm->config.mem_size, tm->config.seed, tm->config.epoch, tm->quantum, tm->time_rate);
	print_json_string(tm->cmdline);
	printf(", \"kernel_bytes\": %" PRIu64 ", \"initrd_bytes\": %" PRIu64 ", \"disk_bytes\": %" PRIu64
	       ", \"thin\": %s, \"begun\": %s, \"rng\": %s, \"net\": %s, \"ports\": %u},\n \"host\": {\"cpu\": ",
	       tm->kernel_size, tm->initrd_size, tm->disk_size, tm->thin ? "true" : "false",
	       tm->begun ? "true" : "false",
	       tm->config.rng ? "true" : "false", tm->config.net ? "true" : "false", tm->config.ports);
	print_json_string(tm->host_cpu);
	printf(", \"kernel\": ");
	print_json_string(tm->host_kernel);
	printf(", \"kernel_entry_seen\": %s", tm->entry_seen ? "true" : "false");
	printf("},\n \"events\": {\"landmarks\": %" PRIu64 ", \"digests\": %" PRIu64 ", \"inputs\": %" PRIu64
	       ", \"times\": %" PRIu64 "},\n \"boundaries\": %" PRIu64,
	       sum->events[EVENT_LANDMARK], sum->events[EVENT_DIGEST], sum->events[EVENT_INPUT],
	       sum->events[EVENT_TIME], sum->last.boundary);
	printf(",\n \"index\": {\"checkpoints\": %" PRIu64 ", \"pages\": %" PRIu64 ", \"bytes\": %" PRIu64 "}",
	       sum->index.checkpoints, sum->index.pages, sum->index.bytes);
	if (d)
		printf(",\n \"final_digest\": \"%016" PRIx64 "%016" PRIx64 "\"", d->state, d->memory);
	print_json_counts("assists", &f->end.assists);
	print_json_modules(&f->end);
	print_json_user_code(f->end.user_code);
	if (sum->last.type == EVENT_END) {
		printf(",\n \"end\": {\"reason\": ");
		print_json_string(machine_end_name(sum->last.end.end));
		printf(", \"code\": %u, \"vtime\": %" PRIu64 "}", sum->last.end.code, sum->last.end.vtime);
	}
	printf("}\n");
}

/* Text from the file, without what could drive a terminal. */
static void print_safe(const char *s)
{
	for (; *s; s++)
		putchar(*s >= 0x20 && *s < 0x7f ? *s : '?');
}

static void print_labelled(const char *label, const char *s)
{
	printf("%-12s", label);
	print_safe(s);
	putchar('\n');
}

static void print_modules(const struct trace_end *end)
{
	uint64_t all = 0;

	session_print_counts(stdout, "in modules  ", &end->modules);
	for (unsigned i = 0; i < end->modules.len; i++)
		all += end->modules.of[i].count;
	for (unsigned i = 0; i < end->notes; i++) {
		const struct rewrite_note *note = &end->note[i];

		printf("            0x%" PRIx64 " %s in ", note->gva.v, rewrite_kind_name(note->kind));
		print_safe(note->module[0] ? note->module : "a module without a name");
		putchar('\n');
	}
	if (all > end->notes)
		printf("            and %" PRIu64 " more\n", all - end->notes);
}

static void print_user_code(const struct user_code_found found[USER_INSTRUCTIONS])
{
	const char *label = "user code   ";

	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++) {
		if (!found[i].places)
			continue;
		printf("%s%s in %" PRIu64 " place%s from 0x%" PRIx64 " on", label, user_instruction_name(i),
		       found[i].places, found[i].places == 1 ? "" : "s", found[i].gva.v);
		label = ", ";
	}
	if (*label == ',')
		printf("\n");
}

static int print_text(const struct replay_file *f, const struct summary *sum, struct err *err)
{
	const struct trace_machine *tm = &f->tm;
	struct machine_config config = tm->config;
	char parameters[DEVICES_PARAMETERS_MAX];
	struct machine *m;
	size_t kinds[REWRITE_KINDS + 1] = {0};
	int rc;

	printf("machine     %" PRIu64 " MiB, seed %" PRIu64 ", quantum %g ms, time rate %g, clock %s\n",
	       tm->config.mem_size >> 20, tm->config.seed, (double)tm->quantum / (double)NSEC_PER_MSEC,
	       tm->time_rate, clock_kind_name(tm->clock));
	printf("files       kernel %" PRIu64 " bytes, initrd %" PRIu64 " bytes, disk %" PRIu64 " bytes%s\n",
	       tm->kernel_size, tm->initrd_size, tm->disk_size, tm->thin ? ", of which the trace has the hash only" : "");
	if (tm->begun)
		printf("begins      with a snapshot\n");
	devices_parameters(&tm->config, parameters);
	printf("virtio      %s\n", parameters[0] ? parameters : "nothing");
	print_labelled("cmdline", tm->cmdline);
	print_labelled("host", tm->host_cpu);
	print_labelled("host kernel", tm->host_kernel);
	printf("interrupts  user code gets them %s\n",
	       tm->entry_seen ? "at its next entry into the kernel, which is seen"
			      : "when the guest is found in its kernel, or at the next boundary");
	session_print_counts(stdout, "assists     ", &f->end.assists);
	print_modules(&f->end);
	print_user_code(f->end.user_code);
	printf("events      %" PRIu64 " landmarks, %" PRIu64 " digests, %" PRIu64 " inputs\n",
	       sum->events[EVENT_LANDMARK], sum->events[EVENT_DIGEST], sum->events[EVENT_INPUT]);
	if (sum->index.checkpoints)
		printf("index       %" PRIu64 " checkpoints of %" PRIu64 " different pages, %" PRIu64 " bytes\n",
		       sum->index.checkpoints, sum->index.pages, sum->index.bytes);
	if (sum->last.type == EVENT_END)
		printf("end         %s, status %u, after %" PRIu64 " boundaries, guest time %.6f s\n",
		       machine_end_name(sum->last.end.end), sum->last.end.code, sum->last.boundary,
		       (double)sum->last.end.vtime / (double)NSEC_PER_SEC);
	else if (tm->begun && !sum->truncated)
		printf("end         none: this is a snapshot\n");
	else
		printf("end         none: the recorder was cut off after boundary %" PRIu64 "\n",
		       sum->last.boundary);
	/* What was rewritten follows from the kernel: load it once more. Needs a usable host. */
	config.disk = false; /* its image may be elsewhere */
	rc = machine_create(&m, &config, &f->image, false, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < m->sites.len; i++)
		kinds[m->sites.site[i].kind]++;
	printf("guest       %s\nrewritten  ", guest_kind_name(m->entry.kind));
	for (unsigned i = 0; i <= REWRITE_KINDS; i++)
		if (kinds[i])
			printf(" %s %zu", rewrite_kind_name(i), kinds[i]);
	printf("%s\n", m->sites.len ? "" : " nothing");
	machine_destroy(m);
	return 0;
}

int cmd_info(int argc, char **argv)
{
	unsigned takes = TAKES_FILE | TAKES_EVENTS;
	struct summary sum = {0};
	struct replay_file *f;
	struct options o;
	struct err err = {0};
	int rc;

	if (options_parse(argc, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s FILE [OPTIONS]\n\nWhat is in a trace.\n\n", argv[0]);
		options_help(stdout, takes);
		return STATUS_OK;
	}
	if (replay_file_open(&f, o.file, &err) < 0)
		return session_fail(&err);
	if (o.events && !o.json)
		printf("      boundary  event\n");
	rc = read_events(f, o.events && !o.json, &sum, &err);
	if (rc == 0)
		rc = read_index(o.file, &sum.index, &err);
	if (rc == 0) {
		if (o.json)
			print_json(f, &sum);
		else
			rc = print_text(f, &sum, &err);
	}
	replay_file_close(f);
	return rc < 0 ? session_fail(&err) : STATUS_OK;
}
