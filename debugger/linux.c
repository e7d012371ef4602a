// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/linux.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * Documentation/admin-guide/kernel-parameters.txt. As few as can be; each has its reason here.
 *
 *   console=ttyS0    the machine has no other console
 *   panic=-1         a panic resets at once, which ends the run; else it would spin until a time limit
 *   tsc=unstable     keeps the TSC from being the clock that the vDSO reads in user mode, where RDTSC is
 *                    not ours to answer on every host; then clocks go through system calls. Also the
 *                    kernel does not compare the TSC, which stands still while the guest computes, with
 *                    the timer's ticks
 *   mitigations=off  page table isolation and the like make each system call dearer, most of all where
 *                    kernel code is emulated; and nothing here is to be protected
 */
static const char parameters[] = "console=ttyS0 panic=-1 tsc=unstable mitigations=off";

int linux_parameters(const struct machine_config *config, char **text, struct err *err)
{
	char devices[DEVICES_PARAMETERS_MAX];

	devices_parameters(config, devices);
	if (asprintf(text, "%s%s%s", parameters, *devices ? " " : "", devices) < 0) {
		*text = NULL;
		return err_set(err, ENOMEM, "out of memory for the command line");
	}
	return 0;
}

/*
 * arch/x86/kernel/dumpstack.c: __die prints "NAME: ERROR [#COUNT]" for every oops, whatever its cause,
 * and oops_exit and __warn (kernel/panic.c) end with "---[ end trace". The last line of a panic depends
 * on the parameter panic=: none, "Rebooting in" or "---[ end Kernel panic"; before it all x86 kernels
 * print their "Kernel Offset". What the watchdogs print (kernel/hung_task.c, kernel/watchdog.c,
 * kernel/rcu/tree_stall.h, kernel/workqueue.c) is followed by a stack.
 */
static const struct linux_report reports[] = {
	{"panic", "Kernel panic - not syncing", "Kernel Offset: |Rebooting in |---\\[ end Kernel panic"},
	{"oops", ": [0-9a-f]{4} \\[#[0-9]+\\]", "---\\[ end trace "},
	{"warn", "WARNING: (CPU: [0-9]+ PID: |.* at .* CPU#)", "---\\[ end trace "},
	{"hung",
	 "blocked for more than [0-9]+ seconds|soft lockup - CPU#|detected (expedited )?stalls? on|"
	 "self-detected stall|workqueue lockup|hard LOCKUP",
	 "</TASK>"},
};

const struct linux_report *linux_find_report(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(reports); i++) {
		if (strcmp(reports[i].name, name) == 0)
			return &reports[i];
	}
	return NULL;
}
