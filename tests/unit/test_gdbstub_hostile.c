// SPDX-License-Identifier: GPL-3.0-or-later
/* Peers that are no gdb, or one that dies: they cost bounded memory, get a sentence, and leave the
 * target as it was for the next. Ctrl-C in every state. Where the stub listens, and for whom. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/gdb_client.h"

#include "gdbstub/listen.h"
#include "gdbstub/packet.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define FOR_EVER (1ull << 40) /* rounds that nobody waits for */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static long peak_kib(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss;
}

/* Send the same block until the stub has had enough; how many bytes that took. */
static uint64_t flood(struct client *c, uint8_t byte, uint64_t max)
{
	static uint8_t block[1 << 16];
	uint64_t sent = 0;

	memset(block, byte, sizeof(block));
	while (sent < max) {
		ssize_t n = send(c->fd, block, sizeof(block), MSG_NOSIGNAL);

		if (n <= 0)
			break;
		sent += (uint64_t)n;
	}
	return sent;
}

/* The target still answers as it should, to a new gdb. */
static void check_intact(struct fake *f, const char *registers)
{
	struct client c;

	client_connect(&c, f);
	assert_string_equal(client_request(&c, "g"), registers);
	client_close(&c);
}

static char *registers_of(struct fake *f)
{
	struct client c;
	char *regs;

	client_connect(&c, f);
	regs = strdup(client_request(&c, "g"));
	client_close(&c);
	assert_non_null(regs);
	return regs;
}

static void test_endless_packet(void **state)
{
	struct fake *f = fake_create(10, false);
	char *registers = registers_of(f);
	struct client c;
	long before;

	(void)state;
	client_connect(&c, f);
	client_request(&c, "?");
	before = peak_kib();
	client_send_bytes(&c, "$", 1);
	assert_true(flood(&c, 'a', 1ull << 30) < 4u << 20);
	client_close(&c);
	assert_int_equal(c.end, GDB_END_LOST);
	assert_non_null(strstr(c.err.text, "it sent a packet of more than"));
	assert_true(peak_kib() - before < 16384);
	check_intact(f, registers);
	free(registers);
	fake_destroy(f);
}

