// SPDX-License-Identifier: GPL-3.0-or-later
/* Guest loaders: which one claims the file, memory taken by whom, and the CPU's state at entry. */
#include "vmm/load_internal.h"

#include "vmm/caps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Page table entries, SDM 3A section 4.5. Accessed and dirty are set from the start, because when a
 * CPU sets them for itself depends on the host. */
#define PTE_PRESENT (1ull << 0)
#define PTE_WRITE (1ull << 1)
#define PTE_ACCESSED (1ull << 5)
#define PTE_DIRTY (1ull << 6)
#define PTE_LARGE (1ull << 7)
#define PTE_TABLE (PTE_PRESENT | PTE_WRITE | PTE_ACCESSED)
#define PTE_PAGE_2M (PTE_TABLE | PTE_DIRTY | PTE_LARGE)
#define PTES 512u
#define LOW_PDS 4u

/* CR0 and EFER, SDM 3A section 2.5 and table 2-1. */
#define CR0_PROTECTED 0x00000011u /* PE ET */
#define CR0_LONG 0x80010033u	  /* PE MP ET NE WP PG */

#define RFLAGS_RESET 2u

#define SEG_CODE 11u /* execute, read, accessed */
#define SEG_DATA 3u  /* read, write, accessed */
#define SEG_LDT 2u
#define TSS_LIMIT 0x67u

const char *guest_kind_name(enum guest_kind kind)
{
	switch (kind) {
	case GUEST_LINUX:
		return "Linux";
	case GUEST_BOOT64:
		return "Linux boot protocol";
	case GUEST_MULTIBOOT2:
		return "Multiboot 2";
	case GUEST_MULTIBOOT1:
		return "Multiboot 1";
	case GUEST_PVH:
		return "PVH";
	case GUEST_ELF64:
		return "ELF64";
	}
	return "unknown";
}

uint64_t load_low_ram_end(const struct load *l)
{
	uint64_t size = memory_size(l->mem);

	return size < MEMORY_LOW_MAX ? size : MEMORY_LOW_MAX;
}

size_t load_memory_map(const struct load *l, struct load_map_entry map[LOAD_MAP_MAX])
{
	uint64_t low_end = load_low_ram_end(l);
	uint64_t high = memory_size(l->mem) - low_end;
	size_t n = 0;

	map[n++] = (struct load_map_entry){0, LOW_RAM_END, LOAD_MAP_RAM};
	map[n++] = (struct load_map_entry){LOW_RAM_END, LOW_END - LOW_RAM_END, LOAD_MAP_RESERVED};
	if (low_end > LOW_END)
		map[n++] = (struct load_map_entry){LOW_END, low_end - LOW_END, LOAD_MAP_RAM};
	if (high > 0)
		map[n++] = (struct load_map_entry){HIGH_RAM_START, high, LOAD_MAP_RAM};
	return n;
}

static bool segment_is_ram(const struct load *l, struct load_segment s)
{
	uint64_t low_end = load_low_ram_end(l);
	uint64_t high_end = HIGH_RAM_START + (memory_size(l->mem) - low_end);

	return s.end <= low_end || (s.start >= HIGH_RAM_START && s.end <= high_end);
}

static const struct load_segment *segment_taken(const struct load *l, struct load_segment s)
{
	for (size_t i = 0; i < l->segments; i++) {
		if (s.start < l->segment[i].end && l->segment[i].start < s.end)
			return &l->segment[i];
	}
	return NULL;
}

