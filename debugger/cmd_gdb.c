// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/commands.h"
#include "debugger/gdb_target.h"
#include "debugger/session.h"
#include "debugger/symset.h"
#include "gdbstub/listen.h"
#include "gdbstub/session.h"
#include "vmm/kick.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Serve one gdb after the other until `quit`, or, with `once`, the first one. */
static int serve(struct gdb_listener *l, struct timeline *t, struct gdb_view *view, bool once, struct err *err)
{
	struct gdb_session_options so = {.listen_fd = l->fd, .quit = once ? NULL : session_catch_interrupts()};
	enum gdb_end end = GDB_END_LOST;
	int rc = 0;

	gdb_view_init(view, t);
	do {
		struct err why = {0};
		int fd;

		rc = gdb_listener_accept(l, -1, so.quit, &fd, err);
		if (rc < 0)
			break;
		rc = gdb_session_serve(fd, &so, &view->target, &end, &why);
		if (rc < 0)
			*err = why;
		else if (why.text[0])
			fprintf(stderr, "hindsight: %s; waiting for the next gdb\n", why.text);
	} while (rc == 0 && !once && end != GDB_END_KILLED);
	gdb_view_close(view);
	return rc == -EINTR ? 0 : rc;
}

/* A recording as a target for whoever connects to l. */
static int serve_recording(const struct options *o, struct gdb_listener *l, bool once, struct err *err)
{
	struct gdb_view view = {0};
	struct timeline_options to = {.memory = o->snapshot_memory,
				      .interrupt = gdb_view_interrupted,
				      .interrupt_ctx = &view};
	struct timeline *t = NULL;
	int rc = host_pin_thread(err);

	if (rc == 0)
		rc = timeline_open(&t, o->file, o->clock != CLOCK_CHOICE_STATE, &to, NULL, NULL, err);
	if (rc == 0)
		rc = serve(l, t, &view, once, err);
	timeline_close(t);
	return rc;
}

static int listen_for_gdb(const struct options *o, struct gdb_listener *l, struct err *err)
{
	int rc = gdb_listener_open(l, o->gdb, o->gdb_allow_remote, err);

	if (rc < 0)
		return rc;
	if (l->remote)
		fprintf(stderr, "hindsight: warning: whoever reaches %s can read all of the guest\n", l->name);
	fprintf(stderr, "hindsight: gdb can connect with: target remote %s\n", l->name);
	return 0;
}

int gdb_serve_replay(const struct options *o)
{
	struct gdb_listener l;
	struct err err = {0};
	int rc = listen_for_gdb(o, &l, &err);

	if (rc < 0)
		return session_fail(&err);
	rc = serve_recording(o, &l, false, &err);
	gdb_listener_close(&l);
	return rc < 0 ? session_fail(&err) : STATUS_OK;
}

/* --- a live guest ---------------------------------------------------------------------------- */

/* What can stop the guest: a gdb that comes, or the one that is there. */
struct door {
	struct gdb_listener listener;
	struct gdb_view view;
	const volatile sig_atomic_t *quit;
	int fd; /* of a gdb that has come; -1: none */
};

static bool somebody_calls(void *ctx)
{
	struct door *d = ctx;

	if (d->view.session)
		return gdb_view_interrupted(&d->view);
	if (d->fd < 0 && gdb_listener_accept(&d->listener, 0, NULL, &d->fd, NULL) != 1)
		d->fd = -1;
	return d->fd >= 0 || *d->quit;
}

/* Run until a gdb comes, if none is there. */
static int run_alone(struct door *d, struct live *guest, struct err *err)
{
	const struct timeline_stops none = {0};
	struct timeline_stop stop;
	int rc = d->fd < 0 ? live_continue(guest, &none, &stop, err) : 0;

	return rc == -EINTR ? 0 : rc;
}

