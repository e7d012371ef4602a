// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/begin.h"
#include "debugger/commands.h"
#include "debugger/linux.h"
#include "debugger/net_user.h"
#include "debugger/session.h"
#include "debugger/terminal.h"
#include "vmm/cpuid.h"
#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int open_input(const char *path, int *fd, struct err *err)
{
	*fd = -1;
	if (!path)
		return 0;
	/* Opening a FIFO waits for its writer, as any reader of one would. */
	*fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	if (*fd < 0)
		return err_sys(err, errno, "cannot open the input %s", path);
	return 0;
}

/* Where the guest's input comes from; descriptors that are not open are -1. */
struct inputs {
	struct input_source source[INPUT_CHANNELS];
	struct input_fd file[INPUT_CHANNELS];
	int fd[INPUT_CHANNELS];
	unsigned n;
	struct net_user *net;
	struct terminal *terminal;
};

static int add_input(struct inputs *in, unsigned channel, const char *path, struct err *err)
{
	int rc = open_input(path, &in->fd[channel], err);

	if (rc == 0 && in->fd[channel] >= 0)
		in->source[in->n++] = input_fd_source(&in->file[channel], in->fd[channel], channel);
	return rc;
}

static int open_inputs(struct inputs *in, const struct options *o, struct machine *m, struct err *err)
{
	int rc = add_input(in, INPUT_SERIAL, o->input, err);

	for (unsigned i = 0; i < VIRTIO_CONSOLE_PORTS && rc == 0; i++)
		rc = add_input(in, INPUT_PORT + i, o->port_input[i], err);
	if (rc == 0 && o->machine.net) {
		rc = net_user_create(&in->net, err);
		if (rc < 0)
			return rc;
		in->source[in->n++] = net_user_source(in->net);
		m->transmit = net_user_transmit;
		m->transmit_ctx = in->net;
	}
	if (rc == 0 && o->console) {
		rc = terminal_open(&in->terminal, m, o->machine.ports ? INPUT_PORT : INPUT_SERIAL, err);
		if (rc < 0)
			return rc;
		in->source[in->n++] = terminal_keys(in->terminal);
		in->source[in->n++] = terminal_window(in->terminal);
	}
	return rc;
}

static void close_inputs(struct inputs *in)
{
	for (unsigned i = 0; i < INPUT_CHANNELS; i++)
		if (in->fd[i] >= 0)
			close(in->fd[i]);
	net_user_destroy(in->net);
	terminal_close(in->terminal);
}

/* A run that goes on from a snapshot. */
struct branch {
	struct replay_file *file; /* NULL: from the start of the guest */
	struct snapshots *snapshots;
	struct snapshot *snapshot;
};

/* Into the state of the snapshot, changed as the user wants it. */
static int begin_branch(struct branch *b, struct machine *m, const struct options *o, struct err *err)
{
	int rc = replay_file_check_host(b->file, m, err);

	if (rc == 0)
		rc = begin_tree(&b->snapshots, m, b->file, o->node, &b->snapshot, err);
	if (rc == 0)
		rc = begin_check_rest(b->file, err);
	for (size_t i = 0; i < o->pokes && rc == 0; i++)
		rc = begin_poke(m, o->poke[i], o->physical, err);
	if (rc < 0)
		return rc;
	/* The trace tells where it began, not where that came from. */
	snapshot_set_parent(b->snapshot, NULL);
	return o->pokes ? snapshot_take(b->snapshots, NULL, &b->snapshot, err) : 0;
}

static int begin_trace(struct trace_writer **w, const struct options *o, const struct machine *m,
		       const struct guest_image *image, const struct branch *b, enum clock_kind clock, struct err *err)
{
	char cpu[128];
	struct trace_machine tm = {
		.config = m->config,
		.clock = clock,
		.quantum = o->quantum,
		.time_rate = o->time_rate,
		.cmdline = (char *)image->cmdline,
		.host_cpu = cpu,
		.cpu_number = cpuid_host_number(),
		.host_kernel = (char *)m->caps.kernel,
		.cpuid_hidden = m->caps.cpuid_honoured[1],
		.entry_seen = !m->caps.syscall_works,
		.thin = o->thin,
	};
	const struct snapshot_export begin = {.last = b->snapshot, .chain = true};
	int rc;

	cpuid_host_signature(cpu, sizeof(cpu));
	rc = trace_writer_create(w, o->output, err);
	if (rc < 0)
		return rc;
	return b->file ? begin_write_head(*w, &tm, image, b->snapshots, &begin, err)
		       : recorder_write_head(*w, &tm, image, err);
}

