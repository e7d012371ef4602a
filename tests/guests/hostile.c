// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Means harm to whoever models its devices: accesses=N random reads and writes of ports, MMIO registers and
 * virtio rings. Only what would end the run is left out (exit and reset ports), and DMA into the guest's own
 * code. Now and then a device is set up as a driver would, since a device that is not in use ignores most.
 *
 * One in so many is made up by the kernel, the rest by user code for which all memory is mapped: where KVM emulates
 * kernel code, that would take 20 times as long. The kernel makes the accesses to ports for it, some at a time, since
 * not every such host honours IOPL.
 */
#include "virtio.h"

#define QUEUES 10
/* Memory that nothing else uses, and from where no request reaches anything else, since none is longer than a
 * few MiB. */
#define ARENA (32UL << 20)
#define ARENA_SIZE (1UL << 20)
#define KERNEL_PART 64
#define PORT_OPS 32

#define VECTOR_INVALID_OPCODE 6
#define UD2_BYTES 2

static struct virtio_queue *const queues = (struct virtio_queue *)ARENA;
static uint64_t state, ram_end, accesses;
static bool in_user_mode, is_done;
static uint8_t user_stack[16384] __attribute__((aligned(16)));

/* Nothing is divided, and one random number is cut into as many small ones as it is long for: in the kernel, making up
 * what to do can take longer than doing it. */
static inline uint64_t next(void)
{
	state = lcg(state);
	return state ^ state >> 32; /* its low bits repeat soon */
}

static inline uint32_t rnd(uint32_t below)
{
	return (uint32_t)((next() >> 32) * below >> 32);
}

/* An address for rings and buffers: mostly in the arena, else where no RAM is or just at its end. */
static uint64_t address(void)
{
	uint64_t r = next(), low = r >> 32;

	switch (r & 7) {
	case 0:
		return ram_end - (low & 63);
	case 1:
		return r | 1UL << 63;
	case 2:
		return VIRTIO_BASE + (low & 0x7fff);
	default:
		return ARENA + (low & (ARENA_SIZE - 1));
	}
}

static uint32_t value(void)
{
	uint64_t r = next();
	uint32_t high = (uint32_t)(r >> 32);

	switch (r & 3) {
	case 0:
		return high & 15;
	case 1:
		return 1u << (high & 31);
	case 2:
		return (high & 0xff) << (high >> 8 & 31);
	default:
		return high;
	}
}

/* --- Ports ------------------------------------------------------------------------------------------- */

static struct port_op {
	uint16_t port;
	unsigned size;
	bool write;
	uint32_t value;
} port_ops[PORT_OPS]; /* to come */
static unsigned n_port_ops;

static bool is_forbidden(uint16_t port, unsigned size)
{
	/* Exit, i8042 commands (some reset), fast reset, reset control. */
	static const uint16_t ends[] = {EXIT_PORT, 0x64, 0x92, 0xcf9};

	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (port <= ends[i] && ends[i] - port < (int)size)
			return true;
	/* Reads there are what instructions were rewritten to, and change other registers. */
	return size == 4 && port >= 0x28 && port <= 0x36;
}

/* A request that waits while interrupts are off makes every instruction slow, so that the rest would take for
 * ever. From whatever state the pair is in: ICW1 to ICW4, then OCW1 (8259A data sheet). */
static void mask_all(void)
{
	static const uint8_t words[] = {0x20, 0x04, 0x01, 0xff};

	for (uint16_t chip = PIC_MASTER; chip <= PIC_SLAVE; chip += PIC_SLAVE - PIC_MASTER) {
		outb(chip, 0x11);
		for (unsigned i = 0; i < sizeof(words); i++)
			outb(chip + 1, words[i]);
	}
}

static void port_access(const struct port_op *op)
{
	uint16_t port = op->port;

	if (op->write && op->size == 1)
		outb(port, (uint8_t)op->value);
	else if (op->write && op->size == 2)
		outw(port, (uint16_t)op->value);
	else if (op->write)
		outl(port, op->value);
	else if (op->size == 1)
		inb(port);
	else if (op->size == 2)
		inw(port);
	else
		inl(port);
	if ((port & 0xff7e) == PIC_MASTER || port + 3 == PIC_MASTER)
		mask_all();
}

static void make_port_accesses(void)
{
	for (unsigned i = 0; i < n_port_ops; i++)
		port_access(&port_ops[i]);
	n_port_ops = 0;
}

/* Not SYSCALL: user code may fetch from where that enters, and hosts that must repair it tell it by that fault. */
static void enter_kernel(void)
{
	__asm__ volatile("ud2" ::: "memory");
}

static void choose_port_access(void)
{
	static const uint16_t bases[] = {0x20, 0xa0, 0x40, 0x60, 0x70, 0x4d0, 0x3f8, 0xe8, 0x90, 0xcf8};
	struct port_op *op = &port_ops[n_port_ops];

	op->port = rnd(16) ? (uint16_t)(bases[rnd(sizeof(bases) / sizeof(bases[0]))] + rnd(10))
			   : (uint16_t)rnd(0x10000);
	op->size = 1u << rnd(3);
	op->write = rnd(2);
	op->value = value();
	if (is_forbidden(op->port, op->size))
		return;
	n_port_ops++;
	if (!in_user_mode)
		make_port_accesses();
	else if (n_port_ops == PORT_OPS)
		enter_kernel();
}

