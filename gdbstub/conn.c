// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A handler may set *quit just before poll sleeps: look again so often. */
#define QUIT_POLL_MS 200
#define READ_SIZE 16384

int gdb_conn_open(struct gdb_conn *c, int fd, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_sys(err, errno, "cannot use the connection to gdb");
	c->fd = fd;
	c->in.acks = true;
	return 0;
}

void gdb_conn_close(struct gdb_conn *c)
{
	close(c->fd);
	gdb_decoder_free(&c->in);
	buf_free(&c->out);
	buf_free(&c->last);
}

static void lose(struct gdb_conn *c)
{
	c->gone = true;
}

/* --- Sending -------------------------------------------------------------------------------- */

/* Send what there is without waiting; true if all is out. */
static bool flush(struct gdb_conn *c)
{
	size_t sent = 0;

	while (sent < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + sent, c->out.len - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				lose(c);
			break;
		}
		sent += (size_t)n;
	}
	if (sent) {
		memmove(c->out.data, c->out.data + sent, c->out.len - sent);
		c->out.len -= sent;
	}
	return c->out.len == 0;
}

static void drain(struct gdb_conn *c)
{
	int waited = 0;

	if (c->out.failed) {
		err_set(&c->why, ENOMEM, "out of memory");
		lose(c);
	}
	while (!c->gone) {
		struct pollfd p = {.fd = c->fd, .events = POLLOUT};
		int slice = c->stall_ms < QUIT_POLL_MS ? c->stall_ms : QUIT_POLL_MS;
		size_t before = c->out.len;

		if (flush(c))
			return;
		if (c->out.len < before)
			waited = 0;
		if (waited >= c->stall_ms || gdb_conn_quit(c)) {
			err_set(&c->why, ETIMEDOUT, "it did not read for %d ms", waited);
			lose(c);
			return;
		}
		if (poll(&p, 1, slice) == 0)
			waited += slice;
	}
}

void gdb_conn_send(struct gdb_conn *c, const void *payload, size_t n)
{
	if (c->gone)
		return;
	buf_clear(&c->last);
	gdb_frame(&c->last, payload, n);
	buf_put(&c->out, c->last.data, c->last.len);
	c->out.failed |= c->last.failed;
	drain(c);
}

/* --- Receiving ------------------------------------------------------------------------------ */

static void take_in(struct gdb_conn *c)
{
	uint8_t data[READ_SIZE];
	ssize_t n = recv(c->fd, data, sizeof(data), 0);

	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			lose(c);
		return;
	}
	if (gdb_decoder_feed(&c->in, data, (size_t)n, &c->out, &c->why)) {
		lose(c);
		return;
	}
	if (c->in.resend) {
		c->in.resend = false;
		buf_put(&c->out, c->last.data, c->last.len);
	}
	drain(c);
}

/* A gdb that meets a busy stub would wait for ever; it shows a failure of its first request as a
 * warning. */
static void turn_away(struct gdb_conn *c)
{
	static const char text[] = "E.another gdb is connected; one at a time";
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	uint8_t unread[1024];
	struct buf out = {0};

	if (fd < 0)
		return;
	buf_put_u8(&out, '+');
	gdb_frame(&out, text, sizeof(text) - 1);
	/* What it has sent is taken: closing on unread data would lose the answer too. */
	if (!out.failed && send(fd, out.data, out.len, MSG_NOSIGNAL) > 0 &&
	    recv(fd, unread, sizeof(unread), 0) >= 0)
		shutdown(fd, SHUT_WR);
	buf_free(&out);
	close(fd);
}

void gdb_conn_wait(struct gdb_conn *c, int timeout_ms)
{
	struct pollfd p[2] = {{.fd = c->fd, .events = POLLIN},
			      {.fd = c->listen_fd, .events = POLLIN}};
	int slice = timeout_ms >= 0 && timeout_ms < QUIT_POLL_MS ? timeout_ms : QUIT_POLL_MS;

	for (;;) {
		int n = poll(p, 2, slice); /* a negative fd is passed over */

		/* The peer first: where it has gone, the next one is welcome. */
		if (n > 0 && p[0].revents) {
			take_in(c);
			return;
		}
		if (n > 0 && p[1].revents)
			turn_away(c);
		if (gdb_conn_quit(c))
			return;
		if (timeout_ms >= 0) {
			timeout_ms -= slice;
			if (timeout_ms <= 0)
				return;
		}
	}
}
