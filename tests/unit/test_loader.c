// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Loaders, with images made here: what lies where after loading, what the CPU's state is, what the
 * guest is told, what is refused and with which words. The addresses are those of
 * vmm/load_internal.h, written out: guests may depend on them.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/loader_image.h"

#define HIGH 0xffffffff80000000ull

/* Text at 1 MiB, linked high; data with bss at 2 MiB. */
static struct plan elf64_plan(void)
{
	return (struct plan){
		.entry = HIGH + 0x100002,
		.part = {{HIGH + 0x100000, 0x100000, code, sizeof(code), 0, 0, PF_R | PF_X},
			 {HIGH + 0x200000, 0x200000, data, sizeof(data), 0x3000, 0, PF_R | PF_W}},
		.parts = 2,
		.sect = {{".late", HIGH + 0x100004, DATA_OFFSET + 4, 4, SHF_ALLOC | SHF_EXECINSTR},
			 {".text", HIGH + 0x100000, DATA_OFFSET, 4, SHF_ALLOC | SHF_EXECINSTR},
			 {".data", HIGH + 0x200000, DATA_OFFSET + 64, 8, SHF_ALLOC | SHF_WRITE},
			 {".altinstr_replacement", HIGH + 0x200010, DATA_OFFSET + 64 + 16, 4,
			  SHF_ALLOC}},
		.sects = 4,
	};
}

static void elf64(void **state)
{
	struct plan p = elf64_plan();
	struct buf file = build(&p);
	struct run r = load(&file);

	(void)state;
	assert_loaded(&r, GUEST_ELF64);
	assert_long_mode(&r, 0x08, 0x10);
	assert_int_equal(r.entry.sregs.cr4, 0x620);
	assert_int_equal(r.entry.sregs.efer, 0xd00);
	assert_int_equal(r.entry.regs.rip, 0x100002);
	assert_int_equal(r.entry.regs.rsp, STACK_TOP);
	assert_int_equal(r.entry.regs.rdi, CMDLINE);
	assert_int_equal(r.entry.regs.rsi, RAM);
	assert_int_equal(r.entry.regs.rax | r.entry.regs.rbx | r.entry.regs.rcx, 0);
	assert_bytes(&r, CMDLINE, "root=/dev/none quiet", 21);
	assert_bytes(&r, 0x100000, code, sizeof(code));
	assert_bytes(&r, 0x200000, data, sizeof(data));
	assert_int_equal(peek(&r, 0x200000 + sizeof(data), 8), 0);
	assert_int_equal(r.entry.text_len, 3);
	assert_text(&r, 0, ".text", HIGH + 0x100000, 0x100000, 4);
	assert_text(&r, 1, ".late", HIGH + 0x100004, 0x100004, 4);
	assert_text(&r, 2, ".altinstr_replacement", HIGH + 0x200010, 0x200010, 4);
	done(&r, &file);
}

static void elf64_without_sections_or_paddr(void **state)
{
	struct plan p = elf64_plan();
	struct buf file;
	struct run r;

	(void)state;
	p.sects = 0;
	for (size_t i = 0; i < 2; i++) {
		p.part[i].vaddr = p.part[i].paddr;
		p.part[i].paddr = 0;
	}
	p.entry = 0x100000;
	file = build(&p);
	r = load(&file);
	assert_loaded(&r, GUEST_ELF64);
	assert_bytes(&r, 0x200000, data, sizeof(data));
	assert_int_equal(r.entry.text_len, 1);
	assert_text(&r, 0, "", 0x100000, 0x100000, sizeof(code));
	done(&r, &file);
}