int load_claim(struct load *l, uint64_t start, uint64_t size, const char *what, struct err *err)
{
	struct load_segment s = {start, start + size};
	const struct load_segment *other;

	if (s.end < s.start || !segment_is_ram(l, s))
		return err_set(err, EINVAL,
			       "%s at 0x%" PRIx64 " of 0x%" PRIx64
			       " bytes does not lie in the guest's RAM of %" PRIu64 " MiB",
			       what, start, size, memory_size(l->mem) >> 20);
	if (s.start < LOW_END && s.end > LOW_START)
		return err_set(
			err, EINVAL,
			"%s at 0x%" PRIx64 " of 0x%" PRIx64
			" bytes overlaps 0x%x-0x%x, which is reserved for the loader's tables",
			what, start, size, LOW_START, LOW_END - 1);
	other = segment_taken(l, s);
	if (other)
		return err_set(err, EINVAL,
			       "%s at 0x%" PRIx64 " of 0x%" PRIx64
			       " bytes overlaps another one at 0x%" PRIx64,
			       what, start, size, other->start);
	if (l->segments == ARRAY_SIZE(l->segment))
		return err_set(err, E2BIG, "the kernel has more than %d segments to load",
			       LOAD_SEGMENTS_MAX);
	l->segment[l->segments++] = s;
	return 0;
}

int load_copy(struct load *l, uint64_t start, const void *bytes, uint64_t file_size,
	      uint64_t mem_size, const char *what, struct err *err)
{
	int ret = load_claim(l, start, mem_size, what, err);

	if (ret)
		return ret;
	if (file_size > 0 && memory_write(l->mem, GPA(start), bytes, file_size))
		return err_set(err, EFAULT, "%s at 0x%" PRIx64 " cannot be written to RAM", what,
			       start);
	return 0;
}

static int initrd_no_room(const struct load *l, uint64_t limit, struct err *err)
{
	return err_set(err, ENOMEM,
		       "the initrd of %zu bytes finds no room beside the kernel below 0x%" PRIx64
		       ": give the guest more memory",
		       l->image->initrd_size, limit);
}

int load_initrd_high(struct load *l, uint64_t limit, uint64_t *start, struct err *err)
{
	uint64_t size = l->image->initrd_size;
	uint64_t low_end = load_low_ram_end(l);
	uint64_t top = limit < low_end ? limit : low_end;

	/* Every round goes below one more segment, so there are at most as many as segments. */
	for (;;) {
		const struct load_segment *taken;
		struct load_segment s;

		if (top < LOW_END || size > top - LOW_END)
			return initrd_no_room(l, limit, err);
		s.start = (top - size) & PAGE_MASK;
		if (s.start < LOW_END)
			return initrd_no_room(l, limit, err);
		s.end = s.start + size;
		taken = segment_taken(l, s);
		if (!taken) {
			*start = s.start;
			return load_copy(l, s.start, l->image->initrd, size, size, "the initrd",
					 err);
		}
		top = taken->start;
	}
}

int load_initrd_low(struct load *l, uint64_t limit, uint64_t *start, struct err *err)
{
	uint64_t size = l->image->initrd_size;
	uint64_t low_end = load_low_ram_end(l);
	uint64_t top = limit < low_end ? limit : low_end;
	uint64_t at = LOW_END;

	for (size_t i = 0; i < l->segments; i++) {
		uint64_t end = l->segment[i].end;

		if (end <= low_end && end > at)
			at = (end + PAGE_SIZE - 1) & PAGE_MASK;
	}
	if (at > top || size > top - at)
		return initrd_no_room(l, limit, err);
	*start = at;
	return load_copy(l, at, l->image->initrd, size, size, "the initrd", err);
}

int load_low_write(struct load *l, uint64_t gpa, const void *data, uint64_t len, struct err *err)
{
	/* MEMORY_MIN makes this RAM; a failure here is ours, but must not pass in silence. */
	if (memory_write(l->mem, GPA(gpa), data, len))
		return err_set(err, EFAULT, "the loader's table at 0x%" PRIx64 " is not RAM", gpa);
	return 0;
}

int load_cmdline(struct load *l, uint64_t max, struct err *err)
{
	uint64_t len = strlen(l->image->cmdline) + 1;

	if (len > max)
		return err_set(err, E2BIG,
			       "the command line has %" PRIu64
			       " bytes, but a %s guest takes at most %" PRIu64,
			       len - 1, guest_kind_name(l->entry->kind), max - 1);
	return load_low_write(l, LOW_CMDLINE, l->image->cmdline, len, err);
}

