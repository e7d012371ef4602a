// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: independent */
/*
 * Drives every virtio device it finds: writes the disk at random and compares it with what it should
 * hold, prints random numbers, talks through all ports and, with echo=1, echoes what port 0 hears until a
 * line says "quit", asks the network for an address. What must hold whatever the timing is checked.
 */
#include "virtio.h"

static volatile unsigned irqs[VIRTIO_SLOTS];

static void on_irq(unsigned slot)
{
	*virtio_reg(slot, VIRTIO_REG_IRQ_ACK) = *virtio_reg(slot, VIRTIO_REG_IRQ_STATUS);
	irqs[slot]++;
}

static void on_irq0(void)
{
	on_irq(0);
}

static void on_irq1(void)
{
	on_irq(1);
}

static void on_irq2(void)
{
	on_irq(2);
}

static void on_irq3(void)
{
	on_irq(3);
}

static void must(bool good, const char *what)
{
	if (!good)
		panic("virtio: %s", what);
}

/* A chain that the device has answered at once, as it should. */
static uint32_t answered(struct virtio_queue *q, const char *what)
{
	uint32_t head, len;

	must(virtio_done(q, &head, &len), what);
	return len;
}

/* --- Disk ----------------------------------------------------------------------------------------- */

#define DISK_MAX (256UL << 10)
#define SECTOR 512UL
#define BUFFER (64 * SECTOR)
#define PIECE (5 * SECTOR)
#define BLK_IN 0
#define BLK_OUT 1
#define BLK_FLUSH 4

static struct virtio_queue blk_queue;
static uint8_t disk[DISK_MAX] __attribute__((aligned(8)));
static uint8_t buffer[BUFFER] __attribute__((aligned(8)));

static uint8_t blk(unsigned slot, uint32_t type, uint64_t sector, uint8_t *data, size_t len)
{
	static struct {
		uint32_t type, reserved;
		uint64_t sector;
	} head;
	static volatile uint8_t status;
	unsigned n = 0;

	head.type = type;
	head.sector = sector;
	status = 0xee;
	virtio_set(&blk_queue, n++, &head, sizeof(head), VIRTIO_NEXT);
	for (size_t at = 0, piece; at < len; at += piece) {
		piece = len - at < PIECE ? len - at : PIECE;
		virtio_set(&blk_queue, n++, data + at, piece,
			   VIRTIO_NEXT | (type == BLK_OUT ? 0 : VIRTIO_WRITE));
	}
	virtio_set(&blk_queue, n, (void *)&status, 1, VIRTIO_WRITE);
	virtio_offer(&blk_queue, 0);
	virtio_notify(slot, 0);
	answered(&blk_queue, "a disk request did not come back");
	return status;
}

/* By words, since a host may emulate every instruction of this. */
static void copy(void *to, const void *from, size_t len)
{
	for (size_t i = 0; i < len / 8; i++)
		((uint64_t *)to)[i] = ((const uint64_t *)from)[i];
}

static bool same(const void *a, const void *b, size_t len)
{
	for (size_t i = 0; i < len / 8; i++)
		if (((const uint64_t *)a)[i] != ((const uint64_t *)b)[i])
			return false;
	return true;
}

static uint64_t disk_sum(size_t size)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < size / 8; i++)
		sum = fold(sum, ((const uint64_t *)disk)[i]);
	return sum;
}

static void test_disk(unsigned slot)
{
	uint64_t size, seed = 12345, rounds = cmdline_get_u64("rounds", 40);

	virtio_begin(slot, 0);
	virtio_add_queue(slot, 0, &blk_queue);
	virtio_go(slot);
	size = *virtio_reg(slot, VIRTIO_REG_CONFIG) * SECTOR;
	must(size && size <= DISK_MAX, "the disk has another size than this test can do with");
	for (uint64_t at = 0, len; at < size; at += len) {
		len = size - at < BUFFER ? size - at : BUFFER;
		must(blk(slot, BLK_IN, at / SECTOR, disk + at, len) == 0, "cannot read");
	}
	kprintf("disk: %lu bytes, sum %lx\n", size, disk_sum(size));
	while (rounds--) {
		uint64_t r = xorshift64(&seed);
		uint64_t sectors = 1 + r % 24, sector = (r >> 8) % (size / SECTOR);
		bool fits = sector + sectors <= size / SECTOR, write = r >> 40 & 1;
		size_t len = sectors * SECTOR;

		for (size_t i = 0; write && i < len; i += 8)
			*(uint64_t *)(buffer + i) = xorshift64(&seed);
		must((blk(slot, write ? BLK_OUT : BLK_IN, sector, buffer, len) == 0) == fits,
		     "a request at the disk's end");
		if (write && fits)
			copy(disk + sector * SECTOR, buffer, len);
		else if (fits)
			must(same(disk + sector * SECTOR, buffer, len), "read something else");
	}
	must(blk(slot, BLK_FLUSH, 0, NULL, 0) == 0, "cannot flush");
	kprintf("disk: written, sum %lx\n", disk_sum(size));
}

