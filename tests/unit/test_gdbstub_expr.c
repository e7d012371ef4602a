// SPDX-License-Identifier: GPL-3.0-or-later
/* Agent expressions: each op against what the manual says of it, and code that makes no sense. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gdbstub/point.h"

#include <errno.h>
#include <string.h>

/* Register n holds 0x1000 + n, up to 99; memory holds its address, byte by byte, below 0x10000. */
static int get_register(void *ctx, unsigned number, uint64_t *value)
{
	(void)ctx;
	*value = 0x1000 + number;
	return number < 100 ? 0 : -EINVAL;
}

static int read_memory(void *ctx, uint64_t addr, void *data, size_t n)
{
	uint8_t *bytes = data;

	(void)ctx;
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(addr + i);
	return addr < 0x10000 ? 0 : -EFAULT;
}

static const struct gdb_expr_env env = {.get_register = get_register, .read_memory = read_memory};

#define CODE(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define MINUS(n) 0x22, n, 0x22, 0, 0x2b, 0x03 /* const8 n, const8 0, swap, sub */

static const struct {
	const uint8_t *code;
	size_t len;
	int rc;
	uint64_t value;
} cases[] = {
	{CODE(0x22, 7, 0x27), 0, 7},
	{CODE(0x22, 0xff, 0x27), 0, 0xff},
	{CODE(0x23, 0x12, 0x34, 0x27), 0, 0x1234},
	{CODE(0x24, 0x92, 0x34, 0x56, 0x78, 0x27), 0, 0x92345678},
	{CODE(0x25, 1, 2, 3, 4, 5, 6, 7, 8, 0x27), 0, 0x0102030405060708},
	{CODE(MINUS(1), 0x27), 0, UINT64_MAX},
	{CODE(0x22, 7, 0x22, 3, 0x02, 0x27), 0, 10},
	{CODE(0x22, 7, 0x22, 3, 0x03, 0x27), 0, 4},
	{CODE(0x22, 7, 0x22, 3, 0x04, 0x27), 0, 21},
	{CODE(MINUS(7), 0x22, 2, 0x05, 0x27), 0, (uint64_t)-3},
	{CODE(MINUS(7), 0x22, 2, 0x06, 0x27), 0, ((uint64_t)-7) / 2},
	{CODE(MINUS(7), 0x22, 2, 0x07, 0x27), 0, (uint64_t)-1},
	{CODE(MINUS(7), 0x22, 4, 0x08, 0x27), 0, 1},
	{CODE(0x22, 7, 0x22, 0, 0x05, 0x27), -EDOM, 0},
	{CODE(0x22, 7, 0x22, 0, 0x08, 0x27), -EDOM, 0},
	/* The most negative number divided by -1, which traps on the CPU. */
	{CODE(0x22, 1, 0x22, 63, 0x09, MINUS(1), 0x05, 0x27), 0, 1ull << 63},
	{CODE(0x22, 1, 0x22, 63, 0x09, MINUS(1), 0x07, 0x27), 0, 0},
	{CODE(0x22, 1, 0x22, 64, 0x09, 0x27), 0, 0},
	{CODE(MINUS(8), 0x22, 1, 0x0a, 0x27), 0, (uint64_t)-4},
	{CODE(MINUS(8), 0x22, 99, 0x0a, 0x27), 0, UINT64_MAX},
	{CODE(MINUS(8), 0x22, 60, 0x0b, 0x27), 0, 15},
	{CODE(MINUS(8), 0x22, 0, 0x0a, 0x27), 0, (uint64_t)-8},
	{CODE(0x22, 8, 0x0e, 0x27), 0, 0},
	{CODE(0x22, 0, 0x0e, 0x27), 0, 1},
	{CODE(0x22, 12, 0x22, 10, 0x0f, 0x27), 0, 8},
	{CODE(0x22, 12, 0x22, 10, 0x10, 0x27), 0, 14},
	{CODE(0x22, 12, 0x22, 10, 0x11, 0x27), 0, 6},
	{CODE(0x22, 0, 0x12, 0x27), 0, UINT64_MAX},
	{CODE(0x22, 3, 0x22, 3, 0x13, 0x27), 0, 1},
	{CODE(0x22, 3, 0x22, 4, 0x13, 0x27), 0, 0},
	{CODE(MINUS(3), 0x22, 4, 0x14, 0x27), 0, 1},
	{CODE(MINUS(3), 0x22, 4, 0x15, 0x27), 0, 0},
	{CODE(0x22, 0x80, 0x16, 8, 0x27), 0, (uint64_t)-128},
	{CODE(0x22, 0x7f, 0x16, 8, 0x27), 0, 127},
	{CODE(0x22, 5, 0x16, 0, 0x27), 0, 5},
	{CODE(MINUS(1), 0x2a, 16, 0x27), 0, 0xffff},
	{CODE(MINUS(1), 0x2a, 64, 0x27), 0, UINT64_MAX},
	{CODE(MINUS(1), 0x2a, 200, 0x27), 0, UINT64_MAX},
	{CODE(0x23, 0x12, 0x34, 0x17, 0x27), 0, 0x34},
	{CODE(0x23, 0x12, 0x34, 0x18, 0x27), 0, 0x3534},
	{CODE(0x23, 0x12, 0x34, 0x19, 0x27), 0, 0x37363534},
	{CODE(0x23, 0x12, 0x34, 0x1a, 0x27), 0, 0x3b3a393837363534},
	{CODE(MINUS(1), 0x17, 0x27), -EFAULT, 0},
	{CODE(0x26, 0, 16, 0x27), 0, 0x1010},
	{CODE(0x26, 1, 0, 0x27), -EINVAL, 0},
	{CODE(0x22, 5, 0x28, 0x02, 0x27), 0, 10},
	{CODE(0x22, 5, 0x22, 6, 0x29, 0x27), 0, 5},
	{CODE(0x22, 5, 0x22, 6, 0x2b, 0x03, 0x27), 0, 1},
	{CODE(0x22, 5, 0x22, 6, 0x32, 1, 0x27), 0, 5},
	{CODE(0x22, 5, 0x22, 6, 0x32, 2, 0x27), -EINVAL, 0},
	{CODE(0x22, 1, 0x22, 2, 0x22, 3, 0x33, 0x27), 0, 2}, /* c a b */
	{CODE(0x22, 1, 0x22, 2, 0x22, 3, 0x33, 0x29, 0x27), 0, 1},
	{CODE(0x22, 1, 0x22, 2, 0x22, 3, 0x33, 0x29, 0x29, 0x27), 0, 3},
	/* if 1 goto 8, past the 5 */
	{CODE(0x22, 1, 0x20, 0, 8, 0x22, 5, 0x27, 0x22, 9, 0x27), 0, 9},
	{CODE(0x22, 0, 0x20, 0, 8, 0x22, 5, 0x27, 0x22, 9, 0x27), 0, 5},
	{CODE(0x21, 0, 5, 0x22, 5, 0x22, 9, 0x27), 0, 9},
	/* A loop that ends: count 3 down to 0. */
	{CODE(0x22, 3, 0x22, 1, 0x03, 0x28, 0x20, 0, 2, 0x27), 0, 0},
	/* No sense. */
	{CODE(0x27), -EINVAL, 0},
	{CODE(0x02, 0x27), -EINVAL, 0},
	{CODE(0x22, 1, 0x02, 0x27), -EINVAL, 0},
	{CODE(0x22), -EINVAL, 0},
	{CODE(0x22, 1), -EINVAL, 0},
	{CODE(0x25, 1, 2, 3), -EINVAL, 0},
	{CODE(0x21, 0xff, 0xff), -EINVAL, 0},
	{CODE(0x00), -ENOTSUP, 0},
	{CODE(0x01), -ENOTSUP, 0}, /* float */
	{CODE(0x0c), -ENOTSUP, 0}, /* trace */
	{CODE(0x1b), -ENOTSUP, 0}, /* ref_float */
	{CODE(0x2c), -ENOTSUP, 0}, /* getv */
	{CODE(0x34), -ENOTSUP, 0}, /* printf */
	{CODE(0xff), -ENOTSUP, 0},
	{CODE(0x21, 0, 0), -ELOOP, 0},		 /* for ever */
	{CODE(0x22, 1, 0x21, 0, 0), -EINVAL, 0}, /* the stack overflows first */
};

