/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The other end of the stub's connection: a thread serves a fake target over a socket pair, and the
 * test sends what a gdb would, or what none would. Its reading of packets is its own, not the
 * stub's.
 */
#ifndef TESTS_UNIT_GDB_CLIENT_H
#define TESTS_UNIT_GDB_CLIENT_H

#include "gdbstub/session.h"
#include "tests/gdb/fake_target.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
	int fd;
	struct fake *fake;
	struct gdb_session_options options;
	/* Of the serving thread. */
	int server_fd;
	pthread_t thread;
	enum gdb_end end;
	int rc;
	struct err err;
	/* The last reply, escapes and runs resolved, with a NUL behind. */
	uint8_t *reply;
	size_t len;
	char console[4096]; /* text of O packets since the last client_request */
};

#define CLIENT_REPLY_MAX 0x40000u

static inline void *client_serve(void *arg)
{
	struct client *c = arg;

	c->rc = gdb_session_serve(c->server_fd, &c->options, &c->fake->target, &c->end, &c->err);
	return NULL;
}

/* Connect to a fresh session of the fake; it turns others away from listen_fd (-1: none). */
static inline void client_connect_beside(struct client *c, struct fake *f, int listen_fd)
{
	int fds[2];

	*c = (struct client){.fake = f, .options = {.listen_fd = listen_fd, .stall_ms = 300}};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	c->fd = fds[0];
	c->server_fd = fds[1];
	c->reply = malloc(CLIENT_REPLY_MAX + 1);
	assert_non_null(c->reply);
	assert_int_equal(pthread_create(&c->thread, NULL, client_serve, c), 0);
}

static inline void client_connect(struct client *c, struct fake *f)
{
	client_connect_beside(c, f, -1);
}

/* Close our end and wait until the session is over. */
static inline void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	assert_int_equal(pthread_join(c->thread, NULL), 0);
	free(c->reply);
}

static inline void client_send_bytes(struct client *c, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n) {
		ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);

		assert_true(sent > 0);
		p += sent;
		n -= (size_t)sent;
	}
}

/* As gdb does it: escapes, no runs. */
static inline void client_send(struct client *c, const void *payload, size_t n)
{
	const uint8_t *p = payload;
	uint8_t *out = malloc(2 * n + 8);
	size_t len = 0;
	uint8_t sum = 0;
	char tail[4];

	assert_non_null(out);
	out[len++] = '$';
	for (size_t i = 0; i < n; i++) {
		bool special = p[i] == '$' || p[i] == '#' || p[i] == '}' || p[i] == '*';

		if (special)
			out[len++] = '}';
		out[len++] = special ? p[i] ^ 0x20 : p[i];
	}
	for (size_t i = 1; i < len; i++)
		sum = (uint8_t)(sum + out[i]);
	snprintf(tail, sizeof(tail), "#%02x", sum);
	memcpy(out + len, tail, 3);
	client_send_bytes(c, out, len + 3);
	free(out);
}

/* The next byte, or -1 if the stub has closed. A test that waits for ten seconds has failed. */
static inline int client_byte(struct client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	uint8_t byte;

	assert_int_equal(poll(&p, 1, 10000), 1);
	return recv(c->fd, &byte, 1, 0) == 1 ? byte : -1;
}

/* Read a packet; false if the stub has closed. */
static inline bool client_receive(struct client *c)
{
	unsigned sum = 0;
	int byte = client_byte(c);
	char tail[3] = {0};

	while (byte == '+')
		byte = client_byte(c);
	if (byte < 0)
		return false;
	assert_int_equal(byte, '$');
	c->len = 0;
	while ((byte = client_byte(c)) != '#') {
		unsigned times = 1;

		assert_true(byte >= 0);
		sum += (unsigned)byte;
		if (byte == '}') {
			byte = client_byte(c);
			sum += (unsigned)byte;
			byte ^= 0x20;
		} else if (byte == '*') {
			byte = client_byte(c);
			assert_true(byte >= ' ' && byte <= '~');
			sum += (unsigned)byte;
			times = (unsigned)byte - 29;
			assert_true(c->len > 0);
			byte = c->reply[c->len - 1];
		}
		while (times--) {
			assert_true(c->len < CLIENT_REPLY_MAX);
			c->reply[c->len++] = (uint8_t)byte;
		}
	}
	c->reply[c->len] = 0;
	tail[0] = (char)client_byte(c);
	tail[1] = (char)client_byte(c);
	assert_int_equal(strtoul(tail, NULL, 16), sum & 0xff);
	return true;
}

/* The stub has nothing to say for a while. */
static inline void client_expect_silence(struct client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 600), 0);
}

static inline void client_keep_console(struct client *c)
{
	size_t at = strlen(c->console);

	for (size_t i = 1; i + 1 < c->len && at + 1 < sizeof(c->console); i += 2) {
		const char pair[3] = {(char)c->reply[i], (char)c->reply[i + 1], 0};

		c->console[at++] = (char)strtoul(pair, NULL, 16);
	}
	c->console[at] = 0;
}

/* The reply to a request that is on its way; console text before it is kept. */
static inline const char *client_reply(struct client *c)
{
	c->console[0] = 0;
	for (;;) {
		assert_true(client_receive(c));
		if (c->reply[0] != 'O' || strcmp((const char *)c->reply, "OK") == 0)
			return (const char *)c->reply;
		client_keep_console(c);
	}
}

static inline const char *client_request(struct client *c, const char *request)
{
	client_send(c, request, strlen(request));
	return client_reply(c);
}

/* The bytes of a text in hex, for qRcmd and vRun. */
static inline const char *client_hex(const char *prefix, const char *text, char *out, size_t size)
{
	size_t n = (size_t)snprintf(out, size, "%s", prefix);

	for (; *text && n + 2 < size; text++, n += 2)
		snprintf(out + n, size - n, "%02x", (unsigned char)*text);
	return out;
}

static inline const char *client_monitor(struct client *c, const char *line)
{
	char request[512];

	return client_request(c, client_hex("qRcmd,", line, request, sizeof(request)));
}

#endif
