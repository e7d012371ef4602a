// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/session.h"

#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Longest line that --until looks at; the rest of a longer one is looked at by itself. */
#define LINE_MAX_LEN 512

struct console {
	struct machine *m;
	bool has_pattern;
	regex_t pattern;
	char line[LINE_MAX_LEN];
	size_t len;
};

/* A signal handler has nothing but globals. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

const volatile sig_atomic_t *session_catch_interrupts(void)
{
	struct sigaction sa = {.sa_handler = on_interrupt};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	return &interrupted;
}

void console_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct console *c = ctx;

	fputc(byte, stream == DEV_STREAM_SERIAL ? stdout : stderr);
	if (stream != DEV_STREAM_SERIAL)
		return;
	if (byte == '\n') {
		fflush(stdout);
		c->len = 0;
		return;
	}
	if (!c->has_pattern || byte == '\r' || !byte)
		return;
	if (c->len == sizeof(c->line) - 1)
		c->len = 0;
	c->line[c->len++] = (char)byte;
	c->line[c->len] = 0;
	if (regexec(&c->pattern, c->line, 0, NULL, 0) == 0)
		machine_end(c->m, END_UNTIL, 0);
}

int console_create(struct console **out, struct machine *m, const char *pattern, struct err *err)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(err, ENOMEM, "out of memory");
	c->m = m;
	if (pattern) {
		int rc = regcomp(&c->pattern, pattern, REG_EXTENDED | REG_NOSUB);

		if (rc) {
			char text[128];

			regerror(rc, &c->pattern, text, sizeof(text));
			free(c);
			return err_set(err, EINVAL, "--until: \"%s\" is not a regular expression: %s", pattern, text);
		}
		c->has_pattern = true;
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
	if (rc == 0 && !quiet)
		rc = console_create(&s->console, NULL, NULL, err);
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

int session_run(struct session *s, struct err *err)
{
	int rc = replay_run(&s->replay, err);

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

void session_report_end(const struct machine *m, const char *what)
{
	fflush(stdout);
	fprintf(stderr, "hindsight: %s: %s", what, machine_end_name(m->end));
	if (m->end == END_EXIT)
		fprintf(stderr, " (status %u)", m->end_code);
	fprintf(stderr, " at boundary %" PRIu64 ", guest time %.6f s\n", m->boundary,
		(double)m->vtime / (double)NSEC_PER_SEC);
}

void session_print_assists(FILE *to, const char *label, const struct assist_counts *counts)
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

int session_fail(const struct err *err)
{
	fflush(stdout);
	fprintf(stderr, "hindsight: %s\n", err->text);
	return STATUS_FAILED;
}
