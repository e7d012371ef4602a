// SPDX-License-Identifier: GPL-3.0-or-later
/* debugger/symbols: this program's own file serves as the kernel. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "debugger/symbols.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAMAGES 400

enum { KNOWN_LINE = __LINE__ + 5 };

int known_function(int x);
int known_object[5] = {1, 2, 3};
/* clang-format off */
__attribute__((noinline)) int known_function(int x) { return x * known_object[x] + 7; }
/* clang-format on */

/* An assembly function without a size, with a label inside. */
__asm__(".pushsection .text.known_asm,\"ax\",@progbits\n"
	"known_label:\n"
	"nop\n"
	"nop\n"
	".Lhidden_label:\n"
	"nop\n"
	"ret\n"
	".popsection\n");

struct file {
	const uint8_t *data;
	size_t size;
};

static struct file map_self(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	struct file f;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	f.size = (size_t)st.st_size;
	/* Read-only: a library that writes to the file is found out. */
	f.data = mmap(NULL, f.size, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_true(f.data != MAP_FAILED);
	close(fd);
	return f;
}

static int setup(void **state)
{
	struct symbols *s = NULL;
	struct file f = map_self();
	struct err err = {""};

	if (symbols_open(f.data, f.size, &s, &err))
		fail_msg("%s", err.text);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	symbols_close(*state);
	return 0;
}

static void finds_function_and_object(void **state)
{
	struct symbols *s = *state;
	uint64_t size, offset, found_size;
	const char *name;
	gva_t addr;

	assert_true(symbols_lookup(s, "known_function", &addr, &size));
	assert_in_range(size, 1, 4096);
	assert_true(symbols_find(s, addr, &name, &offset, &found_size));
	assert_string_equal(name, "known_function");
	assert_int_equal(offset, 0);
	assert_int_equal(found_size, size);
	assert_true(symbols_find(s, GVA(addr.v + size - 1), &name, &offset, NULL));
	assert_string_equal(name, "known_function");
	assert_int_equal(offset, size - 1);

	assert_true(symbols_lookup(s, "known_object", &addr, &size));
#ifdef __SANITIZE_ADDRESS__
#define PADDED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PADDED 1
#endif
#endif
#ifdef PADDED
	/* The sanitizer puts a red zone behind it, which belongs to the symbol. */
	assert_true(size >= sizeof(known_object));
#else
	assert_int_equal(size, sizeof(known_object));
#endif
	assert_true(symbols_find(s, GVA(addr.v + 4), &name, &offset, NULL));
	assert_string_equal(name, "known_object");
	assert_int_equal(offset, 4);
}

static void finds_label_without_size(void **state)
{
	struct symbols *s = *state;
	uint64_t size, offset;
	const char *name;
	gva_t addr;

	assert_true(symbols_lookup(s, "known_label", &addr, &size));
	assert_int_equal(size, 0);
	assert_true(symbols_find(s, GVA(addr.v + 3), &name, &offset, NULL));
	assert_string_equal(name, "known_label");
	assert_int_equal(offset, 3);
	assert_false(symbols_lookup(s, ".Lhidden_label", NULL, NULL));
}

static void unknown_gives_nothing(void **state)
{
	struct symbols *s = *state;

	assert_false(symbols_lookup(s, "no_such_symbol", NULL, NULL));
	assert_false(symbols_lookup(s, "", NULL, NULL));
	assert_false(symbols_find(s, GVA(0), NULL, NULL, NULL));
	assert_false(symbols_find(s, GVA(UINT64_MAX), NULL, NULL, NULL));
	assert_false(symbols_line(s, GVA(UINT64_MAX), NULL, NULL));
	assert_false(symbols_line(s, GVA(0), NULL, NULL));
}

/* __FILE__ as the compiler was given it; DWARF leaves out the compilation directory. */
static void assert_this_file(const char *file)
{
	const char *want = strstr(__FILE__, "tests/unit/");

	assert_non_null(want);
	assert_true(strlen(file) >= strlen(want));
	if (__FILE__[0] != '/')
		assert_string_equal(file, want);
	assert_string_equal(file + strlen(file) - strlen(want), want);
}

static void finds_line(void **state)
{
	struct symbols *s = *state;
	uint64_t size;
	const char *file;
	unsigned line;
	gva_t addr;

	assert_true(symbols_lookup(s, "known_function", &addr, &size));
	for (uint64_t i = 0; i < size; i++) {
		assert_true(symbols_line(s, GVA(addr.v + i), &file, &line));
		assert_int_equal(line, KNOWN_LINE);
		assert_this_file(file);
	}
	/* Data has no line. */
	assert_true(symbols_lookup(s, "known_object", &addr, NULL));
	assert_false(symbols_line(s, addr, &file, &line));
}

static void formats(void **state)
{
	struct symbols *s = *state;
	char want[64], out[256];
	uint64_t size;
	size_t full;
	gva_t addr;

	assert_true(symbols_lookup(s, "known_function", &addr, &size));
	symbols_format(s, GVA(addr.v + 1), out, sizeof(out));
	snprintf(want, sizeof(want), "known_function+0x1/0x%x ", (unsigned)size);
	assert_memory_equal(out, want, strlen(want));
	snprintf(want, sizeof(want), "test_symbols.c:%d", KNOWN_LINE);
	assert_string_equal(out + strlen(out) - strlen(want), want);
	full = strlen(out);
	/* Whatever the room, the result is terminated and within it. */
	for (size_t n = 0; n < 60; n++) {
		memset(out, '#', sizeof(out));
		symbols_format(s, GVA(addr.v + 1), out, n);
		assert_int_equal(out[n], '#');
		if (n > 0)
			assert_int_equal(strnlen(out, n), n - 1 < full ? n - 1 : full);
	}
	symbols_format(s, GVA(0xffffffff81000000), out, sizeof(out));
	assert_string_equal(out, "0xffffffff81000000");
}

static void empty_for(const void *data, size_t size)
{
	struct symbols *s = NULL;
	struct err err = {""};
	char out[32];

	if (symbols_open(data, size, &s, &err))
		fail_msg("%s", err.text);
	assert_false(symbols_find(s, GVA(0x1000), NULL, NULL, NULL));
	assert_false(symbols_lookup(s, "main", NULL, NULL));
	assert_false(symbols_line(s, GVA(0x1000), NULL, NULL));
	symbols_format(s, GVA(0x1000), out, sizeof(out));
	assert_string_equal(out, "0x1000");
	symbols_close(s);
}

static void empty_answers(void **state)
{
	Elf64_Ehdr h = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_ehsize = sizeof(h),
	};

	(void)state;
	empty_for("", 0);
	empty_for("\177ELF", 4);
	empty_for("this is not an ELF file at all, but a Multiboot kernel, say", 59);
	empty_for("!<arch>\nan archive is no kernel, whatever libelf can do with it", 63);
	empty_for(&h, sizeof(h));
	assert_false(symbols_find(NULL, GVA(0x1000), NULL, NULL, NULL));
	assert_false(symbols_lookup(NULL, "main", NULL, NULL));
	assert_false(symbols_line(NULL, GVA(0x1000), NULL, NULL));
	symbols_close(NULL);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Damage where it hurts: ELF header, section headers, symbol table; or anywhere, or cut. */
static void damage(uint8_t *data, size_t *size, uint64_t *seed)
{
	uint64_t flips = 1 + next_random(seed) % 8;
	uint64_t start = 0, len = *size;
	Elf64_Ehdr h;

	memcpy(&h, data, sizeof(h));
	switch (next_random(seed) % 4) {
	case 0:
		len = sizeof(h);
		break;
	case 1:
		start = h.e_shoff;
		len = *size - start;
		break;
	case 2:
		*size = next_random(seed) % *size;
		return;
	}
	while (flips--)
		data[start + next_random(seed) % len] ^= (uint8_t)(1u << next_random(seed) % 8);
}

static void damaged_files(void **state)
{
	struct file self = map_self();
	uint64_t seed = 0x5eed;

	(void)state;
	for (int i = 0; i < DAMAGES; i++) {
		uint8_t *copy = malloc(self.size);
		struct symbols *s = NULL;
		struct err err = {""};
		size_t size = self.size;

		assert_non_null(copy);
		memcpy(copy, self.data, size);
		damage(copy, &size, &seed);
		if (symbols_open(copy, size, &s, &err)) {
			assert_true(strlen(err.text) > 0);
		} else {
			symbols_lookup(s, "known_function", NULL, NULL);
			for (int k = 0; k < 20; k++)
				symbols_find(s, GVA(next_random(&seed) % 0x100000), NULL, NULL,
					     NULL);
			symbols_close(s);
		}
		free(copy);
	}
	munmap((void *)(uintptr_t)self.data, self.size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_function_and_object),
		cmocka_unit_test(finds_label_without_size),
		cmocka_unit_test(unknown_gives_nothing),
		cmocka_unit_test(finds_line),
		cmocka_unit_test(formats),
		cmocka_unit_test(empty_answers),
		cmocka_unit_test(damaged_files),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
