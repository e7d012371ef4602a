// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/session.h"

#include "debugger/begin.h"
#include "debugger/fallback.h"
#include "debugger/linux.h"
#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Longest line that --until looks at; the rest of a longer one is looked at by itself. */
#define LINE_MAX_LEN 512

/* A line of one of the streams that go to standard output. */
struct line {
	char text[LINE_MAX_LEN];
	size_t len;
};

struct console {
	struct machine *m;
	bool has_pattern, has_last;
	regex_t pattern;
	struct line serial, port;
	FILE *files[VIRTIO_CONSOLE_PORTS]; /* of the ports from 1 on; NULL: their output is dropped */
	regex_t last; /* the line that the run ends with once the pattern has matched */
	bool matched;
};

/* A signal handler has nothing but globals. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

void session_interrupt(void)
{
	interrupted = 1;
}

const volatile sig_atomic_t *session_catch_interrupts(void)
{
	struct sigaction sa = {.sa_handler = on_interrupt};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	return &interrupted;
}

void session_show_progress(void *ctx, double part, double seconds)
{
	(void)ctx;
	if (!isatty(STDERR_FILENO))
		return;
	/* CSI K: erase to the end of the line (ECMA-48, 8.3.41). */
	fprintf(stderr, "\r\033[K");
	if (part < 1)
		fprintf(stderr, "hindsight: %.0f%%", 100 * part);
	if (part < 1 && isfinite(seconds))
		fprintf(stderr, ", about %.0f s more", seconds + 0.5);
	fflush(stderr);
}

static void show(struct console *c, struct line *l, uint8_t byte)
{
	fputc(byte, stdout);
	if (byte == '\n') {
		fflush(stdout);
		/* The last line of a report is worth having whole. */
		if (c->matched && c->has_last && regexec(&c->last, l->text, 0, NULL, 0) == 0)
			machine_end(c->m, END_UNTIL, 0);
		l->len = 0;
		l->text[0] = 0;
		return;
	}
	if (!c->has_pattern || byte == '\r' || !byte)
		return;
	if (l->len == sizeof(l->text) - 1)
		l->len = 0;
	l->text[l->len++] = (char)byte;
	l->text[l->len] = 0;
	if (c->matched || regexec(&c->pattern, l->text, 0, NULL, 0) != 0)
		return;
	c->matched = true;
	if (!c->has_last)
		machine_end(c->m, END_UNTIL, 0);
}

void console_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct console *c = ctx;
	unsigned port = (unsigned)stream - DEV_STREAM_PORT;

	if (stream == DEV_STREAM_DEBUG)
		fputc(byte, stderr);
	else if (stream == DEV_STREAM_SERIAL)
		show(c, &c->serial, byte);
	else if (port == 0)
		show(c, &c->port, byte);
	else if (port < VIRTIO_CONSOLE_PORTS && c->files[port])
		fputc(byte, c->files[port]);
}

static int open_files(struct console *c, const char *path, struct err *err)
{
	for (unsigned i = 1; path && i < VIRTIO_CONSOLE_PORTS; i++) {
		char name[PATH_MAX];

		snprintf(name, sizeof(name), "%s.%u", path, i);
		c->files[i] = fopen(name, "we");
		if (!c->files[i])
			return err_sys(err, errno, "cannot create %s for the output of port %u", name, i);
	}
	return 0;
}

bool console_matched(const struct console *c)
{
	return c->matched;
}

static int compile(regex_t *regex, bool *has, const char *pattern, struct err *err)
{
	int rc = regcomp(regex, pattern, REG_EXTENDED | REG_NOSUB);
	char text[128];

	*has = rc == 0;
	if (*has)
		return 0;
	regerror(rc, regex, text, sizeof(text));
	return err_set(err, EINVAL, "--until: \"%s\" is not a regular expression: %s", pattern, text);
}

