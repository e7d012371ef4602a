/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the commands share: the guest's files, its console, the user's Ctrl-C, and a replay with everything
 * it needs.
 */
#ifndef DEBUGGER_SESSION_H
#define DEBUGGER_SESSION_H

#include "debugger/options.h"
#include "replay/divergence.h"
#include "replay/recorder.h"
#include "replay/replay.h"

#include <stdio.h>

/* The guest's console: output of the serial line and of port 0 to stdout, lines matched against --until; of the
 * other ports to files. */
struct console;

/*
 * pattern may be NULL; when it matches, the run of m (NULL: none) ends with END_UNTIL. If it is the name of
 * a report of Linux (debugger/linux.h), that is at the end of the report. What port N sends goes to "files.N"; nowhere
 * if that is NULL.
 */
int console_create(struct console **c, struct machine *m, const char *pattern, const char *files,
		   struct err *err);
/* What was waited for has come, or at least begun. */
bool console_matched(const struct console *c);
void console_destroy(struct console *c);
/* Suits machine.output; ctx is the console. */
void console_output(void *ctx, enum dev_stream stream, uint8_t byte);

/* Map a file read-only; -EINVAL if it is empty or no regular file. */
int session_map_file(const char *path, const uint8_t **data, size_t *size, struct err *err);

/* Let Ctrl-C and SIGTERM set the flag that recorder and replayer look at, several times a second. */
const volatile sig_atomic_t *session_catch_interrupts(void);
/* Suits timeline_options.progress: a line on a terminal, gone when it is over; nothing if stderr is none. */
void session_show_progress(void *ctx, double part, double seconds);
/* As Ctrl-C would; may be called in a signal handler. */
void session_interrupt(void);

/*
 * Open o->file for replay on this thread: clock by o->clock, Ctrl-C caught, output as console unless quiet.
 * `ro` says the rest. Close with session_close.
 */
struct session {
	struct replay replay;
	struct console *console;
};

int session_open(struct session *s, const struct options *o, const struct replay_options *ro,
		 bool quiet, struct err *err);
/* As fallback_run; Ctrl-C ends it with -EINTR and a sentence that names the position. */
int session_run(struct session *s, const struct options *o, struct err *err);
void session_close(struct session *s);

/* Exit status for how a run ended. */
int session_status(const struct machine *m);
/* On stderr: how it ended, where, how much guest time; what was rewritten in modules. */
void session_report_end(const struct machine *m, const char *what);

/* One line. */
void session_print_event(FILE *to, const struct event *e);

/* cmd_gdb.c: serve the recording o->file to gdb at o->gdb. Returns the exit status. */
int gdb_serve_replay(const struct options *o);
/* Run m until its guest is over or gdb kills it, with o->gdb as a place where gdb can connect any time, and stop it. */
int gdb_serve_live(const struct options *o, struct machine *m, const struct recorder_options *ro, struct err *err);

/* cmd_run.c: go on live from the snapshot that the trace begins with (o->node), into o->output if given. Returns the exit status. */
int run_from_snapshot(struct options *o, struct replay_file *f);

/* Name the instructions found in user code that a replay cannot repeat; nothing if there are none. */
void session_print_user_code(const struct user_code_found found[USER_INSTRUCTIONS]);

void session_print_registers(FILE *to, const struct machine *m);
/* "sse 12, syscall 345"; nothing if there was nothing. */
void session_print_counts(FILE *to, const char *label, const struct assist_counts *counts);
/* Print the sentence and return STATUS_FAILED. */
int session_fail(const struct err *err);

#endif
