// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * MC146818 real-time clock and CMOS RAM. References in comments are to the Motorola MC146818A data
 * sheet (ADI1029) and, for the RAM, to the IBM PC/AT technical reference.
 *
 * The time registers are plain bytes in `ram`, as in the chip: what a guest stores there is kept as
 * it is, sensible or not, until the next update. They are true for the second that began at
 * second_start; rtc_advance brings them, the flags and the line up to now. Advancing in one step or
 * in many gives the same state.
 */
#include "vmm/dev/devices.h"
#include "base/types.h"

#define PORT_INDEX 0x70
#define RTC_LINE 8

enum {
	REG_SECOND,
	REG_SECOND_ALARM,
	REG_MINUTE,
	REG_MINUTE_ALARM,
	REG_HOUR,
	REG_HOUR_ALARM,
	REG_WEEKDAY, /* 1 is Sunday; counts by itself */
	REG_DAY,
	REG_MONTH,
	REG_YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	REG_EQUIPMENT = 0x14,
	REG_BASE_KB = 0x15,
	REG_EXTENDED_KB = 0x17,
	REG_CHECKSUM = 0x2e,
	REG_EXTENDED_KB_FOUND = 0x30,
	REG_CENTURY = 0x32,
	REG_64K_ABOVE_16M = 0x34, /* de facto, from Bochs' BIOS: in units of 64 KiB */
	REG_64K_ABOVE_4G = 0x5b,
};

#define A_UPDATING 0x80
#define A_DIVIDER 0x70
#define A_DIVIDER_32768 0x20
#define A_RATE 0x0f

#define B_SET 0x80
#define B_BINARY 0x04
#define B_24_HOURS 0x02

/* The enables in register B have the places of the flags in register C. */
#define FLAG_PERIODIC 0x40
#define FLAG_ALARM 0x20
#define FLAG_UPDATE 0x10
#define FLAG_ANY 0x80

#define D_VALID_RAM 0x80

#define HOUR_PM 0x80
#define ALARM_ANY 0xc0 /* "don't care": both high bits set */

#define EQUIPMENT_FPU 0x02

#define CRYSTAL_HZ 32768
/* "Update cycle": UIP rises 244 us before the registers change. */
#define UPDATE_NOTICE (244 * NSEC_PER_USEC)
/* "The first update cycle begins one-half second" after the divider's reset ends. */
#define DIVIDER_RESET_PHASE (NSEC_PER_SEC / 2)

#define SECONDS_PER_DAY 86400

#define LOWEST_EPOCH 0
#define HIGHEST_EPOCH 253402300799 /* 9999-12-31 23:59:59 */

const struct pio_range rtc_ranges[1] = {{PORT_INDEX, 2}};

/* --- Dates: proleptic Gregorian, days counted from the first of January of year -399 ------ */

static const uint16_t days_before_month[13] = {0,   31,	 59,  90,  120, 151, 181,
					       212, 243, 273, 304, 334, 365};

static bool is_leap(int64_t year)
{
	return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* For years from -399: shifted by a whole cycle of 400, so that nothing divided is negative. */
static int64_t days_before_year(int64_t year)
{
	int64_t past = year + 399;

	return past * 365 + past / 4 - past / 100 + past / 400;
}

/* month: 0-11. */
static unsigned days_before(int64_t year, unsigned month)
{
	return days_before_month[month] + (month > 1 && is_leap(year) ? 1u : 0u);
}

/* Any month from 0 and any day are allowed and carried into the next unit. */
static int64_t days_of_date(int64_t year, int64_t month, int64_t day)
{
	year += month / 12;
	month %= 12;
	return days_before_year(year) + days_before(year, (unsigned)month) + day - 1;
}

static void date_of_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
	int64_t y = days * 400 / 146097 - 399; /* 146097 days in 400 years: at most one off */
	unsigned m = 0;

	while (days_before_year(y) > days)
		y--;
	while (days_before_year(y + 1) <= days)
		y++;
	days -= days_before_year(y);
	while (m < 11 && days >= (int64_t)days_before(y, m + 1))
		m++;
	*year = y;
	*month = m;
	*day = (unsigned)(days - days_before(y, m)) + 1;
}

