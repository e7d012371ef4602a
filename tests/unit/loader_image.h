/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * For tests of the loaders: make ELF files, load them into RAM without a VM, look at the result,
 * damage the file. Include cmocka.h first.
 */
#ifndef TESTS_UNIT_LOADER_IMAGE_H
#define TESTS_UNIT_LOADER_IMAGE_H

#include "base/buf.h"
#include "vmm/loader.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the images are made of. */
static const uint8_t code[] = {0xfa, 0xf4, 0xeb, 0xfd, 0x0f, 0x31, 0x90, 0xc3};
static const uint8_t data[] = "some data of the kernel";

#define MIB (1ull << 20)
#define RAM (64 * MIB)
#define DAMAGES 10000

#define INFO 0x97000u
#define CMDLINE 0x99000u
#define STACK_TOP 0x9e000u

/* Where the builder puts the first segment's bytes; the others follow, each at a multiple of 64. */
#define DATA_OFFSET 0x400u

struct part {
	uint64_t vaddr;
	uint64_t paddr;
	const void *bytes;
	uint64_t size;
	uint64_t extra; /* bss */
	uint32_t type;	/* 0: PT_LOAD */
	uint32_t flags;
};

struct sect {
	const char *name; /* at most 31 characters */
	uint64_t addr;
	uint64_t offset;
	uint64_t size;
	uint64_t flags;
};

struct plan {
	bool is32;
	uint64_t entry;
	struct part part[5];
	size_t parts;
	struct sect sect[5];
	size_t sects;
};

static inline void put_word(struct buf *b, bool is32, uint64_t v)
{
	if (is32)
		buf_put_u32(b, (uint32_t)v);
	else
		buf_put_u64(b, v);
}

static inline void pad_to(struct buf *b, size_t len)
{
	assert_true(b->len <= len);
	while (b->len < len)
		buf_put_u8(b, 0);
}

static inline void put_section(struct buf *b, bool is32, const struct sect *s, uint32_t name,
			       uint32_t type)
{
	buf_put_u32(b, name);
	buf_put_u32(b, type);
	put_word(b, is32, s->flags);
	put_word(b, is32, s->addr);
	put_word(b, is32, s->offset);
	put_word(b, is32, s->size);
	buf_put_u32(b, 0);
	buf_put_u32(b, 0);
	put_word(b, is32, 1);
	put_word(b, is32, 0);
}

static inline void put_header(struct buf *b, const struct plan *p, uint64_t shoff)
{
	static const uint8_t magic[4] = {0x7f, 'E', 'L', 'F'};
	uint16_t shnum = (uint16_t)(p->sects ? p->sects + 2 : 0);

	buf_put(b, magic, sizeof(magic));
	buf_put_u8(b, p->is32 ? ELFCLASS32 : ELFCLASS64);
	buf_put_u8(b, ELFDATA2LSB);
	buf_put_u8(b, EV_CURRENT);
	pad_to(b, EI_NIDENT);
	buf_put_u16(b, ET_EXEC);
	buf_put_u16(b, p->is32 ? EM_386 : EM_X86_64);
	buf_put_u32(b, EV_CURRENT);
	put_word(b, p->is32, p->entry);
	put_word(b, p->is32, p->is32 ? sizeof(Elf32_Ehdr) : sizeof(Elf64_Ehdr));
	put_word(b, p->is32, shnum ? shoff : 0);
	buf_put_u32(b, 0);
	buf_put_u16(b, p->is32 ? sizeof(Elf32_Ehdr) : sizeof(Elf64_Ehdr));
	buf_put_u16(b, p->is32 ? sizeof(Elf32_Phdr) : sizeof(Elf64_Phdr));
	buf_put_u16(b, (uint16_t)p->parts);
	buf_put_u16(b, p->is32 ? sizeof(Elf32_Shdr) : sizeof(Elf64_Shdr));
	buf_put_u16(b, shnum);
	buf_put_u16(b, (uint16_t)(shnum ? shnum - 1 : 0));
}

static inline void put_segment(struct buf *b, bool is32, const struct part *p, uint64_t offset)
{
	buf_put_u32(b, p->type ? p->type : PT_LOAD);
	if (!is32)
		buf_put_u32(b, p->flags);
	put_word(b, is32, offset);
	put_word(b, is32, p->vaddr);
	put_word(b, is32, p->paddr);
	put_word(b, is32, p->size);
	put_word(b, is32, p->size + p->extra);
	if (is32)
		buf_put_u32(b, p->flags);
	put_word(b, is32, 4);
}

/* File offset of a part's bytes. */
static inline uint64_t part_offset(const struct plan *p, size_t i)
{
	uint64_t offset = DATA_OFFSET;

	for (size_t k = 0; k < i; k++)
		offset += (p->part[k].size + 63) & ~63ull;
	return offset;
}

