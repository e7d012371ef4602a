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
	DEV_STREAM_PORT,   /* port 0 of the virtio console; port n is this plus n */
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
	/* Guest RAM. False, and nothing is copied, if any byte of [gpa, gpa+len) is not RAM. */
	bool (*dma_valid)(void *ctx, gpa_t gpa, uint64_t len);
	bool (*dma_read)(void *ctx, gpa_t gpa, void *out, uint64_t len);
	bool (*dma_write)(void *ctx, gpa_t gpa, const void *data, uint64_t len);
	/* The next number of the devices' own seeded generator. */
	uint64_t (*entropy)(void *ctx);
	/* An Ethernet frame, without its checksum, leaves the guest. */
	void (*transmit)(void *ctx, const uint8_t *frame, size_t len);
};

/* An access lies inside a range that the device registered. NULL where it has no such range. */
struct dev_ops {
	const char *name;
	/* size is 1, 2 or 4. */
	uint32_t (*pio_read)(void *dev, uint16_t port, unsigned size);
	void (*pio_write)(void *dev, uint16_t port, unsigned size, uint32_t value);
	/* size is 1 to 8, any of them: an access across a page comes in pieces. Only the low `size`
	 * bytes of a value count. */
	uint64_t (*mmio_read)(void *dev, uint64_t offset, unsigned size);
	void (*mmio_write)(void *dev, uint64_t offset, unsigned size, uint64_t value);
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

/* One range of addresses outside RAM; likewise. */
struct mmio_range {
	uint64_t base;
	uint64_t size;
};

#endif
