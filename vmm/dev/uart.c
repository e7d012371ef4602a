// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * 16550A serial port. References in comments are to the National PC16550D data sheet (TL/C/8652).
 *
 * The transmitter is infinitely fast: a byte written is out at once and the holding register empty
 * again. The receiver's time-out ("no character for 4 character times") is due as soon as there
 * are fewer bytes than the trigger level. So no part of the port depends on time.
 *
 * The line follows INTR even without OUT2, which gates it on a PC: small kernels leave OUT2 off.
 */
#include "vmm/dev/devices.h"

/* Registers by offset, section 8.0. With DLAB set, 0 and 1 are the divisor. */
enum {
	REG_DATA,
	REG_IER,
	REG_IIR_FCR,
	REG_LCR,
	REG_MCR,
	REG_LSR,
	REG_MSR,
	REG_SCR,
};

#define IER_RX 0x01
#define IER_THRE 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08
#define IER_WRITABLE 0x0f

#define IIR_MODEM 0x00
#define IIR_NONE 0x01
#define IIR_THRE 0x02
#define IIR_RX 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0

#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_KEPT 0xc9 /* enable, DMA mode, trigger level */

#define LCR_DLAB 0x80

#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_WRITABLE 0x1f

#define LSR_DATA_READY 0x01
#define LSR_OVERRUN 0x02
#define LSR_ERRORS 0x1e
#define LSR_TX_EMPTY 0x60 /* holding and shift register */

#define MSR_DELTAS 0x0f
#define MSR_DELTA_RING 0x04
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RING 0x40
#define MSR_DCD 0x80

/* The other end of the cable is there and ready. */
#define MSR_CONNECTED (MSR_CTS | MSR_DSR | MSR_DCD)

#define UART_BASE 0x3f8
#define UART_LINE 4

const struct pio_range uart_ranges[1] = {{UART_BASE, 8}};

static bool uart_has_fifo(const struct uart *u)
{
	return u->fcr & FCR_ENABLE;
}

/* How many bytes the receiver holds: without FIFO only the buffer register. */
static unsigned uart_capacity(const struct uart *u)
{
	return uart_has_fifo(u) ? UART_FIFO : 1;
}

/* Receiver FIFO trigger level, table VI. */
static unsigned uart_trigger(const struct uart *u)
{
	static const uint8_t levels[4] = {1, 4, 8, 14};

	return uart_has_fifo(u) ? levels[u->fcr >> 6] : 1;
}

/* The most urgent enabled interrupt, table VII. */
static uint8_t uart_interrupt(const struct uart *u)
{
	if ((u->ier & IER_LINE) && (u->lsr & LSR_ERRORS))
		return IIR_LINE;
	if ((u->ier & IER_RX) && u->rx_len)
		return u->rx_len >= uart_trigger(u) ? IIR_RX : IIR_TIMEOUT;
	if ((u->ier & IER_THRE) && u->thr_empty_pending)
		return IIR_THRE;
	if ((u->ier & IER_MODEM) && (u->msr & MSR_DELTAS))
		return IIR_MODEM;
	return IIR_NONE;
}

static void uart_update_line(struct uart *u)
{
	u->env.irq(u->env.ctx, UART_LINE, uart_interrupt(u) != IIR_NONE);
}

static void uart_clear_rx(struct uart *u)
{
	u->rx_head = 0;
	u->rx_len = 0;
}

/* A byte arrives in the receiver's shift register. */
static void uart_push(struct uart *u, uint8_t byte)
{
	if (u->rx_len >= uart_capacity(u)) {
		u->lsr |= LSR_OVERRUN;
		/* A full FIFO keeps what it has; the buffer register is overwritten. */
		if (!uart_has_fifo(u))
			u->rx[u->rx_head % UART_FIFO] = byte;
		return;
	}
	u->rx[(u->rx_head + u->rx_len) % UART_FIFO] = byte;
	u->rx_len++;
}

/* An empty receiver gives the byte read last. */
static uint8_t uart_pop(struct uart *u)
{
	uint8_t byte;

	if (!u->rx_len)
		return u->rx[(u->rx_head + UART_FIFO - 1u) % UART_FIFO];
	byte = u->rx[u->rx_head % UART_FIFO];
	u->rx_head = (uint8_t)((u->rx_head + 1u) % UART_FIFO);
	u->rx_len--;
	return byte;
}

/* Modem inputs: in loopback the modem outputs, section 8.7. */
static uint8_t uart_modem_inputs(const struct uart *u)
{
	uint8_t lines = 0;

	if (!(u->mcr & MCR_LOOP))
		return MSR_CONNECTED;
	if (u->mcr & MCR_RTS)
		lines |= MSR_CTS;
	if (u->mcr & MCR_DTR)
		lines |= MSR_DSR;
	if (u->mcr & MCR_OUT1)
		lines |= MSR_RING;
	if (u->mcr & MCR_OUT2)
		lines |= MSR_DCD;
	return lines;
}

static void uart_update_modem(struct uart *u)
{
	uint8_t now = uart_modem_inputs(u);
	uint8_t then = u->msr & (uint8_t)~MSR_DELTAS;
	uint8_t deltas = (uint8_t)((now ^ then) >> 4);

	/* The ring bit records a trailing edge only. */
	if (now & MSR_RING)
		deltas &= (uint8_t)~MSR_DELTA_RING;
	u->msr = now | (u->msr & MSR_DELTAS) | deltas;
}

void uart_init(struct uart *u, const struct dev_env *env)
{
	*u = (struct uart){
		.env = *env,
		.lsr = LSR_TX_EMPTY,
		.msr = MSR_CONNECTED,
		.dll = 12, /* 9600 baud, as firmware leaves it */
	};
}