/* The whole file in an allocation of its exact size, so that ASan sees a read beyond it. */
static inline struct buf build(const struct plan *p)
{
	uint64_t names = part_offset(p, p->parts);
	uint64_t shoff = names + 32 * (p->sects + 1);
	struct sect strtab = {"", 0, names, 32 * (p->sects + 1), 0};
	struct buf b = {0}, exact = {0};

	put_header(&b, p, shoff);
	for (size_t i = 0; i < p->parts; i++)
		put_segment(&b, p->is32, &p->part[i], part_offset(p, i));
	for (size_t i = 0; i < p->parts; i++) {
		pad_to(&b, part_offset(p, i));
		buf_put(&b, p->part[i].bytes, p->part[i].size);
	}
	if (p->sects) {
		pad_to(&b, names + 32);
		for (size_t i = 0; i < p->sects; i++) {
			buf_put(&b, p->sect[i].name, strlen(p->sect[i].name));
			pad_to(&b, names + 32 * (i + 2));
		}
		put_section(&b, p->is32, &(struct sect){0}, 0, SHT_NULL);
		for (size_t i = 0; i < p->sects; i++)
			put_section(&b, p->is32, &p->sect[i], (uint32_t)(32 * (i + 1)),
				    SHT_PROGBITS);
		put_section(&b, p->is32, &strtab, 0, SHT_STRTAB);
	}
	assert_false(b.failed);
	exact.data = malloc(b.len);
	assert_non_null(exact.data);
	memcpy(exact.data, b.data, b.len);
	exact.len = exact.cap = b.len;
	buf_free(&b);
	return exact;
}

struct run {
	struct memory *mem;
	uint8_t *unpacked;
	struct guest_entry entry;
	struct err err;
	int ret;
};

static inline struct run load_with(const struct buf *file, uint64_t ram, const char *cmdline,
				   const void *initrd, size_t initrd_size)
{
	struct guest_image image = {.kernel = file->data,
				    .kernel_size = file->len,
				    .initrd = initrd,
				    .initrd_size = initrd_size,
				    .cmdline = cmdline};
	/* What KVM gives for a fresh vCPU, as far as it must survive. */
	struct kvm_sregs reset = {.apic_base = 0xfee00900, .cr0 = 0x60000010};
	struct run r = {0};

	if (memory_create(&r.mem, -1, ram, false, &r.err))
		fail_msg("%s", r.err.text);
	r.ret = loader_unpack(&image, &r.unpacked, &r.err);
	if (r.ret == 0)
		r.ret = loader_load(r.mem, &image, &reset, &r.entry, &r.err);
	return r;
}

static inline struct run load(const struct buf *file)
{
	return load_with(file, RAM, "root=/dev/none quiet", NULL, 0);
}

static inline void done(struct run *r, struct buf *file)
{
	free(r->entry.text);
	free(r->unpacked);
	memory_destroy(r->mem);
	buf_free(file);
}

static inline void assert_loaded(const struct run *r, enum guest_kind kind)
{
	if (r->ret)
		fail_msg("%s", r->err.text);
	assert_string_equal(guest_kind_name(r->entry.kind), guest_kind_name(kind));
}

static inline void assert_refused(struct buf file, const char *words)
{
	struct run r = load(&file);

	assert_true(r.ret < 0);
	if (!strstr(r.err.text, words))
		fail_msg("\"%s\" does not say \"%s\"", r.err.text, words);
	assert_null(r.entry.text);
	done(&r, &file);
}

static inline uint64_t peek(const struct run *r, uint64_t gpa, unsigned len)
{
	uint64_t v = 0;

	assert_int_equal(memory_read(r->mem, GPA(gpa), &v, len), 0);
	return v;
}

static inline void assert_bytes(const struct run *r, uint64_t gpa, const void *want, size_t len)
{
	const void *p = memory_at(r->mem, GPA(gpa), len);

	assert_non_null(p);
	assert_memory_equal(p, want, len);
}

static inline void assert_text(const struct run *r, size_t i, const char *name, uint64_t gva,
			       uint64_t gpa, uint64_t size)
{
	assert_true(i < r->entry.text_len);
	assert_string_equal(r->entry.text[i].name, name);
	assert_int_equal(r->entry.text[i].gva.v, gva);
	assert_int_equal(r->entry.text[i].gpa.v, gpa);
	assert_int_equal(r->entry.text[i].size, size);
}