static void elf64_refusals(void **state)
{
	static const struct {
		const char *words;
		size_t offset; /* in the file */
		uint64_t value;
		unsigned len;
	} patches[] = {
		{"e_machine", offsetof(Elf64_Ehdr, e_machine), EM_AARCH64, 2},
		{"e_type", offsetof(Elf64_Ehdr, e_type), ET_REL, 2},
		{"EI_CLASS", EI_CLASS, 7, 1},
		{"EI_DATA", EI_DATA, 2, 1},
		{"e_phnum", offsetof(Elf64_Ehdr, e_phnum), 0, 2},
		{"e_phentsize", offsetof(Elf64_Ehdr, e_phentsize), 8, 2},
		{"e_phoff", offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX - 8, 8},
		{"e_shoff", offsetof(Elf64_Ehdr, e_shoff), UINT64_MAX - 8, 8},
		{"e_shnum", offsetof(Elf64_Ehdr, e_shnum), 9999, 2},
		{"e_shentsize", offsetof(Elf64_Ehdr, e_shentsize), 9, 2},
		{"e_entry", offsetof(Elf64_Ehdr, e_entry), 0x300000, 8},
		{"above its p_memsz", 64 + offsetof(Elf64_Phdr, p_filesz), 0x40, 8},
		{"p_offset", 64 + offsetof(Elf64_Phdr, p_offset), UINT64_MAX - 3, 8},
		{"RAM of 64 MiB", 64 + offsetof(Elf64_Phdr, p_memsz), 1ull << 40, 8},
		{"p_memsz", 64 + offsetof(Elf64_Phdr, p_memsz), UINT64_MAX - 3, 8},
		{"RAM", 64 + offsetof(Elf64_Phdr, p_paddr), RAM, 8},
		{"p_paddr", 64 + offsetof(Elf64_Phdr, p_paddr), UINT64_MAX - 2, 8},
		{"reserved", 64 + offsetof(Elf64_Phdr, p_paddr), 0x8fffc, 8},
		{"reserved", 64 + offsetof(Elf64_Phdr, p_paddr), 0xfffff, 8},
		{"overlaps another", 64 + offsetof(Elf64_Phdr, p_paddr), 0x201000, 8},
		{"PT_INTERP", 64 + 56, PT_INTERP, 4},
	};
	struct plan p = elf64_plan();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(patches); i++) {
		struct buf file = build(&p);

		memcpy(file.data + patches[i].offset, &patches[i].value, patches[i].len);
		assert_refused(file, patches[i].words);
	}
	p.sect[0].offset--;
	assert_refused(build(&p), "overlap");
}

static void other_refusals(void **state)
{
	static const char *const no_kernel = "#!/bin/sh\necho this is no kernel\n";
	struct buf file = {0};
	struct plan p = elf64_plan();
	char *line = malloc(5000);
	struct run r;

	(void)state;
	assert_refused(file, "neither");
	buf_put(&file, no_kernel, strlen(no_kernel));
	assert_refused(file, "neither");
	p.is32 = true;
	p.sects = 0;
	assert_refused(build(&p), "32-bit ELF");

	p = elf64_plan();
	file = build(&p);
	r = load_with(&file, RAM, "", data, sizeof(data));
	assert_true(r.ret < 0 && strstr(r.err.text, "initrd"));
	done(&r, &file);
	assert_non_null(line);
	memset(line, 'x', 4999);
	for (size_t len = 4095; len <= 4096; len++) {
		line[len] = 0;
		file = build(&p);
		r = load_with(&file, RAM, line, NULL, 0);
		assert_int_equal(r.ret == 0, len == 4095);
		done(&r, &file);
		line[len] = 'x';
	}
	free(line);
}

static const char banner[] =
	"\0Linux version 6.1.0-test (me@here) (gcc 12.2.0) #1 SMP Sat Nov 22\n";

/* As vmlinux: physical entry, per-CPU data linked at 0. */
static struct plan linux_plan(void)
{
	return (struct plan){
		.entry = 0x1000000,
		.part = {{HIGH + 0x1000000, 0x1000000, code, sizeof(code), 0, 0, PF_R | PF_X},
			 {0, 0x1400000, data, sizeof(data), 0, 0, PF_R | PF_W},
			 {HIGH + 0x1800000, 0x1800000, banner, sizeof(banner), 0x100000, 0, PF_R}},
		.parts = 3,
	};
}

