// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/module.h"

#include "vmm/modules.h"
#include "vmm/paging.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define THIS_MODULE ".gnu.linkonce.this_module"

/* More than any system loads; a damaged list ends. */
#define MODULES_MAX 4096

/* Bounds-checked view of the file. All sections of `shdr` have been checked to lie in it. */
struct ko {
	uint8_t *data;
	size_t size;
	Elf64_Ehdr ehdr;
	Elf64_Shdr *shdr; /* copies */
	size_t sections;
};

static bool in_file(size_t size, uint64_t offset, uint64_t len)
{
	return offset <= size && len <= size - offset;
}

bool module_is_relocatable(const uint8_t *file, size_t size)
{
	Elf64_Ehdr e;

	if (size < sizeof(e) || memcmp(file, ELFMAG, SELFMAG) != 0 || file[EI_CLASS] != ELFCLASS64)
		return false;
	memcpy(&e, file, sizeof(e));
	return e.e_type == ET_REL && e.e_machine == EM_X86_64;
}

static int ko_open(struct ko *ko, const uint8_t *file, size_t size, struct err *err)
{
	/* Only module_link's copy is written to. */
	*ko = (struct ko){.data = (uint8_t *)(uintptr_t)file, .size = size};
	if (!module_is_relocatable(file, size))
		return err_set(err, EINVAL, "the module is no relocatable ELF file for x86-64");
	memcpy(&ko->ehdr, file, sizeof(ko->ehdr));
	if (ko->ehdr.e_shentsize != sizeof(Elf64_Shdr) ||
	    !in_file(size, ko->ehdr.e_shoff, (uint64_t)ko->ehdr.e_shnum * sizeof(Elf64_Shdr)) ||
	    ko->ehdr.e_shstrndx >= ko->ehdr.e_shnum)
		return err_set(err, EINVAL, "the module's ELF section headers are damaged");
	ko->sections = ko->ehdr.e_shnum;
	ko->shdr = malloc(ko->sections * sizeof(*ko->shdr));
	if (!ko->shdr)
		return err_set(err, ENOMEM, "out of memory for %zu sections", ko->sections);
	memcpy(ko->shdr, file + ko->ehdr.e_shoff, ko->sections * sizeof(*ko->shdr));
	for (size_t i = 0; i < ko->sections; i++) {
		const Elf64_Shdr *s = &ko->shdr[i];

		if (s->sh_type == SHT_NOBITS || s->sh_type == SHT_NULL ||
		    in_file(size, s->sh_offset, s->sh_size))
			continue;
		err_set(err, EINVAL,
			"section %zu of the module has sh_offset 0x%" PRIx64 " and sh_size 0x%" PRIx64
			", beyond the file's end at 0x%zx",
			i, s->sh_offset, s->sh_size, size);
		free(ko->shdr);
		return -EINVAL;
	}
	return 0;
}

/* A string of a string table; "" if it has none there. */
static const char *ko_string(const struct ko *ko, size_t table, uint64_t at)
{
	const Elf64_Shdr *s = table < ko->sections ? &ko->shdr[table] : NULL;
	const char *text;

	if (!s || s->sh_type != SHT_STRTAB || at >= s->sh_size)
		return "";
	text = (const char *)ko->data + s->sh_offset + at;
	return memchr(text, 0, s->sh_size - at) ? text : "";
}

static const char *ko_section_name(const struct ko *ko, size_t i)
{
	return ko_string(ko, ko->ehdr.e_shstrndx, ko->shdr[i].sh_name);
}

/* The section of this name, or sections. */
static size_t ko_find_section(const struct ko *ko, const char *name)
{
	size_t i = 0;

	while (i < ko->sections && strcmp(ko_section_name(ko, i), name) != 0)
		i++;
	return i;
}

/*
 * kernel/module/main.c, layout_sections: executable sections come first, in the file's order, each aligned;
 * those of initialisation lie elsewhere. Sets sh_addr of these and clears it for all others.
 */
static void ko_place_text(const struct ko *ko, uint64_t text)
{
	uint64_t at = 0;

	for (size_t i = 0; i < ko->sections; i++) {
		Elf64_Shdr *s = &ko->shdr[i];
		uint64_t align = s->sh_addralign ? s->sh_addralign : 1;

		s->sh_addr = 0;
		if (!(s->sh_flags & SHF_ALLOC) || !(s->sh_flags & SHF_EXECINSTR) || s->sh_size == 0 ||
		    (align & (align - 1)) || strncmp(ko_section_name(ko, i), ".init", 5) == 0) {
			s->sh_flags &= ~(uint64_t)SHF_ALLOC;
			continue;
		}
		at = (at + align - 1) & ~(align - 1);
		s->sh_addr = text + at;
		at += s->sh_size;
	}
}