static void report_recording(const struct recorder *r, const struct trace_writer *w, const char *path)
{
	const struct recorder_counts *c = recorder_counts(r);

	fprintf(stderr,
		"hindsight: %s: %" PRIu64 " bytes, %" PRIu64 " landmarks, %" PRIu64 " digests, %" PRIu64
		" inputs; log %" PRIu64 " bytes, %" PRIu64 " of them landmarks\n",
		path, trace_writer_size(w), c->landmarks, c->digests, c->inputs, c->log_bytes,
		c->landmark_bytes);
}

/* One run of the guest, recorded or not. from: the snapshot that it goes on from; NULL: none. matched: --until came
 * true. */
static int run_guest(const struct options *o, const struct guest_image *image, struct replay_file *from,
		     bool record, bool *matched)
{
	struct recorder_options ro = {.quantum = o->quantum,
				      .time_rate = o->time_rate,
				      .max_ns = o->max_ns,
				      /* The guest's patience with the network is counted in its own time. */
				      .realtime = o->realtime || o->machine.net || o->console};
	struct branch branch = {.file = from};
	struct inputs inputs = {0};
	struct trace_writer *w = NULL;
	struct recorder *recorder = NULL;
	struct console *console = NULL;
	struct machine *m = NULL;
	struct assist_counts assists;
	struct err err = {0};
	int status = STATUS_FAILED;
	int rc = machine_create(&m, &o->machine, image, record || from, &err);

	memset(inputs.fd, 0xff, sizeof(inputs.fd));
	*matched = false;
	if (rc == 0 && from)
		rc = begin_branch(&branch, m, o, &err);
	if (rc == 0)
		rc = options_clock(o, &m->caps, &ro.clock, &err);
	if (rc == 0)
		rc = console_create(&console, m, o->until, o->port_output, &err);
	if (rc == 0)
		rc = open_inputs(&inputs, o, m, &err);
	if (rc == 0 && record)
		rc = begin_trace(&w, o, m, image, &branch, ro.clock, &err);
	if (rc < 0)
		goto out;
	/* What the guest writes from now on needs no book-keeping. */
	snapshots_destroy(branch.snapshots);
	branch.snapshots = NULL;
	m->output = console_output;
	m->output_ctx = console;
	ro.interrupted = session_catch_interrupts();
	ro.sources = inputs.source;
	ro.n_sources = inputs.n;
	if (!o->gdb)
		rc = recorder_create(&recorder, m, &ro, w, &err);
	if (rc < 0)
		goto out;
	rc = o->gdb ? gdb_serve_live(o, m, &ro, &err) : machine_run(m, &err);
	if (rc == 0) {
		rc = recorder ? recorder_finish(recorder, &err) : 0;
		*matched = console_matched(console);
		/* A guest may reset amid the report that was waited for. */
		status = *matched ? STATUS_OK : session_status(m);
		session_report_end(m, record ? "recorded" : "run");
	} else {
		/* The first error is the one to tell; keep what led to it. */
		if (recorder)
			recorder_finish(recorder, NULL);
	}
	assist_count(&m->vcpu[0], &assists);
	session_print_counts(stderr, "hindsight: completed for this host's KVM: ", &assists);
	if (w) {
		report_recording(recorder, w, o->output);
		session_print_user_code(recorder_user_code(recorder));
	}
out:
	if (rc < 0)
		status = session_fail(&err);
	if (w && trace_writer_close(w, &err) < 0)
		status = session_fail(&err);
	recorder_destroy(recorder);
	console_destroy(console);
	snapshots_destroy(branch.snapshots);
	machine_destroy(m);
	close_inputs(&inputs);
	return status;
}

