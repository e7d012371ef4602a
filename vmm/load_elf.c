// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * ELF files (System V gABI chapters 4 and 5): checked access, loading of segments, and the two
 * kinds of guest that are plain ELF: GUEST_ELF64 and GUEST_PVH.
 *
 * Parsed by hand, not by libelf: a kernel needs four tables, and here every access to the hostile
 * file is a memcpy behind a range check.
 */
#include "vmm/load_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* GUEST_ELF64: CR4 PAE OSFXSR OSXMMEXCPT; EFER LME LMA NXE. */
#define ELF64_CR4 0x620u
#define ELF64_EFER 0xd00u

/* Xen, public/elfnote.h and public/arch-x86/hvm/start_info.h. */
#define PVH_NOTE_NAME "Xen"
#define PVH_NOTE_PHYS32_ENTRY 18u
#define PVH_MAGIC 0x336ec578u
#define PVH_VERSION 1u
/* Where the tables lie behind hvm_start_info. */
#define PVH_MODULE (LOW_INFO + 0x40u)
#define PVH_MAP (LOW_INFO + 0x80u)

struct pvh_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t modules;
	uint64_t module_list;
	uint64_t cmdline;
	uint64_t rsdp;
	uint64_t map;
	uint32_t map_entries;
	uint32_t reserved;
};

struct pvh_module {
	uint64_t start;
	uint64_t size;
	uint64_t cmdline;
	uint64_t reserved;
};

struct pvh_map_entry {
	uint64_t start;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};

bool elf_magic(const struct guest_image *image)
{
	return image->kernel_size >= SELFMAG && memcmp(image->kernel, ELFMAG, SELFMAG) == 0;
}

Elf64_Phdr elf_phdr(const struct elf_view *elf, uint64_t i)
{
	Elf64_Phdr p;
	Elf32_Phdr s;

	if (elf->is64) {
		memcpy(&p, elf->data + elf->phoff + i * sizeof(p), sizeof(p));
		return p;
	}
	memcpy(&s, elf->data + elf->phoff + i * sizeof(s), sizeof(s));
	return (Elf64_Phdr){
		.p_type = s.p_type,
		.p_flags = s.p_flags,
		.p_offset = s.p_offset,
		.p_vaddr = s.p_vaddr,
		.p_paddr = s.p_paddr,
		.p_filesz = s.p_filesz,
		.p_memsz = s.p_memsz,
		.p_align = s.p_align,
	};
}

Elf64_Shdr elf_shdr(const struct elf_view *elf, uint64_t i)
{
	Elf64_Shdr h;
	Elf32_Shdr s;

	if (elf->is64) {
		memcpy(&h, elf->data + elf->shoff + i * sizeof(h), sizeof(h));
		return h;
	}
	memcpy(&s, elf->data + elf->shoff + i * sizeof(s), sizeof(s));
	return (Elf64_Shdr){
		.sh_name = s.sh_name,
		.sh_type = s.sh_type,
		.sh_flags = s.sh_flags,
		.sh_addr = s.sh_addr,
		.sh_offset = s.sh_offset,
		.sh_size = s.sh_size,
		.sh_link = s.sh_link,
		.sh_info = s.sh_info,
		.sh_addralign = s.sh_addralign,
		.sh_entsize = s.sh_entsize,
	};
}

/* The header of either class, widened. */
static void read_header(const struct guest_image *image, bool is64, Elf64_Ehdr *out)
{
	Elf32_Ehdr s;

	if (is64) {
		memcpy(out, image->kernel, sizeof(*out));
		return;
	}
	memcpy(&s, image->kernel, sizeof(s));
	*out = (Elf64_Ehdr){
		.e_type = s.e_type,
		.e_machine = s.e_machine,
		.e_entry = s.e_entry,
		.e_phoff = s.e_phoff,
		.e_shoff = s.e_shoff,
		.e_phentsize = s.e_phentsize,
		.e_phnum = s.e_phnum,
		.e_shentsize = s.e_shentsize,
		.e_shnum = s.e_shnum,
		.e_shstrndx = s.e_shstrndx,
	};
}