/* --- Registers ------------------------------------------------------------------------------------- */

static void register_write(unsigned slot)
{
	static const uint16_t known[] = {0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x50, 0x50, 0x64, 0x70};

	/* The address of a queue's part is one of ours: it will be written through. */
	if (rnd(4) == 0) {
		static const uint16_t parts[] = {VIRTIO_REG_DESC, VIRTIO_REG_AVAIL, VIRTIO_REG_USED};
		uint64_t a = address() & ~(rnd(4) ? 15UL : 0);
		unsigned reg = parts[rnd(3)];

		*virtio_reg(slot, reg) = (uint32_t)a;
		*virtio_reg(slot, reg + 4) = (uint32_t)(a >> 32);
		return;
	}
	*virtio_reg(slot, known[rnd(sizeof(known) / sizeof(known[0]))]) = rnd(2) ? value() : rnd(12);
}

/* Any place of the page in any size, but for writes to the addresses of queues. */
static void register_access(unsigned slot)
{
	uint64_t page = VIRTIO_BASE + slot * VIRTIO_PAGE;
	uint64_t at = page + (rnd(4) ? rnd(0x140) : rnd(VIRTIO_PAGE - 8));
	bool write = rnd(2) && (at - page < 0x78 || at - page >= 0xb0);

	switch (rnd(4)) {
	case 0:
		if (write)
			*(volatile uint8_t *)at = (uint8_t)value();
		else
			(void)*(volatile uint8_t *)at;
		break;
	case 1:
		if (write)
			*(volatile uint16_t *)at = (uint16_t)value();
		else
			(void)*(volatile uint16_t *)at;
		break;
	case 2:
		if (write)
			*(volatile uint32_t *)at = value();
		else
			(void)*(volatile uint32_t *)at;
		break;
	default:
		if (write)
			*(volatile uint64_t *)at = xorshift64(&state);
		else
			(void)*(volatile uint64_t *)at;
	}
}

/* --- Rings ----------------------------------------------------------------------------------------- */

static void set_up(unsigned slot)
{
	virtio_begin(slot, *virtio_reg(slot, 0x10) & value());
	for (unsigned i = 0; i < QUEUES; i++)
		virtio_add_queue(slot, i, &queues[i]);
	virtio_go(slot);
}

/* A chain of a few descriptors, right in most of its parts, then a notification. */
static void chain(unsigned slot)
{
	unsigned queue = rnd(QUEUES), n = 1 + rnd(4), first = rnd(VIRTIO_QUEUE);
	struct virtio_queue *q = &queues[queue];

	for (unsigned i = 0; i < n; i++) {
		struct virtio_desc *d = &q->desc[(first + i) % VIRTIO_QUEUE];
		uint64_t r = next();

		d->addr = address();
		d->len = r & 7 ? (r & 8 ? 512 : 16) : value();
		d->flags = (uint16_t)((i + 1 < n ? VIRTIO_NEXT : 0) | (i && r & 0x30 ? VIRTIO_WRITE : 0));
		d->next = (uint16_t)((first + i + 1) % VIRTIO_QUEUE);
		/* The header of a request to a disk: what to do, and with which sector. */
		if (i == 0 && d->addr >= ARENA && d->addr < ARENA + ARENA_SIZE) {
			uint64_t *header = (uint64_t *)d->addr; /* which may lie in d itself */

			header[0] = rnd(9);
			header[1] = rnd(300);
		}
		if ((r >> 8 & 31) == 0)
			d->flags = (uint16_t)(r >> 24);
		if ((r >> 16 & 31) == 0)
			d->next = (uint16_t)(r >> 40);
	}
	virtio_offer(q, rnd(32) ? first : rnd(0x10000));
	if (rnd(32) == 0)
		q->avail.index = (uint16_t)rnd(0x10000);
	virtio_notify(slot, queue);
}

static void scribble(void)
{
	uint8_t *p = (uint8_t *)queues + rnd(QUEUES * sizeof(struct virtio_queue));

	*p = (uint8_t)value();
}

static void attack(uint64_t accesses)
{
	for (uint64_t i = 0; i < accesses; i++) {
		unsigned slot = rnd(VIRTIO_SLOTS);

		if (rnd(200) == 0)
			set_up(slot);
		switch (rnd(16)) {
		case 0:
		case 1:
		case 2:
		case 3:
		case 4:
			chain(slot);
			break;
		case 5:
		case 6:
			register_write(slot);
			break;
		case 7:
		case 8:
			register_access(slot);
			break;
		case 9:
			scribble();
			break;
		default:
			choose_port_access();
		}
	}
}

static void user_main(void)
{
	attack(accesses - accesses / KERNEL_PART);
	is_done = true;
	enter_kernel();
}

static void on_entry(struct trap_frame *frame)
{
	make_port_accesses();
	if (is_done) {
		serial_init();
		kprintf("\nhostile: %lu accesses\n", accesses);
		guest_exit(0);
	}
	frame->rip += UD2_BYTES;
}

void guest_main(void)
{
	accesses = cmdline_get_u64("accesses", 1000);
	state = random_seed();
	ram_end = guest_ram_bytes();
	irq_disable();
	virtio_map();
	attack(accesses / KERNEL_PART);
	page_open_all();
	trap_set_handler(VECTOR_INVALID_OPCODE, on_entry);
	in_user_mode = true;
	user_enter(user_main, user_stack + sizeof(user_stack));
}
