// SPDX-License-Identifier: GPL-3.0-or-later
/* Virtio transport and queues, by way of the simplest device: the entropy source. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/virtio_rig.h"

static struct rig rig, twin;
static struct virtio_rng rng, twin_rng;

static void fresh(void)
{
	struct dev_env env = rig_init(&rig, &virtio_rng_ops, &rng);

	virtio_rng_init(&rng, &env);
}

static void start(uint16_t size)
{
	fresh();
	assert_true(rig_negotiate(&rig, F_VERSION_1));
	rig_queue(&rig, 0, size);
	assert_int_equal(rig_get(&rig, R_QUEUE_READY), 1);
	rig_go(&rig);
	assert_int_equal(rig_get(&rig, R_STATUS), S_ACK | S_DRIVER | S_FEATURES | S_OK);
}

static bool broken(void)
{
	return rig_get(&rig, R_STATUS) & S_NEEDS_RESET;
}

/* One buffer, one request. */
static void ask(uint64_t gpa, uint32_t len)
{
	struct rig_desc d = {.addr = gpa, .len = len, .flags = D_WRITE};

	rig_chain(&rig, 0, 0, &d, 1);
	rig_notify(&rig, 0);
}

static void test_identity(void **state)
{
	(void)state;
	fresh();
	assert_int_equal(rig_get(&rig, R_MAGIC), 0x74726976);
	assert_int_equal(rig_get(&rig, R_VERSION), 2);
	assert_int_equal(rig_get(&rig, R_ID), 4);
	assert_true(rig_features(&rig) == F_VERSION_1);
	rig_set(&rig, R_FEATURES_SEL, 2);
	assert_int_equal(rig_get(&rig, R_FEATURES), 0);
	assert_int_equal(rig_get(&rig, R_QUEUE_MAX), VIRTIO_QUEUE_SIZE);
	rig_set(&rig, R_QUEUE_SEL, 1);
	assert_int_equal(rig_get(&rig, R_QUEUE_MAX), 0);
	/* No shared memory: its length is all ones. No configuration space. */
	assert_true(rig_get(&rig, 0xb0) == UINT32_MAX && rig_get(&rig, 0xb4) == UINT32_MAX);
	assert_true(rig_get(&rig, R_CONFIG) == UINT32_MAX);
	/* Registers are 32 bits wide. */
	assert_true((uint8_t)virtio_rng_ops.mmio_read(&rng, R_MAGIC, 1) == 0xff);
	assert_true(virtio_rng_ops.mmio_read(&rng, R_MAGIC, 8) == UINT64_MAX);
	virtio_rng_ops.mmio_write(&rng, R_STATUS, 1, S_ACK);
	assert_int_equal(rig_get(&rig, R_STATUS), 0);
}

static void test_slots(void **state)
{
	char text[VIRTIO_PARAMETER_MAX];

	(void)state;
	virtio_slot_parameter(0, text);
	assert_string_equal(text, "virtio_mmio.device=4K@0xd0000000:5");
	virtio_slot_parameter(5, text);
	assert_string_equal(text, "virtio_mmio.device=4K@0xd0005000:11");
}

static void test_negotiation(void **state)
{
	(void)state;
	fresh();
	assert_false(rig_negotiate(&rig, 0)); /* a driver of before version 1 */
	assert_false(rig_negotiate(&rig, F_VERSION_1 | 1ull << 34)); /* not offered */
	rig_go(&rig);
	assert_int_equal(rig_get(&rig, R_STATUS), S_ACK | S_DRIVER);
	assert_true(rig_negotiate(&rig, F_VERSION_1));
	/* What was agreed stays. */
	rig_set(&rig, R_DRIVER_FEATURES_SEL, 1);
	rig_set(&rig, R_DRIVER_FEATURES, 0);
	rig_go(&rig);
	assert_true(rig_get(&rig, R_STATUS) & S_FEATURES);
}

static void test_request_and_interrupt(void **state)
{
	uint32_t head, len;

	(void)state;
	start(8);
	ask(RIG_DATA, 13);
	assert_true(rig_used(&rig, 0, &head, &len));
	assert_int_equal(head, 0);
	assert_int_equal(len, 13);
	assert_int_equal(rig.ram[RIG_DATA], 1);
	assert_int_equal(rig.ram[RIG_DATA + 8], 2);
	assert_true(rig.level);
	assert_int_equal(rig.line, virtio_slot_line(VIRTIO_SLOT_RNG));
	assert_int_equal(rig_get(&rig, R_IRQ_STATUS), 1);
	/* A second cause while the line is up is an edge of its own. */
	ask(RIG_DATA, 1);
	assert_int_equal(rig.rises, 2);
	rig_set(&rig, R_IRQ_ACK, 1);
	assert_false(rig.level);
	assert_int_equal(rig_get(&rig, R_IRQ_STATUS), 0);
	/* Suppressed by the driver. */
	rig_put_16(&rig, RIG_AVAIL, 1);
	ask(RIG_DATA, 1);
	assert_int_equal(rig.rises, 2);
	/* A long buffer is filled in part, and the length says so. */
	ask(RIG_DATA, 100000);
	while (rig_used(&rig, 0, &head, &len))
		;
	assert_int_equal(len, 4096);
	assert_false(broken());
}

