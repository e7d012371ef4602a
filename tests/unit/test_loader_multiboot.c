// SPDX-License-Identifier: GPL-3.0-or-later
/* Multiboot 1 and 2: as test_loader.c, with headers and information of these specifications. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/loader_image.h"

/* Multiboot 1 header of 32 bytes, then the code; address fields for a load at 2 MiB. */
static void put_mb1(struct buf *b, uint32_t flags)
{
	const uint32_t addresses[] = {0x200000, 0x200000, 0x200000 + 32 + sizeof(code), 0x208000,
				      0x200020};

	buf_put_u32(b, 0x1badb002);
	buf_put_u32(b, flags);
	buf_put_u32(b, 0u - 0x1badb002 - flags);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
		buf_put_u32(b, addresses[i]);
	buf_put(b, code, sizeof(code));
}

static struct buf mb1_elf(bool is32, uint32_t flags)
{
	struct plan p = {.is32 = is32, .entry = 0x200020, .parts = 1};
	struct buf content = {0}, file;

	put_mb1(&content, flags);
	p.part[0] = (struct part){.vaddr = 0x200000,
				  .paddr = 0x200000,
				  .bytes = content.data,
				  .size = content.len,
				  .flags = PF_R | PF_X};
	file = build(&p);
	buf_free(&content);
	return file;
}

static void assert_mb1(const struct run *r)
{
	uint64_t mods = peek(r, INFO + 24, 4), map = peek(r, INFO + 48, 4);

	assert_loaded(r, GUEST_MULTIBOOT1);
	assert_protected_mode(r);
	assert_int_equal(r->entry.regs.rip, 0x200020);
	assert_int_equal(r->entry.regs.rax, 0x2badb002);
	assert_int_equal(r->entry.regs.rbx, INFO);
	assert_bytes(r, 0x200020, code, sizeof(code));
	assert_int_equal(peek(r, INFO, 4), 0x24d);
	assert_int_equal(peek(r, INFO + 4, 4), 639);
	assert_int_equal(peek(r, INFO + 8, 4), 63 * 1024);
	assert_bytes(r, peek(r, INFO + 16, 4), "mb=1", 5);
	assert_int_equal(peek(r, INFO + 20, 4), 1);
	assert_int_equal(peek(r, mods, 4) % PAGE_SIZE, 0);
	assert_bytes(r, peek(r, mods, 4), data, sizeof(data));
	assert_int_equal(peek(r, mods + 4, 4) - peek(r, mods, 4), sizeof(data));
	assert_bytes(r, peek(r, mods + 8, 4), "initrd", 7);
	assert_int_equal(peek(r, INFO + 44, 4), 3 * 24);
	assert_int_equal(peek(r, map + 48, 4), 20);
	assert_int_equal(peek(r, map + 52, 8), 0x100000);
	assert_int_equal(peek(r, map + 60, 8), RAM - 0x100000);
	assert_int_equal(peek(r, map + 68, 4), 1);
	assert_bytes(r, peek(r, INFO + 64, 4), "hindsight", 10);
	assert_int_equal(r->entry.text_len, 1);
	assert_text(r, 0, "", 0x200000, 0x200000, 32 + sizeof(code));
}

static void multiboot1(void **state)
{
	struct buf plain = {0}, file;
	struct run r;

	(void)state;
	/* ELF of both classes; flat file; ELF whose header's addresses go before the segments. */
	for (int i = 0; i < 3; i++) {
		file = mb1_elf(i == 0, i == 2 ? 0x10003 : 3);
		r = load_with(&file, RAM, "mb=1", data, sizeof(data));
		if (i < 2)
			assert_mb1(&r);
		else
			assert_loaded(&r, GUEST_MULTIBOOT1);
		done(&r, &file);
	}
	put_mb1(&plain, 0x10003);
	r = load_with(&plain, RAM, "mb=1", data, sizeof(data));
	assert_mb1(&r);
	/* Behind the bss, which ends at 0x208000. */
	assert_int_equal(peek(&r, peek(&r, INFO + 24, 4), 4), 0x208000);
	done(&r, &plain);

	assert_refused(mb1_elf(true, 7), "0x4");
	plain = (struct buf){0};
	put_mb1(&plain, 3);
	assert_refused(plain, "no ELF file");
}

static void multiboot1_addresses(void **state)
{
	static const struct {
		const char *words;
		size_t field;
		uint32_t value;
	} patches[] = {
		{"load_addr", 16, 0x200004},	 {"load_addr", 16, 0x1ffffc},
		{"load_end_addr", 20, 0x200000}, {"load_end_addr", 20, 0x400000},
		{"bss_end_addr", 24, 0x200004},	 {"RAM", 24, 0xf0000000},
		{"entry_addr", 28, 0x208000},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(patches); i++) {
		struct buf file = {0};

		put_mb1(&file, 0x10000);
		memcpy(file.data + patches[i].field, &patches[i].value, 4);
		assert_refused(file, patches[i].words);
	}
}

/* Multiboot 2 header with these tag words (each tag padded to 8 bytes by the caller), end tag,
 * code. */
static void put_mb2(struct buf *b, const uint32_t *tags, size_t n, uint32_t arch)
{
	uint32_t len = (uint32_t)(16 + n * 4 + 8);

	buf_put_u32(b, 0xe85250d6);
	buf_put_u32(b, arch);
	buf_put_u32(b, len);
	buf_put_u32(b, 0u - 0xe85250d6 - arch - len);
	for (size_t i = 0; i < n; i++)
		buf_put_u32(b, tags[i]);
	buf_put_u32(b, 0);
	buf_put_u32(b, 8);
	buf_put(b, code, sizeof(code));
}

