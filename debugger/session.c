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
	bool quiet;
	bool has_pattern;
	regex_t pattern;
	char line[LINE_MAX_LEN];
	size_t len;
};

/* A signal handler has nothing but globals: these two are set once, before the guest runs. */
static volatile sig_atomic_t interrupted;
static struct vcpu *volatile interrupted_vcpu;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
	if (interrupted_vcpu)
		vcpu_kick(interrupted_vcpu);
}

const volatile sig_atomic_t *session_catch_interrupts(struct machine *m)
{
	struct sigaction sa = {.sa_handler = on_interrupt};

	interrupted_vcpu = m ? &m->vcpu[0] : NULL;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	return &interrupted;
}

static void console_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct console *c = ctx;

	if (!c->quiet)
		fputc(byte, stream == DEV_STREAM_SERIAL ? stdout : stderr);
	if (stream != DEV_STREAM_SERIAL)
		return;
	if (byte == '\n') {
		if (!c->quiet)
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

int console_create(struct console **out, struct machine *m, const char *pattern, bool quiet,
		   struct err *err)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(err, ENOMEM, "out of memory");
	c->m = m;
	c->quiet = quiet;
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
	m->output = console_output;
	m->output_ctx = c;
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
	int rc;

	*s = (struct session){0};
	rc = replay_file_open(&s->file, o->file, err);
	if (rc < 0)
		return rc;
	rc = host_pin_thread(err);
	if (rc == 0)
		rc = machine_create(&s->machine, &s->file->tm.config, &s->file->image, true, err);
	if (rc == 0)
		rc = options_clock(o, &s->machine->caps, &s->clock, err);
	if (rc == 0)
		rc = console_create(&s->console, s->machine, NULL, quiet, err);
	if (rc == 0) {
		options.clock = s->clock;
		options.interrupted = session_catch_interrupts(s->machine);
		rc = replayer_create(&s->replayer, s->machine, s->file, &options, err);
	}
	if (rc < 0)
		session_close(s);
	return rc;
}

void session_close(struct session *s)
{
	session_catch_interrupts(NULL);
	replayer_destroy(s->replayer);
	console_destroy(s->console);
	machine_destroy(s->machine);
	replay_file_close(s->file);
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

int session_fail(const struct err *err)
{
	fflush(stdout);
	fprintf(stderr, "hindsight: %s\n", err->text);
	return STATUS_FAILED;
}
