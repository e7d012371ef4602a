/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Command line: one table of options, of which each command takes a part.
 */
#ifndef DEBUGGER_OPTIONS_H
#define DEBUGGER_OPTIONS_H

#include "debugger/where.h"
#include "replay/replayer.h"

#include <stdio.h>

/* Exit statuses of our own. The guest's own status is 0-255 as it wrote it; these are what hindsight uses
 * when the guest did not say one. */
enum {
	STATUS_OK = 0,
	STATUS_DIVERGED = 1,      /* verify, replay: the replay is not what was recorded */
	STATUS_NOT_FOUND = 1,     /* last-write: nobody wrote there */
	STATUS_HALTED = 121,
	STATUS_TRIPLE_FAULT = 122,
	STATUS_RESET = 123,
	STATUS_LIMIT = 124,
	STATUS_FAILED = 125,      /* bad usage, bad file, host not usable, disk full */
	STATUS_INTERRUPTED = 130,
};

/* A kernel and the modules one looks into. */
#define SYMBOLS_FILES_MAX 16
#define POKES_MAX 16
/* Of snapshots taken at once. */
#define POSITIONS_MAX 256

enum clock_choice { CLOCK_CHOICE_AUTO, CLOCK_CHOICE_EMUL, CLOCK_CHOICE_STATE };

struct options {
	/* The guest. Paths are the caller's argv. */
	const char *kernel, *initrd, *append, *input, *disk;
	const char *port_input[VIRTIO_CONSOLE_PORTS], *port_output;
	struct machine_config machine;
	uint64_t quantum;
	double time_rate;
	uint64_t max_ns;
	const char *until;
	uint64_t retry;
	bool realtime, console, no_default_append;
	/* The trace. */
	const char *output;
	bool thin;
	const char *file, *second;
	enum clock_choice clock;
	uint64_t every; /* ns */
	uint64_t snapshot_memory; /* bytes */
	bool has_to;
	struct where to;
	struct where place[POSITIONS_MAX];
	size_t places;
	uint64_t node, since; /* numbers of snapshots in a file; 0: none given */
	bool chain;
	const char *gdb; /* where gdb is to connect */
	bool gdb_allow_remote;
	bool wait; /* for gdb before the guest's first instruction */
	/* Questions. */
	gva_t address;
	uint64_t length;
	bool events, json, physical;
	const char *poke[POKES_MAX]; /* ADDR=BYTES */
	size_t pokes;
	const char *symbol_file[SYMBOLS_FILES_MAX]; /* FILE or FILE@ADDR */
	size_t symbols;
	bool help;
};

/* Bits: which options a command takes. */
enum {
	TAKES_GUEST = 1,
	TAKES_OUTPUT = 2,
	TAKES_FILE = 4,
	TAKES_CLOCK = 8,
	TAKES_TO = 16,
	TAKES_BEFORE = 32,
	TAKES_EVENTS = 64,
	TAKES_ADDRESS = 128,
	TAKES_DISK = 256,
	TAKES_PORT_OUTPUT = 512,
	TAKES_INDEX = 1024,
	TAKES_AFTER = 2048,
	TAKES_SYMBOLS = 4096,
	TAKES_LIVE = 8192,       /* how a guest runs, of those of TAKES_GUEST */
	TAKES_SNAPSHOT = 16384,  /* -o, which must be given */
	TAKES_POSITION = 32768,  /* as arguments */
	TAKES_CHAIN = 2097152,   /* of snapshots */
	TAKES_SINCE = 4194304,
	TAKES_SECOND = 65536,    /* another file */
	TAKES_MEMORY = 262144,   /* what checkpoints may take */
	TAKES_HELP = 131072,     /* and nothing else */
	TAKES_LIVE_GDB = 1048576, /* gdb on a guest that runs */
};

/* Parse argv (argv[0] is the command's name). */
int options_parse(int argc, char **argv, unsigned takes, struct options *o, struct err *err);
/* The lines of --help for what a command takes. */
void options_help(FILE *out, unsigned takes);
/* The clock to use on this host; -ENOTSUP if the one asked for is not there. */
int options_clock(const struct options *o, const struct host_caps *caps, enum clock_kind *clock,
		  struct err *err);

#endif