/* Chains made available before DRIVER_OK are served then, and a notification before does nothing. */
static void test_early_chains(void **state)
{
	struct rig_desc d = {.addr = RIG_DATA, .len = 4, .flags = D_WRITE};
	uint32_t head, len;

	(void)state;
	fresh();
	rig_negotiate(&rig, F_VERSION_1);
	rig_queue(&rig, 0, 4);
	rig_chain(&rig, 0, 0, &d, 1);
	rig_notify(&rig, 0);
	assert_false(rig_used(&rig, 0, &head, &len));
	rig_go(&rig);
	assert_true(rig_used(&rig, 0, &head, &len));
}

/* The ring's indices go on over 2^16 and its end. */
static void test_indices_wrap(void **state)
{
	uint32_t head, len;

	(void)state;
	start(4);
	for (unsigned i = 0; i < 70000; i++) {
		struct rig_desc d = {.addr = RIG_DATA, .len = 1 + i % 5, .flags = D_WRITE};

		rig_chain(&rig, 0, (uint16_t)(i % 4), &d, 1);
		rig_notify(&rig, 0);
		assert_true(rig_used(&rig, 0, &head, &len));
		assert_int_equal(head, i % 4);
		assert_int_equal(len, 1 + i % 5);
	}
	assert_false(rig_used(&rig, 0, &head, &len));
}

static void test_queue_setup_is_checked(void **state)
{
	static const struct {
		uint32_t size;
		uint64_t desc, avail, used;
		bool good;
	} setups[] = {
		{8, 0, 0x1000, 0x1800, true},
		{128, 0, 0x1000, 0x1800, true},
		{0, 0, 0x1000, 0x1800, false},
		{3, 0, 0x1000, 0x1800, false},
		{256, 0, 0x1000, 0x1800, false},
		{65544, 0, 0x1000, 0x1800, false}, /* 8, if cut to 16 bits */
		{8, 8, 0x1000, 0x1800, false},
		{8, 0, 0x1001, 0x1800, false},
		{8, 0, 0x1000, 0x1802, false},
		{8, RIG_RAM - 112, 0x1000, 0x1800, false}, /* ends behind RAM */
		{8, RIG_RAM - 128, 0x1000, 0x1800, true},
		{8, 0, RIG_RAM - 18, 0x1800, false},
		{8, 0, 0x1000, RIG_RAM - 64, false},
		{8, 0xfffffffffffffff0, 0x1000, 0x1800, false},
		{8, 1ull << 40, 0x1000, 0x1800, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
		fresh();
		rig_negotiate(&rig, F_VERSION_1);
		rig_set(&rig, R_QUEUE_NUM, setups[i].size);
		rig_set_address(&rig, R_DESC, setups[i].desc);
		rig_set_address(&rig, R_AVAIL, setups[i].avail);
		rig_set_address(&rig, R_USED, setups[i].used);
		rig_set(&rig, R_QUEUE_READY, 1);
		assert_int_equal(rig_get(&rig, R_QUEUE_READY), setups[i].good);
		assert_int_equal(broken(), !setups[i].good);
	}
}

/* Each of these chains breaks one rule. The device stops, says so, and works again after a reset. */
static void test_bad_chains(void **state)
{
	static const struct {
		struct rig_desc d[3];
		uint16_t head;
	} bad[] = {
		{{{RIG_DATA, 4, D_WRITE, 0}}, 8},				/* head beyond the ring */
		{{{RIG_DATA, 4, D_WRITE, 0}}, 0xffff},
		{{{RIG_DATA, 4, D_WRITE | D_NEXT, 8}}, 0},			/* next beyond it */
		{{{RIG_DATA, 4, D_WRITE | D_NEXT, 0}}, 0},			/* loop of one */
		{{{RIG_DATA, 0, D_NEXT, 1}, {RIG_DATA, 0, D_NEXT, 0}}, 0},	/* of two */
		{{{RIG_RAM, 1, D_WRITE, 0}}, 0},				/* not RAM */
		{{{RIG_RAM - 1, 2, D_WRITE, 0}}, 0},				/* not all RAM */
		{{{UINT64_MAX, 2, D_WRITE, 0}}, 0},
		{{{RIG_DATA, UINT32_MAX, D_WRITE, 0}}, 0},
		{{{RIG_DATA, 32, D_INDIRECT, 0}}, 0},				/* not negotiated */
		{{{RIG_DATA, 4, D_WRITE | D_NEXT, 1}, {RIG_DATA, 4, 0, 0}}, 0}, /* read after write */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint32_t head, len;

		start(8);
		for (uint16_t n = 0; n < 3; n++)
			rig_desc(&rig, 0, n, bad[i].d[n]);
		rig_avail(&rig, 0, bad[i].head);
		rig_notify(&rig, 0);
		assert_true(broken());
		assert_int_equal(rig_get(&rig, R_IRQ_STATUS), 2);
		assert_true(rig.level);
		assert_false(rig_used(&rig, 0, &head, &len));
		/* Nothing more happens ... */
		ask(RIG_DATA, 4);
		assert_false(rig_used(&rig, 0, &head, &len));
		/* ... until the reset. */
		rig_negotiate(&rig, F_VERSION_1);
		assert_false(rig.level);
		rig_queue(&rig, 0, 8);
		rig_go(&rig);
		ask(RIG_DATA, 4);
		assert_true(rig_used(&rig, 0, &head, &len));
	}
	/* More chains than the ring has room for. */
	start(8);
	rig_put_16(&rig, RIG_AVAIL + 2, 9);
	rig_notify(&rig, 0);
	assert_true(broken());
}

/* Chains of up to the whole ring are served; lengths are those asked for. */
static void test_long_chain(void **state)
{
	struct rig_desc d[VIRTIO_QUEUE_SIZE];
	uint32_t head, len;

	(void)state;
	start(VIRTIO_QUEUE_SIZE);
	for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE; i++)
		d[i] = (struct rig_desc){.addr = RIG_DATA + 3 * i, .len = 3, .flags = D_WRITE};
	rig_chain(&rig, 0, 100, d, VIRTIO_QUEUE_SIZE);
	rig_notify(&rig, 0);
	assert_true(rig_used(&rig, 0, &head, &len));
	assert_int_equal(head, 100);
	assert_int_equal(len, 3 * VIRTIO_QUEUE_SIZE);
	for (unsigned i = 0; i < len; i++)
		assert_int_equal(rig.ram[RIG_DATA + i], i % 8 ? 0 : i / 8 + 1);
}