static int serve_live(struct door *d, struct machine *m, struct live *guest, bool wait, struct err *err)
{
	const struct gdb_session_options so = {.listen_fd = d->listener.fd, .quit = d->quit};
	enum gdb_end end = GDB_END_LOST;
	int rc = wait ? gdb_listener_accept(&d->listener, -1, d->quit, &d->fd, err) : 0;

	while (rc >= 0 && end != GDB_END_KILLED && !*d->quit) {
		struct err why = {0};

		rc = run_alone(d, guest, err);
		if (rc < 0 || d->fd < 0)
			break; /* the guest is over, or the user has stopped it */
		rc = gdb_session_serve(d->fd, &so, &d->view.target, &end, &why);
		d->fd = -1;
		if (rc < 0)
			*err = why;
		else if (why.text[0])
			fprintf(stderr, "hindsight: %s; the guest runs on\n", why.text);
	}
	if (*d->quit || end == GDB_END_KILLED)
		machine_end(m, END_INTERRUPTED, 0);
	return rc == -EINTR || rc > 0 ? 0 : rc;
}

int gdb_serve_live(const struct options *o, struct machine *m, const struct recorder_options *ro, struct err *err)
{
	struct door d = {.quit = ro->interrupted, .fd = -1};
	const struct live_options lo = {.recorder = *ro, .interrupt = somebody_calls, .interrupt_ctx = &d};
	struct live *guest;
	int rc = listen_for_gdb(o, &d.listener, err);

	if (rc < 0)
		return rc;
	rc = live_open(&guest, m, &lo, err);
	if (rc == 0) {
		gdb_view_init_live(&d.view, m, guest);
		rc = serve_live(&d, m, guest, o->wait, err);
		live_close(guest);
	}
	gdb_listener_close(&d.listener);
	return rc;
}

/* --- hindsight gdb ----------------------------------------------------------------------------- */

/* What is made for one gdb and goes with it. */
struct desk {
	char dir[64];
	char kernel[80], socket[80];
	const char *symbols; /* what gdb takes its symbols from: kernel, or a file of the user's */
	char commands[PATH_MAX]; /* hindsight.py; empty if it is not to be found */
};

static int write_kernel(const struct guest_image *image, const char *path, struct err *err)
{
	FILE *out = fopen(path, "we");
	bool whole = out && fwrite(image->kernel, 1, image->kernel_size, out) == image->kernel_size;

	if (out && fclose(out) != 0)
		whole = false;
	return whole ? 0 : err_sys(err, errno, "cannot write the guest's kernel to %s", path);
}

/* The kernel comes out of the trace, for its symbols; gdb does not read a bzImage. */
static int unpack_kernel(struct desk *d, const struct guest_image *packed, struct err *err)
{
	struct guest_image image = *packed;
	uint8_t *unpacked = NULL;
	int rc = loader_unpack(&image, &unpacked, err);

	if (rc == 0)
		rc = write_kernel(&image, d->kernel, err);
	free(unpacked);
	d->symbols = d->kernel;
	return rc;
}

/* A file of the user's must go with the recorded kernel. */
static int check_symbols(struct desk *d, const struct options *o, const struct guest_image *image, struct err *err)
{
	struct symset *set;
	int rc;

	if (o->symbols > 1)
		return err_set(err, EINVAL, "gdb takes one file of symbols to begin with; it adds more by add-symbol-file, or by "
					    "lx-symbols for modules of Linux");
	rc = symset_open(&set, o, image, err);
	symset_close(set);
	d->symbols = o->symbol_file[0];
	return rc;
}

static int find_symbols(struct desk *d, const struct options *o, struct err *err)
{
	struct replay_file *f;
	int rc = replay_file_open(&f, o->file, err);

	if (rc < 0)
		return rc;
	rc = o->symbols ? check_symbols(d, o, &f->image, err) : unpack_kernel(d, &f->image, err);
	replay_file_close(f);
	return rc;
}