static int check_identity(const struct guest_image *image, bool *is64, struct err *err)
{
	const uint8_t *ident = image->kernel;

	if (image->kernel_size < sizeof(Elf32_Ehdr))
		return err_set(err, ENOEXEC, "the ELF file ends within its header (%zu bytes)",
			       image->kernel_size);
	if (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64)
		return err_set(err, ENOEXEC, "the ELF field EI_CLASS is %u, not 1 or 2",
			       ident[EI_CLASS]);
	if (ident[EI_DATA] != ELFDATA2LSB)
		return err_set(err, ENOEXEC, "the ELF field EI_DATA is %u, not 1 (little endian)",
			       ident[EI_DATA]);
	*is64 = ident[EI_CLASS] == ELFCLASS64;
	if (*is64 && image->kernel_size < sizeof(Elf64_Ehdr))
		return err_set(err, ENOEXEC, "the ELF file ends within its header (%zu bytes)",
			       image->kernel_size);
	return 0;
}

static int check_header(const Elf64_Ehdr *h, bool is64, struct err *err)
{
	uint16_t phentsize = is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	uint16_t shentsize = is64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);

	/* A 64-bit machine in a 32-bit class would be x32, which no kernel is. */
	if (is64 ? h->e_machine != EM_X86_64 : h->e_machine != EM_386)
		return err_set(err, ENOEXEC,
			       "the ELF field e_machine is %u, not %u as for x86 in this class",
			       h->e_machine, is64 ? EM_X86_64 : EM_386);
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return err_set(err, ENOEXEC, "the ELF field e_type is %u, not 2 (executable)",
			       h->e_type);
	if (h->e_phnum == 0 || h->e_phnum == PN_XNUM)
		return err_set(err, ENOEXEC, "the ELF field e_phnum is %u: no segments to load",
			       h->e_phnum);
	if (h->e_phentsize != phentsize)
		return err_set(err, ENOEXEC, "the ELF field e_phentsize is %u, not %u",
			       h->e_phentsize, phentsize);
	if (h->e_shoff != 0 && h->e_shentsize != shentsize)
		return err_set(err, ENOEXEC, "the ELF field e_shentsize is %u, not %u",
			       h->e_shentsize, shentsize);
	return 0;
}

int elf_open(const struct guest_image *image, struct elf_view *elf, struct err *err)
{
	Elf64_Ehdr h;
	bool is64;
	int ret = check_identity(image, &is64, err);

	if (ret)
		return ret;
	read_header(image, is64, &h);
	ret = check_header(&h, is64, err);
	if (ret)
		return ret;
	*elf = (struct elf_view){
		.data = image->kernel,
		.size = image->kernel_size,
		.is64 = is64,
		.entry = h.e_entry,
		.phoff = h.e_phoff,
		.phnum = h.e_phnum,
		.shoff = h.e_shoff,
		.shnum = h.e_shnum,
		.shstrndx = h.e_shstrndx,
	};
	if (!load_range_ok(elf->phoff, elf->phnum * h.e_phentsize, elf->size))
		return err_set(err, ENOEXEC,
			       "the ELF field e_phoff is 0x%" PRIx64 " with e_phnum %" PRIu64
			       ", beyond the file's end at 0x%" PRIx64,
			       elf->phoff, elf->phnum, elf->size);
	if (elf->shoff == 0) {
		elf->shnum = 0;
		return 0;
	}
	/* With 0xff00 sections or more the numbers are in section 0 (gABI chapter 4). */
	if (elf->shnum == 0 || elf->shstrndx == SHN_XINDEX) {
		Elf64_Shdr first;

		if (!load_range_ok(elf->shoff, h.e_shentsize, elf->size))
			return err_set(err, ENOEXEC,
				       "the ELF field e_shoff is 0x%" PRIx64
				       ", beyond the file's end at 0x%" PRIx64,
				       elf->shoff, elf->size);
		first = elf_shdr(elf, 0);
		if (elf->shnum == 0)
			elf->shnum = first.sh_size;
		if (elf->shstrndx == SHN_XINDEX)
			elf->shstrndx = first.sh_link;
	}
	if (elf->shoff > elf->size || elf->shnum > (elf->size - elf->shoff) / h.e_shentsize)
		return err_set(err, ENOEXEC,
			       "the ELF field e_shoff is 0x%" PRIx64 " with e_shnum %" PRIu64
			       ", beyond the file's end at 0x%" PRIx64,
			       elf->shoff, elf->shnum, elf->size);
	return 0;
}

/* Notes: gABI chapter 5. Name and description are padded to 4 bytes, in segments aligned to 8 to 8.
 */