/* --- Registers to seconds and back -------------------------------------------------------- */

static unsigned rtc_decode(const struct rtc *rtc, uint8_t v)
{
	return rtc->reg_b & B_BINARY ? v : (v >> 4) * 10u + (v & 15u);
}

static uint8_t rtc_encode(const struct rtc *rtc, unsigned v)
{
	return (uint8_t)(rtc->reg_b & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned rtc_decode_hour(const struct rtc *rtc, uint8_t v)
{
	if (rtc->reg_b & B_24_HOURS)
		return rtc_decode(rtc, v);
	return rtc_decode(rtc, v & (uint8_t)~HOUR_PM) % 12 + (v & HOUR_PM ? 12 : 0);
}

static uint8_t rtc_encode_hour(const struct rtc *rtc, unsigned hour)
{
	if (rtc->reg_b & B_24_HOURS)
		return rtc_encode(rtc, hour);
	return rtc_encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int64_t rtc_seconds(const struct rtc *rtc)
{
	int64_t year =
		rtc_decode(rtc, rtc->ram[REG_CENTURY]) * 100 + rtc_decode(rtc, rtc->ram[REG_YEAR]);
	/* Month 0 is no month; take the last one of the year before, as the arithmetic has it. */
	int64_t month = (int64_t)rtc_decode(rtc, rtc->ram[REG_MONTH]) + 11;
	int64_t days = days_of_date(year - 1, month, rtc_decode(rtc, rtc->ram[REG_DAY]));

	return days * SECONDS_PER_DAY + rtc_decode_hour(rtc, rtc->ram[REG_HOUR]) * 3600 +
	       rtc_decode(rtc, rtc->ram[REG_MINUTE]) * 60 + rtc_decode(rtc, rtc->ram[REG_SECOND]);
}

static void rtc_store_seconds(struct rtc *rtc, int64_t seconds)
{
	unsigned in_day = (unsigned)(seconds % SECONDS_PER_DAY);
	unsigned month, day;
	int64_t year;

	date_of_days(seconds / SECONDS_PER_DAY, &year, &month, &day);
	year = (year + 10000) % 10000;
	rtc->ram[REG_SECOND] = rtc_encode(rtc, in_day % 60);
	rtc->ram[REG_MINUTE] = rtc_encode(rtc, in_day / 60 % 60);
	rtc->ram[REG_HOUR] = rtc_encode_hour(rtc, in_day / 3600);
	rtc->ram[REG_DAY] = rtc_encode(rtc, day);
	rtc->ram[REG_MONTH] = rtc_encode(rtc, month + 1);
	rtc->ram[REG_YEAR] = rtc_encode(rtc, (unsigned)(year % 100));
	rtc->ram[REG_CENTURY] = rtc_encode(rtc, (unsigned)(year / 100));
}

/* n updates. */
static void rtc_add_seconds(struct rtc *rtc, uint64_t n)
{
	int64_t before = rtc_seconds(rtc);
	int64_t after = before + (int64_t)n;
	int64_t days = after / SECONDS_PER_DAY - before / SECONDS_PER_DAY;
	unsigned weekday = rtc_decode(rtc, rtc->ram[REG_WEEKDAY]);

	if (days)
		rtc->ram[REG_WEEKDAY] =
			rtc_encode(rtc, (unsigned)(((int64_t)weekday + 6 + days) % 7) + 1);
	rtc_store_seconds(rtc, after);
}

/* --- Events ------------------------------------------------------------------------------- */

static uint64_t rtc_now(const struct rtc *rtc)
{
	return rtc->env.now(rtc->env.ctx);
}

static bool rtc_divider_runs(const struct rtc *rtc)
{
	return (rtc->reg_a & A_DIVIDER) == A_DIVIDER_32768;
}

static bool alarm_matches(uint8_t alarm, uint8_t value)
{
	return (alarm & ALARM_ANY) == ALARM_ANY || alarm == value;
}

/* In how many updates (1-86400) after the time of day `from` the alarm matches; 0: never. */
static uint64_t rtc_updates_to_alarm(const struct rtc *rtc, unsigned from)
{
	unsigned t = from + 1, end = from + SECONDS_PER_DAY;
	unsigned second = 0;

	/* A second that never comes would make the search below try every one of the day. */
	while (second < 60 && !alarm_matches(rtc->ram[REG_SECOND_ALARM], rtc_encode(rtc, second)))
		second++;
	if (second == 60)
		return 0;
	while (t <= end) {
		unsigned hour = t / 3600 % 24, minute = t / 60 % 60;

		if (!alarm_matches(rtc->ram[REG_HOUR_ALARM], rtc_encode_hour(rtc, hour)))
			t += 3600 - t % 3600;
		else if (!alarm_matches(rtc->ram[REG_MINUTE_ALARM], rtc_encode(rtc, minute)))
			t += 60 - t % 60;
		else if (!alarm_matches(rtc->ram[REG_SECOND_ALARM], rtc_encode(rtc, t % 60)))
			t++;
		else
			return t - from;
	}
	return 0;
}

/* Crystal clocks between periodic interrupts, 0 if there are none. Table 5: rates 1 and 2 are those
 * of 8 and 9 with a 32.768 kHz crystal. */
static unsigned rtc_period(const struct rtc *rtc)
{
	unsigned rate = rtc->reg_a & A_RATE;

	if (!rate)
		return 0;
	return 1u << (rate < 3 ? rate + 6 : rate - 1);
}

static uint64_t crystal_clock(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * CRYSTAL_HZ / NSEC_PER_SEC);
}

static bool rtc_line_level(const struct rtc *rtc)
{
	return rtc->reg_b & rtc->reg_c & (FLAG_PERIODIC | FLAG_ALARM | FLAG_UPDATE);
}

static void rtc_update_line(struct rtc *rtc)
{
	rtc->env.irq(rtc->env.ctx, RTC_LINE, rtc_line_level(rtc));
}

static unsigned rtc_time_of_day(const struct rtc *rtc)
{
	return (unsigned)(rtc_seconds(rtc) % SECONDS_PER_DAY);
}

static void rtc_update_seconds(struct rtc *rtc, uint64_t n)
{
	uint64_t alarm = rtc_updates_to_alarm(rtc, rtc_time_of_day(rtc));

	if (alarm && alarm <= n)
		rtc->reg_c |= FLAG_ALARM;
	rtc->reg_c |= FLAG_UPDATE;
	rtc_add_seconds(rtc, n);
}

/* Registers and flags up to `now`, without telling the line. */
static void rtc_advance_state(struct rtc *rtc, uint64_t now)
{
	uint64_t before = rtc->last_tick - rtc->second_start;
	uint64_t after = now - rtc->second_start;
	unsigned period = rtc_period(rtc);

	rtc->last_tick = now;
	if (!rtc_divider_runs(rtc))
		return;
	if (period && crystal_clock(after) / period != crystal_clock(before) / period)
		rtc->reg_c |= FLAG_PERIODIC;
	if (after >= NSEC_PER_SEC) {
		/* While SET is on the divider goes on, the registers do not. */
		if (!(rtc->reg_b & B_SET))
			rtc_update_seconds(rtc, after / NSEC_PER_SEC);
		rtc->second_start += after / NSEC_PER_SEC * NSEC_PER_SEC;
	}
}

static void rtc_advance(struct rtc *rtc)
{
	uint8_t flags = rtc->reg_c;

	rtc_advance_state(rtc, rtc_now(rtc));
	if (rtc->reg_c != flags)
		rtc_update_line(rtc);
}

/* How far in its second the clock is. */
static uint64_t rtc_phase(const struct rtc *rtc)
{
	return (rtc_now(rtc) - rtc->second_start) % NSEC_PER_SEC;
}

/* ns from now to the next event whose interrupt is enabled, or TIME_NEVER. */
static uint64_t rtc_next_event(const struct rtc *rtc)
{
	uint64_t phase = rtc_phase(rtc);
	uint64_t next = TIME_NEVER;
	unsigned period = rtc_period(rtc);

	if (!rtc_divider_runs(rtc))
		return TIME_NEVER;
	if (period && (rtc->reg_b & FLAG_PERIODIC)) {
		uint64_t clock = (crystal_clock(phase) / period + 1) * period;

		/* Rounded up: the first ns at which crystal_clock has this value. */
		next = (clock * NSEC_PER_SEC + CRYSTAL_HZ - 1) / CRYSTAL_HZ - phase;
	}
	if (rtc->reg_b & B_SET)
		return next;
	if ((rtc->reg_b & FLAG_UPDATE) && NSEC_PER_SEC - phase < next)
		next = NSEC_PER_SEC - phase;
	if (rtc->reg_b & FLAG_ALARM) {
		uint64_t n = rtc_updates_to_alarm(rtc, rtc_time_of_day(rtc));

		if (n && n * NSEC_PER_SEC - phase < next)
			next = n * NSEC_PER_SEC - phase;
	}
	return next;
}

static void rtc_tick(void *dev)
{
	rtc_advance(dev);
}

static uint64_t rtc_deadline(void *dev, unsigned *line)
{
	/* A copy, because asking must not change anything, and the alarm counts from the present.
	 */
	struct rtc present = *(const struct rtc *)dev;
	uint64_t now = rtc_now(&present);
	uint64_t next;

	*line = RTC_LINE;
	rtc_advance_state(&present, now);
	/* A line that is up stays up until register C is read. */
	if (rtc_line_level(&present))
		return TIME_NEVER;
	next = rtc_next_event(&present);
	return next < TIME_NEVER - now ? now + next : TIME_NEVER;
}

/* --- Access
 * ---------------------------------------------------------------------------------------- */

static void rtc_store16(struct rtc *rtc, unsigned reg, uint64_t v)
{
	if (v > 0xffff)
		v = 0xffff;
	rtc->ram[reg] = (uint8_t)v;
	rtc->ram[reg + 1] = (uint8_t)(v >> 8);
}

void rtc_init(struct rtc *rtc, const struct dev_env *env, int64_t epoch, uint64_t mem_bytes)
{
	uint64_t low = mem_bytes < MEMORY_LOW_MAX ? mem_bytes : MEMORY_LOW_MAX;
	uint64_t high_64k = (mem_bytes - low) >> 16;
	uint64_t extended_kb = low > 1 << 20 ? (low >> 10) - 1024 : 0;
	uint64_t low_64k = low > 16 << 20 ? (low >> 16) - 256 : 0;
	uint64_t sum = 0;

	*rtc = (struct rtc){
		.env = *env,
		.reg_a = A_DIVIDER_32768 | 6, /* 1024 Hz, as PC firmware sets it */
		.reg_b = B_24_HOURS,
	};
	if (epoch < LOWEST_EPOCH)
		epoch = LOWEST_EPOCH;
	if (epoch > HIGHEST_EPOCH)
		epoch = HIGHEST_EPOCH;
	/* 1970-01-01 was a Thursday, 5. */
	rtc->ram[REG_WEEKDAY] = (uint8_t)((epoch / SECONDS_PER_DAY + 4) % 7 + 1);
	rtc_store_seconds(rtc, days_of_date(1970, 0, 1) * SECONDS_PER_DAY + epoch);

	rtc->ram[REG_EQUIPMENT] = EQUIPMENT_FPU;
	rtc_store16(rtc, REG_BASE_KB, 640);
	rtc_store16(rtc, REG_EXTENDED_KB, extended_kb);
	rtc_store16(rtc, REG_EXTENDED_KB_FOUND, extended_kb);
	rtc_store16(rtc, REG_64K_ABOVE_16M, low_64k);
	rtc->ram[REG_64K_ABOVE_4G] = (uint8_t)high_64k;
	rtc->ram[REG_64K_ABOVE_4G + 1] = (uint8_t)(high_64k >> 8);
	rtc->ram[REG_64K_ABOVE_4G + 2] = (uint8_t)(high_64k >> 16);
	for (unsigned i = 0x10; i < REG_CHECKSUM; i++)
		sum += rtc->ram[i];
	rtc->ram[REG_CHECKSUM] = (uint8_t)(sum >> 8);
	rtc->ram[REG_CHECKSUM + 1] = (uint8_t)sum;
}

static uint8_t rtc_read_register(struct rtc *rtc, unsigned reg)
{
	uint8_t value;

	switch (reg) {
	case REG_A:
		value = rtc->reg_a;
		if (rtc_divider_runs(rtc) && !(rtc->reg_b & B_SET) &&
		    rtc_phase(rtc) >= NSEC_PER_SEC - UPDATE_NOTICE)
			value |= A_UPDATING;
		return value;
	case REG_B:
		return rtc->reg_b;
	case REG_C:
		value = rtc->reg_c | (rtc_line_level(rtc) ? FLAG_ANY : 0);
		rtc->reg_c = 0;
		rtc_update_line(rtc);
		return value;
	case REG_D:
		return D_VALID_RAM;
	default:
		return rtc->ram[reg];
	}
}

static void rtc_write_register(struct rtc *rtc, unsigned reg, uint8_t value)
{
	bool ran;

	switch (reg) {
	case REG_A:
		ran = rtc_divider_runs(rtc);
		rtc->reg_a = value & (uint8_t)~A_UPDATING;
		if (!ran && rtc_divider_runs(rtc))
			rtc->second_start = rtc_now(rtc) - DIVIDER_RESET_PHASE;
		break;
	case REG_B:
		/* "The SET bit going high clears UIE." */
		rtc->reg_b = value & B_SET ? value & (uint8_t)~FLAG_UPDATE : value;
		rtc_update_line(rtc);
		break;
	case REG_C:
	case REG_D:
		break; /* read-only */
	default:
		rtc->ram[reg] = value;
		break;
	}
}

static uint8_t rtc_read_byte(void *dev, uint16_t port)
{
	struct rtc *rtc = dev;

	rtc_advance(rtc);
	if (port == PORT_INDEX)
		return 0xff; /* write-only on a PC */
	return rtc_read_register(rtc, rtc->index & 0x7f);
}

static void rtc_write_byte(void *dev, uint16_t port, uint8_t value)
{
	struct rtc *rtc = dev;

	rtc_advance(rtc);
	if (port == PORT_INDEX)
		rtc->index = value & 0x7f; /* bit 7 masks NMIs, of which there are none */
	else
		rtc_write_register(rtc, rtc->index & 0x7f, value);
}

static uint32_t rtc_read(void *dev, uint16_t port, unsigned size)
{
	return pio_read_lanes(rtc_ranges, ARRAY_SIZE(rtc_ranges), rtc_read_byte, dev, port, size);
}

static void rtc_write(void *dev, uint16_t port, unsigned size, uint32_t value)
{
	pio_write_lanes(rtc_ranges, ARRAY_SIZE(rtc_ranges), rtc_write_byte, dev, port, size, value);
}

static void rtc_walk(void *dev, struct walker *w)
{
	struct rtc *rtc = dev;

	walk_component(w, "rtc");
	walk_u8(w, "index", &rtc->index);
	walk_u8(w, "reg_a", &rtc->reg_a);
	walk_u8(w, "reg_b", &rtc->reg_b);
	walk_u8(w, "reg_c", &rtc->reg_c);
	walk_bytes(w, "ram", rtc->ram, sizeof(rtc->ram));
	walk_u64(w, "second_start", &rtc->second_start);
	walk_u64(w, "last_tick", &rtc->last_tick);
}

const struct dev_ops rtc_ops = {
	.name = "rtc",
	.pio_read = rtc_read,
	.pio_write = rtc_write,
	.tick = rtc_tick,
	.deadline = rtc_deadline,
	.walk = rtc_walk,
};
