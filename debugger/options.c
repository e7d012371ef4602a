// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/options.h"

#include "debugger/index.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* 2000-01-01 00:00 UTC: a date as good as any, and the same in every recording. */
#define DEFAULT_EPOCH 946684800
#define DEFAULT_MEM (64ull << 20)
/* Short enough for a 100 Hz tick to be seen in time, long enough to cost nothing. */
#define DEFAULT_QUANTUM (5 * NSEC_PER_MSEC)
/* A session comes to any place in half of it, and the checkpoints stay few. */
#define DEFAULT_EVERY NSEC_PER_SEC
/* Below this there is hardly room for what cannot be moved out: the maps, and the states of the devices. */
#define SNAPSHOT_MEMORY_MIN (16ull << 20)
#define SNAPSHOT_MEMORY_MAX (1ull << 40)

struct row {
	const char *name, *arg, *help;
	unsigned takes; /* commands that take one of these have it */
	int id;
};

enum {
	OPT_KERNEL = 256,
	OPT_GDB,
	OPT_GDB_ALLOW_REMOTE,
	OPT_WAIT,
	OPT_INITRD,
	OPT_APPEND,
	OPT_NO_DEFAULT_APPEND,
	OPT_MEM,
	OPT_INPUT,
	OPT_CONSOLE,
	OPT_SEED,
	OPT_EPOCH,
	OPT_RATE,
	OPT_QUANTUM,
	OPT_MAX,
	OPT_UNTIL,
	OPT_RETRY,
	OPT_REALTIME,
	OPT_CLOCK,
	OPT_TO,
	OPT_BEFORE,
	OPT_AFTER,
	OPT_EVENTS,
	OPT_JSON,
	OPT_PHYSICAL,
	OPT_DISK,
	OPT_THIN,
	OPT_RNG,
	OPT_NET,
	OPT_PORTS,
	OPT_PORT_INPUT,
	OPT_PORT_OUTPUT,
	OPT_SYMBOLS,
	OPT_EVERY,
	OPT_RECORD,
	OPT_POKE,
	OPT_SNAPSHOT_MEMORY,
	OPT_CHAIN,
	OPT_SINCE,
};

