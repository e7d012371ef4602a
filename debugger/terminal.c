// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/terminal.h"

#include "debugger/session.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* Ctrl-A, as in QEMU and screen. */
#define ESCAPE 0x01
#define KEYS_MAX 256

struct terminal {
	struct machine *m;
	unsigned channel;
	bool escaped; /* the escape key was the last */
	bool gone;    /* nothing will be typed any more */
	uint8_t keys[KEYS_MAX]; /* typed and not taken yet */
	size_t n;
	uint8_t window[WINDOW_SIZE]; /* as last told */
};

/* A signal handler has nothing but globals. */
static struct termios before;
static volatile sig_atomic_t is_raw;

static void restore(void)
{
	if (is_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
	is_raw = 0;
}

/* Those of our own faults, and of an impatient user, that end the program where it stands. */
static const int fatal_signals[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGQUIT, SIGPIPE};

/* The terminal is gone. */
static void on_hangup(int sig)
{
	(void)sig;
	session_interrupt();
}

static void on_fatal(int sig)
{
	/* tcsetattr may be called here (signal-safety(7)). */
	restore();
	/* By SA_RESETHAND the signal now does what it does by itself. */
	raise(sig);
}

int terminal_open(struct terminal **out, struct machine *m, unsigned channel, struct err *err)
{
	struct sigaction sa = {.sa_handler = on_fatal, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
	struct sigaction hangup = {.sa_handler = on_hangup};
	struct terminal *t;
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return err_set(err, ENOTTY, "--console needs a terminal as standard input; see --input for a file");
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, ENOMEM, "out of memory for the terminal");
	t->m = m;
	t->channel = channel;
	for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
		sigaction(fatal_signals[i], &sa, NULL);
	sigaction(SIGHUP, &hangup, NULL);
	raw = before;
	cfmakeraw(&raw);
	/* Our own messages share the terminal, and end their lines with \n alone. */
	raw.c_oflag = before.c_oflag;
	is_raw = 1;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0) {
		is_raw = 0;
		free(t);
		return err_sys(err, errno, "cannot make the terminal raw");
	}
	*out = t;
	return 0;
}

void terminal_close(struct terminal *t)
{
	if (t)
		restore();
	free(t);
}

/* --- keys ------------------------------------------------------------------------------------ */

static void after_escape(struct terminal *t, uint8_t key)
{
	if (key == 'x') {
		session_interrupt();
	} else if (key == 'c') {
		fprintf(stderr, "\nhindsight: position %" PRIu64 ", guest time %.6f s\n", t->m->boundary,
			(double)t->m->vtime / (double)NSEC_PER_SEC);
	} else if (key == ESCAPE) {
		t->keys[t->n++] = ESCAPE;
	} else {
		fputs("\n" TERMINAL_HELP, stderr);
	}
}

/* Take what was typed as long as there is room for it. */
static bool keys_ready(void *ctx)
{
	struct terminal *t = ctx;
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	uint8_t key;

	while (!t->gone && t->n < sizeof(t->keys) && poll(&p, 1, 0) > 0) {
		ssize_t got = read(STDIN_FILENO, &key, 1);

		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			break;
		if (got <= 0) {
			t->gone = true;
		} else if (t->escaped) {
			t->escaped = false;
			after_escape(t, key);
		} else if (key == ESCAPE) {
			t->escaped = true;
		} else {
			t->keys[t->n++] = key;
		}
	}
	return t->n || t->gone;
}

static int keys_take(void *ctx, uint8_t *out, size_t room, struct err *err)
{
	struct terminal *t = ctx;
	size_t n;

	(void)err;
	keys_ready(t);
	n = t->n < room ? t->n : room;
	memcpy(out, t->keys, n);
	t->n -= n;
	memmove(t->keys, t->keys + n, t->n);
	return n ? (int)n : t->gone ? -ENODATA : 0;
}

static unsigned keys_watch(void *ctx, struct pollfd *fds, unsigned max, int *timeout_ms)
{
	(void)ctx;
	(void)timeout_ms;
	if (!max)
		return 0;
	fds[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	return 1;
}

struct input_source terminal_keys(struct terminal *t)
{
	return (struct input_source){.channel = t->channel,
				     .ctx = t,
				     .ready = keys_ready,
				     .take = keys_take,
				     .watch = keys_watch};
}

/* --- the window ------------------------------------------------------------------------------ */

static bool window_now(uint8_t window[WINDOW_SIZE])
{
	struct winsize size;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row)
		return false;
	window[0] = (uint8_t)size.ws_col;
	window[1] = (uint8_t)(size.ws_col >> 8);
	window[2] = (uint8_t)size.ws_row;
	window[3] = (uint8_t)(size.ws_row >> 8);
	return true;
}

static bool window_ready(void *ctx)
{
	const struct terminal *t = ctx;
	uint8_t now[WINDOW_SIZE];

	return window_now(now) && memcmp(now, t->window, sizeof(now)) != 0;
}

static int window_take(void *ctx, uint8_t *out, size_t room, struct err *err)
{
	struct terminal *t = ctx;

	(void)err;
	if (room < WINDOW_SIZE || !window_ready(t) || !window_now(t->window))
		return 0;
	memcpy(out, t->window, WINDOW_SIZE);
	return WINDOW_SIZE;
}

/* A new size wakes nobody; it is seen when the recorder looks again, some times a second. */
static unsigned window_watch(void *ctx, struct pollfd *fds, unsigned max, int *timeout_ms)
{
	(void)ctx;
	(void)fds;
	(void)max;
	(void)timeout_ms;
	return 0;
}

struct input_source terminal_window(struct terminal *t)
{
	return (struct input_source){.channel = INPUT_WINDOW,
				     .ctx = t,
				     .ready = window_ready,
				     .take = window_take,
				     .watch = window_watch};
}