int console_create(struct console **out, struct machine *m, const char *pattern, const char *files,
		   struct err *err)
{
	const struct linux_report *report = pattern ? linux_find_report(pattern) : NULL;
	struct console *c = calloc(1, sizeof(*c));
	int rc = 0;

	if (!c)
		return err_set(err, ENOMEM, "out of memory");
	c->m = m;
	if (pattern)
		rc = compile(&c->pattern, &c->has_pattern, report ? report->begins : pattern, err);
	if (rc == 0 && report)
		rc = compile(&c->last, &c->has_last, report->ends, err);
	if (rc == 0)
		rc = open_files(c, files, err);
	if (rc < 0) {
		console_destroy(c);
		return rc;
	}
	*out = c;
	return 0;
}

void console_destroy(struct console *c)
{
	if (!c)
		return;
	if (c->has_pattern)
		regfree(&c->pattern);
	for (unsigned i = 1; i < VIRTIO_CONSOLE_PORTS; i++)
		if (c->files[i])
			fclose(c->files[i]);
	if (c->has_last)
		regfree(&c->last);
	fflush(stdout);
	free(c);
}

int session_map_file(const char *path, const uint8_t **data, size_t *size, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0)
		return err_sys(err, errno, "cannot open %s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
		close(fd);
		return err_set(err, EINVAL, "%s is empty or not a regular file", path);
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return err_sys(err, errno, "cannot read %s", path);
	*data = p;
	*size = (size_t)st.st_size;
	return 0;
}

int session_open(struct session *s, const struct options *o, const struct replay_options *ro,
		 bool quiet, struct err *err)
{
	struct replay_options options = *ro;
	enum clock_kind clock;
	int rc = host_pin_thread(err);

	*s = (struct session){0};
	options.interrupted = session_catch_interrupts();
	options.disk = o->disk;
	options.begin = begin_restore;
	if (rc == 0 && !quiet)
		rc = console_create(&s->console, NULL, NULL, o->port_output, err);
	if (rc == 0)
		rc = replay_open(&s->replay, o->file, o->clock != CLOCK_CHOICE_STATE, &options,
				 quiet ? NULL : console_output, s->console, err);
	/* Said only now, when the host has been looked at. */
	if (rc == 0)
		rc = options_clock(o, &s->replay.machine->caps, &clock, err);
	if (rc < 0)
		session_close(s);
	return rc;
}

int session_run(struct session *s, const struct options *o, struct err *err)
{
	const struct fallback_options fo = {.memory = o->snapshot_memory};
	int rc = fallback_run(&s->replay, &fo, err);

	if (rc == 0 && s->replay.machine->end == END_INTERRUPTED && interrupted)
		return err_set(err, EINTR, "interrupted at position %" PRIu64, s->replay.machine->boundary);
	return rc;
}

void session_close(struct session *s)
{
	replay_close(&s->replay);
	console_destroy(s->console);
	*s = (struct session){0};
}

int session_status(const struct machine *m)
{
	switch (m->end) {
	case END_EXIT:
		return (int)(m->end_code & 0xff);
	case END_HALTED:
		return STATUS_HALTED;
	case END_TRIPLE_FAULT:
		return STATUS_TRIPLE_FAULT;
	case END_RESET:
		return STATUS_RESET;
	case END_LIMIT:
		return STATUS_LIMIT;
	case END_INTERRUPTED:
		return STATUS_INTERRUPTED;
	default:
		return STATUS_OK;
	}
}

/* Code that came while the guest ran. */
static void report_modules(const struct machine *m)
{
	const uint64_t *count = m->sites.module_count;
	const char *label = "hindsight: rewritten in modules:";

	for (unsigned i = 0; i < REWRITE_KINDS; i++) {
		if (!count[i])
			continue;
		fprintf(stderr, "%s %s %" PRIu64, label, rewrite_kind_name(i), count[i]);
		label = "";
	}
	if (!*label)
		fprintf(stderr, "\n");
}