static const struct row rows[] = {
	{"output", "FILE", "file to write (-o FILE)", TAKES_OUTPUT | TAKES_INDEX | TAKES_SNAPSHOT, 'o'},
	{"every", "S", "a checkpoint for each so many seconds of replaying (1)", TAKES_INDEX, OPT_EVERY},
	{"record", "FILE", "record the branch into a trace of its own", TAKES_LIVE, OPT_RECORD},
	{"poke", "ADDR=BYTES", "first write these bytes (hexadecimal, as they lie in memory); may be repeated", TAKES_LIVE,
	 OPT_POKE},
	{"kernel", "FILE", "guest kernel: ELF64, PVH, multiboot 1 or 2, or Linux (vmlinux, bzImage)", TAKES_GUEST,
	 OPT_KERNEL},
	{"initrd", "FILE", "initial RAM disk, or the module of a multiboot kernel", TAKES_GUEST, OPT_INITRD},
	{"append", "TEXT", "kernel command line; Linux gets our parameters before it", TAKES_GUEST,
	 OPT_APPEND},
	{"no-default-append", NULL, "give Linux no parameters but those of --append", TAKES_GUEST,
	 OPT_NO_DEFAULT_APPEND},
	{"disk", "FILE", "image of a virtio disk; it is never written", TAKES_DISK, OPT_DISK},
	{"thin", NULL, "of the disk keep only its hash in the trace", TAKES_OUTPUT, OPT_THIN},
	{"rng", NULL, "a virtio entropy source, seeded", TAKES_GUEST, OPT_RNG},
	{"net", "user", "a virtio network card behind a user-mode NAT; implies --realtime", TAKES_GUEST, OPT_NET},
	{"ports", "N", "a virtio console with N ports (1 to 4); port 0 goes to standard output", TAKES_GUEST,
	 OPT_PORTS},
	{"port-input", "N:FILE", "input of port N", TAKES_GUEST | TAKES_LIVE, OPT_PORT_INPUT},
	{"port-output", "FILE", "what port N from 1 on sends goes to FILE.N; else nowhere", TAKES_PORT_OUTPUT, OPT_PORT_OUTPUT},
	{"mem", "MIB", "guest RAM in MiB (64)", TAKES_GUEST, OPT_MEM},
	{"input", "FILE", "serial input: a file, a FIFO, or - for standard input", TAKES_GUEST | TAKES_LIVE, OPT_INPUT},
	{"console", NULL, "your terminal is the guest's: the serial port, or port 0 of --ports; implies --realtime",
	 TAKES_GUEST, OPT_CONSOLE},
	{"seed", "N", "seed of the guest's entropy and of interrupt timing (0)", TAKES_GUEST, OPT_SEED},
	{"epoch", "SECONDS", "date of the clock chip at the start, since 1970 UTC (946684800)", TAKES_GUEST,
	 OPT_EPOCH},
	{"time-rate", "R", "guest time that passes per host time while the guest computes (1.0)",
	 TAKES_GUEST | TAKES_LIVE, OPT_RATE},
	{"quantum", "MS", "look after this many ms of computing whether a timer is due (5)", TAKES_GUEST | TAKES_LIVE,
	 OPT_QUANTUM},
	{"max-seconds", "S", "stop after this much host time", TAKES_GUEST | TAKES_LIVE, OPT_MAX},
	{"until", "REGEX", "stop when a line of serial output matches; or, for Linux: panic, oops, warn, hung",
	 TAKES_GUEST | TAKES_LIVE, OPT_UNTIL},
	{"retry", "N", "record up to N times more, each with the next seed, until --until matches",
	 TAKES_OUTPUT, OPT_RETRY},
	{"realtime", NULL, "sleep while the guest is halted, to keep pace with the host's clock",
	 TAKES_GUEST | TAKES_LIVE, OPT_REALTIME},
	{"clock", "KIND", "how places are found again: auto, emul or state (auto)", TAKES_CLOCK, OPT_CLOCK},
	{"to", "POS", "stop at this position: BOUNDARY, BOUNDARY+STEPS, 40% or guest time (1.5s)", TAKES_TO, OPT_TO},
	{"gdb", "ADDR", "gdb can connect at this Unix socket (a path) or port of this machine; a recording waits for it",
	 TAKES_TO | TAKES_LIVE_GDB, OPT_GDB},
	{"gdb-allow-remote", NULL, "ADDR may be one that other machines reach", TAKES_TO | TAKES_LIVE_GDB,
	 OPT_GDB_ALLOW_REMOTE},
	{"wait", NULL, "wait for gdb before the first instruction", TAKES_LIVE_GDB, OPT_WAIT},
	{"before", "POS", "look only at what happened before this position", TAKES_BEFORE, OPT_BEFORE},
	{"after", "POS", "look only at what happened after this position", TAKES_AFTER, OPT_AFTER},
	{"physical", NULL, "the address is guest-physical", TAKES_ADDRESS | TAKES_LIVE, OPT_PHYSICAL},
	{"symbols", "FILE", "names and lines: vmlinux or, also as FILE@ADDR, a Linux module; may be repeated",
	 TAKES_SYMBOLS, OPT_SYMBOLS},
	{"chain", NULL, "with all that the snapshots descend from", TAKES_CHAIN, OPT_CHAIN},
	{"since", "N", "only what differs from snapshot N, for whoever has that", TAKES_SINCE, OPT_SINCE},
	{"snapshot-memory", "BYTES", "what checkpoints may take in memory, also as 512M; more goes to /var/tmp (1G)",
	 TAKES_MEMORY, OPT_SNAPSHOT_MEMORY},
	{"events", NULL, "list every event", TAKES_EVENTS, OPT_EVENTS},
	{"json", NULL, "print JSON", TAKES_EVENTS, OPT_JSON},
	{"help", NULL, "print this", ~0u, 'h'},
};

void options_help(FILE *out, unsigned takes)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char left[40];

		if (!(rows[i].takes & takes))
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", rows[i].name, rows[i].arg ? " " : "",
			 rows[i].arg ? rows[i].arg : "");
		fprintf(out, "  %-20s %s\n", left, rows[i].help);
	}
}

static int parse_u64(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out,
		     struct err *err)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	if (errno || end == text || *end || text[0] == '-' || *out < min || *out > max)
		return err_set(err, EINVAL, "--%s takes a whole number from %" PRIu64 " to %" PRIu64
					    ", not \"%s\"", option, min, max, text);
	return 0;
}

