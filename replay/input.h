/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Sources of input: the outside world as the recorder sees it. A source has bytes for one channel of the
 * machine; when they enter is decided, and logged, by the recorder.
 */
#ifndef REPLAY_INPUT_H
#define REPLAY_INPUT_H

#include "base/err.h"
#include "vmm/machine.h"

#include <poll.h>

struct input_source {
	unsigned channel; /* enum input_channel */
	void *ctx;
	/* Whether take has something to give. Never waits. */
	bool (*ready)(void *ctx);
	/*
	 * Take up to `room` bytes, for the network one frame; a frame that is longer is dropped. Returns how
	 * many; 0 if there is nothing now; -ENODATA if nothing will ever come again; another negative errno,
	 * with the sentence, on failure. Never waits.
	 */
	int (*take)(void *ctx, uint8_t *out, size_t room, struct err *err);
	/*
	 * What to sleep on until ready may have become true: fills in up to `max` descriptors, returns how
	 * many, and lowers *timeout_ms if it must be looked at earlier in any case.
	 */
	unsigned (*watch)(void *ctx, struct pollfd *fds, unsigned max, int *timeout_ms);
};

/* A file, FIFO or terminal as a source. */
struct input_fd {
	int fd;
	bool always; /* a regular file is always readable */
};

/* `f` holds the source's state and must outlive it; fd stays the caller's. */
struct input_source input_fd_source(struct input_fd *f, int fd, unsigned channel);

#endif
