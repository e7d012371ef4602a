// SPDX-License-Identifier: GPL-3.0-or-later
/* The rewriting of text: every form, nothing but instructions, and back. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/rewrite.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_GPA 0x10000ull
#define TEXT_GVA 0xffffffff81000000ull
#define TEXT_MAX 0x10000u
#define SYMBOLS_MAX 16

/* An ELF image with one text section and a symbol table, as much as the rewriter looks at. */
struct test_elf {
	Elf64_Ehdr header;
	Elf64_Shdr section[4]; /* null, .text, .symtab, .strtab */
	Elf64_Sym symbol[SYMBOLS_MAX];
	char strings[32];
};

struct fixture {
	struct memory *mem;
	struct rewrite_sites sites;
	uint8_t before[TEXT_MAX];
	uint8_t after[TEXT_MAX];
	size_t size;
	struct test_elf elf;
	size_t symbols;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err;

	assert_non_null(f);
	assert_int_equal(memory_create(&f->mem, -1, MEMORY_MIN, false, &err), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rewrite_sites_free(&f->sites);
	memory_destroy(f->mem);
	free(f);
	return 0;
}

static void put(struct fixture *f, const char *bytes, size_t n)
{
	assert_true(f->size + n <= TEXT_MAX);
	memcpy(f->before + f->size, bytes, n);
	f->size += n;
}

#define PUT(f, s) put(f, s, sizeof(s) - 1)

static void add_symbol(struct fixture *f, uint64_t offset, uint64_t size, unsigned type)
{
	assert_true(f->symbols + 1 < SYMBOLS_MAX);
	f->elf.symbol[++f->symbols] = (Elf64_Sym){
		.st_value = TEXT_GVA + offset,
		.st_size = size,
		.st_info = (unsigned char)ELF64_ST_INFO(STB_GLOBAL, type),
		.st_shndx = 1,
	};
}

static void finish_elf(struct fixture *f)
{
	struct test_elf *e = &f->elf;

	memcpy(e->header.e_ident, ELFMAG, SELFMAG);
	e->header.e_ident[EI_CLASS] = ELFCLASS64;
	e->header.e_ident[EI_DATA] = ELFDATA2LSB;
	e->header.e_ident[EI_VERSION] = EV_CURRENT;
	e->header.e_type = ET_EXEC;
	e->header.e_machine = EM_X86_64;
	e->header.e_version = EV_CURRENT;
	e->header.e_ehsize = sizeof(e->header);
	e->header.e_shentsize = sizeof(e->section[0]);
	e->header.e_shnum = 4;
	e->header.e_shoff = offsetof(struct test_elf, section);
	e->section[1] = (Elf64_Shdr){.sh_type = SHT_PROGBITS,
				     .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
				     .sh_addr = TEXT_GVA,
				     .sh_size = f->size};
	e->section[2] = (Elf64_Shdr){.sh_type = SHT_SYMTAB,
				     .sh_offset = offsetof(struct test_elf, symbol),
				     .sh_size = (f->symbols + 1) * sizeof(Elf64_Sym),
				     .sh_link = 3,
				     .sh_entsize = sizeof(Elf64_Sym)};
	e->section[3] = (Elf64_Shdr){.sh_type = SHT_STRTAB,
				     .sh_offset = offsetof(struct test_elf, strings),
				     .sh_size = sizeof(e->strings)};
}

static void run(struct fixture *f, unsigned class)
{
	struct guest_image image = {.kernel = (const uint8_t *)&f->elf,
				    .kernel_size = sizeof(f->elf),
				    .cmdline = ""};
	struct text_range text = {GVA(TEXT_GVA), GPA(TEXT_GPA), f->size, ".text"};
	struct err err;

	finish_elf(f);
	f->elf.header.e_ident[EI_CLASS] = (unsigned char)class;
	if (class == ELFCLASS32)
		f->elf.header.e_shoff = 0;
	rewrite_sites_free(&f->sites);
	assert_int_equal(memory_write(f->mem, GPA(TEXT_GPA), f->before, f->size), 0);
	assert_int_equal(rewrite_text(f->mem, &image, &text, 1, &f->sites, &err), 0);
	assert_int_equal(memory_read(f->mem, GPA(TEXT_GPA), f->after, f->size), 0);
}

/* The text of the fixture is one instruction: it must become an IN that tells kind and register. */
static void check_one(struct fixture *f, unsigned class, enum rewrite_kind kind, int reg)
{
	uint8_t padded[TEXT_MAX + 4];
	enum rewrite_kind found;
	size_t in = reg >= 0 ? 1 : 0;

	run(f, class);
	assert_int_equal(f->sites.len, 1);
	assert_int_equal(f->sites.site[0].kind, kind);
	assert_int_equal(f->sites.site[0].len, f->size);
	assert_int_equal(f->sites.site[0].gva.v, TEXT_GVA);
	assert_int_equal(f->sites.site[0].gpa.v, TEXT_GPA);
	assert_memory_equal(f->sites.site[0].original, f->before, f->size);
	assert_int_equal(f->after[in], 0xe5);
	assert_true(rewrite_port_kind(f->after[in + 1], &found));
	assert_int_equal(found, kind);
	for (size_t i = in + 2; i < f->size; i++)
		assert_int_equal(f->after[i], 0x90);
	memcpy(padded + 1, f->after, f->size);
	padded[0] = 0;
	if (reg >= 0)
		assert_int_equal(rewrite_destination(padded), reg);
	f->size = 0;
}

static void test_random_forms(void **state)
{
	struct fixture *f = *state;

	for (unsigned seed = 0; seed < 2; seed++) {
		for (unsigned width = 0; width < 3; width++) {
			for (unsigned reg = 0; reg < 16; reg++) {
				enum rewrite_kind kind =
					(enum rewrite_kind)(REWRITE_RDRAND16 + 3 * seed + width);
				uint8_t rex = (uint8_t)((width == 2 ? 8 : 0) | reg >> 3);
				char modrm = (char)((seed ? 0xf8 : 0xf0) | (reg & 7));

				if (width == 0)
					PUT(f, "\x66");
				if (rex)
					put(f, (char[]){(char)(0x40 | rex)}, 1);
				PUT(f, "\x0f\xc7");
				put(f, &modrm, 1);
				check_one(f, ELFCLASS64, kind, (int)reg);
			}
		}
	}
}

static void test_random_forms_32bit(void **state)
{
	struct fixture *f = *state;

	for (unsigned reg = 0; reg < 8; reg++) {
		char modrm[2] = {(char)(0xf0 | reg), (char)(0xf8 | reg)};

		PUT(f, "\x0f\xc7");
		put(f, &modrm[0], 1);
		check_one(f, ELFCLASS32, REWRITE_RDRAND32, (int)reg);
		PUT(f, "\x66\x0f\xc7");
		put(f, &modrm[1], 1);
		check_one(f, ELFCLASS32, REWRITE_RDSEED16, (int)reg);
	}
	/* In 32-bit code 48 is DEC EAX and stays. */
	PUT(f, "\x48\x0f\x31");
	run(f, ELFCLASS32);
	assert_int_equal(f->sites.len, 1);
	assert_memory_equal(f->after, "\x48\xe5\x28", 3);
}

static void test_other_forms(void **state)
{
	struct fixture *f = *state;

	PUT(f, "\x0f\x31");
	check_one(f, ELFCLASS64, REWRITE_RDTSC, -1);
	PUT(f, "\x48\x0f\x31");
	check_one(f, ELFCLASS64, REWRITE_RDTSC, -1);
	PUT(f, "\x66\x0f\x31");
	check_one(f, ELFCLASS64, REWRITE_RDTSC, -1);
	PUT(f, "\x0f\xa2");
	check_one(f, ELFCLASS64, REWRITE_CPUID, -1);
	PUT(f, "\x4f\x0f\xa2");
	check_one(f, ELFCLASS64, REWRITE_CPUID, -1);
	PUT(f, "\x0f\x01\xf9");
	check_one(f, ELFCLASS64, REWRITE_RDTSCP, -1);
	PUT(f, "\x0f\x01\xf9");
	check_one(f, ELFCLASS32, REWRITE_RDTSCP, -1);
}

static void check_untouched(struct fixture *f)
{
	run(f, ELFCLASS64);
	assert_int_equal(f->sites.len, 0);
	assert_memory_equal(f->after, f->before, f->size);
	f->size = 0;
	f->symbols = 0;
}

static void test_not_ours(void **state)
{
	struct fixture *f = *state;

	PUT(f, "\xf0\x0f\x31\x90");				/* LOCK RDTSC: #UD */
	PUT(f, "\xf3\x0f\x31");					/* REP RDTSC */
	PUT(f, "\xf3\x0f\xc7\xf8");				/* RDPID EAX */
	PUT(f, "\x0f\xc7\x37");					/* VMPTRLD [RDI] */
	PUT(f, "\x0f\xc7\x0f");					/* CMPXCHG8B [RDI] */
	PUT(f, "\xb8\x0f\x31\x0f\xa2");				/* MOV EAX, imm32 */
	PUT(f, "\x48\xb8\x0f\x31\x0f\xa2\x0f\x01\xf9\x0f");	/* MOV RAX, imm64 */
	PUT(f, "\x8b\x80\x0f\xc7\xf0\x00");			/* MOV EAX, [RAX+disp32] */
	PUT(f, "\x3c\x0f\x31\xc0");				/* CMP AL, 0f; XOR EAX, EAX */
	PUT(f, "\xeb\x0f\xa2\xa2\xa2\xa2\xa2\xa2\xa2\xa2\xa2"); /* ends in MOV moffs64 */
	PUT(f, "\x90\x0f");					/* cut off */
	check_untouched(f);
}

static void test_data_between_functions(void **state)
{
	struct fixture *f = *state;

	/* 0: a function of known size, then data that would be RDTSC, and data that swallows */
	PUT(f, "\xb8\x01\x00\x00\x00\xc3");
	PUT(f, "\x0f\x31\x0f\xa2\x48\xb8");
	/* 12: found only if decoding begins here */
	PUT(f, "\x0f\x31\xc3");
	/* 15: an object */
	PUT(f, "\x0f\x31\x0f\xa2\x0f\x01\xf9");
	/* 22: a label of unknown size */
	PUT(f, "\x90\x0f\xa2\xc3");
	/* 26: a function with a label within, whose code goes on after the inner one's end */
	PUT(f, "\x90\x0f\x31\x90\x0f\x31\x90\x0f\x31\xc3");
	/* 36: data behind it */
	PUT(f, "\x0f\x31");
	add_symbol(f, 26, 10, STT_FUNC);
	add_symbol(f, 29, 1, STT_FUNC);
	add_symbol(f, 22, 0, STT_NOTYPE);
	add_symbol(f, 15, 7, STT_OBJECT);
	add_symbol(f, 12, 0, STT_NOTYPE);
	add_symbol(f, 12, 3, STT_FUNC);
	add_symbol(f, 0, 6, STT_FUNC);
	run(f, ELFCLASS64);
	const uint64_t expected[] = {12, 23, 27, 30, 33};

	assert_int_equal(f->sites.len, ARRAY_SIZE(expected));
	for (size_t i = 0; i < f->sites.len; i++) {
		assert_int_equal(f->sites.site[i].gpa.v, TEXT_GPA + expected[i]);
		memcpy(f->after + expected[i], f->before + expected[i], f->sites.site[i].len);
	}
	assert_memory_equal(f->after, f->before, f->size);
}

static void test_resynchronises(void **state)
{
	struct fixture *f = *state;

	/* 06 and 0e are no instructions in 64-bit mode. */
	PUT(f, "\x06\x0e\x06\x0f\x31\xc3");
	run(f, ELFCLASS64);
	assert_int_equal(f->sites.len, 1);
	assert_int_equal(f->sites.site[0].gpa.v, TEXT_GPA + 3);
}

static void test_show_original(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[64];

	PUT(f, "\x0f\x31\x48\x0f\xc7\xf1\x90\x0f\x01\xf9\x90\x90\x0f\xa2\x66\x41\x0f\xc7\xf8");
	run(f, ELFCLASS64);
	assert_int_equal(f->sites.len, 5);
	for (size_t from = 0; from <= f->size; from++) {
		for (size_t to = from; to <= f->size; to++) {
			memcpy(bytes, f->after + from, to - from);
			rewrite_show_original(&f->sites, GPA(TEXT_GPA + from), bytes, to - from);
			assert_memory_equal(bytes, f->before + from, to - from);
		}
	}
	/* Windows that begin before the text, and the end of the address space. */
	memset(bytes, 0x55, sizeof(bytes));
	memcpy(bytes + 1, f->after, 2);
	rewrite_show_original(&f->sites, GPA(TEXT_GPA - 1), bytes, 3);
	assert_memory_equal(bytes, "\x55\x0f\x31", 3);
	/* Other code has come there. */
	memset(bytes, 0x55, sizeof(bytes));
	rewrite_show_original(&f->sites, GPA(TEXT_GPA), bytes, 2);
	assert_memory_equal(bytes, "\x55\x55", 2);
	rewrite_show_original(&f->sites, GPA(UINT64_MAX - 7), bytes, 8);
}

static void test_random_bytes(void **state)
{
	struct fixture *f = *state;
	uint64_t x = 88172645463325252ull;
	size_t sites = 0;

	for (unsigned round = 0; round < 100000; round++) {
		f->size = 16 + round % 113;
		f->symbols = 0;
		for (size_t i = 0; i < f->size; i++) {
			static const uint8_t likely[] = {0x0f, 0x0f, 0x31, 0xa2, 0xc7, 0x01,
							 0xf9, 0x66, 0x48, 0xf0, 0xf8};
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			f->before[i] = x & 0x100 ? (uint8_t)x : likely[(x >> 16) % sizeof(likely)];
		}
		if (round % 3 == 0) {
			add_symbol(f, x % f->size, x >> 32 & 31, STT_FUNC);
			add_symbol(f, x >> 8 & 127, UINT64_MAX, STT_FUNC);
			add_symbol(f, 0ull - (x & 15), x & 63, STT_OBJECT);
		}
		run(f, round % 2 ? ELFCLASS64 : ELFCLASS32);
		sites += f->sites.len;
		rewrite_show_original(&f->sites, GPA(TEXT_GPA), f->after, f->size);
		assert_memory_equal(f->after, f->before, f->size);
	}
	assert_true(sites > 10000);
}

static void test_ports(void **state)
{
	enum rewrite_kind kind;
	unsigned count[REWRITE_KINDS] = {0};

	(void)state;
	for (unsigned port = 0; port < 0x10000; port++)
		if (rewrite_port_kind((uint16_t)port, &kind))
			count[kind]++;
	for (unsigned k = 0; k < REWRITE_KINDS; k++) {
		assert_int_equal(count[k], k >= REWRITE_RDRAND16 ? 2 : 1);
		assert_string_not_equal(rewrite_kind_name((enum rewrite_kind)k), "unknown");
	}
	/* An IN of the guest's own without a prefix of ours. */
	assert_int_equal(rewrite_destination((const uint8_t[4]){0x26, 0xcc, 0xe5, 0x2b}), 0);
}

static void test_errors(void **state)
{
	struct fixture *f = *state;
	struct guest_image image = {.kernel = (const uint8_t *)"", .cmdline = ""};
	struct text_range text = {GVA(0), GPA(MEMORY_MIN - 1), 2, "outside"};
	struct err err;

	assert_int_equal(rewrite_text(f->mem, &image, &text, 1, &f->sites, &err), -EFAULT);
	assert_non_null(strstr(err.text, "outside"));
	assert_int_equal(rewrite_text(f->mem, &image, NULL, 0, &f->sites, &err), 0);
	assert_int_equal(f->sites.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random_forms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_forms_32bit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_forms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_ours, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_between_functions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resynchronises, setup, teardown),
		cmocka_unit_test_setup_teardown(test_show_original, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_bytes, setup, teardown),
		cmocka_unit_test(test_ports),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
