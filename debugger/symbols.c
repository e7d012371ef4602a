// SPDX-License-Identifier: GPL-3.0-or-later
/* One array sorted by address, one by name; lines are lines.c's. */
#include "debugger/symbols.h"

#include "base/buf.h"
#include "debugger/array.h"
#include "debugger/lines.h"

#include <errno.h>
#include <gelf.h>
#include <inttypes.h>
#include <libelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct symbol {
	uint64_t addr;
	uint64_t size;
	uint64_t max_end; /* the highest end of this and all symbols before it by address */
	const char *name; /* in libelf's memory */
	uint32_t section;
	uint8_t binding; /* 0 local, 1 weak, 2 global */
	bool typed;	 /* function or object, not a bare label */
};

struct section {
	uint64_t addr;
	uint64_t size; /* 0: not in memory */
};

struct symbols {
	Elf *elf; /* NULL: not an ELF file */
	struct section *section;
	size_t sections;
	struct symbol *symbol; /* by address */
	const struct symbol **by_name;
	size_t count;
	struct lines *lines;
	uint64_t slide;
};

static int read_sections(struct symbols *s, size_t file_size, struct err *err)
{
	Elf_Scn *scn = NULL;
	size_t n;

	if (elf_getshdrnum(s->elf, &n))
		return err_set(err, EINVAL, "the kernel's ELF section headers are damaged: %s",
			       elf_errmsg(-1));
	if (n > file_size / sizeof(Elf32_Shdr))
		return err_set(err, EINVAL, "the ELF field e_shnum is %zu, too many for the file",
			       n);
	if (n == 0)
		return 0;
	s->section = calloc(n, sizeof(*s->section));
	if (!s->section)
		return err_set(err, ENOMEM, "out of memory for %zu sections", n);
	s->sections = n;
	while ((scn = elf_nextscn(s->elf, scn))) {
		size_t i = elf_ndxscn(scn);
		GElf_Shdr sh;

		if (i < n && gelf_getshdr(scn, &sh) && (sh.sh_flags & SHF_ALLOC) &&
		    !(sh.sh_flags & SHF_TLS))
			s->section[i] = (struct section){sh.sh_addr, sh.sh_size};
	}
	return 0;
}

/* True if the symbol names a place in memory that a person would look for. */
static bool symbol_wanted(const struct symbols *s, const GElf_Sym *sym, const char *name)
{
	unsigned type = GELF_ST_TYPE(sym->st_info);

	if (!name || !*name || sym->st_shndx == SHN_UNDEF || sym->st_shndx >= SHN_LORESERVE ||
	    sym->st_shndx >= s->sections || s->section[sym->st_shndx].size == 0)
		return false;
	if (type == STT_FUNC || type == STT_OBJECT || type == STT_GNU_IFUNC)
		return true;
	/* Labels of assembly code, without those that tools make up. */
	return type == STT_NOTYPE && name[0] != '$' && strncmp(name, ".L", 2) != 0;
}

static uint8_t symbol_binding(const GElf_Sym *sym)
{
	unsigned binding = GELF_ST_BIND(sym->st_info);

	return binding == STB_LOCAL ? 0 : binding == STB_WEAK ? 1 : 2;
}

static int read_table(struct symbols *s, Elf_Scn *scn, const GElf_Shdr *sh, struct err *err)
{
	Elf_Data *data = elf_getdata(scn, NULL);
	size_t entry = gelf_fsize(s->elf, ELF_T_SYM, 1, EV_CURRENT);
	size_t n;

	if (!data || entry == 0)
		return err_set(err, EINVAL, "the kernel's ELF symbol table is damaged: %s",
			       elf_errmsg(-1));
	n = data->d_size / entry;
	for (size_t i = 0; i < n && i <= INT32_MAX; i++) {
		const char *name;
		GElf_Sym sym;

		if (!gelf_getsym(data, (int)i, &sym))
			break;
		name = elf_strptr(s->elf, sh->sh_link, sym.st_name);
		if (!symbol_wanted(s, &sym, name))
			continue;
		if (!array_grow((void **)&s->symbol, s->count, sizeof(*s->symbol)))
			return err_set(err, ENOMEM, "out of memory for %zu symbols", s->count);
		s->symbol[s->count++] = (struct symbol){
			.addr = sym.st_value,
			.size = sym.st_size,
			.name = name,
			.section = sym.st_shndx,
			.binding = symbol_binding(&sym),
			.typed = GELF_ST_TYPE(sym.st_info) != STT_NOTYPE,
		};
	}
	return 0;
}

/* The first section of this type. */
static Elf_Scn *find_table(const struct symbols *s, uint32_t type, GElf_Shdr *sh)
{
	Elf_Scn *scn = NULL;

	while ((scn = elf_nextscn(s->elf, scn))) {
		if (gelf_getshdr(scn, sh) && sh->sh_type == type)
			return scn;
	}
	return NULL;
}

/* Of several symbols at one address the best comes last: that is where searches begin. */
static int compare_by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;
	int c = COMPARE(x->addr, y->addr);

	if (!c)
		c = COMPARE(x->typed, y->typed);
	if (!c)
		c = COMPARE(y->size, x->size);
	if (!c)
		c = COMPARE(x->binding, y->binding);
	return c ? c : strcmp(y->name, x->name);
}

/* Of several symbols of one name the best comes first. */
static int compare_by_name(const void *a, const void *b)
{
	const struct symbol *x = *(const struct symbol *const *)a;
	const struct symbol *y = *(const struct symbol *const *)b;
	int c = strcmp(x->name, y->name);

	if (!c)
		c = COMPARE(y->binding, x->binding);
	if (!c)
		c = COMPARE(y->typed, x->typed);
	return c ? c : COMPARE(x->addr, y->addr);
}