int load_add_text(struct load *l, uint64_t gva, uint64_t gpa, uint64_t size, const char *name,
		  struct err *err)
{
	struct guest_entry *e = l->entry;
	struct text_range *t;
	size_t len;

	/* Capacity is the next power of two, so it needs no field of its own. */
	if ((e->text_len & (e->text_len - 1)) == 0) {
		size_t cap = e->text_len ? e->text_len * 2 : 1;

		t = realloc(e->text, cap * sizeof(*t));
		if (!t)
			return err_set(err, ENOMEM, "out of memory for %zu text ranges", cap);
		e->text = t;
	}
	t = &e->text[e->text_len++];
	*t = (struct text_range){.gva = GVA(gva), .gpa = GPA(gpa), .size = size};
	len = strnlen(name, sizeof(t->name) - 1);
	memcpy(t->name, name, len);
	return 0;
}

static struct kvm_segment segment_flat(uint16_t selector, uint8_t type, bool long_mode)
{
	return (struct kvm_segment){
		.limit = 0xffffffffu,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = !long_mode,
		.s = 1,
		.l = long_mode,
		.g = 1,
	};
}

/* Descriptor in memory form, SDM 3A section 3.4.5. */
static uint64_t descriptor(const struct kvm_segment *s)
{
	uint64_t limit = s->g ? s->limit >> 12 : s->limit;
	uint64_t access =
		s->type | (uint64_t)s->s << 4 | (uint64_t)s->dpl << 5 | (uint64_t)s->present << 7;
	uint64_t flags = s->avl | (uint64_t)s->l << 1 | (uint64_t)s->db << 2 | (uint64_t)s->g << 3;

	return (limit & 0xffff) | (s->base & 0xffffff) << 16 | access << 40 |
	       (limit >> 16 & 0xf) << 48 | flags << 52 | (s->base >> 24 & 0xff) << 56;
}

/*
 * Segments, GDT and TSS. The GDT holds null, code, data and TSS at the selectors given (the second
 * half of a 64-bit TSS descriptor is its base above 4 GiB: zero).
 */
static int enter_segments(struct load *l, uint16_t code, uint16_t data, uint64_t tss_base,
			  bool long_mode, struct err *err)
{
	struct kvm_sregs *s = &l->entry->sregs;
	uint16_t tss = (uint16_t)(data + 8);
	uint64_t gdt[8] = {0};

	s->cs = segment_flat(code, SEG_CODE, long_mode);
	/* A 64-bit data segment has B set and L clear, as a 32-bit one. */
	s->ds = segment_flat(data, SEG_DATA, false);
	s->es = s->fs = s->gs = s->ss = s->ds;
	s->tr = (struct kvm_segment){
		.base = tss_base,
		.limit = TSS_LIMIT,
		.selector = tss,
		.type = SEGMENT_TSS_BUSY,
		.present = 1,
	};
	s->ldt = (struct kvm_segment){.type = SEG_LDT, .unusable = 1};
	gdt[code / 8] = descriptor(&s->cs);
	gdt[data / 8] = descriptor(&s->ds);
	gdt[tss / 8] = descriptor(&s->tr);
	s->gdt = (struct kvm_dtable){.base = LOW_GDT, .limit = (uint16_t)(tss + 16 - 1)};
	s->idt = (struct kvm_dtable){.base = 0, .limit = 0};
	return load_low_write(l, LOW_GDT, gdt, s->gdt.limit + 1u, err);
}

