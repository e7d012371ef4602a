// SPDX-License-Identifier: GPL-3.0-or-later
/* The block device and its disk: byte for byte against a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/device_board.h"
#include "tests/unit/virtio_rig.h"

/* Ends within a block, so that the last one is short. */
#define SECTORS 203u
#define DISK_SIZE (SECTORS * 512u)
#define QUEUE 32
#define STATUS_AT (RIG_DATA - 16)
#define HEADER_AT (RIG_DATA - 64)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8 };
enum { OK, IOERR, UNSUPP };

static uint8_t image[DISK_SIZE], image_before[DISK_SIZE], model[DISK_SIZE];
static struct rig rig, twin;
static struct virtio_blk blk, twin_blk;

static void make(struct rig *r, struct virtio_blk *b)
{
	struct dev_env env = rig_init(r, &virtio_blk_ops, b);
	struct err err;

	assert_int_equal(virtio_blk_init(b, &env, image, sizeof(image), &err), 0);
}

static void start(void)
{
	make(&rig, &blk);
	assert_true(rig_negotiate(&rig, rig_features(&rig)));
	rig_queue(&rig, 0, QUEUE);
	rig_go(&rig);
}

static int setup(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(image); i++)
		image[i] = rnd_byte();
	memcpy(image_before, image, sizeof(image));
	memcpy(model, image, sizeof(image));
	return 0;
}

/* Cut [gpa, gpa+len) into up to n descriptors at random. */
static unsigned cut(struct rig_desc *d, unsigned n, uint64_t gpa, uint32_t len, uint16_t flags)
{
	unsigned i = 0;

	while (len && i + 1 < n && rnd(4)) {
		uint32_t piece = rnd(len + 1);

		d[i++] = (struct rig_desc){.addr = gpa, .len = piece, .flags = flags};
		gpa += piece;
		len -= piece;
	}
	d[i++] = (struct rig_desc){.addr = gpa, .len = len, .flags = flags};
	return i;
}

/* Put a request into the ring; its data lies at RIG_DATA. Returns the bytes that the device may write. */
static uint32_t post(struct rig *r, uint32_t type, uint64_t sector, uint32_t len)
{
	struct rig_desc d[QUEUE];
	uint16_t flags = type == T_OUT ? 0 : D_WRITE;
	unsigned n = cut(d, 3, HEADER_AT, 16, 0);

	memcpy(r->ram + HEADER_AT, &type, 4);
	memset(r->ram + HEADER_AT + 4, rnd_byte(), 4);
	memcpy(r->ram + HEADER_AT + 8, &sector, 8);
	r->ram[STATUS_AT] = 0xee;
	if (len)
		n += cut(d + n, QUEUE - n - 1, RIG_DATA, len, flags);
	d[n++] = (struct rig_desc){.addr = STATUS_AT, .len = 1, .flags = D_WRITE};
	rig_chain(r, 0, (uint16_t)rnd(QUEUE), d, n);
	return (flags ? len : 0) + 1;
}

/* One request; returns its status and gives the length that came back. */
static uint8_t request(struct rig *r, uint32_t type, uint64_t sector, uint32_t len, uint32_t *used)
{
	uint32_t head;

	post(r, type, sector, len);
	rig_notify(r, 0);
	assert_true(rig_used(r, 0, &head, used));
	assert_false(rig_used(r, 0, &head, used));
	return r->ram[STATUS_AT];
}

static void test_config(void **state)
{
	(void)state;
	start();
	assert_int_equal(rig_get(&rig, 0x08), 2);
	assert_int_equal(rig_get(&rig, R_CONFIG), SECTORS);
	assert_int_equal(rig_get(&rig, R_CONFIG + 4), 0);
	assert_int_equal(rig_get(&rig, R_CONFIG + 8), 65536);
	assert_int_equal(rig_get(&rig, R_CONFIG + 12), VIRTIO_QUEUE_SIZE - 2);
	assert_int_equal(rig_get(&rig, R_CONFIG + 20), 512);
	/* The configuration space can be read in any size. */
	assert_int_equal((uint8_t)virtio_blk_ops.mmio_read(&blk, R_CONFIG, 1), SECTORS);
	assert_true(virtio_blk_ops.mmio_read(&blk, R_CONFIG, 8) == SECTORS);
	assert_true(virtio_blk_ops.mmio_read(&blk, R_CONFIG + VIRTIO_CONFIG_SIZE - 4, 8) == UINT64_MAX);
	rig_set(&rig, R_CONFIG, 1);
	assert_int_equal(rig_get(&rig, R_CONFIG), SECTORS);
	virtio_blk_destroy(&blk);
}

