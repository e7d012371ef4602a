// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Symbols: one array sorted by address, one by name. Lines: per compilation unit, read when an address in
 * it is first asked for: all of vmlinux's take seconds and gigabytes. .debug_aranges tells the unit.
 */
#include "debugger/symbols.h"

#include "base/buf.h"
#include "debugger/array.h"

#include <dwarf.h>
#include <errno.h>
#include <gelf.h>
#include <inttypes.h>
#include <libdwarf.h>
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

struct line_row {
	uint64_t addr;
	uint32_t line; /* 0: no line, or the end of a sequence */
	uint32_t file;
	uint64_t order;
	bool end;
};

struct line_unit {
	uint64_t die; /* offset of its DIE */
	bool in_aranges;
	bool loaded;
	char **file;
	size_t files;
	struct line_row *row;
	size_t rows;
};

struct line_range {
	uint64_t start;
	uint64_t size;
	size_t unit;
};

struct symbols {
	Elf *elf; /* NULL: not an ELF file */
	struct section *section;
	size_t sections;
	struct symbol *symbol; /* by address */
	const struct symbol **by_name;
	size_t count;

	/* Lines; nothing of it before the first symbols_line. */
	bool dwarf_tried;
	Dwarf_Debug dwarf;	/* NULL: no line information */
	Dwarf_Error error;	/* of the call being made */
	struct line_unit *unit; /* by offset */
	size_t units;
	struct line_range *range; /* by start */
	size_t ranges;
	bool rest_loaded; /* the units without aranges */
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
	for (size_t i = 0; i < s->units; i++) {
		for (size_t k = 0; k < s->unit[i].files; k++)
			free(s->unit[i].file[k]);
		free(s->unit[i].file);
		free(s->unit[i].row);
	}
	free(s->unit);
	free(s->range);
	if (s->dwarf)
		dwarf_finish(s->dwarf, &s->error);
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
	const struct symbol *sym = s ? find_symbol(s, addr.v) : NULL;

	if (!sym)
		return false;
	if (name)
		*name = sym->name;
	if (offset)
		*offset = addr.v - sym->addr;
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
		*addr = GVA(s->by_name[lo]->addr);
	if (size)
		*size = s->by_name[lo]->size;
	return true;
}

/* libdwarf's three results as two; frees the error. */
static bool dwarf_ok(struct symbols *s, int res)
{
	if (res == DW_DLV_ERROR) {
		dwarf_dealloc_error(s->dwarf, s->error);
		s->error = NULL;
	}
	return res == DW_DLV_OK;
}

/* "dir/name" without the compilation directory in front. */
static char *file_path(const char *comp_dir, const char *dir, const char *name)
{
	size_t comp_len = comp_dir ? strlen(comp_dir) : 0;
	char *path, *out;

	if (!dir || name[0] == '/') {
		path = strdup(name);
	} else if (asprintf(&path, "%s/%s", dir, name) < 0) {
		return NULL;
	}
	if (!path || comp_len == 0 || strncmp(path, comp_dir, comp_len) != 0 ||
	    path[comp_len] != '/')
		return path;
	out = strdup(path + comp_len + 1);
	free(path);
	return out;
}

/* File names of a unit, at the numbers that rows use. Directory 0 is the compilation directory. */
static bool read_files(struct symbols *s, struct line_unit *u, Dwarf_Line_Context ctx)
{
	Dwarf_Signed base, count, end;
	const char *comp_dir = NULL;

	if (!dwarf_ok(s, dwarf_srclines_files_indexes(ctx, &base, &count, &end, &s->error)) ||
	    base < 0 || end < base || end > UINT32_MAX)
		return false;
	dwarf_ok(s, dwarf_srclines_comp_dir(ctx, &comp_dir, &s->error));
	u->file = calloc((size_t)end + 1, sizeof(*u->file));
	if (!u->file)
		return false;
	u->files = (size_t)end;
	for (Dwarf_Signed i = base; i < end; i++) {
		const char *name = NULL, *dir = NULL;
		Dwarf_Unsigned dir_index = 0;

		if (!dwarf_ok(s, dwarf_srclines_files_data_b(ctx, i, &name, &dir_index, NULL, NULL,
							     NULL, &s->error)) ||
		    !name)
			continue;
		if (dir_index > 0 && dir_index <= INT32_MAX &&
		    !dwarf_ok(s, dwarf_srclines_include_dir_data(ctx, (Dwarf_Signed)dir_index, &dir,
								 &s->error)))
			dir = NULL;
		u->file[i] = file_path(comp_dir, dir, name);
	}
	return true;
}

/*
 * Add a row. A row at the address of the one before it in its sequence replaces that one, which
 * covers no instruction; a sequence that covers none (its function was dropped by the linker)
 * disappears.
 */