static int parse_double(const char *option, const char *text, double min, double max, double *out,
			struct err *err)
{
	char *end;

	*out = strtod(text, &end);
	if (end == text || *end || !isfinite(*out) || *out < min || *out > max)
		return err_set(err, EINVAL, "--%s takes a number from %g to %g, not \"%s\"", option, min, max,
			       text);
	return 0;
}

/* A number of bytes, or of KiB, MiB or GiB with K, M or G behind it. */
static int parse_bytes(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *err)
{
	static const char units[] = "KMG";
	const char *unit;
	unsigned shift = 0;
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (errno || end == text || *end || text[0] == '-' || *out > max >> shift || *out << shift < min)
		return err_set(err, EINVAL, "--%s takes from %" PRIu64 "M to %" PRIu64 "M bytes, not \"%s\"", option,
			       min >> 20, max >> 20, text);
	*out <<= shift;
	return 0;
}

static int parse_address(const char *text, struct options *o, struct err *err)
{
	char *end;

	errno = 0;
	o->address = GVA(strtoull(text, &end, 0));
	o->length = 1;
	if (!errno && end != text && *end == ',' && end[1])
		o->length = strtoull(end + 1, &end, 0);
	if (errno || end == text || *end || text[0] == '-' || o->length < 1 || o->length > 65536)
		return err_set(err, EINVAL,
			       "\"%s\" is not an address; write ADDR or ADDR,LEN with LEN from 1 to 65536", text);
	return 0;
}

static int parse_clock(const char *text, struct options *o, struct err *err)
{
	static const char *const names[] = {"auto", "emul", "state"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			o->clock = (enum clock_choice)i;
			return 0;
		}
	}
	return err_set(err, EINVAL, "--clock takes auto, emul or state, not \"%s\"", text);
}

static int parse_port_input(const char *text, struct options *o, struct err *err)
{
	unsigned port = (unsigned)(unsigned char)text[0] - '0';

	if (port >= VIRTIO_CONSOLE_PORTS || text[1] != ':' || !text[2])
		return err_set(err, EINVAL, "--port-input takes N:FILE with N from 0 to %d, not \"%s\"",
			       VIRTIO_CONSOLE_PORTS - 1, text);
	o->port_input[port] = text + 2;
	return 0;
}

/* The option that names one of the devices that a machine need not have. */
static int parse_device(int id, const char *arg, struct options *o, struct err *err)
{
	uint64_t n = 0;
	int rc = 0;

	switch (id) {
	case OPT_DISK:
		o->disk = arg;
		o->machine.disk = true;
		break;
	case OPT_RNG:
		o->machine.rng = true;
		break;
	case OPT_NET:
		if (strcmp(arg, "user") != 0)
			return err_set(err, EINVAL, "--net takes user, not \"%s\"", arg);
		o->machine.net = true;
		break;
	case OPT_PORTS:
		rc = parse_u64("ports", arg, 1, VIRTIO_CONSOLE_PORTS, &n, err);
		o->machine.ports = (uint8_t)n;
		break;
	case OPT_PORT_INPUT:
		rc = parse_port_input(arg, o, err);
		break;
	default:
		o->port_output = arg;
	}
	return rc;
}

