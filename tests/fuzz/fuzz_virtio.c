// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * One virtio device, chosen by FUZZ_BLK, FUZZ_RNG, FUZZ_CONSOLE or FUZZ_NET when this is compiled, under a hostile
 * guest: accesses to registers, bytes in RAM, rings and chains that are nearly right, input from outside,
 * and states that come from a damaged file. Sanitizers find what goes wrong; besides, the device must
 * keep to its own line, and asking it for room or a digest must change nothing.
 */
#include "tests/fuzz/input.h"
#include "tests/unit/virtio_rig.h"

#include <stdlib.h>

#define DISK_SIZE (37u * 512)

static struct rig rig;

static void require(bool good)
{
	if (!good)
		abort();
}

#if defined(FUZZ_BLK)
static struct virtio_blk dev;
static uint8_t image[DISK_SIZE];

static void make(void)
{
	struct dev_env env = rig_init(&rig, &virtio_blk_ops, &dev);

	for (size_t i = 0; i < sizeof(image); i++)
		image[i] = (uint8_t)i;
	require(virtio_blk_init(&dev, &env, image, sizeof(image), NULL) == 0);
}

static void unmake(void)
{
	for (size_t i = 0; i < sizeof(image); i++)
		require(image[i] == (uint8_t)i);
	virtio_blk_destroy(&dev);
}

static void receive(struct reader *in)
{
	(void)in;
}
#elif defined(FUZZ_RNG)
static struct virtio_rng dev;

static void make(void)
{
	struct dev_env env = rig_init(&rig, &virtio_rng_ops, &dev);

	virtio_rng_init(&dev, &env);
}

static void unmake(void)
{
}

static void receive(struct reader *in)
{
	(void)in;
}
#elif defined(FUZZ_CONSOLE)
static struct virtio_console dev;

static void make(void)
{
	struct dev_env env = rig_init(&rig, &virtio_console_ops, &dev);

	virtio_console_init(&dev, &env, VIRTIO_CONSOLE_PORTS);
}

static void unmake(void)
{
}

static void receive(struct reader *in)
{
	unsigned port = reader_u8(in) % (VIRTIO_CONSOLE_PORTS + 1);
	uint64_t before = rig_digest(&rig);
	size_t room = virtio_console_room(&dev, port);
	uint8_t bytes[VIRTIO_CONSOLE_INPUT_MAX];
	size_t n = input_bytes(in, bytes, room);

	require(rig_digest(&rig) == before && room <= VIRTIO_CONSOLE_INPUT_MAX);
	if (n)
		virtio_console_receive(&dev, port, bytes, n);
}
#elif defined(FUZZ_NET)
static struct virtio_net dev;

static void make(void)
{
	static const uint8_t mac[6] = {2};
	struct dev_env env = rig_init(&rig, &virtio_net_ops, &dev);

	virtio_net_init(&dev, &env, mac);
}

static void unmake(void)
{
}

static void receive(struct reader *in)
{
	uint64_t before = rig_digest(&rig);
	size_t room = virtio_net_room(&dev);
	uint8_t frame[VIRTIO_NET_FRAME_MAX];
	size_t n = input_bytes(in, frame, room);

	require(rig_digest(&rig) == before && room <= VIRTIO_NET_FRAME_MAX);
	if (n)
		virtio_net_receive(&dev, frame, n);
}
#else
#error "say which device"
#endif

/* As a driver would, with every feature and queues of any size. */
static void set_up(struct reader *in)
{
	uint64_t features = rig_features(&rig) & ~(uint64_t)reader_u8(in);

	rig_negotiate(&rig, features);
	for (unsigned q = 0; q < dev.v.queues; q++)
		rig_queue(&rig, q, (uint16_t)(1u << reader_u8(in) % 8));
	rig_go(&rig);
}

