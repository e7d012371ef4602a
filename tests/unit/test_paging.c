// SPDX-License-Identifier: GPL-3.0-or-later
/* The page-table walk in all paging modes, and the table of the guest's CPU. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/cpuid.h"
#include "vmm/paging.h"

#include <asm/processor-flags.h>
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM (4ull << 20)
#define EFER_LMA (1ull << 10)

/* Bits of an entry. */
#define P 1ull
#define W 2ull
#define U 4ull
#define A 0x20ull
#define D 0x40ull
#define PS 0x80ull
#define NX (1ull << 63)

static int setup(void **state)
{
	struct memory *mem;
	struct err err;

	assert_int_equal(memory_create(&mem, -1, RAM, false, &err), 0);
	*state = mem;
	return 0;
}

static int teardown(void **state)
{
	memory_destroy(*state);
	return 0;
}

static void put64(struct memory *mem, uint64_t gpa, uint64_t value)
{
	assert_int_equal(memory_write(mem, GPA(gpa), &value, 8), 0);
}

static void put32(struct memory *mem, uint64_t gpa, uint32_t value)
{
	assert_int_equal(memory_write(mem, GPA(gpa), &value, 4), 0);
}

static uint64_t get64(struct memory *mem, uint64_t gpa)
{
	uint64_t value;

	assert_int_equal(memory_read(mem, GPA(gpa), &value, 8), 0);
	return value;
}

#define check_maps(mem, sregs, gva, expected)                                                      \
	do {                                                                                       \
		gpa_t gpa_ = GPA(~0ull);                                                           \
		assert_int_equal(paging_translate(mem, sregs, GVA(gva), &gpa_), 0);                \
		assert_int_equal(gpa_.v, expected);                                                \
	} while (0)

#define check_faults(mem, sregs, gva)                                                              \
	do {                                                                                       \
		gpa_t gpa_;                                                                        \
		assert_int_equal(paging_translate(mem, sregs, GVA(gva), &gpa_), -EFAULT);          \
	} while (0)

static void test_no_paging(void **state)
{
	const struct kvm_sregs sregs = {.cr0 = X86_CR0_PE, .cr3 = 0x1000};

	check_maps(*state, &sregs, 0x12345, 0x12345);
	check_maps(*state, &sregs, 0xfffffff0, 0xfffffff0);
	check_faults(*state, &sregs, 0x100000000);
}

static void test_32bit(void **state)
{
	struct memory *mem = *state;
	struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG, .cr3 = 0x1018};

	put32(mem, 0x1000 + 4 * 0x301, 0x2000 | 3); /* 0xc0400000 */
	put32(mem, 0x2000 + 4 * 0x123, 0x345000 | 3);
	put32(mem, 0x1000 + 4 * 0x302, 0x00800000 | 3 | 0x80 | 0x12 << 13);
	check_maps(mem, &sregs, 0xc0523abc, 0x345abc);
	check_faults(mem, &sregs, 0xc0524000);
	check_faults(mem, &sregs, 0);
	check_faults(mem, &sregs, 0xffffffffc0523abc);
	/* Without CR4.PSE bit 7 means nothing: that entry points to a table, outside of RAM. */
	check_faults(mem, &sregs, 0xc0834567);
	sregs.cr4 = X86_CR4_PSE;
	check_maps(mem, &sregs, 0xc0834567, 0x1200834567 & 0x12ffffffff);
	check_maps(mem, &sregs, 0xc0523abc, 0x345abc);
}

static void test_pae(void **state)
{
	struct memory *mem = *state;
	const struct kvm_sregs sregs = {
		.cr0 = X86_CR0_PE | X86_CR0_PG, .cr4 = X86_CR4_PAE, .cr3 = 0x1020};

	put64(mem, 0x1020 + 8 * 3, 0x2000 | P);
	put64(mem, 0x2000 + 8 * 5, 0x3000 | P | W | NX);
	put64(mem, 0x3000 + 8 * 7, 0x9876543000 | P | NX);
	put64(mem, 0x2000 + 8 * 6, 0x12400000 | P | PS | 0x1000 /* PAT */);
	check_maps(mem, &sregs, 0xc0a07123, 0x9876543123);
	check_maps(mem, &sregs, 0xc0d23456, 0x12523456);
	check_faults(mem, &sregs, 0xc0a08000);
	check_faults(mem, &sregs, 0x40a07123);
	check_faults(mem, &sregs, 0x1c0a07123);
}