static void linux_banner(void **state)
{
	struct plan p = linux_plan();
	struct buf file = build(&p);
	uint8_t initrd[5000];
	struct run r;

	(void)state;
	memset(initrd, 0xa5, sizeof(initrd));
	r = load_with(&file, 4096 * MIB, "console=ttyS0", initrd, sizeof(initrd));
	assert_loaded(&r, GUEST_LINUX);
	assert_long_mode(&r, 0x10, 0x18);
	assert_int_equal(r.entry.sregs.cr4, 0x20);
	assert_int_equal(r.entry.sregs.efer, 0x500);
	assert_int_equal(r.entry.regs.rip, 0x1000000);
	assert_int_equal(r.entry.regs.rsi, INFO);
	/* zero-page.rst and boot.rst */
	assert_int_equal(peek(&r, INFO + 0x1fe, 2), 0xaa55);
	assert_bytes(&r, INFO + 0x202, "HdrS", 4);
	assert_int_equal(peek(&r, INFO + 0x210, 1), 0xff);
	assert_int_equal(peek(&r, INFO + 0x211, 1), 1);
	assert_int_equal(peek(&r, INFO + 0x218, 4), 0x37ffe000);
	assert_int_equal(peek(&r, INFO + 0x21c, 4), sizeof(initrd));
	assert_int_equal(peek(&r, INFO + 0x228, 4), CMDLINE);
	assert_int_equal(peek(&r, INFO + 0x230, 4), 0x1000000);
	assert_int_equal(peek(&r, INFO + 0x238, 4), 2047);
	assert_bytes(&r, CMDLINE, "console=ttyS0", 14);
	assert_bytes(&r, 0x37ffe000, initrd, sizeof(initrd));
	assert_int_equal(peek(&r, INFO + 0x1e8, 1), 4);
	for (size_t i = 0; i < 4; i++) {
		static const uint64_t map[4][3] = {{0, 0x9fc00, 1},
						   {0x9fc00, 0x60400, 2},
						   {0x100000, 0xbff00000, 1},
						   {0x100000000, 0x40000000, 1}};
		uint64_t at = INFO + 0x2d0 + i * 20;

		assert_int_equal(peek(&r, at, 8), map[i][0]);
		assert_int_equal(peek(&r, at + 8, 8), map[i][1]);
		assert_int_equal(peek(&r, at + 16, 4), map[i][2]);
	}
	done(&r, &file);
}

/* The initrd goes as high as it can, around the segments, and never below 1 MiB. */
static void linux_initrd_room(void **state)
{
	static const struct {
		uint64_t ram, size, place;
	} cases[] = {
		{64 * MIB, 38 * MIB, 26 * MIB}, /* above the kernel */
		{64 * MIB, 39 * MIB, 0},	/* nowhere */
		{32 * MIB, 7 * MIB, 9 * MIB},	/* too big for the gaps in the kernel */
		{32 * MIB, 3 * MIB + 1, 29 * MIB - PAGE_SIZE},
		{32 * MIB, 15 * MIB, MIB},
		{32 * MIB, 15 * MIB + 1, 0},
	};
	uint8_t *initrd = calloc(1, 64 * MIB);
	struct plan p = linux_plan();
	struct buf file = build(&p);

	(void)state;
	assert_non_null(initrd);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct run r = load_with(&file, cases[i].ram, "", initrd, cases[i].size);

		if (cases[i].place) {
			assert_loaded(&r, GUEST_LINUX);
			assert_int_equal(peek(&r, INFO + 0x218, 4), cases[i].place);
		} else {
			assert_true(r.ret < 0 && strstr(r.err.text, "more memory"));
		}
		free(r.entry.text);
		memory_destroy(r.mem);
	}
	free(initrd);
	buf_free(&file);
}

/* Notes: name, type, description; all sizes multiples of four but the names'. */
static void put_note(struct buf *b, const char *name, uint32_t type, const void *desc,
		     uint32_t size)
{
	buf_put_u32(b, (uint32_t)strlen(name) + 1);
	buf_put_u32(b, size);
	buf_put_u32(b, type);
	buf_put(b, name, strlen(name) + 1);
	pad_to(b, (b->len + 3) & ~3ull);
	buf_put(b, desc, size);
}

static struct buf build_with_notes(struct plan p, const struct buf *notes)
{
	p.part[p.parts] = (struct part){.bytes = notes->data, .size = notes->len, .type = PT_NOTE};
	p.parts++;
	return build(&p);
}

