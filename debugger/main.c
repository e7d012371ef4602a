// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/cmd_doctor.h"
#include "debugger/commands.h"
#include "debugger/options.h"

#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"doctor", cmd_doctor, "what this host's KVM can do, and what follows from it"},
	{"run", cmd_run, "run a guest without recording it"},
	{"record", cmd_record, "run a guest and record it into a trace"},
	{"replay", cmd_replay, "replay a trace, with the guest's output"},
	{"verify", cmd_verify, "replay a trace and compare everything that was recorded"},
	{"info", cmd_info, "what is in a trace"},
	{"index", cmd_index, "leave checkpoints in a trace, for quick sessions"},
	{"snapshot", cmd_snapshot, "take a state out of a trace, compare two, go on live from one"},
	{"gdb", cmd_gdb, "start gdb on a trace, forward and back"},
	{"last-write", cmd_last_write, "who wrote to an address last"},
	{"first-write", cmd_first_write, "who wrote to an address first after a position"},
};

static void usage(FILE *out)
{
	fprintf(out, "usage: hindsight COMMAND [ARGUMENTS]\n\n"
		     "Record-replay debugger for guest kernels on KVM. Commands:\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].help);
	fprintf(out, "\nhindsight COMMAND --help tells more. The exit status of run, record and replay is what the\n"
		     "guest wrote to its exit port (0xf4); without that: %d halted for good, %d triple fault, %d\n"
		     "reset, %d time limit, %d hindsight could not do it, %d interrupted.\n",
		STATUS_HALTED, STATUS_TRIPLE_FAULT, STATUS_RESET, STATUS_LIMIT, STATUS_FAILED,
		STATUS_INTERRUPTED);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return STATUS_FAILED;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return STATUS_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "hindsight: \"%s\" is not a command; see hindsight --help\n", argv[1]);
	return STATUS_FAILED;
}