static int parse_one(int id, const char *arg, struct options *o, struct err *err)
{
	uint64_t n = 0;
	double d = 0;
	int rc = 0;

	switch (id) {
	case 'o':
		o->output = arg;
		break;
	case OPT_KERNEL:
		o->kernel = arg;
		break;
	case OPT_INITRD:
		o->initrd = arg;
		break;
	case OPT_APPEND:
		o->append = arg;
		if (strlen(arg) > CMDLINE_MAX)
			rc = err_set(err, EINVAL, "the command line is longer than %d bytes", CMDLINE_MAX);
		break;
	case OPT_NO_DEFAULT_APPEND:
		o->no_default_append = true;
		break;
	case OPT_MEM:
		rc = parse_u64("mem", arg, MEMORY_MIN >> 20, MEMORY_MAX >> 20, &n, err);
		o->machine.mem_size = n << 20;
		break;
	case OPT_INPUT:
		o->input = arg;
		break;
	case OPT_CONSOLE:
		o->console = true;
		break;
	case OPT_SEED:
		rc = parse_u64("seed", arg, 0, UINT64_MAX, &o->machine.seed, err);
		break;
	case OPT_EPOCH:
		rc = parse_u64("epoch", arg, 0, 1ull << 36, &n, err);
		o->machine.epoch = (int64_t)n;
		break;
	case OPT_RATE:
		rc = parse_double("time-rate", arg, 1e-6, 1e6, &o->time_rate, err);
		break;
	case OPT_QUANTUM:
		rc = parse_double("quantum", arg, 0.02, 1e6, &d, err);
		o->quantum = (uint64_t)(d * (double)NSEC_PER_MSEC);
		break;
	case OPT_MAX:
		rc = parse_double("max-seconds", arg, 0.001, 1e9, &d, err);
		o->max_ns = (uint64_t)(d * (double)NSEC_PER_SEC);
		break;
	case OPT_SNAPSHOT_MEMORY:
		rc = parse_bytes("snapshot-memory", arg, SNAPSHOT_MEMORY_MIN, SNAPSHOT_MEMORY_MAX, &o->snapshot_memory, err);
		break;
	case OPT_CHAIN:
		o->chain = true;
		break;
	case OPT_SINCE:
		rc = parse_u64("since", arg, 1, UINT64_MAX, &o->since, err);
		break;
	case OPT_RECORD:
		o->output = arg;
		break;
	case OPT_POKE:
		if (o->pokes == POKES_MAX)
			rc = err_set(err, EINVAL, "--poke can be given %d times", POKES_MAX);
		else
			o->poke[o->pokes++] = arg;
		break;
	case OPT_EVERY:
		rc = parse_double("every", arg, 0.001, 1e6, &d, err);
		o->every = (uint64_t)(d * (double)NSEC_PER_SEC);
		break;
	case OPT_UNTIL:
		o->until = arg;
		break;
	case OPT_RETRY:
		rc = parse_u64("retry", arg, 0, UINT32_MAX, &o->retry, err);
		break;
	case OPT_REALTIME:
		o->realtime = true;
		break;
	case OPT_CLOCK:
		rc = parse_clock(arg, o, err);
		break;
	case OPT_GDB:
		o->gdb = arg;
		break;
	case OPT_GDB_ALLOW_REMOTE:
		o->gdb_allow_remote = true;
		break;
	case OPT_WAIT:
		o->wait = true;
		break;
	case OPT_TO:
	case OPT_BEFORE:
	case OPT_AFTER:
		rc = where_parse(arg, &o->to, err);
		o->has_to = true;
		break;
	case OPT_PHYSICAL:
		o->physical = true;
		break;
	case OPT_SYMBOLS:
		if (o->symbols == SYMBOLS_FILES_MAX)
			rc = err_set(err, EINVAL, "--symbols can be given %d times", SYMBOLS_FILES_MAX);
		else
			o->symbol_file[o->symbols++] = arg;
		break;
	case OPT_EVENTS:
		o->events = true;
		break;
	case OPT_JSON:
		o->json = true;
		break;
	case OPT_THIN:
		o->thin = true;
		break;
	case OPT_DISK:
	case OPT_RNG:
	case OPT_NET:
	case OPT_PORTS:
	case OPT_PORT_INPUT:
	case OPT_PORT_OUTPUT:
		rc = parse_device(id, arg, o, err);
		break;
	default:
		o->help = true;
	}
	return rc;
}