static void map_long(struct memory *mem, uint64_t pml4)
{
	put64(mem, pml4 + 8 * 0x1ff, 0x2000 | P | W);
	put64(mem, 0x2000 + 8 * 0x1fe, 0x3000 | P | W);
	put64(mem, 0x2000 + 8 * 0x1fd, 0x40000000ull | P | PS | 0x1000);
	put64(mem, 0x3000 + 8 * 8, 0x200000 | P | PS);
	put64(mem, 0x3000 + 8 * 9, 0x4000 | P | W);
	put64(mem, 0x4000 + 8 * 1, 0xff0ff000ull | P | NX | 0x7ff0000000000200ull);
}

static void test_4level(void **state)
{
	struct memory *mem = *state;
	const struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG,
					.cr4 = X86_CR4_PAE,
					.cr3 = 0x1000 | 0x18,
					.efer = EFER_LMA};

	map_long(mem, 0x1000);
	check_maps(mem, &sregs, 0xffffffff81012345, 0x212345);
	check_maps(mem, &sregs, 0xffffffff81201fff, 0xff0fffff);
	check_maps(mem, &sregs, 0xffffffff5abcdef0, 0x40000000 + 0x1abcdef0);
	check_faults(mem, &sregs, 0xffffffff81200000);
	check_faults(mem, &sregs, 0xffff7fff81012345); /* not canonical */
	check_faults(mem, &sregs, 0x0000ffff81012345);
	check_faults(mem, &sregs, 0);
}

static void test_5level(void **state)
{
	struct memory *mem = *state;
	const struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG,
					.cr4 = X86_CR4_PAE | X86_CR4_LA57,
					.cr3 = 0x8000,
					.efer = EFER_LMA};

	put64(mem, 0x8000 + 8 * 0x1ff, 0x1000 | P);
	put64(mem, 0x8000 + 8 * 0x0ff, 0x1000 | P);
	map_long(mem, 0x1000);
	check_maps(mem, &sregs, 0xffffffff81012345, 0x212345);
	check_maps(mem, &sregs, 0x00ffffff81012345, 0x212345);
	check_faults(mem, &sregs, 0xfeffffff81012345);
}

static bool is_table(struct memory *mem, const struct kvm_sregs *sregs, uint64_t gpa)
{
	bool is;

	assert_int_equal(paging_is_table(mem, sregs, GPA(gpa), &is), 0);
	return is;
}

/* All tables that CR3 leads to and nothing else; large pages, what they map and tables that point to themselves included. */
static void test_tables(void **state)
{
	struct memory *mem = *state;
	struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG,
				  .cr4 = X86_CR4_PAE,
				  .cr3 = 0x1000 | 0x18,
				  .efer = EFER_LMA};

	map_long(mem, 0x1000);
	put64(mem, 0x2000 + 8 * 7, 0x5000 | W); /* not present */
	for (uint64_t gpa = 0; gpa < RAM; gpa += PAGE_SIZE)
		assert_int_equal(is_table(mem, &sregs, gpa + 123), gpa >= 0x1000 && gpa <= 0x4000);
	/* A guest that maps its tables through themselves, 512 times at each level. */
	for (unsigned i = 0; i < 511; i++)
		put64(mem, 0x1000 + 8 * i, 0x1000 | P | W);
	for (uint64_t gpa = 0; gpa < RAM; gpa += PAGE_SIZE)
		assert_int_equal(is_table(mem, &sregs, gpa), gpa >= 0x1000 && gpa <= 0x4000);
	sregs.cr3 = RAM;
	assert_false(is_table(mem, &sregs, 0x1000));
	sregs.cr3 = 0x1000;
	sregs.cr0 = X86_CR0_PE;
	assert_false(is_table(mem, &sregs, 0x1000));
}