static int sort_symbols(struct symbols *s, struct err *err)
{
	uint64_t max_end = 0;

	if (s->count == 0)
		return 0;
	s->by_name = calloc(s->count, sizeof(*s->by_name));
	if (!s->by_name)
		return err_set(err, ENOMEM, "out of memory for %zu symbols", s->count);
	qsort(s->symbol, s->count, sizeof(*s->symbol), compare_by_address);
	for (size_t i = 0; i < s->count; i++) {
		struct symbol *sym = &s->symbol[i];
		uint64_t end = sym->addr + sym->size;

		if (end < sym->addr)
			end = UINT64_MAX;
		if (end > max_end)
			max_end = end;
		sym->max_end = max_end;
		s->by_name[i] = sym;
	}
	qsort(s->by_name, s->count, sizeof(*s->by_name), compare_by_name);
	return 0;
}

static int read_symbols(struct symbols *s, struct err *err)
{
	GElf_Shdr sh;
	Elf_Scn *scn = find_table(s, SHT_SYMTAB, &sh);
	int ret = 0;

	if (!scn)
		scn = find_table(s, SHT_DYNSYM, &sh);
	if (scn)
		ret = read_table(s, scn, &sh, err);
	return ret ? ret : sort_symbols(s, err);
}

int symbols_open(const void *elf, size_t size, struct symbols **symbols, struct err *err)
{
	struct symbols *s = calloc(1, sizeof(*s));
	int ret = 0;

	if (!s)
		return err_set(err, ENOMEM, "out of memory for symbols");
	elf_version(EV_CURRENT);
	/* libelf takes a char *, but does not write to a file opened for reading. */
	if (size >= EI_NIDENT)
		s->elf = elf_memory((char *)(uintptr_t)elf, size);
	if (s->elf && elf_kind(s->elf) != ELF_K_ELF) {
		elf_end(s->elf);
		s->elf = NULL;
	}
	if (s->elf)
		ret = read_sections(s, size, err);
	if (s->elf && !ret)
		ret = read_symbols(s, err);
	if (s->elf && !ret && !(s->lines = lines_create(s->elf)))
		ret = err_set(err, ENOMEM, "out of memory for symbols");
	if (ret) {
		symbols_close(s);
		return ret;
	}
	*symbols = s;
	return 0;
}

void symbols_close(struct symbols *s)
{
	if (!s)
		return;
	lines_destroy(s->lines);
	free(s->by_name);
	free(s->symbol);
	free(s->section);
	elf_end(s->elf);
	free(s);
}

static bool section_holds(const struct section *sec, uint64_t addr)
{
	return addr >= sec->addr && addr - sec->addr < sec->size;
}

static bool in_any_section(const struct symbols *s, uint64_t addr)
{
	for (size_t i = 0; i < s->sections; i++) {
		if (section_holds(&s->section[i], addr))
			return true;
	}
	return false;
}

static const struct symbol *find_symbol(const struct symbols *s, uint64_t addr)
{
	size_t up_to = array_count_up_to(s->symbol, s->count, sizeof(*s->symbol), addr);

	for (size_t i = up_to; i > 0 && s->symbol[i - 1].max_end > addr; i--) {
		const struct symbol *sym = &s->symbol[i - 1];

		if (addr - sym->addr < sym->size)
			return sym;
	}
	for (size_t i = up_to; i > 0; i--) {
		const struct symbol *sym = &s->symbol[i - 1];

		if (section_holds(&s->section[sym->section], addr))
			return sym;
	}
	return NULL;
}

bool symbols_find(const struct symbols *s, gva_t addr, const char **name, uint64_t *offset,
		  uint64_t *size)
{
	const struct symbol *sym = s ? find_symbol(s, addr.v - s->slide) : NULL;

	if (!sym)
		return false;
	if (name)
		*name = sym->name;
	if (offset)
		*offset = addr.v - s->slide - sym->addr;
	if (size)
		*size = sym->size;
	return true;
}

bool symbols_lookup(const struct symbols *s, const char *name, gva_t *addr, uint64_t *size)
{
	size_t lo = 0, hi = s ? s->count : 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(s->by_name[mid]->name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!s || lo == s->count || strcmp(s->by_name[lo]->name, name) != 0)
		return false;
	if (addr)
		*addr = GVA(s->by_name[lo]->addr + s->slide);
	if (size)
		*size = s->by_name[lo]->size;
	return true;
}

bool symbols_line(struct symbols *s, gva_t addr, const char **file, unsigned *line)
{
	gva_t linked = GVA(addr.v - (s ? s->slide : 0));

	return s && in_any_section(s, linked.v) && lines_find(s->lines, linked, file, line);
}

void symbols_slide(struct symbols *s, uint64_t slide)
{
	s->slide = slide;
}

void symbols_format(struct symbols *s, gva_t addr, char *out, size_t n)
{
	const char *name, *file;
	uint64_t offset, size;
	unsigned line;
	int len;

	if (n == 0)
		return;
	if (!symbols_find(s, addr, &name, &offset, &size))
		len = snprintf(out, n, "0x%" PRIx64, addr.v);
	else if (size > 0)
		len = snprintf(out, n, "%s+0x%" PRIx64 "/0x%" PRIx64, name, offset, size);
	else
		len = snprintf(out, n, "%s+0x%" PRIx64, name, offset);
	if (len >= 0 && (size_t)len < n && symbols_line(s, addr, &file, &line))
		snprintf(out + len, n - (size_t)len, " %s:%u", file, line);
	for (char *p = out; *p; p++) {
		if (*p < ' ' || *p > '~')
			*p = '?';
	}
}
