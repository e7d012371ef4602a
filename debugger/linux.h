/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What is particular to Linux as a guest: the kernel parameters that it needs here, and the words by
 * which it tells that something went wrong.
 */
#ifndef DEBUGGER_LINUX_H
#define DEBUGGER_LINUX_H

#include "vmm/machine.h"

/*
 * The parameters that a Linux guest is given of itself: those that it needs here, and those that name the machine's
 * virtio devices. They belong before the user's, so that where the kernel heeds the last of several it is the user's.
 * Free the text.
 */
int linux_parameters(const struct machine_config *config, char **text, struct err *err);

/* A report in the console's stream: both are extended regular expressions for one line. */
struct linux_report {
	const char *name;
	const char *begins;
	const char *ends; /* the last line worth having */
};

/* NULL if there is none of that name. The names are panic, oops, warn and hung. */
const struct linux_report *linux_find_report(const char *name);

#endif
