/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The PC devices of the machine. Each *_init puts the device into its power-on state and keeps a
 * copy of env; each has a dev_ops table and the ranges it answers to. References: Intel 8259A,
 * 8254, National PC16550D and Motorola MC146818 data sheets, IBM PC/AT technical reference.
 */
#ifndef VMM_DEV_DEVICES_H
#define VMM_DEV_DEVICES_H

#include "vmm/dev/dev.h"

/* --- Byte lanes -------------------------------------------------------------------------------
 * All these devices are eight bits wide. As on the ISA bus, an access of 2 or 4 bytes becomes
 * accesses to consecutive ports, lowest first; ports outside the device's ranges read as ones and
 * swallow writes. */
static inline bool pio_in_ranges(const struct pio_range *ranges, size_t n, uint16_t port)
{
	for (size_t i = 0; i < n; i++) {
		if (port >= ranges[i].base && port - ranges[i].base < ranges[i].count)
			return true;
	}
	return false;
}

static inline uint32_t pio_read_lanes(const struct pio_range *ranges, size_t n,
				      uint8_t (*read)(void *dev, uint16_t port), void *dev,
				      uint16_t port, unsigned size)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < size && i < 4; i++) {
		uint16_t p = (uint16_t)(port + i);
		uint32_t byte = pio_in_ranges(ranges, n, p) ? read(dev, p) : 0xff;

		value |= byte << (8 * i);
	}
	return value;
}

static inline void pio_write_lanes(const struct pio_range *ranges, size_t n,
				   void (*write)(void *dev, uint16_t port, uint8_t value),
				   void *dev, uint16_t port, unsigned size, uint32_t value)
{
	for (unsigned i = 0; i < size && i < 4; i++) {
		uint16_t p = (uint16_t)(port + i);

		if (pio_in_ranges(ranges, n, p))
			write(dev, p, (uint8_t)(value >> (8 * i)));
	}
}

/* --- 8259 pair (pic.c): ports 0x20-0x21, 0xa0-0xa1, 0x4d0-0x4d1 (ELCR) ------------------- */
struct pic_chip {
	/* irr: an edge stays here until it is acknowledged or its line falls; a level follows its
	 * line. lines: current input levels. */
	uint8_t irr, isr, imr, elcr, lines;
	uint8_t vector_base, init_step, read_isr, poll, special_mask, rotate_on_auto_eoi, auto_eoi,
		lowest_priority, need_icw4, single, special_fully_nested;
};

struct pic {
	struct pic_chip chip[2]; /* master, slave on line 2 */
};

extern const struct dev_ops pic_ops;
extern const struct pio_range pic_ranges[3];
void pic_init(struct pic *pic);
void pic_set_line(struct pic *pic, unsigned line, bool level);
/* INTR output: an unmasked request of sufficient priority waits. */
bool pic_pending(const struct pic *pic);
/* Interrupt acknowledge cycle: returns the vector and moves the request to in-service. To be called
 * only when pic_pending; a request that vanished gives the spurious vector (line 7 or 15). */
uint8_t pic_acknowledge(struct pic *pic);
/* True if a rising edge on this line now could reach the INTR output at some time without the guest
 * first writing to the pair's mask registers (it is unmasked, and so is the cascade). */
bool pic_line_enabled(const struct pic *pic, unsigned line);

/* --- 8254 and port 0x61 (pit.c): ports 0x40-0x43, 0x61. Channel 0 drives line 0. -------------- */
#define PIT_HZ 1193182 /* 8254 input clock on a PC: 14.31818 MHz / 12 */

/* A time in the device is a count of PIT clocks since vtime 0; differences are modulo 2^64. */
struct pit_channel {
	uint64_t start;	     /* clock at which the counter holds (held) `count` */
	uint64_t reload;     /* clock at which next_count takes over, if it is not 0 */
	uint64_t held;	     /* clocks counted when the gate stopped the counter */
	uint32_t count;	     /* being counted down, 1-65536; 0 = never programmed */
	uint32_t next_count; /* written but not yet loaded; 0 = none */
	uint16_t latch;
	uint16_t idle_value; /* what the counter shows while it waits for a count or a trigger */
	uint8_t latched, status, status_latched, access, read_high, write_high, write_low, mode,
		bcd, gate, phase;
};

struct pit {
	struct dev_env env;
	struct pit_channel ch[3];
	uint64_t seen;	 /* clock up to which edges of channel 0 went to line 0 */
	uint8_t speaker; /* port 0x61, writable low four bits: gate 2, speaker, two check enables */
};

extern const struct dev_ops pit_ops;
extern const struct pio_range pit_ranges[2];
void pit_init(struct pit *pit, const struct dev_env *env);

/* --- 16550A (uart.c): ports 0x3f8-0x3ff, line 4 ----------------------------------------------- */
#define UART_FIFO 16

struct uart {
	struct dev_env env;
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr, dll, dlm, thr_empty_pending;
	uint8_t rx[UART_FIFO];
	uint8_t rx_head, rx_len;
};

extern const struct dev_ops uart_ops;
extern const struct pio_range uart_ranges[1];
void uart_init(struct uart *u, const struct dev_env *env);
/* How many received bytes it can take now (0 while in loopback). */
size_t uart_room(const struct uart *u);
/* Bytes arriving on the line; n <= uart_room. */
void uart_receive(struct uart *u, const uint8_t *bytes, size_t n);

/* --- MC146818 RTC and CMOS RAM (rtc.c): ports 0x70-0x71, line 8 --------------------------- */
struct rtc {
	struct dev_env env;
	uint8_t index, reg_a, reg_b, reg_c;
	uint8_t ram[128];      /* time registers included, valid for the second at second_start */
	uint64_t second_start; /* vtime at which the divider began this second, modulo 2^64 */
	uint64_t last_tick;    /* vtime up to which update, alarm and periodic events were seen */
};

extern const struct dev_ops rtc_ops;
extern const struct pio_range rtc_ranges[1];
/* epoch: the date shown at vtime 0, seconds since 1970 UTC; mem_bytes fills the CMOS sizes. */
void rtc_init(struct rtc *rtc, const struct dev_env *env, int64_t epoch, uint64_t mem_bytes);

/* --- i8042 without keyboard, and the reset ports (i8042.c): 0x60, 0x64, 0x92, 0xcf9 ------- */
struct i8042 {
	struct dev_env env;
	uint8_t status, ctr, out, pending_command, a20;
	uint8_t reset_control;
};

extern const struct dev_ops i8042_ops;
extern const struct pio_range i8042_ranges[4];
void i8042_init(struct i8042 *k, const struct dev_env *env);

/* --- debug console 0xe9 and exit port 0xf4 (debugport.c) ---------------------------------- */
#define DEBUG_PORT 0xe9 /* as Bochs and QEMU's isa-debugcon; reads as 0xe9 */
#define EXIT_PORT 0xf4	/* as QEMU's isa-debug-exit, but the status is the value itself */

struct debugport {
	struct dev_env env;
};

extern const struct dev_ops debugport_ops;
extern const struct pio_range debugport_ranges[2];
void debugport_init(struct debugport *d, const struct dev_env *env);

#endif