/* --- Entropy ---------------------------------------------------------------------------------------- */

static void test_rng(unsigned slot)
{
	static struct virtio_queue queue;
	static uint64_t numbers[4];

	virtio_begin(slot, 0);
	virtio_add_queue(slot, 0, &queue);
	virtio_go(slot);
	virtio_set(&queue, 0, numbers, sizeof(numbers), VIRTIO_WRITE);
	virtio_offer(&queue, 0);
	virtio_notify(slot, 0);
	must(answered(&queue, "no entropy") == sizeof(numbers), "too little entropy");
	kprintf("rng: at 0x%lx\n", (uint64_t)numbers);
	kprintf("rng: %lx %lx %lx %lx\n", numbers[0], numbers[1], numbers[2], numbers[3]);
}

/* --- Console ---------------------------------------------------------------------------------------- */

#define PORTS_MAX 4
#define CONTROL_RX 2
#define CONTROL_TX 3
#define LINE 128
/* Events, section 5.3.6.2. */
#define DEVICE_READY 0
#define PORT_READY 3
#define PORT_OPEN 6

static struct virtio_queue port_queue[2 * PORTS_MAX + 2];
static uint8_t heard[16];

static unsigned rx_of(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static void send(unsigned slot, unsigned queue, const void *bytes, size_t len)
{
	virtio_set(&port_queue[queue], 0, bytes, len, 0);
	virtio_offer(&port_queue[queue], 0);
	virtio_notify(slot, queue);
	answered(&port_queue[queue], "what was sent did not come back");
}

static void say(unsigned slot, unsigned port, const char *text, size_t len)
{
	send(slot, rx_of(port) + 1, text, len);
}

static void control(unsigned slot, uint32_t id, uint16_t event)
{
	static struct {
		uint32_t id;
		uint16_t event, value;
	} message;

	message.id = id;
	message.event = event;
	message.value = 1;
	send(slot, CONTROL_TX, &message, sizeof(message));
}

/* Sleep until port 0 has heard something; returns how much. */
static uint32_t listen(unsigned slot)
{
	struct virtio_queue *q = &port_queue[0];
	uint32_t head, len;

	virtio_set(q, 0, heard, sizeof(heard), VIRTIO_WRITE);
	virtio_offer(q, 0);
	virtio_notify(slot, 0);
	irq_disable();
	while (!virtio_done(q, &head, &len)) {
		cpu_halt();
		irq_disable();
	}
	irq_enable();
	return len;
}

static void echo(unsigned slot)
{
	char line[LINE];
	size_t n = 0;

	for (;;) {
		uint32_t len = listen(slot);

		for (uint32_t i = 0; i < len; i++) {
			if (heard[i] != '\n') {
				if (n < LINE - 1)
					line[n++] = (char)heard[i];
				continue;
			}
			line[n] = 0;
			if (strcmp(line, "quit") == 0)
				return;
			line[n++] = '\n';
			say(slot, 0, "heard ", 6);
			say(slot, 0, line, n);
			n = 0;
		}
	}
}

static void test_console(unsigned slot)
{
	static uint8_t messages[VIRTIO_QUEUE][64];
	unsigned ports = *virtio_reg(slot, VIRTIO_REG_CONFIG + 4), seen = 0;
	uint32_t head, len;

	must(ports && ports <= PORTS_MAX, "impossible number of ports");
	virtio_begin(slot, 3); /* SIZE, MULTIPORT */
	for (unsigned i = 0; i < 2 * ports + 2; i++)
		virtio_add_queue(slot, i, &port_queue[i]);
	virtio_go(slot);
	for (unsigned i = 0; i < VIRTIO_QUEUE; i++) {
		virtio_set(&port_queue[CONTROL_RX], i, messages[i], sizeof(messages[i]), VIRTIO_WRITE);
		virtio_offer(&port_queue[CONTROL_RX], i);
	}
	virtio_notify(slot, CONTROL_RX);
	control(slot, 0, DEVICE_READY);
	for (unsigned i = 0; i < ports; i++) {
		control(slot, i, PORT_READY);
		control(slot, i, PORT_OPEN);
	}
	while (virtio_done(&port_queue[CONTROL_RX], &head, &len))
		seen++;
	must(seen == 3 * ports + 2, "too few control messages");
	for (unsigned i = 0; i < ports; i++) {
		char text[] = "this is port N\n";

		text[13] = (char)('0' + i);
		say(slot, i, text, sizeof(text) - 1);
	}
	kprintf("console: hears at 0x%lx\n", (uint64_t)heard);
	if (cmdline_get_u64("echo", 0))
		echo(slot);
	kprintf("console: %u ports\n", ports);
}

/* --- Network ---------------------------------------------------------------------------------------- */

#define FRAME 1600
#define NET_HEADER 12
#define NET_BUFFERS 4

static struct virtio_queue net_rx, net_tx;
static uint8_t net_in[NET_BUFFERS][FRAME], net_out[FRAME];

/* Sleep until a frame comes; returns it without its header. Its buffer goes back with the next call. */
static const uint8_t *net_receive(unsigned slot)
{
	static uint32_t last = UINT32_MAX;
	uint32_t len;

	if (last != UINT32_MAX) {
		virtio_offer(&net_rx, last);
		virtio_notify(slot, 0);
	}
	irq_disable();
	while (!virtio_done(&net_rx, &last, &len)) {
		cpu_halt();
		irq_disable();
	}
	irq_enable();
	return net_in[last] + NET_HEADER;
}

static void put16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint16_t ip_checksum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* DHCPDISCOVER (RFC 2131) in UDP in IP in Ethernet; all of it broadcast. Returns the frame's length. */
static size_t make_discover(uint8_t *f, const uint8_t mac[6])
{
	static const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
	const size_t udp = 8 + 236 + sizeof(options);
	uint8_t *ip = f + 14, *u = ip + 20, *dhcp = u + 8;

	memset(f, 0, 14 + 20 + udp);
	memset(f, 0xff, 6);
	memcpy(f + 6, mac, 6);
	put16(f + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, 20 + udp);
	ip[8] = 64;
	ip[9] = 17;
	memset(ip + 16, 0xff, 4);
	put16(ip + 10, ip_checksum(ip, 20));
	put16(u, 68);
	put16(u + 2, 67);
	put16(u + 4, udp);
	dhcp[0] = 1;
	dhcp[1] = 1;
	dhcp[2] = 6;
	memcpy(dhcp + 4, "hind", 4);
	memcpy(dhcp + 28, mac, 6);
	memcpy(dhcp + 236, options, sizeof(options));
	return 14 + 20 + udp;
}

static void test_net(unsigned slot)
{
	const volatile uint8_t *config =
		(const volatile uint8_t *)virtio_reg(slot, VIRTIO_REG_CONFIG);
	const uint8_t *f, *dhcp;
	uint8_t mac[6];
	size_t len;

	for (unsigned i = 0; i < 6; i++)
		mac[i] = config[i];
	virtio_begin(slot, 1 << 5); /* MAC */
	virtio_add_queue(slot, 0, &net_rx);
	virtio_add_queue(slot, 1, &net_tx);
	virtio_go(slot);
	for (unsigned i = 0; i < NET_BUFFERS; i++) {
		virtio_set(&net_rx, i, net_in[i], FRAME, VIRTIO_WRITE);
		virtio_offer(&net_rx, i);
	}
	virtio_notify(slot, 0);
	len = make_discover(net_out + NET_HEADER, mac);
	virtio_set(&net_tx, 0, net_out, NET_HEADER + len, 0);
	virtio_offer(&net_tx, 0);
	virtio_notify(slot, 1);
	answered(&net_tx, "a frame did not come back");
	do {
		f = net_receive(slot);
		dhcp = f + 14 + 20 + 8;
	} while (f[12] != 8 || f[13] != 0 || memcmp(dhcp + 4, "hind", 4) != 0);
	must(memcmp(f, mac, 6) == 0 || f[0] == 0xff, "a frame for somebody else");
	kprintf("net: %02x:%02x:%02x:%02x:%02x:%02x is offered %u.%u.%u.%u\n", mac[0], mac[1], mac[2],
		mac[3], mac[4], mac[5], dhcp[16], dhcp[17], dhcp[18], dhcp[19]);
}

void guest_main(void)
{
	static void (*const handlers[])(void) = {on_irq0, on_irq1, on_irq2, on_irq3};

	virtio_map();
	for (unsigned slot = 0; slot < 4; slot++) {
		irq_set_handler(virtio_line[slot], handlers[slot]);
		irq_unmask(virtio_line[slot]);
	}
	irq_unmask(2);
	irq_enable();
	for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++) {
		switch (virtio_kind(slot)) {
		case VIRTIO_BLK:
			test_disk(slot);
			break;
		case VIRTIO_RNG:
			test_rng(slot);
			break;
		case VIRTIO_CONSOLE:
			test_console(slot);
			break;
		case VIRTIO_NET:
			test_net(slot);
			break;
		}
	}
	irq_disable();
	kprintf("virtio: %u %u %u %u interrupts\n", irqs[0], irqs[1], irqs[2], irqs[3]);
}