/* The entropy is written over the index of available chains: a chain that makes another one must not keep the
 * device busy for ever. */
static void test_chains_that_make_chains(void **state)
{
	(void)state;
	start(8);
	for (uint16_t i = 0; i < 8; i++)
		rig_desc(&rig, 0, i,
			 (struct rig_desc){.addr = RIG_AVAIL + 2, .len = 2, .flags = D_WRITE});
	rig.entropy = 7;
	rig_put_16(&rig, RIG_AVAIL + 2, 8);
	rig_notify(&rig, 0);
	/* Each of the eight moved the index on by one. */
	assert_int_equal(rig_16(&rig, RIG_USED + 2), 8);
	assert_int_equal(rig_16(&rig, RIG_AVAIL + 2), 15);
}

static void test_restore(void **state)
{
	struct dev_env env;

	(void)state;
	start(8);
	env = rig_init(&twin, &virtio_rng_ops, &twin_rng);
	virtio_rng_init(&twin_rng, &env);
	assert_true(rig_digest(&rig) != rig_digest(&twin));
	for (unsigned i = 0; i < 100; i++) {
		ask(RIG_DATA + i, i);
		assert_true(rig_copy(&rig, &twin));
		assert_true(rig_digest(&rig) == rig_digest(&twin));
		ask(RIG_DATA + i, 8);
		rig_chain(&twin, 0, 0,
			  &(struct rig_desc){.addr = RIG_DATA + i, .len = 8, .flags = D_WRITE}, 1);
		rig_notify(&twin, 0);
		assert_memory_equal(rig.ram, twin.ram, RIG_RAM);
		assert_true(rig_digest(&rig) == rig_digest(&twin));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_negotiation),
		cmocka_unit_test(test_request_and_interrupt),
		cmocka_unit_test(test_early_chains),
		cmocka_unit_test(test_indices_wrap),
		cmocka_unit_test(test_queue_setup_is_checked),
		cmocka_unit_test(test_bad_chains),
		cmocka_unit_test(test_long_chain),
		cmocka_unit_test(test_chains_that_make_chains),
		cmocka_unit_test(test_restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