/* Beside the program in a build, or where it is installed. */
static void find_commands(struct desk *d)
{
	static const char *const places[] = {"../gdbstub/hindsight.py", "../share/hindsight/hindsight.py"};
	char self[PATH_MAX - 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n < 0 ? 0 : n] = 0;
	slash = strrchr(self, '/');
	for (size_t i = 0; slash && i < ARRAY_SIZE(places); i++) {
		slash[1] = 0;
		snprintf(d->commands, sizeof(d->commands), "%s%s", self, places[i]);
		if (access(d->commands, R_OK) == 0)
			return;
	}
	d->commands[0] = 0;
}

static void become_gdb(const struct desk *d, int argc, char **argv)
{
	char remote[128], source[PATH_MAX + 16];
	/* The recording is opened meanwhile, which on a busy or nested host takes longer than gdb's two seconds. */
	char *args[64] = {"gdb", "-q", (char *)d->symbols, "-ex", "set remotetimeout 60", "-ex", remote};
	int n = 7;

	snprintf(remote, sizeof(remote), "target remote %s", d->socket);
	if (d->commands[0]) {
		snprintf(source, sizeof(source), "source %s", d->commands);
		args[n++] = "-ex";
		args[n++] = source;
	}
	for (int i = 0; i < argc && n + 1 < (int)ARRAY_SIZE(args); i++)
		args[n++] = argv[i];
	execvp("gdb", args);
	fprintf(stderr, "hindsight: cannot start gdb: %s; install it, or use hindsight replay --gdb\n", strerror(errno));
	_exit(127);
}

static int with_gdb(const struct options *o, struct desk *d, int argc, char **argv, struct err *err)
{
	struct gdb_listener l;
	pid_t child;
	int status, rc = find_symbols(d, o, err);

	if (rc < 0)
		return rc;
	rc = gdb_listener_open(&l, d->socket, false, err);
	if (rc < 0)
		return rc;
	child = fork();
	if (child == 0)
		become_gdb(d, argc, argv);
	/* Ctrl-C is for gdb, which passes it on. */
	signal(SIGINT, SIG_IGN);
	rc = child < 0 ? err_sys(err, errno, "cannot start gdb") : serve_recording(o, &l, true, err);
	gdb_listener_close(&l);
	if (child > 0)
		waitpid(child, &status, 0);
	return rc;
}

/* How many arguments come up to the file: options begin with a dash, and one of them may have its value behind it. */
static int own_arguments(int argc, char **argv)
{
	int n = 1;

	while (n < argc && argv[n][0] == '-')
		n += strcmp(argv[n], "--snapshot-memory") == 0 || strcmp(argv[n], "--symbols") == 0 ? 2 : 1;
	return n < argc ? n + 1 : argc;
}

int cmd_gdb(int argc, char **argv)
{
	struct desk d = {0};
	struct options o;
	struct err err = {0};
	const unsigned takes = TAKES_FILE | TAKES_MEMORY | TAKES_SYMBOLS;
	int own = own_arguments(argc, argv), rc;

	/* What follows the file is gdb's. */
	if (options_parse(own, argv, takes, &o, &err) < 0)
		return session_fail(&err);
	if (o.help) {
		printf("usage: hindsight gdb [OPTIONS] FILE [GDB ARGUMENTS]\n\nStart gdb on a recording: with the kernel's symbols out of the trace "
		       "or from --symbols,\nconnected, and with hindsight's commands (hindsight help). It goes forward and back.\n\n");
		options_help(stdout, takes);
		return STATUS_OK;
	}
	snprintf(d.dir, sizeof(d.dir), "/tmp/hindsight-gdb.XXXXXX");
	if (!mkdtemp(d.dir)) {
		err_sys(&err, errno, "cannot make a directory in /tmp");
		return session_fail(&err);
	}
	snprintf(d.kernel, sizeof(d.kernel), "%s/kernel", d.dir);
	snprintf(d.socket, sizeof(d.socket), "%s/gdb", d.dir);
	find_commands(&d);
	rc = with_gdb(&o, &d, argc - own, argv + own, &err);
	unlink(d.kernel);
	rmdir(d.dir);
	return rc < 0 ? session_fail(&err) : STATUS_OK;
}
