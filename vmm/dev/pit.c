// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * 8254 interval timer and PC/AT port 0x61. Section names in comments are those of the Intel 8254
 * data sheet (231164-005).
 *
 * Nothing counts: a channel knows the clock at which its counter held `count`, and what the counter
 * and OUT show now follows from the clocks gone by. A count written takes effect with the next CLK
 * pulse, as in the chip, so a timer is never early.
 */
#include "vmm/dev/devices.h"

#include <stdio.h>

/* Life of a counter (phase). */
enum {
	PHASE_NO_COUNT, /* control word written, count not or half */
	PHASE_ARMED,	/* modes 1 and 5: waits for the gate's rising edge */
	PHASE_COUNTING,
	PHASE_HELD, /* modes 0, 2, 3, 4: loaded, stopped by the gate */
};

enum {
	ACCESS_LATCH,
	ACCESS_LOW,
	ACCESS_HIGH,
	ACCESS_BOTH,
};

#define READ_BACK 3 /* where a control word has the channel */
#define READ_BACK_NO_COUNT 0x20
#define READ_BACK_NO_STATUS 0x10

#define STATUS_OUT 0x80
#define STATUS_NULL_COUNT 0x40

#define PORT_SPEAKER 0x61
#define SPEAKER_GATE 0x01
#define SPEAKER_WRITABLE 0x0f
#define SPEAKER_REFRESH 0x10
#define SPEAKER_OUT 0x20

/* A PC's channel 1 divides by 18 to request DRAM refreshes, and bit 4 of port 0x61 toggles with
 * each: every 15.085 us (IBM PC/AT technical reference, "System timers" and port B). */
#define REFRESH_CLOCKS 18

const struct pio_range pit_ranges[2] = {{0x40, 4}, {PORT_SPEAKER, 1}};

/* --- Time. 128-bit products: exact and free of drift for the whole range of vtime. -------- */

static uint64_t clock_of_vtime(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * PIT_HZ / NSEC_PER_SEC);
}

/* The first vtime at which clock_of_vtime gives this clock. */
static uint64_t vtime_of_clock(uint64_t clock)
{
	unsigned __int128 ns = ((unsigned __int128)clock * NSEC_PER_SEC + PIT_HZ - 1) / PIT_HZ;

	return ns < TIME_NEVER ? (uint64_t)ns : TIME_NEVER;
}

static uint64_t pit_clock(const struct pit *pit)
{
	return clock_of_vtime(pit->env.now(pit->env.ctx));
}

/* --- The counter -------------------------------------------------------------------------- */

/* Modes 6 and 7 are 2 and 3: bit 2 of the mode is "don't care" there ("Control word format"). */
static unsigned channel_mode(const struct pit_channel *ch)
{
	unsigned mode = ch->mode & 7;

	return mode > 5 ? mode - 4 : mode;
}

static bool channel_is_periodic(const struct pit_channel *ch)
{
	return channel_mode(ch) == 2 || channel_mode(ch) == 3;
}

/* Only a rising edge of the gate starts modes 1 and 5, and its level does not stop them. */
static bool channel_is_triggered(const struct pit_channel *ch)
{
	return channel_mode(ch) == 1 || channel_mode(ch) == 5;
}

/* Clocks counted since the load; 0 also during the clock before it. */
static uint64_t channel_elapsed(const struct pit_channel *ch, uint64_t clock)
{
	uint64_t elapsed = clock - ch->start;

	if (ch->phase != PHASE_COUNTING)
		return ch->held;
	return elapsed >> 63 ? 0 : elapsed;
}

/* Length of the high half of a mode 3 period: the longer one if the count is odd. */
static uint64_t high_half(uint32_t count)
{
	return ((uint64_t)count + 1) / 2;
}