static int write_identity_map(struct load *l, struct err *err)
{
	uint64_t table[PTES] = {LOW_PDPT | PTE_TABLE};
	int ret = load_low_write(l, LOW_PML4, table, sizeof(table), err);

	for (unsigned i = 0; i < LOW_PDS; i++)
		table[i] = (LOW_PD + i * PAGE_SIZE) | PTE_TABLE;
	if (!ret)
		ret = load_low_write(l, LOW_PDPT, table, sizeof(table), err);
	for (uint64_t pd = 0; pd < LOW_PDS && !ret; pd++) {
		for (uint64_t i = 0; i < PTES; i++)
			table[i] = ((pd * PTES + i) << 21) | PTE_PAGE_2M;
		ret = load_low_write(l, LOW_PD + pd * PAGE_SIZE, table, sizeof(table), err);
	}
	return ret;
}

int load_enter_long(struct load *l, uint16_t code, uint16_t data, uint64_t cr4, uint64_t efer,
		    struct err *err)
{
	struct kvm_sregs *s = &l->entry->sregs;
	int ret = enter_segments(l, code, data, LOW_TSS, true, err);

	if (!ret)
		ret = write_identity_map(l, err);
	s->cr0 = CR0_LONG;
	s->cr3 = LOW_PML4;
	s->cr4 = cr4;
	s->efer = efer;
	return ret;
}

int load_enter_protected(struct load *l, uint64_t tss_base, struct err *err)
{
	struct kvm_sregs *s = &l->entry->sregs;

	s->cr0 = CR0_PROTECTED;
	s->cr3 = 0;
	s->cr4 = 0;
	s->efer = 0;
	return enter_segments(l, 0x08, 0x10, tss_base, false, err);
}

/* What the file is, when no loader wants it. */
static int refuse(const struct elf_view *elf, struct err *err)
{
	if (elf)
		return err_set(
			err, ENOEXEC,
			"the kernel is a 32-bit ELF file without a Multiboot header or a PVH "
			"note, so there is no telling how to enter it");
	return err_set(err, ENOEXEC,
		       "the kernel file is neither an ELF file nor has it a Multiboot header");
}

static int dispatch(struct load *l, struct err *err)
{
	const struct guest_image *image = l->image;
	struct guest_entry *e = l->entry;
	struct elf_view view, *elf = NULL;
	uint64_t header;

	if (elf_magic(image)) {
		int ret = elf_open(image, &view, err);

		if (ret)
			return ret;
		elf = &view;
	}
	if (elf && load_linux_claims(elf)) {
		e->kind = GUEST_LINUX;
		return load_linux(l, elf, err);
	}
	if (loader_is_boot64(image)) {
		e->kind = GUEST_BOOT64;
		return load_boot64(l, err);
	}
	if (load_multiboot2_claims(image, &header)) {
		e->kind = GUEST_MULTIBOOT2;
		return load_multiboot2(l, elf, header, err);
	}
	if (load_multiboot1_claims(image, &header)) {
		e->kind = GUEST_MULTIBOOT1;
		return load_multiboot1(l, elf, header, err);
	}
	if (elf && load_pvh_claims(elf)) {
		e->kind = GUEST_PVH;
		return load_pvh(l, elf, err);
	}
	if (elf && elf->is64) {
		e->kind = GUEST_ELF64;
		return load_elf64(l, elf, err);
	}
	return refuse(elf, err);
}

bool loader_is_linux(const struct guest_image *image)
{
	struct elf_view elf;

	return (load_is_bzimage(image) && !loader_is_boot64(image)) ||
	       (elf_magic(image) && elf_open(image, &elf, NULL) == 0 && load_linux_claims(&elf));
}

int loader_load(struct memory *mem, const struct guest_image *image,
		const struct kvm_sregs *sregs_reset, struct guest_entry *entry, struct err *err)
{
	struct load l = {.mem = mem, .image = image, .entry = entry};
	int ret;

	*entry = (struct guest_entry){.sregs = *sregs_reset, .regs.rflags = RFLAGS_RESET};
	ret = dispatch(&l, err);
	if (ret) {
		free(entry->text);
		entry->text = NULL;
		entry->text_len = 0;
	}
	return ret;
}