static void test_other_requests(void **state)
{
	uint32_t used;

	(void)state;
	start();
	assert_int_equal(request(&rig, T_FLUSH, 0, 0, &used), OK);
	assert_int_equal(used, 1);
	assert_int_equal(request(&rig, T_GET_ID, 0, 20, &used), OK);
	assert_int_equal(used, 21);
	assert_string_equal((char *)rig.ram + RIG_DATA, "hindsight-disk");
	assert_int_equal(request(&rig, 99, 0, 512, &used), UNSUPP);
	/* Beyond the end, also by overflow; not whole sectors. */
	assert_int_equal(request(&rig, T_IN, SECTORS, 512, &used), IOERR);
	assert_int_equal(used, 1);
	assert_int_equal(request(&rig, T_IN, SECTORS - 1, 1024, &used), IOERR);
	assert_int_equal(request(&rig, T_OUT, UINT64_MAX, 512, &used), IOERR);
	assert_int_equal(request(&rig, T_OUT, 1ull << 55, 512, &used), IOERR);
	assert_int_equal(request(&rig, T_IN, 0, 511, &used), IOERR);
	assert_int_equal(request(&rig, T_IN, SECTORS, 0, &used), OK);
	virtio_blk_destroy(&blk);
}

/* A request without a whole header, or without a byte for the status. */
static void test_malformed_requests(void **state)
{
	uint32_t head, used;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct rig_desc d[2] = {{.addr = HEADER_AT, .len = i ? 16 : 15},
					{.addr = STATUS_AT, .len = i == 1 ? 0 : 1, .flags = D_WRITE}};

		start();
		rig_chain(&rig, 0, 0, d, i == 2 ? 1 : 2);
		rig_notify(&rig, 0);
		assert_true(rig_get(&rig, R_STATUS) & S_NEEDS_RESET);
		assert_false(rig_used(&rig, 0, &head, &used));
		virtio_blk_destroy(&blk);
	}
}

static uint64_t overlay_digest(const struct virtio_blk *b)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < b->disk.blocks; i++)
		if (b->disk.present[i / 64] >> (i % 64) & 1)
			sum += XXH3_64bits_withSeed(b->disk.overlay + i * DISK_BLOCK, DISK_BLOCK, i + 1);
	return sum;
}

/* One random request against the model; the same is asked of both rigs if there are two. */
static void random_request(struct rig *r)
{
	uint32_t sectors = rnd(24), used;
	uint64_t sector = rnd(SECTORS + 4);
	uint32_t len = sectors * 512;
	bool fits = sector + sectors <= SECTORS;
	uint32_t type = rnd(2) ? T_OUT : T_IN;
	uint8_t status;

	if (type == T_OUT)
		for (uint32_t i = 0; i < len; i++)
			r->ram[RIG_DATA + i] = rnd_byte();
	else
		memset(r->ram + RIG_DATA, 0x5a, len);
	status = request(r, type, sector, len, &used);
	assert_int_equal(status, fits ? OK : IOERR);
	if (type == T_OUT) {
		assert_int_equal(used, 1);
		if (fits)
			memcpy(model + sector * 512, r->ram + RIG_DATA, len);
		return;
	}
	assert_int_equal(used, fits ? len + 1 : 1);
	for (uint32_t i = 0; i < len; i++)
		if (r->ram[RIG_DATA + i] != (fits ? model[sector * 512 + i] : 0x5a))
			fail_msg("byte %u of sector %u differs", i, (unsigned)sector);
}

static void check_whole_disk(struct rig *r)
{
	for (unsigned s = 0; s < SECTORS; s += 29) {
		uint32_t len = (SECTORS - s < 29 ? SECTORS - s : 29) * 512, used;

		assert_int_equal(request(r, T_IN, s, len, &used), OK);
		assert_memory_equal(r->ram + RIG_DATA, model + s * 512, len);
	}
}