static bool find_note_in(const uint8_t *p, uint64_t size, uint64_t align, const char *name,
			 uint32_t type, const uint8_t **desc, uint32_t *desc_size)
{
	uint64_t name_size = strlen(name) + 1;
	uint64_t pos = 0;

	while (load_range_ok(pos, sizeof(Elf64_Nhdr), size)) {
		uint64_t name_at = pos + sizeof(Elf64_Nhdr);
		uint64_t desc_at;
		Elf64_Nhdr n;

		memcpy(&n, p + pos, sizeof(n));
		desc_at = (name_at + n.n_namesz + align - 1) & ~(align - 1);
		if (!load_range_ok(name_at, n.n_namesz, size) ||
		    !load_range_ok(desc_at, n.n_descsz, size))
			return false;
		if (n.n_type == type && n.n_namesz == name_size &&
		    memcmp(p + name_at, name, name_size) == 0) {
			*desc = p + desc_at;
			*desc_size = n.n_descsz;
			return true;
		}
		pos = (desc_at + n.n_descsz + align - 1) & ~(align - 1);
	}
	return false;
}

bool elf_find_note(const struct elf_view *elf, const char *name, uint32_t type,
		   const uint8_t **desc, uint32_t *desc_size)
{
	const uint8_t *ignored;
	uint32_t ignored_size;

	for (uint64_t i = 0; i < elf->phnum; i++) {
		Elf64_Phdr p = elf_phdr(elf, i);

		if (p.p_type != PT_NOTE || !load_range_ok(p.p_offset, p.p_filesz, elf->size))
			continue;
		if (find_note_in(elf->data + p.p_offset, p.p_filesz, p.p_align == 8 ? 8 : 4, name,
				 type, desc ? desc : &ignored,
				 desc_size ? desc_size : &ignored_size))
			return true;
	}
	return false;
}

/* Some linker scripts leave every p_paddr zero and mean p_vaddr. */
static bool physical_is_virtual(const struct elf_view *elf)
{
	for (uint64_t i = 0; i < elf->phnum; i++) {
		Elf64_Phdr p = elf_phdr(elf, i);

		if (p.p_type == PT_LOAD && p.p_memsz > 0 && p.p_paddr != 0)
			return false;
	}
	return true;
}

/* The i-th program header if it puts anything into memory, with p_paddr as used. */
static bool load_phdr(const struct elf_view *elf, uint64_t i, bool use_vaddr, Elf64_Phdr *p)
{
	*p = elf_phdr(elf, i);
	if (use_vaddr)
		p->p_paddr = p->p_vaddr;
	return p->p_type == PT_LOAD && p->p_memsz > 0;
}

const char *elf_section_name(const struct elf_view *elf, const Elf64_Shdr *s)
{
	Elf64_Shdr table;
	const char *name;

	if (elf->shstrndx == SHN_UNDEF || elf->shstrndx >= elf->shnum)
		return "";
	table = elf_shdr(elf, elf->shstrndx);
	if (table.sh_type != SHT_STRTAB ||
	    !load_range_ok(table.sh_offset, table.sh_size, elf->size) ||
	    s->sh_name >= table.sh_size)
		return "";
	name = (const char *)elf->data + table.sh_offset + s->sh_name;
	return memchr(name, 0, table.sh_size - s->sh_name) ? name : "";
}

static int add_section_text(struct load *l, const struct elf_view *elf, const Elf64_Shdr *s,
			    bool use_vaddr, struct err *err)
{
	const char *name = elf_section_name(elf, s);

	/* .altinstr_replacement holds code that the kernel copies over other code. */
	if (!(s->sh_flags & SHF_ALLOC) || s->sh_type == SHT_NOBITS || s->sh_size == 0 ||
	    (!(s->sh_flags & SHF_EXECINSTR) && strcmp(name, ".altinstr_replacement") != 0))
		return 0;
	/* By file offset: Linux links its per-CPU data at virtual address 0, so addresses can
	 * be ambiguous, bytes cannot. */
	for (uint64_t i = 0; i < elf->phnum; i++) {
		Elf64_Phdr p;

		if (!load_phdr(elf, i, use_vaddr, &p) || s->sh_offset < p.p_offset ||
		    !load_range_ok(s->sh_offset - p.p_offset, s->sh_size, p.p_filesz))
			continue;
		return load_add_text(l, s->sh_addr, p.p_paddr + (s->sh_offset - p.p_offset),
				     s->sh_size, name, err);
	}
	return 0;
}

static int compare_text(const void *a, const void *b)
{
	const struct text_range *x = a, *y = b;

	return x->gpa.v < y->gpa.v ? -1 : x->gpa.v > y->gpa.v;
}

/* Sections that share bytes are no linker's work, and many of them would make decoding the text
 * take time out of all proportion to the file. */