/* Make one descriptor of a chain other than it should be. */
static void spoil(struct reader *in, struct rig_desc *d)
{
	switch (reader_u8(in) % 7) {
	case 0:
		d->addr = reader_u32(in) % RIG_RAM;
		break;
	case 1:
		d->addr = reader_u64(in);
		break;
	case 2:
		d->len = reader_u16(in);
		break;
	case 3:
		d->len = reader_u32(in);
		break;
	case 4:
		d->next = reader_u16(in);
		break;
	case 5:
		d->flags = reader_u16(in);
		break;
	default:
		d->flags ^= D_WRITE;
	}
}

/*
 * A chain such as the devices expect, of the fuzzer's bytes: a header that they read, data one way or the other,
 * and a byte that they write; or data alone. Any part of it may then be spoilt.
 */
static void chain(struct reader *in)
{
	unsigned queue = reader_u8(in) % dev.v.queues;
	uint8_t shape = reader_u8(in), spoilt = reader_u8(in) & reader_u8(in);
	unsigned n = shape & 1 ? 3 + (shape >> 4) : 1;
	uint16_t first = reader_u8(in), size = rig.size[queue] ? rig.size[queue] : 1;
	uint8_t header[16] = {0};

	rig.size[queue] = size;
	input_bytes(in, header, shape & 4 ? sizeof(header) : shape & 8);
	memcpy(rig.ram + RIG_DATA, header, sizeof(header));
	for (unsigned i = 0; i < n; i++) {
		uint16_t at = (uint16_t)((first + i) % size);
		bool is_header = n > 1 && i == 0, is_status = n > 1 && i + 1 == n;
		struct rig_desc d = {.addr = RIG_DATA + 2048 * i, .len = 512};

		if (is_header || is_status)
			d.len = is_header ? (uint32_t)sizeof(header) : 1;
		if (is_status || (shape & 2 && !is_header))
			d.flags = D_WRITE;
		d.flags |= i + 1 < n ? D_NEXT : 0;
		d.next = (uint16_t)((at + 1) % size);
		if (spoilt >> i % 8 & 1)
			spoil(in, &d);
		rig_desc(&rig, queue, at, d);
	}
	rig_avail(&rig, queue, (uint16_t)(first % size));
	if (reader_u8(in) % 4 < 3)
		rig_notify(&rig, queue);
}

static void poke(struct reader *in)
{
	uint32_t at = reader_u32(in) % RIG_RAM;
	size_t max = reader_u8(in);

	input_bytes(in, rig.ram + at, max < RIG_RAM - at ? max : RIG_RAM - at);
}

/* State from a file, whole or with some bytes changed. */
static void restore(struct reader *in)
{
	struct walker save, from;
	unsigned changes = reader_u8(in) % 8;

	walker_init_save(&save);
	rig.ops->walk(&dev, &save);
	while (changes-- && save.out.len)
		save.out.data[reader_u16(in) % save.out.len] = reader_u8(in);
	walker_init_restore(&from, save.out.data, save.out.len);
	rig.ops->walk(&dev, &from);
	walker_fini(&from);
	walker_fini(&save);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader in = reader_init(data, size);

	make();
	/* Most of what there is to find lies behind this. */
	if (!(reader_u8(&in) & 1))
		set_up(&in);
	while (reader_left(&in)) {
		uint8_t what = reader_u8(&in);
		unsigned width = 1 + reader_u8(&in) % 8;
		/* The registers, mostly; some of what lies behind them. */
		uint64_t offset = reader_u16(&in) % (what & 0x80 ? 0x1000 : 0x120);

		switch (what % 8) {
		case 0:
			rig.ops->mmio_write(&dev, offset, width, reader_u64(&in));
			break;
		case 1:
			rig.ops->mmio_write(&dev, offset & ~3ull, 4, reader_u32(&in));
			break;
		case 2:
			rig.ops->mmio_read(&dev, offset, width);
			break;
		case 3:
			set_up(&in);
			break;
		case 4:
			chain(&in);
			break;
		case 5:
			poke(&in);
			break;
		case 6:
			receive(&in);
			break;
		default:
			restore(&in);
		}
		/* One line of its own, and looking at the state does not change it. */
		require(!rig.level || rig.line == virtio_slot_line(dev.v.slot));
		require(rig_digest(&rig) == rig_digest(&rig));
	}
	unmake();
	return 0;
}
