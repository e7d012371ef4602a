// SPDX-License-Identifier: GPL-3.0-or-later
/* What is known of Linux: its reports are told from each other by lines of real consoles, and the command
 * line is ours, then the user's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "debugger/linux.h"

#include <regex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"panic", "oops", "warn", "hung"};

#define NAMES (sizeof(names) / sizeof(names[0]))

/* Linux 6.1 unless said otherwise; which report begins and which ends there, NULL for none. Ends are many
 * reports' last lines: the first that begun is meant. */
static const struct {
	const char *line, *begins;
	const char *ends[3];
} console[] = {
	{"[    0.724015] ------------[ cut here ]------------", NULL, {NULL}},
	{"[    0.724015] WARNING: CPU: 0 PID: 21 at /tmp/trouble.c:8 i+0x28/0x1000 [trouble]", "warn", {NULL}},
	/* Linux 6.16 */
	{"[    1.724015] WARNING: kernel/fork.c:123 at copy_process+0x1/0x2, CPU#1: sh/17", "warn", {NULL}},
	{"[    0.732016] ---[ end trace 0000000000000000 ]---", NULL, {"oops", "warn"}},
	{"[    0.908014] kernel BUG at /tmp/trouble.c:9!", NULL, {NULL}},
	{"[    0.908014] invalid opcode: 0000 [#1] NOPTI", "oops", {NULL}},
	{"[    0.852012] general protection fault, maybe for address 0x0: 0000 [#1] NOPTI", "oops", {NULL}},
	{"[    2.534844] BUG: unable to handle page fault for address: 00000000fffedc84", NULL, {NULL}},
	{"[    2.538842] #PF: error_code(0x0002) - not-present page", NULL, {NULL}},
	{"[    2.538842] Oops: 0002 [#1] NOPTI", "oops", {NULL}},
	/* Linux 6.10 */
	{"[    2.538842] Oops: Oops: 0002 [#12] PREEMPT SMP PTI", "oops", {NULL}},
	{"[    2.538842] RIP: 0010:jobs_finish+0x4b/0x90 [leases]", NULL, {NULL}},
	{"[    2.538842] DR3: 0000000000000000 DR6: 00000000fffe0ff0 DR7: 0000000000000400", NULL, {NULL}},
	{"[    1.260008] Kernel panic - not syncing: trouble asked for", "panic", {NULL}},
	{"[    1.260008]  </TASK>", NULL, {"hung"}},
	{"[    1.260008] Kernel Offset: disabled", NULL, {"panic"}},
	{"[    1.260008] Kernel Offset: 0x2c00000 from 0xffffffff81000000 (relocation range: "
	 "0xffffffff80000000-0xffffffffbfffffff)", NULL, {"panic"}},
	{"[    1.260008] Rebooting in 5 seconds..", NULL, {"panic"}},
	{"[    1.260008] ---[ end Kernel panic - not syncing: trouble asked for ]---", "panic", {"panic"}},
	{"[    4.608251] INFO: task stuck:22 blocked for more than 2 seconds.", "hung", {NULL}},
	{"[    4.608251] \"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\" disables this message.", NULL, {NULL}},
	{"[    6.452366] watchdog: BUG: soft lockup - CPU#0 stuck for 6s! [insmod:21]", "hung", {NULL}},
	{"[   21.000000] rcu: INFO: rcu_sched self-detected stall on CPU", "hung", {NULL}},
	{"[   21.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "hung", {NULL}},
	{"[   31.000000] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!", "hung", {NULL}},
	{"[    0.000000] Command line: console=ttyS0 panic=-1 tsc=unstable", NULL, {NULL}},
	{"workload: signals: ok", NULL, {NULL}},
};

static bool matches(const char *pattern, const char *line)
{
	regex_t regex;
	bool match;

	assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	match = regexec(&regex, line, 0, NULL, 0) == 0;
	regfree(&regex);
	return match;
}

static void reports(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(console) / sizeof(console[0]); i++) {
		for (size_t k = 0; k < NAMES; k++) {
			const struct linux_report *r = linux_find_report(names[k]);
			bool ends = false;

			assert_non_null(r);
			for (size_t n = 0; n < 3; n++)
				ends |= console[i].ends[n] && strcmp(console[i].ends[n], names[k]) == 0;
			if (matches(r->begins, console[i].line) !=
			    (console[i].begins && strcmp(console[i].begins, names[k]) == 0))
				fail_msg("begin of %s: %s", names[k], console[i].line);
			if (matches(r->ends, console[i].line) != ends)
				fail_msg("end of %s: %s", names[k], console[i].line);
		}
	}
	assert_null(linux_find_report("oop"));
	assert_null(linux_find_report(""));
}

/* The devices that the machine has are named, in the words of virtio_mmio.c, and no others. */
static void command_line(void **state)
{
	const struct machine_config bare = {0}, disk = {.disk = true}, more = {.disk = true, .net = true};
	char *line, *with;

	(void)state;
	assert_int_equal(linux_parameters(&bare, &line, NULL), 0);
	assert_non_null(strstr(line, "console=ttyS0"));
	assert_null(strstr(line, "virtio_mmio.device="));
	assert_int_equal(linux_parameters(&disk, &with, NULL), 0);
	assert_int_equal(strncmp(with, line, strlen(line)), 0);
	assert_int_equal(strncmp(with + strlen(line), " virtio_mmio.device=4K@0x", 25), 0);
	free(line);
	assert_int_equal(linux_parameters(&more, &line, NULL), 0);
	assert_int_equal(strncmp(line, with, strlen(with)), 0);
	assert_int_equal(strncmp(line + strlen(with), " virtio_mmio.device=4K@0x", 25), 0);
	free(line);
	free(with);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reports),
		cmocka_unit_test(command_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
