// SPDX-License-Identifier: GPL-3.0-or-later
/* The RTC against gmtime_r and against a search of the whole day for alarms. */
#include "tests/unit/device_board.h"

#include <time.h>

static uint8_t to_format(uint8_t reg_b, int v)
{
	return (uint8_t)(reg_b & 4 ? v : v / 10 << 4 | v % 10);
}

static uint8_t hour_format(uint8_t reg_b, int h)
{
	if (reg_b & 2)
		return to_format(reg_b, h);
	return to_format(reg_b, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0);
}

static void assert_date(struct board *b, int64_t epoch)
{
	uint8_t f = cmos(b, 0x0b);
	time_t t = epoch;
	struct tm tm;

	gmtime_r(&t, &tm);
	assert_int_equal(cmos(b, 0), to_format(f, tm.tm_sec));
	assert_int_equal(cmos(b, 2), to_format(f, tm.tm_min));
	assert_int_equal(cmos(b, 4), hour_format(f, tm.tm_hour));
	assert_int_equal(cmos(b, 6), to_format(f, tm.tm_wday + 1));
	assert_int_equal(cmos(b, 7), to_format(f, tm.tm_mday));
	assert_int_equal(cmos(b, 8), to_format(f, tm.tm_mon + 1));
	assert_int_equal(cmos(b, 9), to_format(f, tm.tm_year % 100));
	assert_int_equal(cmos(b, 0x32), to_format(f, (tm.tm_year + 1900) / 100));
}

/* Set the clock as Linux does: stop it, write, start it; the next second is half a second away. */
static void rtc_set(struct board *b, uint8_t format, int64_t epoch)
{
	time_t t = epoch;
	struct tm tm;

	gmtime_r(&t, &tm);
	cmos_set(b, 0x0b, 0x80 | format);
	cmos_set(b, 0x0a, 0x76);
	cmos_set(b, 9, to_format(format, tm.tm_year % 100));
	cmos_set(b, 8, to_format(format, tm.tm_mon + 1));
	cmos_set(b, 7, to_format(format, tm.tm_mday));
	cmos_set(b, 6, to_format(format, tm.tm_wday + 1));
	cmos_set(b, 4, hour_format(format, tm.tm_hour));
	cmos_set(b, 2, to_format(format, tm.tm_min));
	cmos_set(b, 0, to_format(format, tm.tm_sec));
	cmos_set(b, 0x32, to_format(format, (tm.tm_year + 1900) / 100));
	b->now += 1700000000;
	cmos_set(b, 0x0b, format);
	cmos_set(b, 0x0a, 0x26);
}

static void test_rtc_dates(void **state)
{
	static const int64_t starts[] = {
		0,	    946684798,	951782398,    951868798,  1078012798,
		1709164798, 1735689598, 2147483646,   4102444798, 4107542398,
		5097599998, 7258118398, 253402000000,
	};
	static struct board b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(starts); i++) {
		int64_t t = starts[i];

		board_init(&b, t);
		for (int k = 0; k < 6; k++) {
			assert_date(&b, t);
			b.now += NSEC_PER_SEC;
			t++;
		}
		for (int k = 0; k < 3; k++) {
			uint32_t n = rnd(90000);

			b.now += n * NSEC_PER_SEC;
			t += n;
			assert_date(&b, t);
		}
	}
	for (int i = 0; i < 3000; i++) {
		uint8_t format = (uint8_t)(rnd(4) << 1);
		int64_t t = rnd(UINT32_MAX) + (int64_t)rnd(2) * 4000000000ll;
		uint32_t n = rnd(4) ? rnd(100) : rnd(400000000);

		b.now = 0;
		board_init(&b, rnd(1000000));
		b.now = rnd(1000000000);
		rtc_set(&b, format, t);
		assert_date(&b, t);
		b.now += 499999999;
		assert_date(&b, t);
		b.now += 1;
		assert_date(&b, t + 1);
		b.now += n * NSEC_PER_SEC;
		assert_date(&b, t + 1 + n);
	}
}

static void test_rtc_registers(void **state)
{
	static struct board b;
	unsigned sum = 0;

	(void)state;
	board_init(&b, 1000000000);
	/* UIP in the last 244 us of each second. */
	b.now = NSEC_PER_SEC - 244001;
	assert_int_equal(cmos(&b, 0x0a), 0x26);
	b.now++;
	assert_int_equal(cmos(&b, 0x0a), 0xa6);
	b.now = NSEC_PER_SEC - 1;
	assert_int_equal(cmos(&b, 0x0a), 0xa6);
	assert_int_equal(cmos(&b, 0x0c), 0x40);
	b.now = NSEC_PER_SEC;
	assert_int_equal(cmos(&b, 0x0a), 0x26);
	assert_int_equal(cmos(&b, 0x0c), 0x50); /* flags, but no interrupt */
	assert_int_equal(cmos(&b, 0x0c), 0);
	assert_int_equal(cmos(&b, 0x0d), 0x80);
	/* SET freezes the date but not the phase of the second. */
	cmos_set(&b, 0x0b, 0x92);
	assert_int_equal(cmos(&b, 0x0b), 0x82);
	b.now += 5 * NSEC_PER_SEC + 900000000;
	assert_date(&b, 1000000001);
	cmos_set(&b, 0x0b, 0x02);
	b.now += 99999999;
	assert_date(&b, 1000000001);
	b.now++;
	assert_date(&b, 1000000002);
	/* 3 GiB below 4 GiB and 3 GiB above. */
	assert_int_equal(cmos(&b, 0x34) | cmos(&b, 0x35) << 8, (0xc0000000 - (16 << 20)) >> 16);
	assert_int_equal(cmos(&b, 0x5b) | cmos(&b, 0x5c) << 8, 0xc000);
	assert_int_equal(cmos(&b, 0x15) | cmos(&b, 0x16) << 8, 640);
	for (uint8_t i = 0x10; i < 0x2e; i++)
		sum += cmos(&b, i);
	assert_int_equal(cmos(&b, 0x2e) << 8 | cmos(&b, 0x2f), sum);
	/* RAM keeps what is written; the index wraps without the NMI bit. */
	cmos_set(&b, 0xff, 0x77);
	assert_int_equal(cmos(&b, 0x7f), 0x77);
	/* Index and data in one 16-bit access. */
	rtc_ops.pio_write(&b.rtc, 0x70, 2, 0x5a7e);
	assert_int_equal(cmos(&b, 0x7e), 0x5a);
}

