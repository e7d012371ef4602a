/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What every device model implements and what it may use. A device gets its time, its interrupt
 * line and its outside world through struct dev_env only, so all it does is a function of the
 * guest's own accesses, of vtime and of recorded input. Devices never fail: whatever the guest
 * writes is either modelled or ignored, and what it reads where nothing is modelled is all ones.
 */
#ifndef VMM_DEV_DEV_H
#define VMM_DEV_DEV_H

#include "base/types.h"
#include "vmm/walk.h"

/* Where a byte that the guest sends goes. */
enum dev_stream {
	DEV_STREAM_SERIAL, /* 16550 transmitter */
	DEV_STREAM_DEBUG,  /* debug console port 0xe9 */
};

enum dev_request {
	DEV_REQUEST_EXIT,  /* the guest wrote the exit port; code is the value */
	DEV_REQUEST_RESET, /* i8042 or port 0x92/0xcf9 reset; code is 0 */
};

/* Provided by the machine; valid as long as the device. vtime is in ns since the machine's start. */
struct dev_env {
	void *ctx;
	uint64_t (*now)(void *ctx);
	/* Level of an ISA interrupt line (0-15) of the 8259 pair. */
	void (*irq)(void *ctx, unsigned line, bool level);
	void (*output)(void *ctx, enum dev_stream stream, uint8_t byte);
	void (*request)(void *ctx, enum dev_request what, uint32_t code);
};

/* size is 1, 2 or 4 and the port is inside a range the device registered. */
struct dev_ops {
	const char *name;
	uint32_t (*pio_read)(void *dev, uint16_t port, unsigned size);
	void (*pio_write)(void *dev, uint16_t port, unsigned size, uint32_t value);
	/* vtime has moved to env->now(): update interrupt lines. NULL if time means nothing here. */
	void (*tick)(void *dev);
	/* The next vtime (> now) at which tick would change an interrupt line, or TIME_NEVER.
	 * `line` receives the ISA line concerned. NULL as above. */
	uint64_t (*deadline)(void *dev, unsigned *line);
	/* Visit every field that is state; not env. */
	void (*walk)(void *dev, struct walker *w);
};

/* One range of ports. Ranges of one machine do not overlap. */
struct pio_range {
	uint16_t base;
	uint16_t count;
};

#endif