/* What stands without an option's name. */
static int parse_rest(int argc, char **argv, unsigned takes, struct options *o, struct err *err)
{
	int i = optind;

	if ((takes & TAKES_FILE) && i < argc)
		o->file = argv[i++];
	if ((takes & TAKES_ADDRESS) && i < argc) {
		int rc = parse_address(argv[i++], o, err);

		if (rc < 0)
			return rc;
	}
	while ((takes & TAKES_POSITION) && i < argc && o->places < POSITIONS_MAX) {
		int rc = where_parse(argv[i++], &o->place[o->places++], err);

		if (rc < 0)
			return rc;
	}
	if ((takes & TAKES_SECOND) && i < argc)
		o->second = argv[i++];
	/* The guest may be given as its kernel alone. */
	if ((takes & TAKES_GUEST) && i < argc && !o->kernel)
		o->kernel = argv[i++];
	if (i < argc)
		return err_set(err, EINVAL, "\"%s\" is one argument too many; see hindsight %s --help", argv[i],
			       argv[0]);
	if ((takes & TAKES_FILE) && !o->file)
		return err_set(err, EINVAL, "give a trace file; see hindsight %s --help", argv[0]);
	if ((takes & TAKES_POSITION) && !o->places)
		return err_set(err, EINVAL, "give a position; see hindsight %s --help", argv[0]);
	if ((takes & TAKES_SECOND) && !o->second)
		return err_set(err, EINVAL, "give two snapshots; see hindsight %s --help", argv[0]);
	if ((takes & TAKES_SNAPSHOT) && !o->output)
		return err_set(err, EINVAL, "give the snapshot to write with -o FILE");
	if ((takes & TAKES_ADDRESS) && !o->length)
		return err_set(err, EINVAL, "give an address; see hindsight %s --help", argv[0]);
	if ((takes & TAKES_GUEST) && !o->kernel)
		return err_set(err, EINVAL, "give a guest with --kernel FILE; see hindsight %s --help", argv[0]);
	if ((takes & TAKES_OUTPUT) && !o->output)
		return err_set(err, EINVAL, "give the trace to write with -o FILE");
	if (o->thin && !o->disk)
		return err_set(err, EINVAL, "--thin is about the disk: give one with --disk FILE");
	for (unsigned n = o->machine.ports; (takes & TAKES_GUEST) && n < VIRTIO_CONSOLE_PORTS; n++)
		if (o->port_input[n])
			return err_set(err, EINVAL, "there is no port %u: have more with --ports %u", n, n + 1);
	if (o->console && (o->machine.ports ? o->port_input[0] : o->input))
		return err_set(err, EINVAL, "--console is the input of %s; leave out %s",
			       o->machine.ports ? "port 0" : "the serial port",
			       o->machine.ports ? "--port-input 0:FILE" : "--input");
	if (o->console && o->retry)
		return err_set(err, EINVAL, "--retry goes on by itself, and --console is for somebody who types");
	if (o->wait && !o->gdb)
		return err_set(err, EINVAL, "--wait is for gdb: say where it is to connect with --gdb ADDR");
	if (o->retry && !o->until)
		return err_set(err, EINVAL, "--retry needs --until: what is it to wait for?");
	if (o->retry && o->input && strcmp(o->input, "-") == 0)
		return err_set(err, EINVAL, "--retry cannot read standard input again; give --input a file");
	return 0;
}

int options_parse(int argc, char **argv, unsigned takes, struct options *o, struct err *err)
{
	struct option table[ARRAY_SIZE(rows) + 1] = {0};
	size_t n = 0;
	int id;

	*o = (struct options){
		.append = "",
		.machine = {.mem_size = DEFAULT_MEM,
			    .epoch = DEFAULT_EPOCH,
			    .xfeatures = MACHINE_XFEATURES_OF_HOST},
		.quantum = DEFAULT_QUANTUM,
		.time_rate = 1.0,
		.every = DEFAULT_EVERY,
		.snapshot_memory = INDEX_MEMORY,
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].takes & takes)
			table[n++] = (struct option){rows[i].name, rows[i].arg ? required_argument : no_argument,
						     NULL, rows[i].id};
	optind = 0;
	opterr = 0;
	while ((id = getopt_long(argc, argv, takes & (TAKES_OUTPUT | TAKES_INDEX | TAKES_SNAPSHOT) ? "ho:" : "h", table, NULL)) != -1) {
		int rc;

		if (id == '?')
			return err_set(err, EINVAL,
				       "\"%s\" is not an option of %s, or lacks its value; see hindsight %s --help",
				       argv[optind - 1], argv[0], argv[0]);
		rc = parse_one(id, optarg, o, err);
		if (rc < 0)
			return rc;
	}
	return o->help ? 0 : parse_rest(argc, argv, takes, o, err);
}

int options_clock(const struct options *o, const struct host_caps *caps, enum clock_kind *clock,
		  struct err *err)
{
	if (o->clock == CLOCK_CHOICE_EMUL && !caps_has_clock(caps))
		return err_set(err, ENOTSUP,
			       "this host has no emul clock (KVM's insn_emulation does not count here); use --clock state");
	*clock = o->clock != CLOCK_CHOICE_STATE && caps_has_clock(caps) ? CLOCK_EMUL : CLOCK_STATE;
	return 0;
}