/* An alarm against a search of the whole day, and all deadlines against ticks around them. */
static void test_rtc_deadlines(void **state)
{
	static struct board b;

	(void)state;
	for (int i = 0; i < 300; i++) {
		uint8_t format = (uint8_t)(rnd(4) << 1);
		int64_t t = rnd(UINT32_MAX);
		int alarm[3] = {(int)rnd(24), (int)rnd(60), (int)rnd(60)};
		uint8_t raw[3] = {hour_format(format, alarm[0]), to_format(format, alarm[1]),
				  to_format(format, alarm[2])};
		bool any[3] = {rnd(2), rnd(2), rnd(2)};
		int64_t found = 0;
		unsigned line;

		board_init(&b, 0);
		b.now = rnd(1000000000);
		rtc_set(&b, format, t);
		for (int k = 0; k < 3; k++)
			cmos_set(&b, (uint8_t)(5 - 2 * k),
				 any[k] ? (uint8_t)(0xc0 | rnd(64)) : raw[k]);
		cmos_set(&b, 0x0b, 0x20 | format);
		while (!found || !((any[0] || (t + found) / 3600 % 24 == alarm[0]) &&
				   (any[1] || (t + found) / 60 % 60 == alarm[1]) &&
				   (any[2] || (t + found) % 60 == alarm[2])))
			found++;
		assert_true(rtc_ops.deadline(&b.rtc, &line) ==
			    b.now + 500000000 + (uint64_t)(found - 1) * NSEC_PER_SEC);
		check_deadline(&b, &rtc_ops, &b.rtc, 8);
		assert_int_equal(cmos(&b, 0x0c) & 0xa0, 0xa0);
		assert_false(b.level[8]);
	}
	board_init(&b, 1700000000);
	for (int i = 0; i < 20000; i++) {
		switch (rnd(6)) {
		case 0:
			cmos_set(&b, 0x0b, rnd_byte() & (rnd(8) ? 0x77 : 0xff));
			break;
		case 1:
			cmos_set(&b, 0x0a, rnd(8) ? 0x20 | (uint8_t)rnd(16) : rnd_byte());
			break;
		case 2:
			cmos_set(&b, (uint8_t)rnd(14), rnd_byte());
			break;
		case 3:
			b.now += rnd(2) ? rnd(1000000) : (uint64_t)rnd(100000) << 20;
			rtc_ops.tick(&b.rtc);
			break;
		default:
			cmos(&b, 0x0c);
			check_deadline(&b, &rtc_ops, &b.rtc, 8);
		}
	}
	/* A second that never comes must not cost a search of the day, nor give a deadline. */
	board_init(&b, 0);
	cmos_set(&b, 1, 0x99);
	cmos_set(&b, 3, 0xff);
	cmos_set(&b, 5, 0xff);
	cmos_set(&b, 0x0b, 0x22);
	assert_true(rtc_ops.deadline(&b.rtc, &(unsigned){0}) == TIME_NEVER);
}

/* Table 5 of the data sheet, 32.768 kHz: interrupts in ten seconds. */
static void test_rtc_periodic(void **state)
{
	static const unsigned per_10s[16] = {0,	   2560, 1280, 81920, 40960, 20480, 10240, 5120,
					     2560, 1280, 640,  320,   160,   80,    40,	   20};
	static struct board b;
	unsigned line;

	(void)state;
	for (uint8_t rate = 0; rate < 16; rate++) {
		unsigned n = 0;

		board_init(&b, 0);
		cmos_set(&b, 0x0a, 0x20 | rate);
		cmos_set(&b, 0x0b, 0x42);
		while ((b.now = rtc_ops.deadline(&b.rtc, &line)) <= 10 * NSEC_PER_SEC) {
			rtc_ops.tick(&b.rtc);
			assert_int_equal(cmos(&b, 0x0c) & 0xc0, 0xc0);
			n++;
		}
		assert_int_equal(n, per_10s[rate]);
	}
}

/* A restored clock must not see the events before the snapshot again. */
static void test_rtc_restore(void **state)
{
	static struct board a, b;
	struct walker save, restore;

	(void)state;
	board_init(&a, 1000);
	a.now = 700000000;
	assert_int_equal(cmos(&a, 0x0c), 0x40);
	walker_init_save(&save);
	rtc_ops.walk(&a.rtc, &save);
	board_init(&b, 0);
	b.now = a.now;
	walker_init_restore(&restore, save.out.data, save.out.len);
	rtc_ops.walk(&b.rtc, &restore);
	assert_int_equal(cmos(&b, 0x0c), 0);
	b.now += 300000000;
	assert_int_equal(cmos(&b, 0x0c), 0x50);
	assert_date(&b, 1001);
	walker_fini(&restore);
	walker_fini(&save);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rtc_dates),     cmocka_unit_test(test_rtc_registers),
		cmocka_unit_test(test_rtc_deadlines), cmocka_unit_test(test_rtc_periodic),
		cmocka_unit_test(test_rtc_restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