/* Record with one seed after the other until --until comes true. */
static int run_until(struct options *o, const struct guest_image *image)
{
	bool matched;

	for (uint64_t i = 0; i <= o->retry; i++, o->machine.seed++) {
		int status = run_guest(o, image, NULL, true, &matched);

		if (status == STATUS_FAILED || status == STATUS_INTERRUPTED)
			return status;
		fprintf(stderr, "hindsight: recording %" PRIu64 " of at most %" PRIu64 ", seed %" PRIu64 ": %s\n",
			i + 1, o->retry + 1, o->machine.seed,
			matched ? "that is what was waited for" : "not what was waited for");
		if (matched)
			return STATUS_OK;
	}
	return STATUS_NOT_FOUND;
}

/* The guest's files; what a Linux guest needs on its command line. */
static int open_guest(const struct options *o, struct guest_image *image, char **cmdline, struct err *err)
{
	int rc = session_map_file(o->kernel, &image->kernel, &image->kernel_size, err);
	char *parameters;

	*cmdline = NULL;
	image->cmdline = o->append;
	if (rc == 0 && o->initrd)
		rc = session_map_file(o->initrd, &image->initrd, &image->initrd_size, err);
	if (rc == 0 && o->disk)
		rc = session_map_file(o->disk, &image->disk, &image->disk_size, err);
	if (rc < 0 || o->no_default_append || !loader_is_linux(image))
		return rc;
	rc = linux_parameters(&o->machine, &parameters, err);
	if (rc < 0)
		return rc;
	if (asprintf(cmdline, "%s%s%s", parameters, *o->append ? " " : "", o->append) < 0) {
		*cmdline = NULL;
		rc = err_set(err, ENOMEM, "out of memory for the command line");
	} else {
		image->cmdline = *cmdline;
		fprintf(stderr, "hindsight: Linux gets the parameters \"%s\" besides those of --append\n",
			parameters);
	}
	free(parameters);
	return rc;
}

static int run_files(struct options *o, bool record)
{
	struct guest_image image = {0};
	struct err err = {0};
	char *cmdline;
	bool matched;
	int status, rc = open_guest(o, &image, &cmdline, &err);

	if (rc == 0)
		rc = host_pin_thread(&err);
	if (rc < 0)
		status = session_fail(&err);
	else if (record && o->retry)
		status = run_until(o, &image);
	else
		status = run_guest(o, &image, NULL, record, &matched);
	if (image.kernel)
		munmap((void *)image.kernel, image.kernel_size);
	if (image.initrd)
		munmap((void *)image.initrd, image.initrd_size);
	if (image.disk)
		munmap((void *)image.disk, image.disk_size);
	free(cmdline);
	return status;
}

int run_from_snapshot(struct options *o, struct replay_file *f)
{
	bool matched;
	struct err err = {0};

	o->machine = f->tm.config;
	o->thin = f->tm.thin;
	for (unsigned n = o->machine.ports; n < VIRTIO_CONSOLE_PORTS; n++)
		if (o->port_input[n]) {
			err_set(&err, EINVAL, "the machine of the snapshot has no port %u", n);
			return session_fail(&err);
		}
	return run_guest(o, &f->image, f, o->output != NULL, &matched);
}

static int command(int argc, char **argv, bool record)
{
	unsigned takes = TAKES_GUEST | TAKES_CLOCK | TAKES_DISK | TAKES_PORT_OUTPUT |
			 (record ? TAKES_OUTPUT : TAKES_LIVE_GDB);
	struct options o;
	struct err err = {0};

	if (options_parse(argc, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s %s--kernel FILE [OPTIONS]\n\n%s\n\n", argv[0],
		       record ? "-o FILE " : "",
		       record ? "Run a guest and record it." : "Run a guest without recording it.");
		options_help(stdout, takes);
		printf("\n" TERMINAL_HELP);
		printf("\nThe guest's serial output goes to stdout, everything else to stderr. Exit status: what the\n"
		       "guest wrote to port 0xf4, else see hindsight --help; 0 when --until matched.%s\n",
		       record ? " With --retry: 0 if it\ndid in one of the recordings, which is the one kept, 1 if in none."
			      : "");
		return STATUS_OK;
	}
	return run_files(&o, record);
}

int cmd_run(int argc, char **argv)
{
	return command(argc, argv, false);
}

int cmd_record(int argc, char **argv)
{
	return command(argc, argv, true);
}