static int check_text(struct guest_entry *e, struct err *err)
{
	qsort(e->text, e->text_len, sizeof(e->text[0]), compare_text);
	for (size_t i = 1; i < e->text_len; i++) {
		const struct text_range *before = &e->text[i - 1], *t = &e->text[i];

		if (t->gpa.v - before->gpa.v < before->size)
			return err_set(
				err, ENOEXEC,
				"the executable sections \"%s\" and \"%s\" overlap at 0x%" PRIx64,
				before->name, t->name, t->gpa.v);
	}
	return 0;
}

static int add_text(struct load *l, const struct elf_view *elf, bool use_vaddr, struct err *err)
{
	int ret = 0;

	for (uint64_t i = 0; i < elf->shnum && !ret; i++) {
		Elf64_Shdr s = elf_shdr(elf, i);

		ret = add_section_text(l, elf, &s, use_vaddr, err);
	}
	if (ret)
		return ret;
	if (l->entry->text_len > 0)
		return check_text(l->entry, err);
	for (uint64_t i = 0; i < elf->phnum && !ret; i++) {
		Elf64_Phdr p;

		if (load_phdr(elf, i, use_vaddr, &p) && (p.p_flags & PF_X) && p.p_filesz > 0)
			ret = load_add_text(l, p.p_vaddr, p.p_paddr, p.p_filesz, "", err);
	}
	return ret;
}

int elf_load(struct load *l, const struct elf_view *elf, uint64_t limit, struct err *err)
{
	bool use_vaddr = physical_is_virtual(elf);

	for (uint64_t i = 0; i < elf->phnum; i++) {
		char what[48];
		Elf64_Phdr p;
		int ret;

		if (!load_phdr(elf, i, use_vaddr, &p))
			continue;
		if (p.p_filesz > p.p_memsz)
			return err_set(err, ENOEXEC,
				       "segment %" PRIu64 " has p_filesz 0x%" PRIx64
				       " above its p_memsz 0x%" PRIx64,
				       i, p.p_filesz, p.p_memsz);
		if (!load_range_ok(p.p_offset, p.p_filesz, elf->size))
			return err_set(err, ENOEXEC,
				       "segment %" PRIu64 " has p_offset 0x%" PRIx64
				       " and p_filesz 0x%" PRIx64
				       ", beyond the file's end at 0x%" PRIx64,
				       i, p.p_offset, p.p_filesz, elf->size);
		if (!load_range_ok(p.p_paddr, p.p_memsz, limit))
			return err_set(err, ENOEXEC,
				       "segment %" PRIu64 " has %s 0x%" PRIx64
				       " and p_memsz 0x%" PRIx64 ", which ends above 0x%" PRIx64,
				       i, use_vaddr ? "p_vaddr" : "p_paddr", p.p_paddr, p.p_memsz,
				       limit);
		snprintf(what, sizeof(what), "segment %" PRIu64, i);
		ret = load_copy(l, p.p_paddr, elf->data + p.p_offset, p.p_filesz, p.p_memsz, what,
				err);
		if (ret)
			return ret;
	}
	if (l->segments == 0)
		return err_set(err, ENOEXEC, "the ELF file has no segment to load (PT_LOAD)");
	return add_text(l, elf, use_vaddr, err);
}

int elf_entry(struct load *l, const struct elf_view *elf, bool physical_first, struct err *err)
{
	bool use_vaddr = physical_is_virtual(elf);

	for (int round = 0; round < 2; round++) {
		bool physical = (round == 0) == physical_first;

		for (uint64_t i = 0; i < elf->phnum; i++) {
			uint64_t start;
			Elf64_Phdr p;

			if (!load_phdr(elf, i, use_vaddr, &p))
				continue;
			start = physical ? p.p_paddr : p.p_vaddr;
			if (elf->entry < start || elf->entry - start >= p.p_memsz)
				continue;
			start = p.p_paddr + (elf->entry - start);
			l->entry->regs.rip = start;
			if (start < HIGH_RAM_START)
				return 0;
			return err_set(err, ENOEXEC,
				       "the ELF field e_entry leads to 0x%" PRIx64
				       ", above the 4 GiB that are mapped at entry",
				       start);
		}
	}
	return err_set(err, ENOEXEC,
		       "the ELF field e_entry is 0x%" PRIx64 ", which lies in no loaded segment",
		       elf->entry);
}

/* Programs for an operating system name their dynamic linker; it would be strange to run one bare.
 */