static bool ko_symbol(const struct ko *ko, size_t table, uint64_t i, Elf64_Sym *sym)
{
	const Elf64_Shdr *s = table < ko->sections ? &ko->shdr[table] : NULL;

	if (!s || s->sh_type != SHT_SYMTAB || i >= s->sh_size / sizeof(*sym))
		return false;
	memcpy(sym, ko->data + s->sh_offset + i * sizeof(*sym), sizeof(*sym));
	return true;
}

/* Where struct module has the pointer to the exit function, and which function that is. */
static bool ko_exit_pointer(const struct ko *ko, size_t this_module, uint64_t *offset, Elf64_Sym *sym)
{
	for (size_t i = 0; i < ko->sections; i++) {
		const Elf64_Shdr *s = &ko->shdr[i];

		if (s->sh_type != SHT_RELA || s->sh_info != this_module)
			continue;
		for (uint64_t k = 0; k < s->sh_size / sizeof(Elf64_Rela); k++) {
			Elf64_Rela rela;

			memcpy(&rela, ko->data + s->sh_offset + k * sizeof(rela), sizeof(rela));
			if (ko_symbol(ko, s->sh_link, ELF64_R_SYM(rela.r_info), sym) &&
			    strcmp(ko_string(ko, ko->shdr[s->sh_link].sh_link, sym->st_name),
				   "cleanup_module") == 0) {
				*offset = rela.r_offset;
				return sym->st_shndx < ko->sections;
			}
		}
	}
	return false;
}

/* The struct module of this name in the guest. */
static bool find_loaded(const struct memory *mem, const struct kvm_sregs *sregs, gva_t head,
			const char name[MODULES_NAME_LEN], uint64_t *module)
{
	uint64_t node = head.v;

	for (unsigned i = 0; i < MODULES_MAX; i++) {
		char its_name[MODULES_NAME_LEN];

		if (paging_read(mem, sregs, GVA(node), &node, sizeof(node)) < 0 || node == head.v)
			return false;
		*module = node - MODULES_LIST_OFFSET;
		if (paging_read(mem, sregs, GVA(*module + MODULES_NAME_OFFSET), its_name, sizeof(its_name)) == 0 &&
		    memcmp(its_name, name, sizeof(its_name)) == 0)
			return true;
	}
	return false;
}

static int find_text(const struct ko *ko, const struct memory *mem, const struct kvm_sregs *sregs,
		     gva_t head, gva_t *text, struct err *err)
{
	size_t this_module = ko_find_section(ko, THIS_MODULE);
	char name[MODULES_NAME_LEN];
	uint64_t offset, module, pointer;
	Elf64_Sym sym;

	if (this_module == ko->sections || ko->shdr[this_module].sh_type == SHT_NOBITS ||
	    ko->shdr[this_module].sh_size < MODULES_NAME_OFFSET + MODULES_NAME_LEN)
		return err_set(err, EINVAL, "the file is no Linux module: it has no section " THIS_MODULE);
	memcpy(name, ko->data + ko->shdr[this_module].sh_offset + MODULES_NAME_OFFSET, sizeof(name));
	name[sizeof(name) - 1] = 0;
	if (!ko_exit_pointer(ko, this_module, &offset, &sym))
		return err_set(err, ENOENT,
			       "the module %s has no exit function to find it by; give its address as FILE@ADDR",
			       name);
	if (!find_loaded(mem, sregs, head, name, &module))
		return err_set(err, ENOENT, "the guest has no module %s loaded at this place", name);
	if (paging_read(mem, sregs, GVA(module + offset), &pointer, sizeof(pointer)) < 0)
		return err_set(err, ENOENT, "the guest's description of its module %s is not readable", name);
	ko_place_text(ko, 0);
	*text = GVA(pointer - sym.st_value - ko->shdr[sym.st_shndx].sh_addr);
	return 0;
}