static void linux_is_told_from_others(void **state)
{
	static const char mention[] = "this emulates Linux version 6.1.0 syscalls\n";
	uint64_t entry = 0x100000;
	struct plan p = elf64_plan();
	struct buf notes = {0}, file;
	struct run r;

	(void)state;
	/* A banner is Linux even with a PVH note; a salt note needs the PVH note beside it. */
	put_note(&notes, "Linux", 0x100, "salt", 4);
	file = build_with_notes(p, &notes);
	r = load(&file);
	assert_loaded(&r, GUEST_ELF64);
	done(&r, &file);
	put_note(&notes, "Xen", 18, &entry, 8);
	file = build_with_notes(p, &notes);
	r = load(&file);
	assert_loaded(&r, GUEST_LINUX);
	done(&r, &file);
	buf_clear(&notes);
	put_note(&notes, "Xen", 6, "linux\0\0", 8);
	file = build_with_notes(p, &notes);
	r = load(&file);
	assert_loaded(&r, GUEST_LINUX);
	assert_int_equal(r.entry.regs.rip, 0x100002);
	done(&r, &file);
	buf_free(&notes);

	p.part[1].bytes = mention;
	p.part[1].size = sizeof(mention);
	p.sects = 0;
	file = build(&p);
	r = load(&file);
	assert_loaded(&r, GUEST_ELF64);
	done(&r, &file);
}

static struct buf pvh_file(bool is32, uint64_t entry)
{
	struct plan p = elf64_plan();
	struct buf notes = {0}, file;

	p.is32 = is32;
	if (is32) {
		p.part[0].vaddr -= HIGH;
		p.part[1].vaddr -= HIGH;
		p.sects = 0;
	}
	put_note(&notes, "GNU", 18, "not", 4);
	put_note(&notes, "Xen", 18, &entry, is32 ? 4 : 8);
	file = build_with_notes(p, &notes);
	buf_free(&notes);
	return file;
}

static void pvh(void **state)
{
	(void)state;
	for (int is32 = 0; is32 < 2; is32++) {
		struct buf file = pvh_file(is32, 0x100004);
		struct run r = load_with(&file, RAM, "pvh=1", data, sizeof(data));

		assert_loaded(&r, GUEST_PVH);
		assert_protected_mode(&r);
		assert_int_equal(r.entry.sregs.tr.base, 0);
		assert_int_equal(r.entry.regs.rip, 0x100004);
		assert_int_equal(r.entry.regs.rbx, INFO);
		assert_int_equal(peek(&r, INFO, 4), 0x336ec578);
		assert_int_equal(peek(&r, INFO + 4, 4), 1);
		assert_int_equal(peek(&r, INFO + 12, 4), 1);
		assert_bytes(&r, peek(&r, peek(&r, INFO + 16, 8), 8), data, sizeof(data));
		assert_int_equal(peek(&r, peek(&r, INFO + 16, 8) + 8, 8), sizeof(data));
		assert_bytes(&r, peek(&r, INFO + 24, 8), "pvh=1", 6);
		assert_int_equal(peek(&r, INFO + 32, 8), 0);
		assert_int_equal(peek(&r, INFO + 48, 4), 3);
		assert_int_equal(peek(&r, peek(&r, INFO + 40, 8) + 48, 8), 0x100000);
		assert_int_equal(peek(&r, peek(&r, INFO + 40, 8) + 56, 8), RAM - 0x100000);
		assert_int_equal(peek(&r, peek(&r, INFO + 40, 8) + 64, 4), 1);
		assert_bytes(&r, 0x200000, data, sizeof(data));
		done(&r, &file);
		assert_refused(pvh_file(is32, 0x300000), "PVH note's entry");
	}
}

static void damaged_elf64(void **state)
{
	struct plan p = elf64_plan();

	(void)state;
	survive(build(&p), 0x1234567);
}

static void damaged_linux(void **state)
{
	struct plan p = linux_plan();

	(void)state;
	survive(build(&p), 0x7654321);
}

static void damaged_pvh(void **state)
{
	(void)state;
	survive(pvh_file(false, 0x100004), 0x2468ac);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elf64),
		cmocka_unit_test(elf64_without_sections_or_paddr),
		cmocka_unit_test(elf64_refusals),
		cmocka_unit_test(other_refusals),
		cmocka_unit_test(linux_banner),
		cmocka_unit_test(linux_initrd_room),
		cmocka_unit_test(linux_is_told_from_others),
		cmocka_unit_test(pvh),
		cmocka_unit_test(damaged_elf64),
		cmocka_unit_test(damaged_linux),
		cmocka_unit_test(damaged_pvh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