static bool is_program(const struct elf_view *elf)
{
	for (uint64_t i = 0; i < elf->phnum; i++) {
		if (elf_phdr(elf, i).p_type == PT_INTERP)
			return true;
	}
	return false;
}

int load_elf64(struct load *l, const struct elf_view *elf, struct err *err)
{
	struct kvm_regs *r = &l->entry->regs;
	int ret;

	if (is_program(elf))
		return err_set(err, ENOEXEC,
			       "the file is a program for an operating system (it has PT_INTERP), "
			       "not a kernel");
	ret = elf_load(l, elf, UINT64_MAX, err);
	if (!ret)
		ret = elf_entry(l, elf, false, err);
	if (!ret && l->image->initrd_size > 0)
		ret = err_set(err, EINVAL,
			      "an ELF64 guest takes no initrd: it has no way to be told of it");
	if (!ret)
		ret = load_cmdline(l, LOW_CMDLINE_SIZE, err);
	if (!ret)
		ret = load_enter_long(l, 0x08, 0x10, ELF64_CR4, ELF64_EFER, err);
	r->rsp = LOW_STACK_TOP;
	r->rdi = LOW_CMDLINE;
	r->rsi = memory_size(l->mem);
	return ret;
}

bool load_pvh_claims(const struct elf_view *elf)
{
	return elf_find_note(elf, PVH_NOTE_NAME, PVH_NOTE_PHYS32_ENTRY, NULL, NULL);
}

static int pvh_entry(struct load *l, const struct elf_view *elf, struct err *err)
{
	const uint8_t *desc;
	uint32_t size;
	uint64_t value = 0;

	if (!elf_find_note(elf, PVH_NOTE_NAME, PVH_NOTE_PHYS32_ENTRY, &desc, &size))
		return err_set(err, ENOEXEC, "the PVH note is missing");
	if (size != 4 && size != 8)
		return err_set(err, ENOEXEC, "the PVH note's size is %u bytes, not 4 or 8", size);
	memcpy(&value, desc, size);
	for (size_t i = 0; i < l->segments; i++) {
		if (value >= l->segment[i].start && value < l->segment[i].end) {
			l->entry->regs.rip = value;
			return 0;
		}
	}
	return err_set(err, ENOEXEC, "the PVH note's entry 0x%" PRIx64 " lies in no loaded segment",
		       value);
}

static int pvh_write_info(struct load *l, uint64_t initrd, struct err *err)
{
	struct pvh_start_info info = {
		.magic = PVH_MAGIC,
		.version = PVH_VERSION,
		.cmdline = LOW_CMDLINE,
		.map = PVH_MAP,
	};
	struct pvh_module module = {.start = initrd, .size = l->image->initrd_size};
	struct pvh_map_entry out[LOAD_MAP_MAX] = {0};
	struct load_map_entry map[LOAD_MAP_MAX];
	size_t n = load_memory_map(l, map);
	int ret;

	_Static_assert(sizeof(info) == 56 && sizeof(module) == 32 && sizeof(out[0]) == 24,
		       "layouts of start_info.h");
	for (size_t i = 0; i < n; i++)
		out[i] = (struct pvh_map_entry){map[i].start, map[i].size, map[i].type, 0};
	info.map_entries = (uint32_t)n;
	if (module.size > 0) {
		info.modules = 1;
		info.module_list = PVH_MODULE;
	}
	ret = load_low_write(l, LOW_INFO, &info, sizeof(info), err);
	if (!ret && module.size > 0)
		ret = load_low_write(l, PVH_MODULE, &module, sizeof(module), err);
	if (!ret)
		ret = load_low_write(l, PVH_MAP, out, n * sizeof(out[0]), err);
	return ret;
}

int load_pvh(struct load *l, const struct elf_view *elf, struct err *err)
{
	struct kvm_regs *r = &l->entry->regs;
	uint64_t initrd = 0;
	int ret = elf_load(l, elf, HIGH_RAM_START, err);

	if (!ret)
		ret = pvh_entry(l, elf, err);
	if (!ret && l->image->initrd_size > 0)
		ret = load_initrd_high(l, HIGH_RAM_START, &initrd, err);
	if (!ret)
		ret = load_cmdline(l, LOW_CMDLINE_SIZE, err);
	if (!ret)
		ret = pvh_write_info(l, initrd, err);
	/* TR: base 0, limit 0x67 (Xen, docs/misc/pvh.pandoc). */
	if (!ret)
		ret = load_enter_protected(l, 0, err);
	r->rbx = LOW_INFO;
	return ret;
}