/* Random requests; time and again the whole state moves to another device, which goes on. */
static void test_against_model(void **state)
{
	(void)state;
	memcpy(model, image, sizeof(image));
	start();
	make(&twin, &twin_blk);
	for (unsigned round = 0; round < 60; round++) {
		struct rig *from = round % 2 ? &twin : &rig, *to = round % 2 ? &rig : &twin;

		for (unsigned i = 0; i < 100; i++)
			random_request(from);
		assert_true(rig_copy(from, to));
		assert_true(rig_digest(from) == rig_digest(to));
		assert_true(((struct virtio_blk *)to->dev)->disk.digest == overlay_digest(to->dev));
		/* What it had of its own before is gone, and the other does not see what comes now. */
		check_whole_disk(from);
		check_whole_disk(to);
	}
	assert_memory_equal(image, image_before, sizeof(image));
	virtio_blk_destroy(&blk);
	virtio_blk_destroy(&twin_blk);
}

/* A whole ring of requests on one notification comes back in order. */
static void test_many_at_once(void **state)
{
	uint32_t head, len, want[QUEUE / 3];

	(void)state;
	start();
	for (unsigned round = 0; round < 50; round++) {
		for (uint16_t i = 0; i < QUEUE / 3; i++) {
			struct rig_desc d[3] = {
				{.addr = HEADER_AT, .len = 16},
				{.addr = RIG_DATA + 512u * i, .len = 512, .flags = D_WRITE},
				{.addr = STATUS_AT, .len = 1, .flags = D_WRITE}};

			memset(rig.ram + HEADER_AT, 0, 16);
			want[i] = (i * 3u + round) % QUEUE;
			rig_chain(&rig, 0, (uint16_t)want[i], d, 3);
		}
		rig_notify(&rig, 0);
		for (unsigned i = 0; i < QUEUE / 3; i++) {
			assert_true(rig_used(&rig, 0, &head, &len));
			assert_int_equal(head, want[i]);
			assert_int_equal(len, 513);
			assert_memory_equal(rig.ram + RIG_DATA + 512 * i, image, 512);
		}
		assert_false(rig_used(&rig, 0, &head, &len));
	}
	virtio_blk_destroy(&blk);
}

/* A comparison names the block that differs; a damaged state is refused. */
static void test_compare_and_damage(void **state)
{
	struct walker save, other;
	uint32_t used;

	(void)state;
	start();
	make(&twin, &twin_blk);
	memset(rig.ram + RIG_DATA, 7, 512);
	assert_int_equal(request(&rig, T_OUT, 9, 512, &used), OK);
	walker_init_save(&save);
	virtio_blk_ops.walk(&blk, &save);
	memset(rig.ram + RIG_DATA, 8, 512);
	request(&rig, T_OUT, 9, 512, &used);
	blk.v.queue[0].next_avail--;
	blk.v.queue[0].next_used--;
	walker_init_compare(&other, save.out.data, save.out.len);
	virtio_blk_ops.walk(&blk, &other);
	assert_true(other.differs);
	assert_string_equal(other.diff, "virtio-blk.data");
	assert_int_equal(other.diff_offset, 512);
	walker_fini(&other);
	for (size_t n = 0; n < save.out.len; n += 1 + n / 7) {
		walker_init_restore(&other, save.out.data, n);
		virtio_blk_ops.walk(&twin_blk, &other);
		assert_true(walker_failed(&other));
		walker_fini(&other);
	}
	/* A block that the disk does not have. */
	memset(save.out.data + save.out.len - DISK_BLOCK - 8, 0x7f, 8);
	walker_init_restore(&other, save.out.data, save.out.len);
	virtio_blk_ops.walk(&twin_blk, &other);
	assert_true(walker_failed(&other));
	walker_fini(&other);
	walker_fini(&save);
	virtio_blk_destroy(&blk);
	virtio_blk_destroy(&twin_blk);
}

static void test_image_sizes(void **state)
{
	static const uint64_t bad[] = {0, 1, 511, 513, DISK_MAX + 512, UINT64_MAX};
	struct disk d;
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(disk_create(&d, image, bad[i], &err) < 0);
		assert_non_null(strstr(err.text, "disk image"));
		disk_destroy(&d);
	}
	assert_int_equal(disk_create(&d, image, 512, &err), 0);
	disk_destroy(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_other_requests),
		cmocka_unit_test(test_malformed_requests),
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_compare_and_damage),
		cmocka_unit_test(test_image_sizes),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
