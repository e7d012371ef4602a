// SPDX-License-Identifier: GPL-3.0-or-later
/* The virtio devices through which bytes come and go: console and network card. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/device_board.h"
#include "tests/unit/virtio_rig.h"

#include <stdio.h>

#define PORTS 3
#define QUEUE 8
#define BUFFER 256u

/* Events of control messages, section 5.3.6.2. */
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };
enum { CONTROL_RX = 2, CONTROL_TX = 3 };

static struct rig rig, twin;
static struct virtio_console console, twin_console;
static struct virtio_net net;

static uint64_t buffer_at(unsigned queue, unsigned i)
{
	return RIG_DATA + (queue * QUEUE + i) * BUFFER;
}

static unsigned rx_of(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

/* Give the receiver a buffer of this length. */
static void give_buffer(struct rig *r, unsigned queue, uint16_t i, uint32_t len)
{
	struct rig_desc d = {.addr = buffer_at(queue, i), .len = len, .flags = D_WRITE};

	memset(r->ram + d.addr, 0xee, BUFFER);
	rig_chain(r, queue, i, &d, 1);
	rig_notify(r, queue);
}

/* Send bytes in pieces of at most 7. */
static void send(struct rig *r, unsigned queue, const void *bytes, uint32_t len)
{
	struct rig_desc d[QUEUE];
	unsigned n = 0;
	uint32_t head, used;

	memcpy(r->ram + buffer_at(queue, 0), bytes, len);
	for (uint32_t at = 0; at < len; at += d[n++].len)
		d[n] = (struct rig_desc){.addr = buffer_at(queue, 0) + at,
					 .len = len - at < 7 || n + 1 == QUEUE ? len - at : 7};
	rig_chain(r, queue, 0, d, n);
	rig_notify(r, queue);
	assert_true(rig_used(r, queue, &head, &used));
}

static void send_control(struct rig *r, uint32_t id, uint16_t event, uint16_t value)
{
	struct {
		uint32_t id;
		uint16_t event, value;
	} m = {id, event, value};

	send(r, CONTROL_TX, &m, sizeof(m));
}

/* The device's next control message must be this one. */
static void expect_control(struct rig *r, uint32_t id, uint16_t event, uint16_t value, const void *more,
			   uint32_t more_len)
{
	uint32_t head = 0, len = 0;
	uint64_t at;

	assert_true(rig_used(r, CONTROL_RX, &head, &len));
	at = buffer_at(CONTROL_RX, head);
	assert_int_equal(len, 8 + more_len);
	assert_int_equal(rig_32(r, at), id);
	assert_int_equal(rig_16(r, at + 4), event);
	assert_int_equal(rig_16(r, at + 6), value);
	assert_memory_equal(r->ram + at + 8, more, more_len);
	give_buffer(r, CONTROL_RX, (uint16_t)head, BUFFER);
}

static void start_console(bool multiport)
{
	struct dev_env env = rig_init(&rig, &virtio_console_ops, &console);

	virtio_console_init(&console, &env, PORTS);
	assert_true(rig_negotiate(&rig, F_VERSION_1 | (multiport ? 3 : 1)));
	for (unsigned q = 0; q < (multiport ? 2 * PORTS + 2 : 2); q++)
		rig_queue(&rig, q, QUEUE);
	rig_go(&rig);
}

/* The driver's part of section 5.3.6.2, as Linux plays it. */
static void open_ports(void)
{
	static const uint16_t size[2] = {80, 25};
	char name[16];

	for (uint16_t i = 0; i < QUEUE; i++)
		give_buffer(&rig, CONTROL_RX, i, BUFFER);
	send_control(&rig, UINT32_MAX, READY, 1);
	for (unsigned p = 0; p < PORTS; p++)
		expect_control(&rig, p, ADD, 1, NULL, 0);
	for (unsigned p = 0; p < PORTS; p++) {
		send_control(&rig, p, PORT_READY, 1);
		if (!p)
			expect_control(&rig, 0, CONSOLE, 1, NULL, 0);
		snprintf(name, sizeof(name), "hindsight.%u", p);
		expect_control(&rig, p, NAME, 1, name, 11);
		if (!p)
			expect_control(&rig, 0, RESIZE, 1, size, 4);
		expect_control(&rig, p, OPEN, 1, NULL, 0);
		assert_int_equal(virtio_console_room(&console, p), 0);
		send_control(&rig, p, OPEN, 1);
	}
}

static void test_console_config(void **state)
{
	(void)state;
	start_console(true);
	assert_int_equal(rig_get(&rig, R_ID), 3);
	assert_int_equal(rig_get(&rig, R_CONFIG), 80 | 25 << 16);
	assert_int_equal(rig_get(&rig, R_CONFIG + 4), PORTS);
	assert_true(rig_features(&rig) == (F_VERSION_1 | 3));
}

static void test_console_single(void **state)
{
	uint32_t head, len;

	(void)state;
	start_console(false);
	send(&rig, 1, "hello", 5);
	assert_memory_equal(rig.port[0], "hello", 5);
	assert_int_equal(virtio_console_room(&console, 0), 0);
	give_buffer(&rig, 0, 3, 10);
	assert_int_equal(virtio_console_room(&console, 0), 10);
	assert_int_equal(virtio_console_room(&console, 1), 0);
	virtio_console_receive(&console, 0, (const uint8_t *)"abc", 3);
	assert_true(rig_used(&rig, 0, &head, &len));
	assert_int_equal(head, 3);
	assert_int_equal(len, 3);
	assert_memory_equal(rig.ram + buffer_at(0, 3), "abc\xee", 4);
	assert_true(rig.level);
}

static void test_console_ports(void **state)
{
	uint32_t head, len;

	(void)state;
	start_console(true);
	open_ports();
	for (unsigned p = 0; p < PORTS; p++) {
		uint8_t text[200];

		memset(text, 'a' + (int)p, sizeof(text));
		send(&rig, rx_of(p) + 1, text, sizeof(text));
		assert_int_equal(rig.port_len[p], sizeof(text));
		assert_memory_equal(rig.port[p], text, sizeof(text));
		give_buffer(&rig, rx_of(p), 1, 20);
		assert_int_equal(virtio_console_room(&console, p), 20);
		virtio_console_receive(&console, p, text, 20);
		assert_true(rig_used(&rig, rx_of(p), &head, &len));
		assert_int_equal(len, 20);
		assert_memory_equal(rig.ram + buffer_at(rx_of(p), 1), text, 20);
	}
	/* Closed by the guest: no more room. */
	give_buffer(&rig, rx_of(1), 0, 5);
	send_control(&rig, 1, OPEN, 0);
	assert_int_equal(virtio_console_room(&console, 1), 0);
	/* What concerns no port, or says it failed, changes nothing. */
	send_control(&rig, PORTS, PORT_READY, 1);
	send_control(&rig, UINT32_MAX, OPEN, 1);
	send_control(&rig, 2, PORT_READY, 0);
	send_control(&rig, 0, 77, 1);
	assert_false(rig_used(&rig, CONTROL_RX, &head, &len));
	assert_int_equal(virtio_console_room(&console, VIRTIO_CONSOLE_PORTS), 0);
}

/* A window's size reaches the driver once port 0 is open, and again after a reset of the driver; what the
 * configuration space says does not change. */
static void test_console_window(void **state)
{
	static const uint16_t size[2] = {101, 33};
	uint32_t head, len;

	(void)state;
	start_console(true);
	assert_false(virtio_console_takes_size(&console));
	open_ports();
	assert_true(virtio_console_takes_size(&console));
	rig.level = false;
	virtio_console_resize(&console, 101, 33);
	assert_true(rig.level);
	expect_control(&rig, 0, RESIZE, 1, size, 4);
	assert_false(rig_used(&rig, CONTROL_RX, &head, &len));
	assert_int_equal(rig_get(&rig, R_CONFIG), 80 | 25 << 16);
	send_control(&rig, 0, OPEN, 0);
	assert_false(virtio_console_takes_size(&console));
	send_control(&rig, 0, PORT_READY, 1);
	expect_control(&rig, 0, CONSOLE, 1, NULL, 0);
	expect_control(&rig, 0, NAME, 1, "hindsight.0", 11);
	expect_control(&rig, 0, RESIZE, 1, size, 4);
	/* A driver without ports of its own is told nothing. */
	start_console(false);
	assert_false(virtio_console_takes_size(&console));
}

/* Without buffers the messages wait; asking twice does not double them; they survive a restore. */
static void test_console_owed(void **state)
{
	struct dev_env env;
	uint32_t head, len;

	(void)state;
	start_console(true);
	env = rig_init(&twin, &virtio_console_ops, &twin_console);
	virtio_console_init(&twin_console, &env, PORTS);
	send_control(&rig, 0, READY, 1);
	send_control(&rig, 0, READY, 1);
	give_buffer(&rig, CONTROL_RX, 0, BUFFER);
	assert_true(rig_copy(&rig, &twin));
	assert_true(rig_digest(&rig) == rig_digest(&twin));
	for (unsigned p = 0; p < PORTS; p++) {
		expect_control(&rig, p, ADD, 1, NULL, 0);
		expect_control(&twin, p, ADD, 1, NULL, 0);
	}
	assert_false(rig_used(&twin, CONTROL_RX, &head, &len));
	/* Reset forgets. */
	send_control(&rig, 1, OPEN, 1);
	assert_int_equal(console.open[1], 1);
	rig_negotiate(&rig, F_VERSION_1);
	assert_int_equal(console.open[1], 0);
}

static void test_console_bad_buffers(void **state)
{
	(void)state;
	/* A control buffer that no message fits into. */
	start_console(true);
	give_buffer(&rig, CONTROL_RX, 0, 7);
	send_control(&rig, 0, READY, 1);
	assert_true(rig_get(&rig, R_STATUS) & S_NEEDS_RESET);
	/* A broken receive buffer is told when it is offered; asking for room never tells. */
	start_console(false);
	rig_desc(&rig, 0, 0, (struct rig_desc){.addr = RIG_RAM, .len = 1, .flags = D_WRITE});
	rig_avail(&rig, 0, 0);
	assert_int_equal(virtio_console_room(&console, 0), 0);
	assert_false(rig_get(&rig, R_STATUS) & S_NEEDS_RESET);
	rig_notify(&rig, 0);
	assert_true(rig_get(&rig, R_STATUS) & S_NEEDS_RESET);
	/* More than the device takes at once. */
	start_console(false);
	rig_chain(&rig, 1, 0, &(struct rig_desc){.addr = 0, .len = 65537}, 1);
	rig_notify(&rig, 1);
	assert_true(rig_get(&rig, R_STATUS) & S_NEEDS_RESET);
	assert_int_equal(rig.port_len[0], 0);
}

/* Random bytes both ways through every port; what comes out is what went in, in order. */
static void test_console_random(void **state)
{
	static uint8_t sent[PORTS][RIG_STREAM];
	size_t sent_len[PORTS] = {0};

	(void)state;
	start_console(true);
	open_ports();
	for (unsigned i = 0; i < 3000; i++) {
		unsigned p = rnd(PORTS);
		uint32_t n = 1 + rnd(100), head, len, room;
		uint8_t bytes[100];

		for (uint32_t b = 0; b < n; b++)
			bytes[b] = rnd_byte();
		if (rnd(2)) {
			if (sent_len[p] + n > RIG_STREAM)
				continue;
			memcpy(sent[p] + sent_len[p], bytes, n);
			sent_len[p] += n;
			send(&rig, rx_of(p) + 1, bytes, n);
			continue;
		}
		room = 1 + rnd(100);
		give_buffer(&rig, rx_of(p), 0, room);
		assert_int_equal(virtio_console_room(&console, p), room);
		n = n < room ? n : room;
		virtio_console_receive(&console, p, bytes, n);
		assert_true(rig_used(&rig, rx_of(p), &head, &len));
		assert_int_equal(len, n);
		assert_memory_equal(rig.ram + buffer_at(rx_of(p), 0), bytes, n);
		assert_int_equal(rig.ram[buffer_at(rx_of(p), 0) + n], 0xee);
	}
	for (unsigned p = 0; p < PORTS; p++) {
		assert_int_equal(rig.port_len[p], sent_len[p]);
		assert_memory_equal(rig.port[p], sent[p], sent_len[p]);
	}
}

/* --- Network card ---------------------------------------------------------------------------------- */

static const uint8_t mac[6] = {2, 1, 2, 3, 4, 5};

static void start_net(void)
{
	struct dev_env env = rig_init(&rig, &virtio_net_ops, &net);

	virtio_net_init(&net, &env, mac);
	assert_true(rig_negotiate(&rig, rig_features(&rig)));
	rig_queue(&rig, 0, QUEUE);
	rig_queue(&rig, 1, QUEUE);
	rig_go(&rig);
}

/* Post a frame of this length behind its header, cut in two. */
static void send_frame(uint32_t len, uint32_t first)
{
	struct rig_desc d[2] = {{.addr = RIG_DATA, .len = first},
				{.addr = RIG_DATA + first, .len = 12 + len - first}};

	rig_chain(&rig, 1, 0, d, 2);
	rig_notify(&rig, 1);
}

static void test_net_transmit(void **state)
{
	uint32_t head, len;

	(void)state;
	start_net();
	assert_int_equal(rig_get(&rig, R_ID), 1);
	assert_true(rig_features(&rig) == (F_VERSION_1 | 1 << 5));
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal((uint8_t)virtio_net_ops.mmio_read(&net, R_CONFIG + i, 1), mac[i]);
	for (unsigned i = 0; i < 2000; i++) {
		uint32_t n = rnd(1600);
		unsigned before = rig.frames;
		bool good = n >= 14 && n <= VIRTIO_NET_FRAME_MAX;

		for (uint32_t b = 0; b < n; b++)
			rig.ram[RIG_DATA + 12 + b] = rnd_byte();
		send_frame(n, rnd(12 + n + 1));
		assert_true(rig_used(&rig, 1, &head, &len));
		assert_int_equal(len, 0);
		assert_int_equal(rig.frames, before + good);
		if (good) {
			assert_int_equal(rig.frame_len, n);
			assert_memory_equal(rig.frame, rig.ram + RIG_DATA + 12, n);
		}
	}
	/* Not even a header. */
	rig_chain(&rig, 1, 0, &(struct rig_desc){.addr = RIG_DATA, .len = 11}, 1);
	rig_notify(&rig, 1);
	assert_true(rig_get(&rig, R_STATUS) & S_NEEDS_RESET);
}

static void test_net_receive(void **state)
{
	uint8_t frame[VIRTIO_NET_FRAME_MAX];
	uint32_t head, len;

	(void)state;
	start_net();
	assert_int_equal(virtio_net_room(&net), 0);
	for (unsigned i = 0; i < 2000; i++) {
		uint32_t space = 12 + 14 + rnd(2000), n;
		struct rig_desc d[2] = {{.addr = RIG_DATA, .len = 5, .flags = D_WRITE},
					{.addr = RIG_DATA + 5, .len = space - 5, .flags = D_WRITE}};
		size_t room = space - 12 < sizeof(frame) ? space - 12 : sizeof(frame);

		memset(rig.ram + RIG_DATA, 0xee, space + 1);
		rig_chain(&rig, 0, (uint16_t)rnd(QUEUE), d, 2);
		rig_notify(&rig, 0);
		assert_int_equal(virtio_net_room(&net), room);
		n = 14 + rnd((uint32_t)room - 13);
		for (uint32_t b = 0; b < n; b++)
			frame[b] = rnd_byte();
		virtio_net_receive(&net, frame, n);
		assert_true(rig_used(&rig, 0, &head, &len));
		assert_int_equal(len, 12 + n);
		/* No checksum, no segmentation, one buffer (section 5.1.6.4). */
		assert_memory_equal(rig.ram + RIG_DATA, "\0\0\0\0\0\0\0\0\0\0\1\0", 12);
		assert_memory_equal(rig.ram + RIG_DATA + 12, frame, n);
		assert_int_equal(rig.ram[RIG_DATA + 12 + n], 0xee);
	}
	/* A buffer with no room for a frame takes none. */
	rig_chain(&rig, 0, 0, &(struct rig_desc){.addr = RIG_DATA, .len = 25, .flags = D_WRITE}, 1);
	assert_int_equal(virtio_net_room(&net), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_console_config),
		cmocka_unit_test(test_console_single),
		cmocka_unit_test(test_console_ports),
		cmocka_unit_test(test_console_window),
		cmocka_unit_test(test_console_owed),
		cmocka_unit_test(test_console_bad_buffers),
		cmocka_unit_test(test_console_random),
		cmocka_unit_test(test_net_transmit),
		cmocka_unit_test(test_net_receive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