static void test_large_bit_in_page_table(void **state)
{
	struct memory *mem = *state;
	const struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG,
					.cr4 = X86_CR4_PAE,
					.cr3 = 0x1000,
					.efer = EFER_LMA};

	map_long(mem, 0x1000);
	/* In a page-table entry bit 7 is PAT. */
	put64(mem, 0x4000 + 8 * 2, 0x123000 | P | PS);
	check_maps(mem, &sregs, 0xffffffff81202456, 0x123456);
}

static void test_read_write(void **state)
{
	struct memory *mem = *state;
	const struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG,
					.cr4 = X86_CR4_PAE,
					.cr3 = 0x1000,
					.efer = EFER_LMA};
	uint8_t data[0x1800], back[0x1800], zero[16] = {0};

	map_long(mem, 0x1000);
	put64(mem, 0x4000 + 8 * 3, 0x105000 | P);
	put64(mem, 0x4000 + 8 * 4, 0x103000 | P);
	put64(mem, 0x4000 + 8 * 6, 0x106000 | P);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + (i >> 8));
	assert_int_equal(paging_write(mem, &sregs, GVA(0xffffffff81203800), data, sizeof(data)), 0);
	assert_int_equal(paging_read(mem, &sregs, GVA(0xffffffff81203800), back, sizeof(back)), 0);
	assert_memory_equal(back, data, sizeof(data));
	assert_int_equal(memory_read(mem, GPA(0x103000), back, 0x1000), 0);
	assert_memory_equal(back, data + 0x800, 0x1000);
	assert_int_equal(paging_read(mem, &sregs, GVA(0xffffffff81203800), back, 0), 0);
	/* The second page is missing: nothing is written to the first. */
	assert_int_equal(paging_write(mem, &sregs, GVA(0xffffffff81206ff8), data, 16), -EFAULT);
	assert_int_equal(memory_read(mem, GPA(0x106ff8), back, 8), 0);
	assert_memory_equal(back, zero, 8);
	assert_int_equal(paging_read(mem, &sregs, GVA(0xffffffff81206ff8), back, 16), -EFAULT);
	/* Mapped, but not to RAM. */
	assert_int_equal(paging_read(mem, &sregs, GVA(0xffffffff81201000), back, 1), -EFAULT);
	assert_int_equal(paging_write(mem, &sregs, GVA(0xffffffff81201000), data, 1), -EFAULT);
}

static void test_access(void **state)
{
	struct memory *mem = *state;
	struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP,
				  .cr4 = X86_CR4_PAE,
				  .cr3 = 0x1000,
				  .efer = EFER_LMA};
	const struct {
		uint64_t pde, pte;
		unsigned access;
		bool wp;
		int ret;
		uint32_t error;
	} cases[] = {
		{P | W, P | W, 0, true, 0, 0},
		{P | W, P | W, PAGING_WRITE, true, 0, 0},
		{P | W, P, PAGING_WRITE, true, -EFAULT, 3},
		{P, P | W, PAGING_WRITE, true, -EFAULT, 3},
		{P, P | W, PAGING_WRITE, false, 0, 0},
		{P | W, 0, PAGING_WRITE, true, -EFAULT, 2},
		{0, P | W, 0, true, -EFAULT, 0},
		{P | W | U, P | W, PAGING_USER, true, -EFAULT, 5},
		{P | W | U, P | U, PAGING_USER | PAGING_WRITE, false, -EFAULT, 7},
		{P | W | U, P | W | U, PAGING_USER | PAGING_WRITE, true, 0, 0},
		{P | W | U, 0, PAGING_USER | PAGING_WRITE, true, -EFAULT, 6},
		{P | W | U, P | W | U, PAGING_NO_USER_PAGES, true, -EFAULT, 1},
		{P | W, P | W | U, PAGING_NO_USER_PAGES, true, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		gpa_t gpa;
		uint32_t error = 0;

		put64(mem, 0x1000, 0x2000 | P | W | U);
		put64(mem, 0x2000, 0x3000 | P | W | U);
		put64(mem, 0x3000, 0x4000 | cases[i].pde);
		put64(mem, 0x4000, 0x5000 | cases[i].pte);
		sregs.cr0 = X86_CR0_PE | X86_CR0_PG | (cases[i].wp ? X86_CR0_WP : 0u);
		assert_int_equal(
			paging_access(mem, &sregs, GVA(0x123), cases[i].access, &gpa, &error),
			cases[i].ret);
		if (cases[i].ret) {
			assert_int_equal(error, cases[i].error);
			assert_int_equal(get64(mem, 0x1000), 0x2000 | P | W | U);
			assert_int_equal(get64(mem, 0x4000), 0x5000 | cases[i].pte);
			continue;
		}
		assert_int_equal(gpa.v, 0x5123);
		assert_int_equal(get64(mem, 0x1000), 0x2000 | P | W | U | A);
		assert_int_equal(get64(mem, 0x3000), 0x4000 | cases[i].pde | A);
		assert_int_equal(get64(mem, 0x4000),
				 0x5000 | cases[i].pte | A |
					 (cases[i].access & PAGING_WRITE ? D : 0));
	}
	/* A table outside of RAM is no fault of the guest's. */
	gpa_t gpa;
	uint32_t error;

	put64(mem, 0x3000, RAM | P | W | U);
	assert_int_equal(paging_access(mem, &sregs, GVA(0x123), 0, &gpa, &error), -ENXIO);
	/* PAE's top level has neither permissions nor an accessed bit. */
	sregs.efer = 0;
	put64(mem, 0x1000, 0x3000 | P);
	put64(mem, 0x3000, 0x4000 | P | W);
	put64(mem, 0x4000, 0x5000 | P | W);
	assert_int_equal(paging_access(mem, &sregs, GVA(0x8), PAGING_WRITE, &gpa, &error), 0);
	assert_int_equal(get64(mem, 0x1000), 0x3000 | P);
	assert_int_equal(get64(mem, 0x4000), 0x5000 | P | W | A | D);
}