static uint16_t bcd_of(uint32_t v)
{
	return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

/* What the counter's two bytes show. */
static uint16_t channel_value(const struct pit_channel *ch, uint64_t clock)
{
	uint64_t elapsed = channel_elapsed(ch, clock);
	uint32_t range = ch->bcd ? 10000 : 65536;
	uint64_t value;

	if (!ch->count || ch->phase == PHASE_NO_COUNT || ch->phase == PHASE_ARMED)
		return ch->idle_value;
	switch (channel_mode(ch)) {
	case 2:
		value = ch->count - elapsed % ch->count;
		break;
	case 3:
		/* Counts by two, from the count made even, in each half ("Mode 3"). */
		elapsed %= ch->count;
		if (elapsed >= high_half(ch->count))
			elapsed -= high_half(ch->count);
		value = (ch->count & ~1u) - 2 * elapsed;
		break;
	default:
		/* Goes on below zero, to the highest count. */
		value = ch->count % range + range - elapsed % range;
		break;
	}
	value %= range;
	return ch->bcd ? bcd_of((uint32_t)value) : (uint16_t)value;
}

static bool channel_out(const struct pit_channel *ch, uint64_t clock)
{
	uint64_t elapsed = channel_elapsed(ch, clock);
	unsigned mode = channel_mode(ch);

	if (ch->phase == PHASE_NO_COUNT || ch->phase == PHASE_ARMED)
		return mode != 0;
	switch (mode) {
	case 0:
	case 1:
		return elapsed >= ch->count;
	case 2:
		/* A count of 1 is illegal in modes 2 and 3; OUT stands still then. */
		return ch->phase == PHASE_HELD || ch->count < 2 ||
		       elapsed % ch->count != ch->count - 1;
	case 3:
		return ch->phase == PHASE_HELD || ch->count < 2 ||
		       elapsed % ch->count < high_half(ch->count);
	default:
		return elapsed != ch->count;
	}
}

/* Let a count written to a running periodic counter take over once its clock has come. */
static void channel_settle(struct pit_channel *ch, uint64_t clock)
{
	if (ch->phase != PHASE_COUNTING || !channel_is_periodic(ch) || !ch->next_count ||
	    (clock - ch->reload) >> 63)
		return;
	/* Mode 3 also reloads between the halves; the new low half then begins at the reload. */
	if (ch->reload - ch->start == ch->count)
		ch->start = ch->reload;
	else
		ch->start = ch->reload - high_half(ch->next_count);
	ch->count = ch->next_count;
	ch->next_count = 0;
}

/* First rising edge of a periodic counter's OUT after `clock`, as if no reload were due. */
static uint64_t periodic_edge(const struct pit_channel *ch, uint64_t clock)
{
	uint64_t elapsed = channel_elapsed(ch, clock);

	if (ch->count < 2)
		return TIME_NEVER;
	return ch->start + (elapsed / ch->count + 1) * ch->count;
}

/* The first clock after `clock` at which OUT rises by counting, or TIME_NEVER. */
static uint64_t channel_next_edge(const struct pit_channel *ch, uint64_t clock)
{
	struct pit_channel copy = *ch;
	uint64_t edge;

	if (ch->phase != PHASE_COUNTING || !ch->count)
		return TIME_NEVER;
	switch (channel_mode(ch)) {
	case 0:
	case 1:
		edge = ch->start + ch->count;
		return edge > clock ? edge : TIME_NEVER;
	case 2:
	case 3:
		edge = periodic_edge(ch, clock);
		if (!ch->next_count || edge <= ch->reload)
			return edge;
		channel_settle(&copy, ch->reload);
		return periodic_edge(&copy, clock > ch->reload ? clock : ch->reload);
	default:
		edge = ch->start + ch->count + 1;
		return edge > clock ? edge : TIME_NEVER;
	}
}

/* --- Programming -------------------------------------------------------------------------- */

static void channel_write_control(struct pit_channel *ch, uint8_t control, uint64_t clock)
{
	ch->idle_value = channel_value(ch, clock);
	ch->access = control >> 4 & 3;
	ch->mode = control >> 1 & 7;
	ch->bcd = control & 1;
	ch->phase = PHASE_NO_COUNT;
	ch->next_count = 0;
	ch->held = 0;
	ch->latched = 0;
	ch->status_latched = 0;
	ch->read_high = 0;
	ch->write_high = 0;
}

/* Begin counting at the next CLK pulse, or as soon as the gate lets it. */
static void channel_load(struct pit_channel *ch, uint32_t count, uint64_t clock)
{
	ch->count = count;
	ch->next_count = 0;
	ch->start = clock + 1;
	ch->held = 0;
	ch->phase = ch->gate || channel_is_triggered(ch) ? PHASE_COUNTING : PHASE_HELD;
}

static void channel_defer(struct pit_channel *ch, uint32_t count, uint64_t clock)
{
	uint64_t elapsed = channel_elapsed(ch, clock) % ch->count;
	uint64_t half = high_half(ch->count);

	/* Also if a count was waiting already: the current half is the same one. During the clock
	 * before the first load, start is ahead of `clock` and stays. */
	if (!((clock - ch->start) >> 63))
		ch->start = clock - elapsed;
	if (channel_mode(ch) == 3 && elapsed < half)
		ch->reload = ch->start + half;
	else
		ch->reload = ch->start + ch->count;
	ch->next_count = count;
}

static void channel_set_count(struct pit_channel *ch, uint16_t raw, uint64_t clock)
{
	uint32_t count = raw;

	if (ch->bcd)
		count = (raw & 15u) + (raw >> 4 & 15u) * 10 + (raw >> 8 & 15u) * 100 +
			(raw >> 12 & 15u) * 1000;
	if (!count)
		count = ch->bcd ? 10000 : 65536;

	if (channel_is_triggered(ch)) {
		ch->next_count = count;
		if (ch->phase == PHASE_NO_COUNT)
			ch->phase = PHASE_ARMED;
	} else if (channel_is_periodic(ch) && ch->phase == PHASE_COUNTING && ch->count >= 2) {
		channel_defer(ch, count, clock);
	} else if (channel_is_periodic(ch) && ch->phase == PHASE_HELD) {
		ch->next_count = count; /* the gate's rising edge will load it */
	} else {
		channel_load(ch, count, clock);
	}
}

static void channel_write(struct pit_channel *ch, uint8_t value, uint64_t clock)
{
	switch (ch->access) {
	case ACCESS_LOW:
		channel_set_count(ch, value, clock);
		break;
	case ACCESS_HIGH:
		channel_set_count(ch, (uint16_t)(value << 8), clock);
		break;
	case ACCESS_BOTH:
		if (ch->write_high) {
			ch->write_high = 0;
			channel_set_count(ch, (uint16_t)(value << 8 | ch->write_low), clock);
			break;
		}
		ch->write_low = value;
		ch->write_high = 1;
		/* "Writing the first byte disables counting. OUT is set low immediately." */
		if (channel_mode(ch) == 0) {
			ch->idle_value = channel_value(ch, clock);
			ch->phase = PHASE_NO_COUNT;
		}
		break;
	default:
		break; /* no control word was ever written */
	}
}

static void channel_set_gate(struct pit_channel *ch, bool gate, uint64_t clock)
{
	if (gate == (ch->gate != 0))
		return;
	if (!gate && !channel_is_triggered(ch) && ch->phase == PHASE_COUNTING) {
		ch->held = channel_elapsed(ch, clock);
		ch->phase = PHASE_HELD;
	}
	ch->gate = gate;
	if (!gate)
		return;
	if (channel_is_triggered(ch) && ch->phase != PHASE_NO_COUNT) {
		channel_load(ch, ch->next_count ? ch->next_count : ch->count, clock);
	} else if (ch->phase == PHASE_HELD && channel_is_periodic(ch)) {
		channel_load(ch, ch->next_count ? ch->next_count : ch->count, clock);
	} else if (ch->phase == PHASE_HELD) {
		ch->start = clock - ch->held;
		ch->phase = PHASE_COUNTING;
	}
}

/* "Counter latch command": a second latch before the first is read is ignored. */
static void channel_latch(struct pit_channel *ch, uint64_t clock)
{
	if (ch->latched)
		return;
	ch->latch = channel_value(ch, clock);
	ch->latched = 1;
}

static void channel_latch_status(struct pit_channel *ch, uint64_t clock)
{
	bool null_count = ch->phase == PHASE_NO_COUNT || ch->next_count;

	if (ch->status_latched)
		return;
	ch->status = (uint8_t)((channel_out(ch, clock) ? STATUS_OUT : 0) |
			       (null_count ? STATUS_NULL_COUNT : 0) | (ch->access & 3) << 4 |
			       (ch->mode & 7) << 1 | (ch->bcd & 1));
	ch->status_latched = 1;
}

static uint8_t channel_read(struct pit_channel *ch, uint64_t clock)
{
	uint16_t value = ch->latched ? ch->latch : channel_value(ch, clock);
	bool high = ch->access == ACCESS_HIGH;

	if (ch->status_latched) {
		ch->status_latched = 0;
		return ch->status;
	}
	if (ch->access == ACCESS_BOTH) {
		high = ch->read_high;
		ch->read_high = !high;
		if (high)
			ch->latched = 0;
	} else {
		ch->latched = 0;
	}
	return (uint8_t)(high ? value >> 8 : value);
}

/* --- The device --------------------------------------------------------------------------- */

void pit_init(struct pit *pit, const struct dev_env *env)
{
	*pit = (struct pit){.env = *env};
	pit->ch[0].gate = 1;
	pit->ch[1].gate = 1;
}

/* Bring line 0 and all counters up to `clock`. Missed edges of channel 0 become one. */
static void pit_advance(struct pit *pit, uint64_t clock)
{
	if (channel_next_edge(&pit->ch[0], pit->seen) <= clock) {
		pit->env.irq(pit->env.ctx, 0, false);
		pit->env.irq(pit->env.ctx, 0, true);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(pit->ch); i++)
		channel_settle(&pit->ch[i], clock);
	pit->seen = clock;
}

/* After programming: OUT low means a low line. The low part of a period or strobe is not shown on
 * the line, it is part of the pulse that pit_advance gives at its end; otherwise a request would be
 * withdrawn or not depending on when somebody looks. */
static void pit_update_line(struct pit *pit, uint64_t clock)
{
	const struct pit_channel *ch = &pit->ch[0];

	pit->env.irq(pit->env.ctx, 0, channel_mode(ch) != 0 || channel_out(ch, clock));
}

static void pit_write_control(struct pit *pit, uint8_t control, uint64_t clock)
{
	unsigned which = control >> 6;

	if (which == READ_BACK) {
		for (unsigned i = 0; i < ARRAY_SIZE(pit->ch); i++) {
			if (!(control & (2u << i)))
				continue;
			if (!(control & READ_BACK_NO_COUNT))
				channel_latch(&pit->ch[i], clock);
			if (!(control & READ_BACK_NO_STATUS))
				channel_latch_status(&pit->ch[i], clock);
		}
		return;
	}
	if ((control >> 4 & 3) == ACCESS_LATCH)
		channel_latch(&pit->ch[which], clock);
	else
		channel_write_control(&pit->ch[which], control, clock);
}

static uint8_t pit_read_byte(void *dev, uint16_t port)
{
	struct pit *pit = dev;
	uint64_t clock = pit_clock(pit);

	pit_advance(pit, clock);
	if (port == PORT_SPEAKER)
		return (uint8_t)(pit->speaker | (clock / REFRESH_CLOCKS & 1 ? SPEAKER_REFRESH : 0) |
				 (channel_out(&pit->ch[2], clock) ? SPEAKER_OUT : 0));
	if ((port & 3) == 3)
		return 0xff; /* the control word cannot be read */
	return channel_read(&pit->ch[port & 3], clock);
}

static void pit_write_byte(void *dev, uint16_t port, uint8_t value)
{
	struct pit *pit = dev;
	uint64_t clock = pit_clock(pit);

	pit_advance(pit, clock);
	if (port == PORT_SPEAKER) {
		pit->speaker = value & SPEAKER_WRITABLE;
		channel_set_gate(&pit->ch[2], value & SPEAKER_GATE, clock);
		return;
	}
	if ((port & 3) == 3)
		pit_write_control(pit, value, clock);
	else
		channel_write(&pit->ch[port & 3], value, clock);
	pit_update_line(pit, clock);
}

static uint32_t pit_read(void *dev, uint16_t port, unsigned size)
{
	return pio_read_lanes(pit_ranges, ARRAY_SIZE(pit_ranges), pit_read_byte, dev, port, size);
}

static void pit_write(void *dev, uint16_t port, unsigned size, uint32_t value)
{
	pio_write_lanes(pit_ranges, ARRAY_SIZE(pit_ranges), pit_write_byte, dev, port, size, value);
}

static void pit_tick(void *dev)
{
	struct pit *pit = dev;

	pit_advance(pit, pit_clock(pit));
}

static uint64_t pit_deadline(void *dev, unsigned *line)
{
	struct pit *pit = dev;
	uint64_t edge = channel_next_edge(&pit->ch[0], pit_clock(pit));

	*line = 0;
	return edge == TIME_NEVER ? TIME_NEVER : vtime_of_clock(edge);
}

static void channel_walk(struct walker *w, unsigned i, struct pit_channel *ch)
{
	const struct {
		const char *name;
		uint8_t *field;
	} bytes[] = {
		{"latched", &ch->latched},
		{"status", &ch->status},
		{"status_latched", &ch->status_latched},
		{"access", &ch->access},
		{"read_high", &ch->read_high},
		{"write_high", &ch->write_high},
		{"write_low", &ch->write_low},
		{"mode", &ch->mode},
		{"bcd", &ch->bcd},
		{"gate", &ch->gate},
		{"phase", &ch->phase},
	};
	char name[32];

	snprintf(name, sizeof(name), "ch%u.start", i);
	walk_u64(w, name, &ch->start);
	snprintf(name, sizeof(name), "ch%u.reload", i);
	walk_u64(w, name, &ch->reload);
	snprintf(name, sizeof(name), "ch%u.held", i);
	walk_u64(w, name, &ch->held);
	snprintf(name, sizeof(name), "ch%u.count", i);
	walk_u32(w, name, &ch->count);
	snprintf(name, sizeof(name), "ch%u.next_count", i);
	walk_u32(w, name, &ch->next_count);
	snprintf(name, sizeof(name), "ch%u.latch", i);
	walk_u16(w, name, &ch->latch);
	snprintf(name, sizeof(name), "ch%u.idle_value", i);
	walk_u16(w, name, &ch->idle_value);
	for (size_t k = 0; k < ARRAY_SIZE(bytes); k++) {
		snprintf(name, sizeof(name), "ch%u.%s", i, bytes[k].name);
		walk_u8(w, name, bytes[k].field);
	}
}

static void pit_walk(void *dev, struct walker *w)
{
	struct pit *pit = dev;

	walk_component(w, "pit");
	for (unsigned i = 0; i < ARRAY_SIZE(pit->ch); i++)
		channel_walk(w, i, &pit->ch[i]);
	walk_u64(w, "seen", &pit->seen);
	walk_u8(w, "speaker", &pit->speaker);
}

const struct dev_ops pit_ops = {
	.name = "pit",
	.pio_read = pit_read,
	.pio_write = pit_write,
	.tick = pit_tick,
	.deadline = pit_deadline,
	.walk = pit_walk,
};