/* Asks and asks and never reads: dropped soon after the socket is full. */
static void test_never_reads(void **state)
{
	struct fake *f = fake_create(10, false);
	char *registers = registers_of(f);
	double start = seconds();
	struct client c;
	long before;

	(void)state;
	client_connect(&c, f);
	client_request(&c, "QStartNoAckMode");
	before = peak_kib();
	for (int i = 0; i < 100000; i++) {
		static const char request[] = "$m0,10000#00";

		if (send(c.fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
			break;
	}
	assert_int_equal(pthread_join(c.thread, NULL), 0);
	assert_non_null(strstr(c.err.text, "it did not read for"));
	assert_true(seconds() - start < 10);
	assert_true(peak_kib() - before < 16384);
	close(c.fd);
	free(c.reply);
	check_intact(f, registers);
	free(registers);
	fake_destroy(f);
}

static void test_stranger(void **state)
{
	static const char request[] = "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n$k#6b";
	struct fake *f = fake_create(10, false);
	struct client c;

	(void)state;
	client_connect(&c, f);
	client_send_bytes(&c, request, sizeof(request) - 1);
	client_close(&c);
	assert_non_null(strstr(c.err.text, "does not speak the gdb remote protocol"));
	assert_int_equal(f->kills, 0);
	fake_destroy(f);
}

/* Requests sent while the guest runs wait; too many of them end the connection, and the run. */
static void test_flood_while_running(void **state)
{
	struct fake *f = fake_create(FOR_EVER, false);
	struct client c;

	(void)state;
	client_connect(&c, f);
	client_request(&c, "QStartNoAckMode");
	client_send(&c, "vCont;c", 7);
	for (;;) {
		static const char request[] = "$g#67$g#67$g#67$g#67$g#67$g#67$g#67$g#67";

		if (send(c.fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
			break;
	}
	assert_int_equal(pthread_join(c.thread, NULL), 0);
	assert_non_null(strstr(c.err.text, "without waiting for the answers"));
	close(c.fd);
	free(c.reply);
	fake_destroy(f);
}

/* --- Disconnects ---------------------------------------------------------------------------- */

/* A session with gdb 13.1 in miniature: connect, break, run, look, step both ways. It changes
 * nothing but where the target stands, and ends where it began. */
static const char *const recorded[] = {
	"$qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+;xmlRegisters=i386#00",
	"$vMustReplyEmpty#3a",
	"$QStartNoAckMode#b0",
	"+$Hgp0.0#ad",
	"$qXfer:features:read:target.xml:0,ffb#79",
	"$qTStatus#49",
	"$?#3f",
	"$qfThreadInfo#bb",
	"$qsThreadInfo#c8",
	"$qAttached#8f",
	"$g#67",
	"$Z0,1014,1;X7,26000022031327#00",
	"$Z2,9000,8#00",
	"$vCont;c#a8",
	"\x03",
	"$m1000,40#00",
	"$X20000,0:#00",
	"$z0,1014,1#00",
	"$z2,9000,8#00",
	"$vCont;r1010,1022:1;c:-1#00",
	"$Hc1#00",
	"$bs#d5",
	"$bc#c5",
	"$qRcmd,7768656e#00",
};

static void test_disconnect_anywhere(void **state)
{
	struct fake *f = fake_create(10, false);
	char *registers = registers_of(f);
	struct buf all = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(recorded); i++) {
		const char *text = recorded[i];

		/* Sums are made here: with acks, a wrong one is a packet not taken. */
		if (text[0] == '$' && i < 2) {
			struct buf frame = {0};

			gdb_frame(&frame, text + 1, strlen(text) - 4);
			buf_put(&all, frame.data, frame.len);
			buf_free(&frame);
		} else {
			buf_put(&all, text, strlen(text));
		}
	}
	assert_false(all.failed);
	for (size_t n = 0; n <= all.len; n++) {
		struct client c;

		client_connect(&c, f);
		client_send_bytes(&c, all.data, n);
		/* Half of the time the peer goes without having read. */
		if (n % 2)
			shutdown(c.fd, SHUT_WR);
		client_close(&c);
		assert_int_equal(c.rc, 0);
		assert_int_equal(c.end, GDB_END_LOST);
		assert_int_equal(f->branches, 0);
		fake_seek(f, 0);
	}
	check_intact(f, registers);
	buf_free(&all);
	free(registers);
	fake_destroy(f);
}

/* gdb dies while the guest runs: the run ends. */
static void test_disconnect_while_running(void **state)
{
	static const char *const requests[] = {"vCont;c", "bc"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct fake *f = fake_create(FOR_EVER, false);
		double start;
		struct client c;

		fake_seek(f, 3000000);
		f->slice_us = 5000; /* fifteen seconds if nobody interrupts */
		client_connect(&c, f);
		client_request(&c, "QStartNoAckMode");
		client_send(&c, requests[i], strlen(requests[i]));
		usleep(50000);
		start = seconds();
		client_close(&c);
		assert_true(seconds() - start < 5);
		assert_int_equal(c.end, GDB_END_LOST);
		assert_string_equal(c.err.text, "");
		fake_destroy(f);
	}
}

/* --- Ctrl-C --------------------------------------------------------------------------------- */

static void test_break_everywhere(void **state)
{
	static const struct {
		const char *request, *reply;
	} cases[] = {
		{"vCont;c", "T02thread:1;"},
		{"vCont;r0,ffffff:1", "T02thread:1;"},
		{"bc", "T02thread:1;"},
		{"qRcmd,77616974", "E04"}, /* "wait" */
		{"qSearch:memory:0;7fffffffffffffff;nowhere", "E04"},
		{"qCRC:0,7fffffffffffffff", "E04"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fake *f = fake_create(FOR_EVER, false);
		double start;
		struct client c;

		f->endless_memory = true;
		fake_seek(f, 3000000);
		f->slice_us = 5000;
		client_connect(&c, f);
		client_request(&c, "QStartNoAckMode");
		client_send(&c, cases[i].request, strlen(cases[i].request));
		usleep(50000);
		start = seconds();
		client_send_bytes(&c, "\x03", 1);
		assert_memory_equal(client_reply(&c), cases[i].reply, strlen(cases[i].reply));
		assert_true(seconds() - start < 5);
		/* It does not linger: the next run goes until it has a reason to stop. */
		assert_string_equal(client_request(&c, "Z0,1014,1"), "OK");
		assert_memory_equal(client_request(&c, "vCont;c"), "T05", 3);
		/* One that comes between two runs of one command stops the next, once. */
		client_send_bytes(&c, "\x03\x03", 2);
		assert_memory_equal(client_request(&c, "vCont;s:1"), "T02", 3);
		assert_memory_equal(client_request(&c, "vCont;s:1"), "T05", 3);
		/* One that nobody waits for is forgotten. */
		client_send_bytes(&c, "\x03", 1);
		client_expect_silence(&c);
		assert_memory_equal(client_request(&c, "vCont;s:1"), "T05", 3);
		client_close(&c);
		fake_destroy(f);
	}
}

/* gdb gives up waiting for a monitor command and asks something else: that is answered, and nothing
 * but that. */
static void test_abandoned_request(void **state)
{
	static const char *const requests[] = {"qRcmd,77616974", "qCRC:0,7fffffffffffffff"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct fake *f = fake_create(10, false);
		struct client c;

		f->endless_memory = true;
		client_connect(&c, f);
		client_request(&c, "QStartNoAckMode");
		client_send(&c, requests[i], strlen(requests[i]));
		usleep(50000);
		assert_string_equal(client_request(&c, "qC"), "QC1");
		assert_string_equal(client_request(&c, "qAttached"), "1");
		client_expect_silence(&c);
		client_close(&c);
		fake_destroy(f);
	}
}

static void test_quit_flag(void **state)
{
	static volatile sig_atomic_t quit;
	struct gdb_session_options options = {.listen_fd = -1, .quit = &quit};
	struct fake *f = fake_create(FOR_EVER, false);
	enum gdb_end end;
	struct err err;
	int fds[2];

	(void)state;
	/* At once when it is set already; the peer asks for a run that would never end. */
	quit = 1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(write(fds[0], "$vCont;c#a8", 11), 11);
	assert_int_equal(gdb_session_serve(fds[1], &options, &f->target, &end, &err), -EINTR);
	close(fds[0]);
	fake_destroy(f);
}

/* --- Listening ------------------------------------------------------------------------------ */

static int connect_unix(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sa.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void test_listen_unix(void **state)
{
	char dir[] = "/tmp/gdbstub-XXXXXX", path[64];
	struct gdb_listener l, second;
	struct err err;
	struct stat st;
	int fd, peer;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/gdb", dir);
	assert_int_equal(gdb_listener_open(&l, path, false, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_string_equal(l.name, path);
	assert_int_equal(gdb_listener_accept(&l, 0, NULL, &fd, &err), 0);
	peer = connect_unix(path);
	assert_int_equal(gdb_listener_accept(&l, -1, NULL, &fd, &err), 1);
	close(peer);
	close(fd);
	/* In use: refused. Left behind: replaced. A file of somebody else: left alone. */
	assert_int_equal(gdb_listener_open(&second, path, false, &err), -EADDRINUSE);
	close(l.fd);
	assert_int_equal(gdb_listener_open(&second, path, false, &err), 0);
	gdb_listener_close(&second);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(close(creat(path, 0600)), 0);
	assert_int_equal(gdb_listener_open(&second, path, false, &err), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
	unlink(path);
	rmdir(dir);
}

static void test_listen_tcp(void **state)
{
	static const struct {
		const char *address;
		bool allow;
		int rc;
		bool remote;
	} cases[] = {
		{"0", false, 0, false},
		{":0", false, 0, false},
		{"localhost:0", false, 0, false},
		{"127.0.0.1:0", false, 0, false},
		{"127.1.2.3:0", false, 0, false},
		{"0.0.0.0:0", false, -EPERM, false},
		{"192.0.2.1:0", false, -EPERM, false},
		{"[::]:0", false, -EPERM, false},
		{"0.0.0.0:0", true, 0, true},
		{"example.org:0", true, -EINVAL, false},
		{"example.org:0", false, -EINVAL, false},
		{"", false, -EINVAL, false},
		{"gdb", false, -EINVAL, false},
		{"localhost:", false, -EINVAL, false},
		{"localhost:x", false, -EINVAL, false},
		{"localhost:1x", false, -EINVAL, false},
		{"70000", false, -EINVAL, false},
		{"-1", false, -EINVAL, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct gdb_listener l;
		struct err err = {{0}};
		int rc = gdb_listener_open(&l, cases[i].address, cases[i].allow, &err);

		if (rc != cases[i].rc)
			fail_msg("'%s': %d, %s", cases[i].address, rc, err.text);
		assert_int_equal(rc != 0, err.text[0] != 0);
		if (rc)
			continue;
		assert_int_equal(l.remote, cases[i].remote);
		assert_non_null(strrchr(l.name, ':'));
		assert_string_not_equal(strrchr(l.name, ':'), ":0");
		gdb_listener_close(&l);
	}
}

/* A second gdb is told to wait its turn, whether the first thinks or runs. */
static void test_one_at_a_time(void **state)
{
	struct fake *f = fake_create(FOR_EVER, false);
	char dir[] = "/tmp/gdbstub-XXXXXX", path[64];
	struct gdb_listener l;
	struct err err;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/gdb", dir);
	assert_int_equal(gdb_listener_open(&l, path, false, &err), 0);
	for (int running = 0; running < 2; running++) {
		struct client first, other = {.fake = f};

		client_connect_beside(&first, f, l.fd);
		client_request(&first, "QStartNoAckMode");
		if (running)
			client_send(&first, "vCont;c", 7);
		other.fd = connect_unix(path);
		other.reply = malloc(CLIENT_REPLY_MAX + 1);
		/* It may have been told, and turned away, before it says anything. */
		(void)!send(other.fd, "$qSupported#37", 14, MSG_NOSIGNAL);
		assert_string_equal(client_reply(&other),
				    "E.another gdb is connected; one at a time");
		assert_false(client_receive(&other));
		close(other.fd);
		free(other.reply);
		if (running)
			client_send_bytes(&first, "\x03", 1);
		else
			client_send(&first, "?", 1);
		client_reply(&first);
		client_close(&first);
		assert_int_equal(first.end, GDB_END_LOST);
	}
	gdb_listener_close(&l);
	rmdir(dir);
	fake_destroy(f);
}

/* The first has gone when the second comes, and neither has been looked at: the second is not turned away. */
static void test_next_one(void **state)
{
	struct fake *f = fake_create(FOR_EVER, false);
	char dir[] = "/tmp/gdbstub-XXXXXX", path[64], byte;
	struct gdb_session_options options = {0};
	struct gdb_listener l;
	enum gdb_end end;
	struct err err;
	int fds[2], next, served;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/gdb", dir);
	assert_int_equal(gdb_listener_open(&l, path, false, &err), 0);
	options.listen_fd = l.fd;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	close(fds[0]);
	next = connect_unix(path);
	assert_int_equal(gdb_session_serve(fds[1], &options, &f->target, &end, &err), 0);
	assert_int_equal(end, GDB_END_LOST);
	assert_int_equal(recv(next, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(gdb_listener_accept(&l, 0, NULL, &served, &err), 1);
	close(served);
	close(next);
	gdb_listener_close(&l);
	rmdir(dir);
	fake_destroy(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_endless_packet),
		cmocka_unit_test(test_never_reads),
		cmocka_unit_test(test_stranger),
		cmocka_unit_test(test_flood_while_running),
		cmocka_unit_test(test_disconnect_anywhere),
		cmocka_unit_test(test_disconnect_while_running),
		cmocka_unit_test(test_break_everywhere),
		cmocka_unit_test(test_abandoned_request),
		cmocka_unit_test(test_quit_flag),
		cmocka_unit_test(test_listen_unix),
		cmocka_unit_test(test_listen_tcp),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_next_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