/* The walk of random tables must end and stay in RAM, whatever they hold. */
static void test_random_tables(void **state)
{
	struct memory *mem = *state;
	uint64_t x = 88172645463325252ull;
	unsigned mapped = 0;

	for (uint64_t gpa = 0; gpa < RAM; gpa += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		put64(mem, gpa, x & (RAM - 1) & ~0x80ull);
	}
	for (unsigned i = 0; i < 200000; i++) {
		struct kvm_sregs sregs = {.cr0 = X86_CR0_PE | X86_CR0_PG};
		gpa_t gpa;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		sregs.cr3 = x >> 20;
		sregs.cr4 = (i & 1 ? X86_CR4_PAE : 0) | (i & 2 ? X86_CR4_PSE : 0) |
			    (i & 4 ? X86_CR4_LA57 : 0);
		sregs.efer = i & 8 ? EFER_LMA : 0;
		mapped += !paging_translate(mem, &sregs, GVA(i & 16 ? x & 0xffffffff : x), &gpa);
		sregs.cr3 &= RAM - 1;
		mapped += !paging_translate(mem, &sregs, GVA(x & 0xffffffff), &gpa);
	}
	assert_true(mapped > 1000);
}

static void test_cpuid(void **state)
{
	uint32_t out[4];
	char text[49] = "";
	struct err err;

	(void)state;
	cpuid_answer(0, 0, 0, 0, 1, out);
	memcpy(text, &out[1], 4);
	memcpy(text + 4, &out[3], 4);
	memcpy(text + 8, &out[2], 4);
	assert_string_equal(text, "HindsightVMM");
	/* Whoever answers a leaf out of range with the last one gives zeros, as we do. */
	for (uint32_t subleaf = 0; subleaf < 4; subleaf++) {
		const uint32_t zeros[4] = {0};
		uint32_t last[4], beyond[4], hypervisor[4];

		cpuid_answer(7, out[0], subleaf, X86_CR4_OSXSAVE, 7, last);
		cpuid_answer(7, out[0] + 1, subleaf, 0, 7, beyond);
		cpuid_answer(7, 0x40000000, subleaf, 0, 7, hypervisor);
		assert_memory_equal(last, zeros, sizeof(zeros));
		assert_memory_equal(beyond, zeros, sizeof(zeros));
		assert_memory_equal(hypervisor, zeros, sizeof(zeros));
	}
	cpuid_answer(0, 1, 0, 0, 1, out);
	assert_int_equal(out[2] & (1u << 26 | 1u << 27 | 1u << 28 | 1u << 31), 0);
	assert_int_equal(out[3] & (1u << 9), 0);
	assert_int_equal(out[1] >> 24, 0);
	cpuid_answer(0, 0x80000008, 0, 0, 1, out);
	assert_int_equal(out[0], 40 | 48 << 8);
	memset(text, 0, sizeof(text));
	for (uint32_t i = 0; i < 3; i++) {
		cpuid_answer(0, 0x80000002 + i, 0, 0, 1, out);
		memcpy(text + 16 * i, out, 16);
	}
	assert_string_equal(text, "Hindsight virtual CPU");

	char signature[128], again[128], cut[8];

	cpuid_host_signature(signature, sizeof(signature));
	cpuid_host_signature(again, sizeof(again));
	assert_string_equal(signature, again);
	assert_true(strlen(signature) > 60);
	cpuid_host_signature(cut, sizeof(cut));
	assert_int_equal(strlen(cut), sizeof(cut) - 1);
	/* Not a KVM: an error, and no crash. */
	assert_true(cpuid_set(-1, 0, &err) < 0);
	assert_true(cpuid_check_host(-1, 0, &err) < 0);
}