void session_report_end(const struct machine *m, const char *what)
{
	fflush(stdout);
	fprintf(stderr, "hindsight: %s: %s", what, machine_end_name(m->end));
	if (m->end == END_EXIT)
		fprintf(stderr, " (status %u)", m->end_code);
	fprintf(stderr, " at boundary %" PRIu64 ", guest time %.6f s\n", m->boundary,
		(double)m->vtime / (double)NSEC_PER_SEC);
	report_modules(m);
}

void session_print_counts(FILE *to, const char *label, const struct assist_counts *counts)
{
	if (!counts->len)
		return;
	fputs(label, to);
	/* Names may come from a file: nothing that could drive a terminal. */
	for (unsigned i = 0; i < counts->len; i++) {
		fputs(i ? ", " : "", to);
		for (const char *s = counts->of[i].name; *s; s++)
			fputc(*s >= 0x20 && *s < 0x7f ? *s : '?', to);
		fprintf(to, " %" PRIu64, counts->of[i].count);
	}
	fputc('\n', to);
}

void session_print_registers(FILE *to, const struct machine *m)
{
	struct kvm_regs regs = event_regs(&m->vcpu[0]);
	uint64_t value[REGS_COUNT];

	memcpy(value, &regs, sizeof(value));
	for (unsigned i = 0; i < REGS_COUNT; i++)
		fprintf(to, "%-6s %016" PRIx64 "%s", event_reg_name(i), value[i],
			i % 4 == 3 || i + 1 == REGS_COUNT ? "\n" : "  ");
}

int session_fail(const struct err *err)
{
	fflush(stdout);
	fprintf(stderr, "hindsight: %s\n", err->text);
	return STATUS_FAILED;
}

void session_print_user_code(const struct user_code_found found[USER_INSTRUCTIONS])
{
	const char *title = "hindsight: user code holds instructions whose result no host lets us decide; if the guest"
			    " executes one, replays can diverge:\n";

	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++) {
		if (!found[i].places)
			continue;
		fprintf(stderr, "%s  %s at 0x%" PRIx64 " (page tables at 0x%" PRIx64 ")", title,
			user_instruction_name(i), found[i].gva.v, found[i].cr3);
		if (found[i].places > 1)
			fprintf(stderr, " and in %" PRIu64 " more places", found[i].places - 1);
		fprintf(stderr, "\n");
		title = "";
	}
}

void session_print_event(FILE *to, const struct event *e)
{
	char channel[CHANNEL_NAME_MAX];

	fprintf(to, "  %12" PRIu64 "  %-8s", e->boundary, event_type_name(e->type));
	switch (e->type) {
	case EVENT_LANDMARK:
		fprintf(to, "  rip 0x%llx", e->landmark.regs.rip);
		if (e->landmark.has_clock)
			fprintf(to, " after %" PRIu64 " instructions", e->landmark.clock);
		fprintf(to, ", %.6f ms pass\n", (double)e->landmark.advance / (double)NSEC_PER_MSEC);
		break;
	case EVENT_DIGEST:
		fprintf(to, "  state %016" PRIx64 " memory %016" PRIx64 "\n", e->digest.digest.state,
		       e->digest.digest.memory);
		break;
	case EVENT_INPUT:
		event_channel_name(e->input.channel, channel);
		fprintf(to, "  %u bytes to %s%s\n", e->input.len, channel,
		       e->input.when == INPUT_HALTED	  ? " while halted"
		       : e->input.when == INPUT_AT_LANDMARK ? " at the landmark"
							    : "");
		break;
	case EVENT_TIME:
		fprintf(to, "  %.6f ms pass\n", (double)e->time.advance / (double)NSEC_PER_MSEC);
		break;
	case EVENT_END:
		fprintf(to, "  %s, status %u\n", machine_end_name(e->end.end), e->end.code);
		break;
	}
}
