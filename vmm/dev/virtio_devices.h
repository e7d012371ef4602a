/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The virtio devices of the machine. Each has a slot of its own and is there only if asked for.
 */
#ifndef VMM_DEV_VIRTIO_DEVICES_H
#define VMM_DEV_VIRTIO_DEVICES_H

#include "vmm/dev/disk.h"
#include "vmm/dev/virtio.h"

enum {
	VIRTIO_SLOT_BLK,
	VIRTIO_SLOT_RNG,
	VIRTIO_SLOT_CONSOLE,
	VIRTIO_SLOT_NET,
};

/* --- Block device, section 5.2 (virtio_blk.c) ----------------------------------------------------- */
struct virtio_blk {
	struct virtio v;
	struct disk disk;
};

extern const struct dev_ops virtio_blk_ops;
/* The image must outlive the device. Call virtio_blk_destroy also after failure. */
int virtio_blk_init(struct virtio_blk *b, const struct dev_env *env, const uint8_t *image,
		    uint64_t size, struct err *err);
void virtio_blk_destroy(struct virtio_blk *b);

/* --- Entropy source, section 5.4 (virtio_rng.c) --------------------------------------------------- */
struct virtio_rng {
	struct virtio v;
};

extern const struct dev_ops virtio_rng_ops;
void virtio_rng_init(struct virtio_rng *r, const struct dev_env *env);

/* --- Console, section 5.3 (virtio_console.c) ------------------------------------------------------ */
#define VIRTIO_CONSOLE_PORTS 4
/* Bytes that arrive at a port at one time at most. */
#define VIRTIO_CONSOLE_INPUT_MAX 1024
#define VIRTIO_CONSOLE_COLUMNS 80
#define VIRTIO_CONSOLE_ROWS 25

struct virtio_console {
	struct virtio v;
	unsigned ports;
	uint8_t owed[VIRTIO_CONSOLE_PORTS]; /* messages that the driver is still to get, a bit each */
	uint8_t open[VIRTIO_CONSOLE_PORTS]; /* the guest has the port open */
	uint16_t columns, rows; /* of the window behind port 0 */
};

extern const struct dev_ops virtio_console_ops;
/* ports: 1 to VIRTIO_CONSOLE_PORTS; port 0 is a console. */
void virtio_console_init(struct virtio_console *c, const struct dev_env *env, unsigned ports);
/* How many bytes the port can take now. */
size_t virtio_console_room(const struct virtio_console *c, unsigned port);
/* Bytes arriving at the port; n <= virtio_console_room. */
void virtio_console_receive(struct virtio_console *c, unsigned port, const uint8_t *bytes, size_t n);
/* Whether port 0 is in use by a driver that can be told the size of its window (section 5.3.6.2). */
bool virtio_console_takes_size(const struct virtio_console *c);
/* The window has another size than the configuration space says; only if virtio_console_takes_size. */
void virtio_console_resize(struct virtio_console *c, uint16_t columns, uint16_t rows);

/* --- Network card, section 5.1 (virtio_net.c) ----------------------------------------------------- */
/* IEEE 802.3: header, one tag, 1500 bytes, no checksum. */
#define VIRTIO_NET_FRAME_MAX 1518

struct virtio_net {
	struct virtio v;
	uint8_t mac[6]; /* fixed */
};

extern const struct dev_ops virtio_net_ops;
void virtio_net_init(struct virtio_net *n, const struct dev_env *env, const uint8_t mac[6]);
/* Length of the longest frame that the card can take now, 0 if it can take none. */
size_t virtio_net_room(const struct virtio_net *n);
/* A frame arrives; len <= virtio_net_room. */
void virtio_net_receive(struct virtio_net *n, const uint8_t *frame, size_t len);

#endif
