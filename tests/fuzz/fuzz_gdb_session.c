// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * libFuzzer: a whole session over the fake target. The input is a list of payloads, one a line, so
 * that the fuzzer need not find checksums; a line that begins with '!' goes out as raw bytes. After
 * it the target must still serve a plain session.
 */
#include "gdbstub/packet.h"
#include "gdbstub/session.h"
#include "tests/gdb/fake_target.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a socket takes without a reader; the session must never wait for us. */
#define INPUT_MAX 16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* Send the bytes, run the session to its end, and count the replies. */
static size_t serve(struct fake *f, const struct buf *bytes)
{
	const struct gdb_session_options options = {.listen_fd = -1, .stall_ms = 1};
	static uint8_t out[1 << 16];
	size_t replies = 0;
	enum gdb_end end;
	struct err err;
	int fds[2];
	ssize_t n;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	must(bytes->len == 0 ||
	     send(fds[0], bytes->data, bytes->len, MSG_DONTWAIT) == (ssize_t)bytes->len);
	shutdown(fds[0], SHUT_WR);
	must(gdb_session_serve(fds[1], &options, &f->target, &end, &err) == 0);
	while ((n = recv(fds[0], out, sizeof(out), 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			replies += out[i] == '$';
	}
	close(fds[0]);
	return replies;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fake *f;
	struct buf bytes = {0};
	bool live = size && data[0] & 1;

	if (!f)
		must((f = fake_create(3, live)) != NULL);
	fake_renew(f, 3, live);
	f->target.threads = size && data[0] & 2 ? 3 : 1;
	while (size) {
		const uint8_t *newline = memchr(data, '\n', size);
		size_t n = newline ? (size_t)(newline - data) : size;

		if (n && data[0] == '!')
			buf_put(&bytes, data + 1, n - 1);
		else {
			struct buf payload = {0};

			gdb_put_binary(&payload, data, n);
			/* As gdb sends it: no runs. */
			buf_put_u8(&bytes, '$');
			buf_put(&bytes, payload.data, payload.len);
			buf_put(&bytes, "#", 1);
			uint8_t sum = 0;
			for (size_t i = 0; i < payload.len; i++)
				sum = (uint8_t)(sum + payload.data[i]);
			gdb_put_hex(&bytes, &sum, 1);
			buf_free(&payload);
		}
		data += newline ? n + 1 : n;
		size -= newline ? n + 1 : n;
	}
	must(!bytes.failed);
	if (bytes.len <= INPUT_MAX)
		serve(f, &bytes);
	buf_clear(&bytes);
	gdb_frame(&bytes, "?", 1);
	must(serve(f, &bytes) == 1);
	buf_free(&bytes);
	return 0;
}
