// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/commands.h"
#include "debugger/session.h"
#include "vmm/cpuid.h"
#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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

static int begin_trace(struct trace_writer **w, const struct options *o, const struct machine *m,
		       const struct guest_image *image, enum clock_kind clock, struct err *err)
{
	char cpu[128];
	struct trace_machine tm = {
		.config = m->config,
		.clock = clock,
		.quantum = o->quantum,
		.time_rate = o->time_rate,
		.cmdline = (char *)o->append,
		.host_cpu = cpu,
		.host_kernel = (char *)m->caps.kernel,
		.cpuid_hidden = m->caps.cpuid_honoured[1],
	};
	int rc;

	cpuid_host_signature(cpu, sizeof(cpu));
	rc = trace_writer_create(w, o->output, err);
	return rc < 0 ? rc : recorder_write_head(*w, &tm, image, err);
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

/* run and record are the same but for the trace. */
static int run_guest(const struct options *o, bool record)
{
	struct guest_image image = {.cmdline = o->append};
	struct recorder_options ro = {.quantum = o->quantum,
				      .time_rate = o->time_rate,
				      .max_ns = o->max_ns,
				      .input_fd = -1,
				      .realtime = o->realtime};
	struct trace_writer *w = NULL;
	struct recorder *recorder = NULL;
	struct console *console = NULL;
	struct machine *m = NULL;
	struct assist_counts assists;
	struct err err = {0};
	int status = STATUS_FAILED;
	int rc = session_map_file(o->kernel, &image.kernel, &image.kernel_size, &err);

	if (rc == 0 && o->initrd)
		rc = session_map_file(o->initrd, &image.initrd, &image.initrd_size, &err);
	if (rc == 0)
		rc = host_pin_thread(&err);
	if (rc == 0)
		rc = machine_create(&m, &o->machine, &image, record, &err);
	if (rc == 0)
		rc = options_clock(o, &m->caps, &ro.clock, &err);
	if (rc == 0)
		rc = console_create(&console, m, o->until, &err);
	if (rc == 0)
		rc = open_input(o->input, &ro.input_fd, &err);
	if (rc == 0 && record)
		rc = begin_trace(&w, o, m, &image, ro.clock, &err);
	if (rc < 0)
		goto out;
	m->output = console_output;
	m->output_ctx = console;
	ro.interrupted = session_catch_interrupts();
	rc = recorder_create(&recorder, m, &ro, w, &err);
	if (rc < 0)
		goto out;
	rc = machine_run(m, &err);
	if (rc == 0) {
		rc = recorder_finish(recorder, &err);
		status = session_status(m);
		session_report_end(m, record ? "recorded" : "run");
	} else {
		/* The first error is the one to tell; keep what led to it. */
		recorder_finish(recorder, NULL);
	}
	assist_count(&m->vcpu[0], &assists);
	session_print_assists(stderr, "hindsight: completed for this host's KVM: ", &assists);
	if (w)
		report_recording(recorder, w, o->output);
out:
	if (rc < 0)
		status = session_fail(&err);
	if (w && trace_writer_close(w, &err) < 0)
		status = session_fail(&err);
	recorder_destroy(recorder);
	console_destroy(console);
	machine_destroy(m);
	if (ro.input_fd >= 0)
		close(ro.input_fd);
	if (image.kernel)
		munmap((void *)image.kernel, image.kernel_size);
	if (image.initrd)
		munmap((void *)image.initrd, image.initrd_size);
	return status;
}

static int command(int argc, char **argv, bool record)
{
	unsigned takes = TAKES_GUEST | TAKES_CLOCK | (record ? TAKES_OUTPUT : 0);
	struct options o;
	struct err err = {0};

	if (options_parse(argc, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight %s %s--kernel FILE [OPTIONS]\n\n%s\n\n", argv[0],
		       record ? "-o FILE " : "",
		       record ? "Run a guest and record it." : "Run a guest without recording it.");
		options_help(stdout, takes);
		printf("\nThe guest's serial output goes to stdout, everything else to stderr. Exit status: what the\n"
		       "guest wrote to port 0xf4, else see hindsight --help; 0 when --until matched.\n");
		return STATUS_OK;
	}
	return run_guest(&o, record);
}

int cmd_run(int argc, char **argv)
{
	return command(argc, argv, false);
}

int cmd_record(int argc, char **argv)
{
	return command(argc, argv, true);
}
