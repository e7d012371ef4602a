// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/input.h"

#include <errno.h>
#include <unistd.h>

static bool fd_ready(void *ctx)
{
	const struct input_fd *f = ctx;
	struct pollfd p = {.fd = f->fd, .events = POLLIN};

	return f->always || poll(&p, 1, 0) > 0;
}

static int fd_take(void *ctx, uint8_t *out, size_t room, struct err *err)
{
	const struct input_fd *f = ctx;
	ssize_t n;

	if (!fd_ready(ctx))
		return 0;
	n = read(f->fd, out, room);
	if (n == 0)
		return -ENODATA;
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	return n < 0 ? err_sys(err, errno, "cannot read the guest's input") : (int)n;
}

static unsigned fd_watch(void *ctx, struct pollfd *fds, unsigned max, int *timeout_ms)
{
	const struct input_fd *f = ctx;

	(void)timeout_ms;
	if (f->always || !max)
		return 0;
	fds[0] = (struct pollfd){.fd = f->fd, .events = POLLIN};
	return 1;
}

struct input_source input_fd_source(struct input_fd *f, int fd, unsigned channel)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	*f = (struct input_fd){.fd = fd};
	f->always = lseek(fd, 0, SEEK_CUR) >= 0 && poll(&p, 1, 0) > 0;
	return (struct input_source){.channel = channel,
				     .ctx = f,
				     .ready = fd_ready,
				     .take = fd_take,
				     .watch = fd_watch};
}