static void test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t value = 0;

		assert_int_equal(gdb_expr_eval(cases[i].code, cases[i].len, &env, &value),
				 cases[i].rc);
		if (!cases[i].rc)
			assert_int_equal(value, cases[i].value);
	}
	assert_int_equal(gdb_expr_eval(NULL, 0, &env, &(uint64_t){0}), -EINVAL);
}

static void set(struct gdb_points *points, enum gdb_point_type type, uint64_t addr, uint64_t len,
		const void *conditions, size_t n)
{
	struct gdb_point p = {.type = type, .addr = addr, .len = len};
	struct err err;
	uint8_t copy[64];

	if (n)
		memcpy(copy, conditions, n);
	p.conditions = copy;
	p.conditions_len = (uint32_t)n;
	assert_int_equal(gdb_points_set(points, &p, &err), 0);
}

static void test_points(void **state)
{
	static const uint8_t falsehood[] = {3, 0, 0, 0, 0x22, 0, 0x27};
	static const uint8_t either[] = {3, 0, 0, 0, 0x22, 0, 0x27, 3, 0, 0, 0, 0x22, 5, 0x27};
	static const uint8_t broken[] = {3, 0, 0, 0, 0x22, 0, 0x27, 1, 0, 0, 0, 0x0c};
	struct gdb_points points = {0};

	(void)state;
	assert_ptr_equal(gdb_points_from(&points, 0), gdb_points_end(&points));
	set(&points, GDB_POINT_SOFT, 0x30, 1, NULL, 0);
	set(&points, GDB_POINT_SOFT, 0x10, 1, NULL, 0);
	set(&points, GDB_POINT_HARD, 0x10, 1, NULL, 0);
	set(&points, GDB_POINT_WRITE, UINT64_MAX, 1, NULL, 0);
	set(&points, GDB_POINT_SOFT, 0x10, 1, NULL, 0); /* again: one only */
	assert_int_equal(points.count, 4);
	assert_int_equal(gdb_points_from(&points, 0x10)->type, GDB_POINT_SOFT);
	assert_int_equal(gdb_points_from(&points, 0x11)->addr, 0x30);
	assert_int_equal(gdb_points_from(&points, 0x31)->addr, UINT64_MAX);
	gdb_points_remove(&points,
			  &(struct gdb_point){.type = GDB_POINT_SOFT, .addr = 0x10, .len = 1});
	gdb_points_remove(&points,
			  &(struct gdb_point){.type = GDB_POINT_SOFT, .addr = 0x99, .len = 1});
	assert_int_equal(points.count, 3);
	assert_int_equal(gdb_points_from(&points, 0x10)->type, GDB_POINT_HARD);

	/* Conditions: none, false, one of two true, one that cannot be evaluated. The last set
	 * counts. */
	assert_true(gdb_point_holds(gdb_points_from(&points, 0x30), &env));
	set(&points, GDB_POINT_SOFT, 0x30, 1, falsehood, sizeof(falsehood));
	assert_false(gdb_point_holds(gdb_points_from(&points, 0x30), &env));
	set(&points, GDB_POINT_SOFT, 0x30, 1, either, sizeof(either));
	assert_true(gdb_point_holds(gdb_points_from(&points, 0x30), &env));
	set(&points, GDB_POINT_SOFT, 0x30, 1, broken, sizeof(broken));
	assert_true(gdb_point_holds(gdb_points_from(&points, 0x30), &env));
	assert_int_equal(points.conditions_len, sizeof(broken));
	set(&points, GDB_POINT_SOFT, 0x30, 1, NULL, 0);
	assert_int_equal(points.conditions_len, 0);
	gdb_points_clear(&points);
}

static void test_points_bounds(void **state)
{
	struct gdb_points points = {0};
	struct err err;
	int rc = 0;

	(void)state;
	for (uint64_t i = 0; i <= GDB_POINTS_MAX && !rc; i++)
		rc = gdb_points_set(&points, &(struct gdb_point){.addr = i * 16}, &err);
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(points.count, GDB_POINTS_MAX);
	gdb_points_clear(&points);

	static uint8_t code[1 << 20];

	rc = 0;
	for (uint64_t i = 0; i < 100 && !rc; i++)
		rc = gdb_points_set(&points,
				    &(struct gdb_point){.addr = i,
							.conditions = code,
							.conditions_len = sizeof(code)},
				    &err);
	assert_int_equal(rc, -ENOSPC);
	assert_true(points.conditions_len <= GDB_CONDITIONS_MAX);
	gdb_points_clear(&points);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_points),
		cmocka_unit_test(test_points_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
