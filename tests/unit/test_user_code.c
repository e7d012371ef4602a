// SPDX-License-Identifier: GPL-3.0-or-later
/* Instructions of user code that no host traps: found where user code may execute them, and nowhere else. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/kick.h"
#include "vmm/user_code.h"

#include <asm/processor-flags.h>
#include <string.h>

#define RAM (8ull << 20)
#define P 1ull
#define W 2ull
#define U 4ull
#define PS 0x80ull
#define NX (1ull << 63)

/* Tables at 0x1000 to 0x4000; the page table maps from gva 0 on. */
#define PML4 0x1000
#define PDPT 0x2000
#define PD 0x3000
#define PT 0x4000
#define CODE 0x10000
#define CODE2 0x11000

static const struct kvm_sregs sregs = {
	.cr0 = X86_CR0_PE | X86_CR0_PG, .cr3 = PML4, .cr4 = X86_CR4_PAE, .efer = 1u << 10};

static void put(struct memory *mem, uint64_t gpa, const void *data, size_t len)
{
	assert_int_equal(memory_write(mem, GPA(gpa), data, len), 0);
}

static void put64(struct memory *mem, uint64_t gpa, uint64_t value)
{
	put(mem, gpa, &value, sizeof(value));
}

static int setup(void **state)
{
	struct memory *mem;
	struct err err;
	static uint8_t nops[PAGE_SIZE];

	assert_int_equal(memory_create(&mem, -1, RAM, false, &err), 0);
	put64(mem, PML4, PDPT | P | W | U);
	put64(mem, PDPT, PD | P | W | U);
	put64(mem, PD, PT | P | W | U);
	memset(nops, 0x90, sizeof(nops));
	put(mem, CODE, nops, sizeof(nops));
	put(mem, CODE2, nops, sizeof(nops));
	*state = mem;
	return 0;
}

static int teardown(void **state)
{
	memory_destroy(*state);
	return 0;
}

static uint64_t places(const struct user_code *u)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++)
		n += user_code_found(u)[i].places;
	return n;
}

static uint64_t places_after_scan(struct memory *mem, struct user_code **u)
{
	struct err err;

	assert_int_equal(user_code_create(u, &err), 0);
	user_code_scan(*u, mem, &sregs);
	return places(*u);
}

static void test_each_is_found(void **state)
{
	static const struct {
		uint8_t bytes[5];
		uint8_t len;
		enum user_instruction which;
	} cases[] = {
		{{0x0f, 0x31}, 2, USER_RDTSC},
		{{0x0f, 0x01, 0xf9}, 3, USER_RDTSCP},
		{{0xf3, 0x0f, 0xc7, 0xf8}, 4, USER_RDPID},
		{{0x48, 0x0f, 0xc7, 0xf0}, 4, USER_RDRAND},
		{{0x41, 0x0f, 0xc7, 0xf8}, 4, USER_RDSEED},
	};
	struct memory *mem = *state;

	put64(mem, PT + 8 * 5, CODE | P | U);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct user_code_found *found;
		struct user_code *u;
		static const uint8_t nops[5] = {0x90, 0x90, 0x90, 0x90, 0x90};

		put(mem, CODE + 0x123, cases[i].bytes, cases[i].len);
		assert_int_equal(places_after_scan(mem, &u), 1);
		found = &user_code_found(u)[cases[i].which];
		assert_int_equal(found->places, 1);
		assert_int_equal(found->gva.v, 0x5123);
		assert_int_equal(found->cr3, PML4);
		/* The same page again is not news, nor is it elsewhere; with other content it is. */
		put64(mem, PT + 8 * 7, CODE | P | U);
		user_code_scan(u, mem, &sregs);
		assert_int_equal(places(u), 1);
		put64(mem, PT + 8 * 7, 0);
		put(mem, CODE + 0x200, cases[i].bytes, cases[i].len);
		user_code_scan(u, mem, &sregs);
		assert_int_equal(places(u), 3);
		user_code_destroy(u);
		put(mem, CODE + 0x123, nops, sizeof(nops));
		put(mem, CODE + 0x200, nops, sizeof(nops));
	}
}

/* However often one asks, what a scan takes is outweighed before the next. */
static void test_scans_have_their_share(void **state)
{
	uint64_t fastest = UINT64_MAX, shortest = UINT64_MAX;
	struct memory *mem = *state;
	struct user_code *u;
	struct err err;

	put64(mem, PD + 8, 0 | P | U | PS); /* 512 pages */
	assert_int_equal(user_code_create(&u, &err), 0);
	assert_true(user_code_is_due(u));
	for (int i = 0; i < 20; i++) {
		uint64_t began = host_ns(), ended, gap;

		user_code_scan(u, mem, &sregs);
		ended = host_ns();
		fastest = ended - began < fastest ? ended - began : fastest;
		while (!user_code_is_due(u))
			;
		gap = host_ns() - ended;
		shortest = gap < shortest ? gap : shortest;
	}
	assert_true(shortest > 16 * fastest);
	user_code_destroy(u);
}

/* Not in the immediate of another instruction, in pages of the kernel, or in data. */
static void test_nothing_else_is(void **state)
{
	static const uint8_t mov[] = {0xb8, 0x0f, 0x31, 0x0f, 0x31}; /* mov $0x310f310f, %eax */
	static const uint8_t rdtsc[] = {0x0f, 0x31};
	struct memory *mem = *state;
	struct user_code *u;

	put(mem, CODE, mov, sizeof(mov));
	put(mem, CODE2 + 8, rdtsc, sizeof(rdtsc));
	put64(mem, PT, CODE | P | U);
	put64(mem, PT + 8, CODE2 | P);
	put64(mem, PT + 16, CODE2 | P | U | NX);
	put64(mem, PT + 24, CODE2 | U);
	assert_int_equal(places_after_scan(mem, &u), 0);
	/* And then one that is, through a large page: the 2 MiB that hold CODE2. */
	put64(mem, PD + 8, 0 | P | U | PS);
	user_code_scan(u, mem, &sregs);
	assert_int_equal(places(u), 1);
	assert_int_equal(user_code_found(u)[USER_RDTSC].gva.v, 0x200000 + CODE2 + 8);
	user_code_destroy(u);
}

/* Tables that point anywhere, also at themselves, end the walk and nothing else. */
static void test_hostile_tables(void **state)
{
	struct memory *mem = *state;
	struct user_code *u;

	put64(mem, PML4 + 8, 0x000ffffffffff000ull | P | U);
	put64(mem, PDPT + 8, (RAM - PAGE_SIZE) | P | U);
	put64(mem, PD + 8, 0x000fffffffe00000ull | P | U | PS);
	put64(mem, PT, RAM | P | U);
	assert_int_equal(places_after_scan(mem, &u), 0);
	user_code_destroy(u);
	/* 512 ways into the same table, on every level. */
	for (unsigned i = 0; i < 512; i++)
		put64(mem, PML4 + 8 * i, PML4 | P | U);
	assert_int_equal(places_after_scan(mem, &u), 0);
	user_code_destroy(u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scans_have_their_share, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_else_is, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_tables, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