static struct buf mb2_elf(const uint32_t *tags, size_t n, uint32_t arch)
{
	struct plan p = {.is32 = true, .parts = 1};
	struct buf content = {0}, file;

	put_mb2(&content, tags, n, arch);
	p.entry = 0x200000 + content.len - sizeof(code);
	p.part[0] = (struct part){.vaddr = 0x200000,
				  .paddr = 0x200000,
				  .bytes = content.data,
				  .size = content.len,
				  .flags = PF_R | PF_X};
	file = build(&p);
	buf_free(&content);
	return file;
}

#define OPTIONAL 0x10000u
/* Request for command line, map and a framebuffer; module alignment; optional framebuffer; optional
 * unknown. */
static const uint32_t mb2_tags[] = {
	1, 20,		 1,  6,	  8, 0, 6, 8, OPTIONAL | 5, 20, 0, 0, 0, 0, OPTIONAL | 77, 12, 0,
	0, OPTIONAL | 1, 12, 999, 0,
};

/* Find a tag in the information. */
static uint64_t mb2_find(const struct run *r, uint32_t type)
{
	uint64_t end = INFO + peek(r, INFO, 4), at = INFO + 8;

	while (at < end) {
		if (peek(r, at, 4) == type)
			return at;
		at += (peek(r, at + 4, 4) + 7) & ~7ull;
	}
	fail_msg("no tag %u", type);
	return 0;
}

static void multiboot2(void **state)
{
	struct buf file = mb2_elf(mb2_tags, ARRAY_SIZE(mb2_tags), 0);
	struct run r = load_with(&file, RAM, "mb=2", data, sizeof(data));
	uint64_t tag;

	(void)state;
	assert_loaded(&r, GUEST_MULTIBOOT2);
	assert_protected_mode(&r);
	assert_int_equal(r.entry.regs.rax, 0x36d76289);
	assert_int_equal(r.entry.regs.rbx, INFO);
	assert_bytes(&r, r.entry.regs.rip, code, sizeof(code));
	assert_int_equal(peek(&r, INFO + 4, 4), 0);
	assert_bytes(&r, mb2_find(&r, 1) + 8, "mb=2", 5);
	assert_bytes(&r, mb2_find(&r, 2) + 8, "hindsight", 10);
	tag = mb2_find(&r, 3);
	assert_bytes(&r, peek(&r, tag + 8, 4), data, sizeof(data));
	assert_int_equal(peek(&r, tag + 12, 4) - peek(&r, tag + 8, 4), sizeof(data));
	assert_bytes(&r, tag + 16, "initrd", 7);
	assert_int_equal(peek(&r, mb2_find(&r, 4) + 12, 4), 63 * 1024);
	tag = mb2_find(&r, 6);
	assert_int_equal(peek(&r, tag + 4, 4), 16 + 3 * 24);
	assert_int_equal(peek(&r, tag + 8, 4), 24);
	assert_int_equal(peek(&r, tag + 64, 8), 0x100000);
	assert_int_equal(peek(&r, tag + 72, 8), RAM - 0x100000);
	assert_int_equal(mb2_find(&r, 0) + 8, INFO + peek(&r, INFO, 4));
	done(&r, &file);
}

static void multiboot2_headers(void **state)
{
	static const uint32_t unknown[] = {77, 8}, framebuffer[] = {5, 20, 0, 0, 0, 0};
	static const uint32_t request[] = {1, 16, 1, 999}, short_tag[] = {3, 8}, tiny[] = {6, 4};
	static const uint32_t huge[] = {6, 0xfffffff8};
	static const uint32_t place[] = {2,	   24, 0x200000, 0x200000,	0,
					 0x300000, 3,  12,	 0x200000 + 64, 0};
	struct buf file = {0};
	struct run r;

	(void)state;
	assert_refused(mb2_elf(unknown, 2, 0), "type 77");
	assert_refused(mb2_elf(framebuffer, 6, 0), "framebuffer");
	assert_refused(mb2_elf(request, 4, 0), "type 999");
	assert_refused(mb2_elf(short_tag, 2, 0), "size 8");
	assert_refused(mb2_elf(tiny, 2, 0), "size 4");
	assert_refused(mb2_elf(huge, 2, 0), "does not fit");
	assert_refused(mb2_elf(mb2_tags, 0, 4), "architecture");
	put_mb2(&file, place, 6, 0);
	assert_refused(file, "no entry address");

	/* A flat file, placed by its header. */
	file = (struct buf){0};
	put_mb2(&file, place, ARRAY_SIZE(place), 0);
	r = load(&file);
	assert_loaded(&r, GUEST_MULTIBOOT2);
	assert_int_equal(r.entry.regs.rip, 0x200040);
	assert_bytes(&r, 0x200040, code, sizeof(code));
	assert_text(&r, 0, "", 0x200000, 0x200000, file.len);
	done(&r, &file);
}

static void damaged_multiboot1(void **state)
{
	struct buf plain = {0};

	(void)state;
	survive(mb1_elf(true, 3), 0xabcdef);
	put_mb1(&plain, 0x10003);
	survive(plain, 0xfedcba);
}

static void damaged_multiboot2(void **state)
{
	(void)state;
	survive(mb2_elf(mb2_tags, ARRAY_SIZE(mb2_tags), 0), 0x13579b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(multiboot1),	      cmocka_unit_test(multiboot1_addresses),
		cmocka_unit_test(multiboot2),	      cmocka_unit_test(multiboot2_headers),
		cmocka_unit_test(damaged_multiboot1), cmocka_unit_test(damaged_multiboot2),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