/* Vector registers: what leaves 1, 7 and 0xd say goes together, and with where this CPU puts them. */
static void test_cpuid_xfeatures(void **state)
{
	static const uint64_t allowed[] = {0, 7, 0xe7};
	struct host_caps caps = {.cpuid_honoured = {true, true}};
	uint32_t out[4];
	uint64_t chosen;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++) {
		uint64_t x = allowed[i];

		assert_true(cpuid_is_xfeatures(x));
		cpuid_answer(x, 1, 0, 0, 1, out);
		assert_int_equal(out[2] >> 26 & 1, x != 0);
		assert_int_equal(out[2] >> 27 & 1, 0);
		assert_int_equal(out[2] >> 28 & 1, x != 0);
		cpuid_answer(x, 1, 0, X86_CR4_OSXSAVE, 1, out);
		assert_int_equal(out[2] >> 27 & 1, 1);
		cpuid_answer(x, 7, 0, 0, 1, out);
		assert_int_equal(out[1] >> 5 & 1, x != 0);
		assert_int_equal(out[1] >> 16 & 1, x == 0xe7);
		cpuid_answer(x, 0xd, 1, 0, 1, out);
		assert_int_equal(out[0] | out[1] | out[2] | out[3], 0);
		cpuid_answer(x, 0xd, 2, 0, 1, out);
		assert_int_equal(out[0], x ? 256 : 0);
		assert_int_equal(out[1], x ? 576 : 0);
		cpuid_answer(x, 0xd, 0, 0, 1, out);
		assert_int_equal(out[0], x);
		assert_int_equal(out[1], x ? 576 : 0);
		cpuid_answer(x, 0xd, 0, 0, 7, out);
		assert_int_equal(out[1], x ? 832 : 0);
	}
	for (uint64_t x = 0; x < 0x400; x++)
		assert_int_equal(cpuid_is_xfeatures(x), x == 0 || x == 7 || x == 0xe7);
	assert_int_equal(cpuid_choose_xfeatures(&caps), 0);
	caps.cpuid_honoured[1] = false;
	chosen = cpuid_choose_xfeatures(&caps);
	assert_true(cpuid_is_xfeatures(chosen));
	for (unsigned n = 2; n < 64; n++) {
		uint32_t offset, size, host[4];

		if (!(chosen >> n & 1))
			continue;
		assert_true(cpuid_component(n, &offset, &size));
		__cpuid_count(0xd, n, host[0], host[1], host[2], host[3]);
		assert_int_equal(size, host[0]);
		assert_int_equal(offset, host[1]);
		cpuid_answer(chosen, 0xd, 0, 0, chosen, out);
		assert_true(offset + size <= out[1]);
		assert_int_equal(out[1], out[2]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_no_paging, setup, teardown),
		cmocka_unit_test_setup_teardown(test_32bit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pae, setup, teardown),
		cmocka_unit_test_setup_teardown(test_4level, setup, teardown),
		cmocka_unit_test_setup_teardown(test_5level, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_bit_in_page_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_access, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_tables, setup, teardown),
		cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_cpuid_xfeatures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
