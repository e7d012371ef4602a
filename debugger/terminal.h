/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The user's terminal as the guest's console (--console): raw on standard input, with an escape key, and put back
 * as it was on every way out that a program can see.
 */
#ifndef DEBUGGER_TERMINAL_H
#define DEBUGGER_TERMINAL_H

#include "replay/input.h"

/* What --help says about it. */
#define TERMINAL_HELP                                                                                             \
	"With --console, Ctrl-A is the escape key: Ctrl-A x ends the run, Ctrl-A c shows the position,\n"        \
	"Ctrl-A Ctrl-A types a Ctrl-A.\n"

struct terminal;

/* Make the terminal on standard input raw, for machine m. What is typed goes to the channel (enum input_channel).
 * -ENOTTY if there is no terminal. */
int terminal_open(struct terminal **out, struct machine *m, unsigned channel, struct err *err);
/* Restore the terminal. NULL is fine. */
void terminal_close(struct terminal *t);

/* What is typed, and the size of the window, which only a console of virtio takes. */
struct input_source terminal_keys(struct terminal *t);
struct input_source terminal_window(struct terminal *t);

#endif