static inline void assert_long_mode(const struct run *r, uint16_t cs, uint16_t ds)
{
	const struct kvm_sregs *s = &r->entry.sregs;

	assert_int_equal(s->cr0, 0x80010033);
	assert_int_equal(s->cr3, 0x90000);
	assert_int_equal(s->cs.selector, cs);
	assert_int_equal(s->cs.l, 1);
	assert_int_equal(s->cs.db, 0);
	assert_int_equal(s->ds.selector, ds);
	assert_int_equal(s->ss.selector, ds);
	assert_int_equal(s->ss.dpl, 0);
	assert_int_equal(s->tr.type, 11);
	assert_int_equal(s->tr.limit, 0x67);
	assert_int_equal(s->tr.base, 0x96100);
	assert_int_equal(s->ldt.unusable, 1);
	assert_int_equal(s->idt.limit, 0);
	assert_int_equal(s->gdt.base, 0x96000);
	assert_int_equal(s->gdt.limit, ds + 23);
	assert_int_equal(s->apic_base, 0xfee00900);
	assert_int_equal(r->entry.regs.rflags, 2);
	assert_int_equal(peek(r, 0x96000u + cs, 8), 0x00af9b000000ffff);
	assert_int_equal(peek(r, 0x96000u + ds, 8), 0x00cf93000000ffff);
	assert_int_equal(peek(r, 0x96000u + ds + 8, 8), 0x00008b0961000067);
	assert_int_equal(peek(r, 0x90000, 8), 0x91023);
	assert_int_equal(peek(r, 0x90008, 8), 0);
	for (uint64_t i = 0; i < 4; i++)
		assert_int_equal(peek(r, 0x91000 + i * 8, 8), 0x92023 + i * 0x1000);
	assert_int_equal(peek(r, 0x91020, 8), 0);
	for (uint64_t i = 0; i < 2048; i++)
		assert_int_equal(peek(r, 0x92000 + i * 8, 8), (i << 21) | 0xe3);
}

static inline void assert_protected_mode(const struct run *r)
{
	const struct kvm_sregs *s = &r->entry.sregs;

	assert_int_equal(s->cr0, 0x11);
	assert_int_equal(s->cr4, 0);
	assert_int_equal(s->efer, 0);
	assert_int_equal(s->cs.base, 0);
	assert_int_equal(s->cs.limit, 0xffffffff);
	assert_int_equal(s->cs.db, 1);
	assert_int_equal(s->cs.l, 0);
	assert_int_equal(s->ss.limit, 0xffffffff);
	assert_int_equal(s->tr.limit, 0x67);
	assert_int_equal(peek(r, 0x96008, 8), 0x00cf9b000000ffff);
	assert_int_equal(peek(r, 0x96010, 8), 0x00cf93000000ffff);
	assert_int_equal(r->entry.regs.rflags, 2);
}

static inline uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* A damaged copy in an allocation of its exact size. Half of the damage goes to the headers. */
static inline struct buf damaged(const struct buf *file, uint64_t *seed)
{
	static const uint64_t edge[] = {0, 1, UINT32_MAX, UINT64_MAX, INT64_MAX, RAM, 1ull << 32};
	uint64_t reach = next_random(seed) % 2 ? file->len : 256;
	uint64_t at = next_random(seed) % (reach < file->len ? reach : file->len);
	uint64_t extra = next_random(seed) % 16, value = edge[next_random(seed) % ARRAY_SIZE(edge)];
	uint64_t flips = 1 + next_random(seed) % 8, width = 1ull << next_random(seed) % 4;
	uint64_t kind = next_random(seed) % 4;
	struct buf b = {0};

	b.len = kind == 0 ? at : kind == 1 ? file->len + extra : file->len;
	b.data = malloc(b.len ? b.len : 1);
	assert_non_null(b.data);
	if (kind == 1) {
		memcpy(b.data, file->data, at);
		for (uint64_t i = 0; i < extra; i++)
			b.data[at + i] = (uint8_t)next_random(seed);
		memcpy(b.data + at + extra, file->data + at, file->len - at);
		return b;
	}
	memcpy(b.data, file->data, b.len);
	if (kind == 2 && width <= b.len - at)
		memcpy(b.data + at, &value, width);
	for (uint64_t i = 0; kind == 3 && i < flips; i++)
		b.data[next_random(seed) % (reach < b.len ? reach : b.len)] ^=
			(uint8_t)(1u << next_random(seed) % 8);
	return b;
}

/* Any damage is an error or loads something; the sanitizers watch. */
static inline void survive(struct buf file, uint64_t seed)
{
	struct kvm_sregs reset = {0};
	struct memory *mem = NULL;
	int loaded = 0;

	assert_int_equal(memory_create(&mem, -1, RAM, false, NULL), 0);
	for (int i = 0; i < DAMAGES; i++) {
		struct buf b = damaged(&file, &seed);
		struct guest_image image = {.kernel = b.data,
					    .kernel_size = b.len,
					    .initrd = data,
					    .initrd_size = i % 2 ? sizeof(data) : 0,
					    .cmdline = "x=y"};
		struct guest_entry entry = {0};
		struct err err = {""};
		uint8_t *unpacked;

		if (loader_unpack(&image, &unpacked, &err) ||
		    loader_load(mem, &image, &reset, &entry, &err)) {
			assert_true(strlen(err.text) > 0);
			assert_null(entry.text);
		} else {
			loaded++;
			assert_true(entry.text_len <= image.kernel_size / sizeof(Elf32_Shdr) + 1);
			for (size_t k = 0; k < entry.text_len; k++)
				assert_non_null(
					memory_at(mem, entry.text[k].gpa, entry.text[k].size));
			free(entry.text);
		}
		free(unpacked);
		free(b.data);
	}
	/* If nothing or everything loads, the damage is not of the kind that finds faults. */
	assert_in_range(loaded, DAMAGES / 100, DAMAGES * 99 / 100);
	memory_destroy(mem);
	buf_free(&file);
}

#endif