static bool add_row(struct line_unit *u, size_t *sequence, struct line_row row)
{
	if (u->rows > *sequence && u->row[u->rows - 1].addr == row.addr)
		u->rows--;
	if (!row.end || u->rows > *sequence) {
		if (!array_grow((void **)&u->row, u->rows, sizeof(*u->row)))
			return false;
		row.order = u->rows;
		u->row[u->rows++] = row;
	}
	if (row.end)
		*sequence = u->rows;
	return true;
}

/* The end of one sequence may be the start of the next: ends first. */
static int compare_rows(const void *a, const void *b)
{
	const struct line_row *x = a, *y = b;
	int c = COMPARE(x->addr, y->addr);

	if (!c)
		c = COMPARE(y->end, x->end);
	return c ? c : COMPARE(x->order, y->order);
}

static void read_rows(struct symbols *s, struct line_unit *u, Dwarf_Line *line, Dwarf_Signed n)
{
	size_t sequence = 0;

	for (Dwarf_Signed i = 0; i < n; i++) {
		Dwarf_Unsigned file = 0, number = 0;
		Dwarf_Bool end = false;
		Dwarf_Addr addr = 0;

		if (!dwarf_ok(s, dwarf_lineaddr(line[i], &addr, &s->error)) ||
		    !dwarf_ok(s, dwarf_lineendsequence(line[i], &end, &s->error)) ||
		    !dwarf_ok(s, dwarf_lineno(line[i], &number, &s->error)) ||
		    !dwarf_ok(s, dwarf_line_srcfileno(line[i], &file, &s->error)))
			break;
		if (number > UINT32_MAX || file >= u->files)
			number = 0;
		if (!add_row(u, &sequence,
			     (struct line_row){
				     .addr = addr,
				     .line = (uint32_t)number,
				     .file = number ? (uint32_t)file : 0,
				     .end = end,
			     }))
			break;
	}
	/* Whatever broke off in the middle has no end that could be trusted. */
	u->rows = sequence;
	if (u->rows > 0)
		qsort(u->row, u->rows, sizeof(*u->row), compare_rows);
}

static void load_unit(struct symbols *s, struct line_unit *u)
{
	Dwarf_Line_Context ctx = NULL;
	Dwarf_Unsigned version;
	Dwarf_Small tables;
	Dwarf_Line *line;
	Dwarf_Signed n;
	Dwarf_Die die;

	if (u->loaded)
		return;
	u->loaded = true;
	if (!dwarf_ok(s, dwarf_offdie_b(s->dwarf, u->die, true, &die, &s->error)))
		return;
	if (dwarf_ok(s, dwarf_srclines_b(die, &version, &tables, &ctx, &s->error))) {
		if (read_files(s, u, ctx) &&
		    dwarf_ok(s, dwarf_srclines_from_linecontext(ctx, &line, &n, &s->error)))
			read_rows(s, u, line, n);
		dwarf_srclines_dealloc_b(ctx);
	}
	dwarf_dealloc(s->dwarf, die, DW_DLA_DIE);
}

static struct line_unit *unit_by_die(const struct symbols *s, Dwarf_Off die)
{
	struct line_unit *u = array_last_up_to(s->unit, s->units, sizeof(*u), die);

	return u && u->die == die ? u : NULL;
}

static void read_units(struct symbols *s)
{
	Dwarf_Unsigned next, last = 0;

	for (;;) {
		Dwarf_Off off = 0;
		Dwarf_Die die;

		/* The headers must be walked in order; that they go forward ends the loop. */
		if (!dwarf_ok(s,
			      dwarf_next_cu_header_d(s->dwarf, true, NULL, NULL, NULL, NULL, NULL,
						     NULL, NULL, NULL, &next, NULL, &s->error)) ||
		    next <= last)
			return;
		last = next;
		if (!dwarf_ok(s, dwarf_siblingof_b(s->dwarf, NULL, true, &die, &s->error)))
			continue;
		if (dwarf_ok(s, dwarf_dieoffset(die, &off, &s->error)) &&
		    (s->units == 0 || off > s->unit[s->units - 1].die) &&
		    array_grow((void **)&s->unit, s->units, sizeof(*s->unit)))
			s->unit[s->units++] = (struct line_unit){.die = off};
		dwarf_dealloc(s->dwarf, die, DW_DLA_DIE);
	}
}

