// SPDX-License-Identifier: GPL-3.0-or-later
/* Block device, section 5.2. */
#include "vmm/dev/virtio_devices.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <string.h>

/* One request: header, data in up to SEG_MAX pieces of SIZE_MAX, status. */
#define SEG_MAX (VIRTIO_QUEUE_SIZE - 2)
#define SIZE_MAX_BYTES (64u << 10)
#define DATA_MAX (SEG_MAX * SIZE_MAX_BYTES)
#define HEADER_SIZE 16u
#define STATUS_SIZE 1u

/* What VIRTIO_BLK_T_GET_ID answers, padded with zeros. */
static const char identity[VIRTIO_BLK_ID_BYTES] = "hindsight-disk";

/* struct virtio_blk_outhdr with the reserved word that older headers call ioprio. */
struct header {
	uint32_t type, reserved;
	uint64_t sector;
};

_Static_assert(sizeof(struct header) == HEADER_SIZE, "section 5.2.6");

/* Move `len` bytes between disk and chain. The caller has checked both ranges, and the chain itself was
 * checked when it was taken. */
static bool transfer(struct virtio_blk *b, const struct virtio_chain *c, bool write, uint64_t offset,
		     uint32_t len)
{
	for (uint32_t done = 0; done < len;) {
		uint32_t n;
		bool ok;

		if (write) {
			uint8_t *p = disk_at_dirty(&b->disk, offset + done, &n);

			n = n < len - done ? n : len - done;
			ok = virtio_chain_read(&b->v, c, HEADER_SIZE + done, p, n);
		} else {
			const uint8_t *p = disk_at(&b->disk, offset + done, &n);

			n = n < len - done ? n : len - done;
			ok = virtio_chain_write(&b->v, c, done, p, n);
		}
		if (!ok)
			return false;
		done += n;
	}
	return true;
}

/* Status of a read or write of `len` bytes. */
static uint8_t read_or_write(struct virtio_blk *b, const struct virtio_chain *c,
			     const struct header *h, uint32_t len)
{
	uint64_t sectors = b->disk.size / DISK_SECTOR;

	if (len % DISK_SECTOR || len > DATA_MAX || h->sector > sectors ||
	    len / DISK_SECTOR > sectors - h->sector)
		return VIRTIO_BLK_S_IOERR;
	return transfer(b, c, h->type == VIRTIO_BLK_T_OUT, h->sector * DISK_SECTOR, len)
		       ? VIRTIO_BLK_S_OK
		       : VIRTIO_BLK_S_IOERR;
}

/* Carry out a request; `written` receives the bytes written before the status. */
static uint8_t execute(struct virtio_blk *b, const struct virtio_chain *c, const struct header *h,
		       uint32_t *written)
{
	uint32_t in = c->write_len - STATUS_SIZE, n;
	uint8_t status;

	switch (h->type) {
	case VIRTIO_BLK_T_IN:
		status = read_or_write(b, c, h, in);
		*written = status == VIRTIO_BLK_S_OK ? in : 0;
		return status;
	case VIRTIO_BLK_T_OUT:
		return read_or_write(b, c, h, c->read_len - HEADER_SIZE);
	case VIRTIO_BLK_T_FLUSH:
		return VIRTIO_BLK_S_OK; /* what was written is on the disk already */
	case VIRTIO_BLK_T_GET_ID:
		n = in < sizeof(identity) ? in : (uint32_t)sizeof(identity);
		if (!virtio_chain_write(&b->v, c, 0, identity, n))
			return VIRTIO_BLK_S_IOERR;
		*written = n;
		return VIRTIO_BLK_S_OK;
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

static void blk_notify(void *dev, unsigned queue)
{
	struct virtio_blk *b = dev;
	unsigned n = virtio_pending(&b->v, queue);
	struct virtio_chain c;

	for (; n && virtio_take(&b->v, queue, &c); n--) {
		uint32_t written = 0;
		struct header h;
		uint8_t status;

		if (c.write_len < STATUS_SIZE ||
		    !virtio_chain_read(&b->v, &c, 0, &h, sizeof(h))) {
			virtio_break(&b->v); /* no header, or nowhere to put the status */
			return;
		}
		status = execute(b, &c, &h, &written);
		virtio_chain_write(&b->v, &c, c.write_len - STATUS_SIZE, &status, sizeof(status));
		virtio_put(&b->v, queue, &c, written + STATUS_SIZE);
	}
	virtio_signal(&b->v, queue);
}

static void blk_config(void *dev, uint8_t config[VIRTIO_CONFIG_SIZE])
{
	const struct virtio_blk *b = dev;
	struct virtio_blk_config c = {.capacity = b->disk.size / DISK_SECTOR,
				      .size_max = SIZE_MAX_BYTES,
				      .seg_max = SEG_MAX,
				      .blk_size = DISK_SECTOR};

	_Static_assert(sizeof(c) <= VIRTIO_CONFIG_SIZE, "section 5.2.4");
	memcpy(config, &c, sizeof(c));
}

static void blk_walk(void *dev, struct walker *w)
{
	struct virtio_blk *b = dev;

	virtio_walk(&b->v, virtio_blk_ops.name, w);
	disk_walk(&b->disk, w);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_BLOCK,
	.features = 1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX |
		    1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_FLUSH,
	.chain_max = HEADER_SIZE + DATA_MAX + STATUS_SIZE,
	.notify = blk_notify,
	.config = blk_config,
};

const struct dev_ops virtio_blk_ops = {
	.name = "virtio-blk",
	.mmio_read = virtio_mmio_read,
	.mmio_write = virtio_mmio_write,
	.walk = blk_walk,
};

int virtio_blk_init(struct virtio_blk *b, const struct dev_env *env, const uint8_t *image,
		    uint64_t size, struct err *err)
{
	virtio_init(&b->v, env, &ops, VIRTIO_SLOT_BLK, 1);
	return disk_create(&b->disk, image, size, err);
}

void virtio_blk_destroy(struct virtio_blk *b)
{
	disk_destroy(&b->disk);
}