int module_find(const uint8_t *file, size_t size, const struct memory *mem, const struct kvm_sregs *sregs,
		const struct symbols *kernel, gva_t *text, struct err *err)
{
	struct ko ko;
	gva_t head;
	int rc = ko_open(&ko, file, size, err);

	if (rc < 0)
		return rc;
	if (symbols_lookup(kernel, "modules", &head, NULL))
		rc = find_text(&ko, mem, sregs, head, text, err);
	else
		rc = err_set(err, ENOENT,
			     "the kernel's symbols have no \"modules\": give its vmlinux with --symbols, or the "
			     "module's address as FILE@ADDR");
	free(ko.shdr);
	return rc;
}

/* Symbols get addresses. Returns the value of one as relocations see it. */
static uint64_t symbol_address(const struct ko *ko, const Elf64_Sym *sym)
{
	bool placed = sym->st_shndx != SHN_UNDEF && sym->st_shndx < ko->sections;

	return sym->st_value + (placed ? ko->shdr[sym->st_shndx].sh_addr : 0);
}

static bool is_debug_section(const struct ko *ko, uint32_t i)
{
	return i < ko->sections && ko->shdr[i].sh_type == SHT_PROGBITS &&
	       strncmp(ko_section_name(ko, i), ".debug_", 7) == 0 &&
	       !(ko->shdr[i].sh_flags & SHF_COMPRESSED);
}

/* psABI for x86-64, table 4.9: the relocations that debug information has. */
static void relocate(const struct ko *ko, const Elf64_Shdr *target, const Elf64_Rela *rela, uint64_t value)
{
	unsigned len;

	switch (ELF64_R_TYPE(rela->r_info)) {
	case R_X86_64_64:
		len = 8;
		break;
	case R_X86_64_32:
	case R_X86_64_32S:
		len = 4;
		break;
	default:
		return;
	}
	value += (uint64_t)rela->r_addend;
	if (in_file(target->sh_size, rela->r_offset, len))
		memcpy(ko->data + target->sh_offset + rela->r_offset, &value, len);
}

static void relocate_debug(const struct ko *ko, const Elf64_Shdr *s)
{
	for (uint64_t k = 0; k < s->sh_size / sizeof(Elf64_Rela); k++) {
		Elf64_Rela rela;
		Elf64_Sym sym;

		memcpy(&rela, ko->data + s->sh_offset + k * sizeof(rela), sizeof(rela));
		if (ko_symbol(ko, s->sh_link, ELF64_R_SYM(rela.r_info), &sym))
			relocate(ko, &ko->shdr[s->sh_info], &rela, symbol_address(ko, &sym));
	}
}

static void place_symbols(const struct ko *ko, const Elf64_Shdr *s)
{
	for (uint64_t k = 0; k < s->sh_size / sizeof(Elf64_Sym); k++) {
		uint8_t *at = ko->data + s->sh_offset + k * sizeof(Elf64_Sym);
		Elf64_Sym sym;

		memcpy(&sym, at, sizeof(sym));
		sym.st_value = symbol_address(ko, &sym);
		memcpy(at, &sym, sizeof(sym));
	}
}

int module_link(const uint8_t *file, size_t size, gva_t text, uint8_t **linked, struct err *err)
{
	struct ko ko;
	int rc;

	*linked = malloc(size);
	if (!*linked)
		return err_set(err, ENOMEM, "out of memory for a module of %zu bytes", size);
	memcpy(*linked, file, size);
	rc = ko_open(&ko, *linked, size, err);
	if (rc < 0) {
		free(*linked);
		*linked = NULL;
		return rc;
	}
	ko_place_text(&ko, text.v);
	/* Relocations first: they see symbols as they were. */
	for (size_t i = 0; i < ko.sections; i++) {
		if (ko.shdr[i].sh_type == SHT_RELA && is_debug_section(&ko, ko.shdr[i].sh_info))
			relocate_debug(&ko, &ko.shdr[i]);
	}
	for (size_t i = 0; i < ko.sections; i++) {
		if (ko.shdr[i].sh_type == SHT_SYMTAB)
			place_symbols(&ko, &ko.shdr[i]);
		/* Done: nobody is to apply them again. */
		if (ko.shdr[i].sh_type == SHT_RELA)
			ko.shdr[i].sh_type = SHT_NULL;
	}
	ko.ehdr.e_type = ET_EXEC;
	memcpy(ko.data, &ko.ehdr, sizeof(ko.ehdr));
	memcpy(ko.data + ko.ehdr.e_shoff, ko.shdr, ko.sections * sizeof(*ko.shdr));
	free(ko.shdr);
	return 0;
}