size_t uart_room(const struct uart *u)
{
	unsigned capacity = uart_capacity(u);

	if ((u->mcr & MCR_LOOP) || u->rx_len >= capacity)
		return 0;
	return capacity - u->rx_len;
}

void uart_receive(struct uart *u, const uint8_t *bytes, size_t n)
{
	/* In loopback the serial input is disconnected. */
	if (u->mcr & MCR_LOOP)
		return;
	for (size_t i = 0; i < n; i++)
		uart_push(u, bytes[i]);
	uart_update_line(u);
}

static void uart_write_data(struct uart *u, uint8_t value)
{
	if (u->mcr & MCR_LOOP)
		uart_push(u, value);
	else
		u->env.output(u->env.ctx, DEV_STREAM_SERIAL, value);
	/* The holding register was full for a moment: an edge-triggered PIC sees a new request. */
	u->thr_empty_pending = 0;
	uart_update_line(u);
	u->thr_empty_pending = 1;
	uart_update_line(u);
}

static void uart_write_ier(struct uart *u, uint8_t value)
{
	/* Enabling the interrupt while the holding register is empty requests one, each time. */
	if ((value & IER_THRE) && !(u->ier & IER_THRE))
		u->thr_empty_pending = 1;
	u->ier = value & IER_WRITABLE;
	uart_update_line(u);
}

static void uart_write_fcr(struct uart *u, uint8_t value)
{
	/* Changing between FIFO and 16450 mode clears the FIFOs; without the enable bit the other
	 * bits are not programmed (section 8.5). The transmitter's is always empty. */
	if (((value ^ u->fcr) & FCR_ENABLE) || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX)))
		uart_clear_rx(u);
	u->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
	uart_update_line(u);
}

static void uart_write_byte(void *dev, uint16_t port, uint8_t value)
{
	struct uart *u = dev;
	bool dlab = u->lcr & LCR_DLAB;

	switch (port & 7) {
	case REG_DATA:
		if (dlab)
			u->dll = value;
		else
			uart_write_data(u, value);
		break;
	case REG_IER:
		if (dlab)
			u->dlm = value;
		else
			uart_write_ier(u, value);
		break;
	case REG_IIR_FCR:
		uart_write_fcr(u, value);
		break;
	case REG_LCR:
		u->lcr = value;
		break;
	case REG_MCR:
		u->mcr = value & MCR_WRITABLE;
		uart_update_modem(u);
		uart_update_line(u);
		break;
	case REG_LSR: /* writing is for factory tests only */
	case REG_MSR:
		break;
	case REG_SCR:
		u->scr = value;
		break;
	}
}

static uint8_t uart_read_iir(struct uart *u)
{
	uint8_t iir = uart_interrupt(u);

	/* Reading it resets a transmitter interrupt, if that is what it names. */
	if (iir == IIR_THRE) {
		u->thr_empty_pending = 0;
		uart_update_line(u);
	}
	return uart_has_fifo(u) ? iir | IIR_FIFO : iir;
}

static uint8_t uart_read_byte(void *dev, uint16_t port)
{
	struct uart *u = dev;
	bool dlab = u->lcr & LCR_DLAB;
	uint8_t value = 0xff;

	switch (port & 7) {
	case REG_DATA:
		if (dlab)
			return u->dll;
		value = uart_pop(u);
		uart_update_line(u);
		break;
	case REG_IER:
		value = dlab ? u->dlm : u->ier;
		break;
	case REG_IIR_FCR:
		value = uart_read_iir(u);
		break;
	case REG_LCR:
		value = u->lcr;
		break;
	case REG_MCR:
		value = u->mcr;
		break;
	case REG_LSR:
		value = u->lsr | (u->rx_len ? LSR_DATA_READY : 0);
		u->lsr &= (uint8_t)~LSR_ERRORS;
		uart_update_line(u);
		break;
	case REG_MSR:
		value = u->msr;
		u->msr &= (uint8_t)~MSR_DELTAS;
		uart_update_line(u);
		break;
	case REG_SCR:
		value = u->scr;
		break;
	}
	return value;
}

static uint32_t uart_read(void *dev, uint16_t port, unsigned size)
{
	return pio_read_lanes(uart_ranges, ARRAY_SIZE(uart_ranges), uart_read_byte, dev, port,
			      size);
}

static void uart_write(void *dev, uint16_t port, unsigned size, uint32_t value)
{
	pio_write_lanes(uart_ranges, ARRAY_SIZE(uart_ranges), uart_write_byte, dev, port, size,
			value);
}

static void uart_walk(void *dev, struct walker *w)
{
	struct uart *u = dev;

	walk_component(w, "uart");
	walk_u8(w, "ier", &u->ier);
	walk_u8(w, "fcr", &u->fcr);
	walk_u8(w, "lcr", &u->lcr);
	walk_u8(w, "mcr", &u->mcr);
	walk_u8(w, "lsr", &u->lsr);
	walk_u8(w, "msr", &u->msr);
	walk_u8(w, "scr", &u->scr);
	walk_u8(w, "dll", &u->dll);
	walk_u8(w, "dlm", &u->dlm);
	walk_u8(w, "thr_empty_pending", &u->thr_empty_pending);
	walk_bytes(w, "rx", u->rx, sizeof(u->rx));
	walk_u8(w, "rx_head", &u->rx_head);
	walk_u8(w, "rx_len", &u->rx_len);
}

const struct dev_ops uart_ops = {
	.name = "uart",
	.pio_read = uart_read,
	.pio_write = uart_write,
	.walk = uart_walk,
};
