/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Breakpoints in memory that may not be executed. A function that gdb calls returns to the stack, where gdb has a
 * breakpoint; in such memory the fetch faults before any breakpoint is reached that is a byte. So where there is one, the
 * guest is stopped at its handler for page faults as well, and a fault of that fetch is taken back: the guest stands at the
 * breakpoint. Below its stack pointer the frame stays, and CR2. For guests that are not replayed.
 */
#ifndef DEBUGGER_LANDING_H
#define DEBUGGER_LANDING_H

#include "vmm/machine.h"

struct landing {
	const struct breakpoint_set *wanted;
	bool on;
	gva_t handler;
	gva_t *address; /* the wanted ones and the handler */
	struct breakpoint_set set; /* to run with */
};

/* With the page tables as they are now. -ENOMEM. End with landing_end. */
int landing_begin(struct landing *l, const struct machine *m, const struct breakpoint_set *wanted, struct err *err);
void landing_end(struct landing *l);
/* Is the guest at the handler? Takes the fault back if it is of such a fetch; otherwise the handler is to be passed. */
int landing_look(const struct landing *l, struct machine *m, bool *at_handler, struct err *err);

#endif
