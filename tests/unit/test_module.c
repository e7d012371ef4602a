// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Modules' files linked to where a guest has them. The oracle is the real linker: this test's own object
 * file, linked here to the place that the linker gave it in this program, must give the same names and lines
 * as the program. And a guest's list of modules, made by hand.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "debugger/module.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAMAGES 2000

struct file {
	const uint8_t *data;
	size_t size;
};

static struct file map(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	struct file f;

	if (fd < 0)
		fail_msg("cannot open %s", path);
	assert_int_equal(fstat(fd, &st), 0);
	f.size = (size_t)st.st_size;
	f.data = mmap(NULL, f.size, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_true(f.data != MAP_FAILED);
	close(fd);
	return f;
}

/* BUILD/tests/test_module was linked from BUILD/obj/tests/unit/test_module.o. */
static struct file map_object(void)
{
	char path[4096];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 64);
	char *slash;

	assert_true(len > 0);
	path[len] = 0;
	slash = strrchr(path, '/');
	assert_non_null(slash);
	strcpy(slash, "/../obj/tests/unit/test_module.o");
	return map(path);
}

static struct symbols *open_symbols(const uint8_t *data, size_t size)
{
	struct symbols *s;
	struct err err;

	if (symbols_open(data, size, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

int first_function(int x);
int second_function(int x);

__attribute__((noinline)) int first_function(int x)
{
	return x * 3 +
	       1;
}

__attribute__((noinline)) int second_function(int x)
{
	int y = first_function(x);

	return y ^
	       x;
}

static void names_and_lines_are_the_linkers(void **state)
{
	static const char *const functions[] = {"first_function", "second_function"};
	struct file program = map("/proc/self/exe"), object = map_object();
	struct symbols *want = open_symbols(program.data, program.size), *unlinked, *got;
	gva_t in_program, in_object;
	uint8_t *linked;
	struct err err;
	unsigned lines = 0;

	(void)state;
	assert_int_not_equal(second_function(5), 0);
	assert_true(module_is_relocatable(object.data, object.size));
	assert_false(module_is_relocatable(program.data, program.size));
	/* In the object the functions' addresses are offsets in its text. */
	assert_int_equal(module_link(object.data, object.size, GVA(0), &linked, &err), 0);
	unlinked = open_symbols(linked, object.size);
	assert_true(symbols_lookup(want, functions[0], &in_program, NULL));
	assert_true(symbols_lookup(unlinked, functions[0], &in_object, NULL));
	symbols_close(unlinked);
	free(linked);
	assert_int_equal(module_link(object.data, object.size, GVA(in_program.v - in_object.v), &linked, &err), 0);
	got = open_symbols(linked, object.size);
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		uint64_t size;
		gva_t a, b;

		assert_true(symbols_lookup(want, functions[i], &a, &size));
		assert_true(symbols_lookup(got, functions[i], &b, NULL));
		assert_int_equal(a.v, b.v);
		for (uint64_t k = 0; k < size; k++) {
			char text[256], theirs[256];
			unsigned line = 0;

			symbols_format(want, GVA(a.v + k), theirs, sizeof(theirs));
			symbols_format(got, GVA(a.v + k), text, sizeof(text));
			assert_string_equal(text, theirs);
			lines += symbols_line(got, GVA(a.v + k), NULL, &line);
		}
	}
	assert_true(lines > 10);
	symbols_close(got);
	symbols_close(want);
	free(linked);
}

/* The start of Linux's struct module, and where this test has it the pointer to the exit function. */
struct fake_module {
	uint64_t state, next, prev;
	char name[56];
	uint64_t init;
	uint64_t exit;
};

/* A module with .text, .text.unlikely and .exit.text, of which the exit function is the last. */
static void build_ko(uint8_t *out, size_t *size, const char *name)
{
	static const char strings[] = "\0.text\0.text.unlikely\0.init.text\0.exit.text\0"
				      ".gnu.linkonce.this_module\0.rela\0cleanup_module\0.strtab";
	enum { NUL, TEXT, UNLIKELY, INIT, EXIT, THIS, RELA, SYMTAB, STRTAB, COUNT };
	struct fake_module module = {0};
	Elf64_Sym sym[2] = {{0}, {.st_name = 78, .st_shndx = EXIT, .st_value = 4}};
	Elf64_Rela rela = {.r_offset = offsetof(struct fake_module, exit),
			   .r_info = ELF64_R_INFO(1, R_X86_64_64)};
	Elf64_Ehdr ehdr = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			   .e_type = ET_REL,
			   .e_machine = EM_X86_64,
			   .e_shentsize = sizeof(Elf64_Shdr),
			   .e_shnum = COUNT,
			   .e_shstrndx = STRTAB,
			   .e_shoff = sizeof(Elf64_Ehdr)};
	uint64_t at = sizeof(ehdr) + COUNT * sizeof(Elf64_Shdr);
	const uint64_t code_flags = SHF_ALLOC | SHF_EXECINSTR;
	Elf64_Shdr shdr[COUNT] = {
		[TEXT] = {.sh_name = 1, .sh_type = SHT_NOBITS, .sh_flags = code_flags, .sh_size = 0x123, .sh_addralign = 16},
		[UNLIKELY] = {.sh_name = 7, .sh_type = SHT_NOBITS, .sh_flags = code_flags, .sh_size = 0x11, .sh_addralign = 1},
		[INIT] = {.sh_name = 22, .sh_type = SHT_NOBITS, .sh_flags = code_flags, .sh_size = 0x500, .sh_addralign = 1},
		[EXIT] = {.sh_name = 33, .sh_type = SHT_NOBITS, .sh_flags = code_flags, .sh_size = 0x20, .sh_addralign = 16},
		[THIS] = {.sh_name = 44, .sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC, .sh_offset = at, .sh_size = sizeof(module)},
		[RELA] = {.sh_name = 70, .sh_type = SHT_RELA, .sh_link = SYMTAB, .sh_info = THIS, .sh_size = sizeof(rela)},
		[SYMTAB] = {.sh_type = SHT_SYMTAB, .sh_link = STRTAB, .sh_size = sizeof(sym)},
		[STRTAB] = {.sh_type = SHT_STRTAB, .sh_size = sizeof(strings)},
	};

	strcpy(module.name, name);
	sym[1].st_name = (Elf64_Word)((const char *)memmem(strings, sizeof(strings), "cleanup", 7) - strings);
	memcpy(out, &ehdr, sizeof(ehdr));
	memcpy(out + at, &module, sizeof(module));
	shdr[RELA].sh_offset = at + sizeof(module);
	memcpy(out + shdr[RELA].sh_offset, &rela, sizeof(rela));
	shdr[SYMTAB].sh_offset = shdr[RELA].sh_offset + sizeof(rela);
	memcpy(out + shdr[SYMTAB].sh_offset, sym, sizeof(sym));
	shdr[STRTAB].sh_offset = shdr[SYMTAB].sh_offset + sizeof(sym);
	memcpy(out + shdr[STRTAB].sh_offset, strings, sizeof(strings));
	memcpy(out + sizeof(ehdr), shdr, sizeof(shdr));
	*size = shdr[STRTAB].sh_offset + sizeof(strings);
}

/* Two modules in the guest's list, whose head is `modules` of a kernel: this program stands in for it. */
uint64_t modules[2];

static void found_in_the_guests_list(void **state)
{
	const struct kvm_sregs no_paging = {.cr0 = 1};
	struct file program = map("/proc/self/exe");
	struct symbols *kernel = open_symbols(program.data, program.size);
	struct fake_module loaded[2] = {{.name = "other", .exit = 0x5000}, {.name = "wanted", .exit = 0x81144}};
	uint8_t ko[2048];
	struct memory *mem;
	struct err err = {""};
	gva_t head, text;
	uint64_t link;
	size_t size;

	(void)state;
	assert_int_equal(memory_create(&mem, -1, 16ull << 20, false, NULL), 0);
	assert_true(symbols_lookup(kernel, "modules", &head, NULL));
	link = 0x10008;
	assert_int_equal(memory_write(mem, GPA(head.v), &link, 8), 0);
	loaded[0].next = 0x20008;
	loaded[1].next = head.v;
	assert_int_equal(memory_write(mem, GPA(0x10000), &loaded[0], sizeof(loaded[0])), 0);
	assert_int_equal(memory_write(mem, GPA(0x20000), &loaded[1], sizeof(loaded[1])), 0);

	/* .text 0x123, .text.unlikely 0x11 at 0x123, .exit.text at 0x140, the function at 4 in it. */
	build_ko(ko, &size, "wanted");
	assert_int_equal(module_find(ko, size, mem, &no_paging, kernel, &text, &err), 0);
	assert_int_equal(text.v, 0x81000);
	build_ko(ko, &size, "missing");
	assert_int_equal(module_find(ko, size, mem, &no_paging, kernel, &text, &err), -ENOENT);
	assert_non_null(strstr(err.text, "no module missing"));
	/* A list that never comes back to its head, and one that leaves RAM. */
	loaded[1].next = 0x10008;
	assert_int_equal(memory_write(mem, GPA(0x20000), &loaded[1], sizeof(loaded[1])), 0);
	assert_int_equal(module_find(ko, size, mem, &no_paging, kernel, &text, &err), -ENOENT);
	loaded[1].next = 0xfffffff0;
	assert_int_equal(memory_write(mem, GPA(0x20000), &loaded[1], sizeof(loaded[1])), 0);
	assert_int_equal(module_find(ko, size, mem, &no_paging, kernel, &text, &err), -ENOENT);
	assert_int_equal(module_find(ko, size, mem, &no_paging, NULL, &text, &err), -ENOENT);
	assert_non_null(strstr(err.text, "--symbols"));
	symbols_close(kernel);
	memory_destroy(mem);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Damage to headers and tables gives an error or an answer; the sanitizers watch for what lies outside. */
static void damaged(void **state)
{
	struct file object = map_object();
	uint64_t seed = 0x5eed;
	unsigned linked_ok = 0;

	(void)state;
	for (int i = 0; i < DAMAGES; i++) {
		/* Half of it in the section headers, which end the file. */
		size_t size = next_random(&seed) % 8 ? object.size : next_random(&seed) % object.size;
		uint8_t *copy = malloc(size ? size : 1), *linked;
		struct err err = {""};

		assert_non_null(copy);
		memcpy(copy, object.data, size);
		for (unsigned k = 0; size && k < 4; k++) {
			size_t reach = next_random(&seed) % 2 ? size : size / 16 + 1;

			copy[size - 1 - next_random(&seed) % reach] ^= (uint8_t)(1u << next_random(&seed) % 8);
		}
		if (module_link(copy, size, GVA(0xffffffffa0000000), &linked, &err) == 0) {
			linked_ok++;
			free(linked);
		} else {
			assert_true(strlen(err.text) > 0);
			assert_null(linked);
		}
		free(copy);
	}
	assert_in_range(linked_ok, DAMAGES / 100, DAMAGES * 99 / 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_lines_are_the_linkers),
		cmocka_unit_test(found_in_the_guests_list),
		cmocka_unit_test(damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