static void read_aranges(struct symbols *s)
{
	Dwarf_Arange *arange;
	Dwarf_Signed n;

	if (!dwarf_ok(s, dwarf_get_aranges(s->dwarf, &arange, &n, &s->error)))
		return;
	for (Dwarf_Signed i = 0; i < n; i++) {
		Dwarf_Unsigned segment, segment_size, size = 0;
		struct line_unit *u;
		Dwarf_Addr start = 0;
		Dwarf_Off die = 0;

		if (dwarf_ok(s, dwarf_get_arange_info_b(arange[i], &segment, &segment_size, &start,
							&size, &die, &s->error)) &&
		    size > 0 && (u = unit_by_die(s, die)) &&
		    array_grow((void **)&s->range, s->ranges, sizeof(*s->range))) {
			u->in_aranges = true;
			s->range[s->ranges++] =
				(struct line_range){start, size, (size_t)(u - s->unit)};
		}
		dwarf_dealloc(s->dwarf, arange[i], DW_DLA_ARANGE);
	}
	dwarf_dealloc(s->dwarf, arange, DW_DLA_LIST);
	if (s->ranges > 0)
		qsort(s->range, s->ranges, sizeof(*s->range), array_compare_keys);
}

/* The lists of a .debug_rnglists or .debug_loclists section, DWARF 5 section 7.28: sound headers
 * that fill it exactly. */
static bool lists_sound(const Elf_Data *data)
{
	struct reader r = reader_init(data->d_buf, data->d_size);

	while (reader_left(&r) > 0) {
		struct reader unit;
		uint32_t len = reader_u32(&r);
		const uint8_t *p = reader_take(&r, len);
		uint8_t address_size;

		if (!p)
			return false;
		unit = reader_init(p, len);
		if (reader_u16(&unit) != 5)
			return false;
		address_size = reader_u8(&unit);
		if ((address_size != 4 && address_size != 8) || reader_u8(&unit) != 0 ||
		    reader_u32(&unit) > reader_left(&unit) / sizeof(uint32_t) || unit.failed)
			return false;
	}
	return !r.failed;
}

/*
 * libdwarf 20210528 frees twice when it finds such a header damaged, although lines need none of
 * it. Compressed sections are protected by their checksum.
 */
static bool dwarf_sound(const struct symbols *s)
{
	Elf_Scn *scn = NULL;
	size_t names;

	if (elf_getshdrstrndx(s->elf, &names))
		return false;
	while ((scn = elf_nextscn(s->elf, scn))) {
		const Elf_Data *data;
		const char *name;
		GElf_Shdr sh;

		if (!gelf_getshdr(scn, &sh))
			return false;
		name = elf_strptr(s->elf, names, sh.sh_name);
		if (!name || (strcmp(name, ".debug_rnglists") && strcmp(name, ".debug_loclists")) ||
		    (sh.sh_flags & SHF_COMPRESSED))
			continue;
		data = elf_rawdata(scn, NULL);
		if (!data || !lists_sound(data))
			return false;
	}
	return true;
}

static bool dwarf_open(struct symbols *s)
{
	if (s->dwarf_tried)
		return s->dwarf;
	s->dwarf_tried = true;
	if (!s->elf || !dwarf_sound(s))
		return false;
	/* A failed call leaves no debug object; its error is freed with a null one. */
	if (!dwarf_ok(s, dwarf_elf_init(s->elf, DW_DLC_READ, NULL, NULL, &s->dwarf, &s->error))) {
		s->dwarf = NULL;
		return false;
	}
	read_units(s);
	read_aranges(s);
	return true;
}

static bool unit_line(const struct line_unit *u, uint64_t addr, const char **file, unsigned *line)
{
	const struct line_row *row = array_last_up_to(u->row, u->rows, sizeof(*row), addr);

	if (!row || row->end || row->line == 0 || !u->file[row->file])
		return false;
	if (file)
		*file = u->file[row->file];
	if (line)
		*line = row->line;
	return true;
}

/* The unit that has addr by .debug_aranges. */
static struct line_unit *unit_by_address(const struct symbols *s, uint64_t addr)
{
	const struct line_range *r = array_last_up_to(s->range, s->ranges, sizeof(*r), addr);

	return r && addr - r->start < r->size ? &s->unit[r->unit] : NULL;
}

bool symbols_line(struct symbols *s, gva_t addr, const char **file, unsigned *line)
{
	struct line_unit *u;

	if (!s || !in_any_section(s, addr.v) || !dwarf_open(s))
		return false;
	u = unit_by_address(s, addr.v);
	if (u) {
		load_unit(s, u);
		return unit_line(u, addr.v, file, line);
	}
	for (size_t i = 0; i < s->units && !s->rest_loaded; i++) {
		if (!s->unit[i].in_aranges)
			load_unit(s, &s->unit[i]);
	}
	s->rest_loaded = true;
	for (size_t i = 0; i < s->units; i++) {
		if (!s->unit[i].in_aranges && unit_line(&s->unit[i], addr.v, file, line))
			return true;
	}
	return false;
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
