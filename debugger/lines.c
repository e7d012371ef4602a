// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Per compilation unit, read when an address in it is first asked for: all of vmlinux's take seconds and gigabytes.
 * .debug_aranges tells the unit.
 */
#include "debugger/lines.h"

#include "base/buf.h"
#include "debugger/array.h"

#include <dwarf.h>
#include <errno.h>
#include <gelf.h>
#include <libdwarf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct lines {
	Elf *elf;
	bool tried;
	Dwarf_Debug dwarf;	/* NULL: no line information */
	Dwarf_Error error;	/* of the call being made */
	struct line_unit *unit; /* by offset */
	size_t units;
	struct line_range *range; /* by start */
	size_t ranges;
	bool rest_loaded; /* the units without aranges */
};

struct lines *lines_create(Elf *elf)
{
	struct lines *l = calloc(1, sizeof(*l));

	if (l)
		l->elf = elf;
	return l;
}

void lines_destroy(struct lines *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->units; i++) {
		for (size_t k = 0; k < l->unit[i].files; k++)
			free(l->unit[i].file[k]);
		free(l->unit[i].file);
		free(l->unit[i].row);
	}
	free(l->unit);
	free(l->range);
	if (l->dwarf)
		dwarf_finish(l->dwarf, &l->error);
	free(l);
}

/* libdwarf's three results as two; frees the error. */
static bool dwarf_ok(struct lines *l, int res)
{
	if (res == DW_DLV_ERROR) {
		dwarf_dealloc_error(l->dwarf, l->error);
		l->error = NULL;
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
static bool read_files(struct lines *l, struct line_unit *u, Dwarf_Line_Context ctx)
{
	Dwarf_Signed base, count, end;
	const char *comp_dir = NULL;

	if (!dwarf_ok(l, dwarf_srclines_files_indexes(ctx, &base, &count, &end, &l->error)) ||
	    base < 0 || end < base || end > UINT32_MAX)
		return false;
	dwarf_ok(l, dwarf_srclines_comp_dir(ctx, &comp_dir, &l->error));
	u->file = calloc((size_t)end + 1, sizeof(*u->file));
	if (!u->file)
		return false;
	u->files = (size_t)end;
	for (Dwarf_Signed i = base; i < end; i++) {
		const char *name = NULL, *dir = NULL;
		Dwarf_Unsigned dir_index = 0;

		if (!dwarf_ok(l, dwarf_srclines_files_data_b(ctx, i, &name, &dir_index, NULL, NULL,
							     NULL, &l->error)) ||
		    !name)
			continue;
		if (dir_index > 0 && dir_index <= INT32_MAX &&
		    !dwarf_ok(l, dwarf_srclines_include_dir_data(ctx, (Dwarf_Signed)dir_index, &dir,
								 &l->error)))
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

static void read_rows(struct lines *l, struct line_unit *u, Dwarf_Line *line, Dwarf_Signed n)
{
	size_t sequence = 0;

	for (Dwarf_Signed i = 0; i < n; i++) {
		Dwarf_Unsigned file = 0, number = 0;
		Dwarf_Bool end = false;
		Dwarf_Addr addr = 0;

		if (!dwarf_ok(l, dwarf_lineaddr(line[i], &addr, &l->error)) ||
		    !dwarf_ok(l, dwarf_lineendsequence(line[i], &end, &l->error)) ||
		    !dwarf_ok(l, dwarf_lineno(line[i], &number, &l->error)) ||
		    !dwarf_ok(l, dwarf_line_srcfileno(line[i], &file, &l->error)))
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

static void load_unit(struct lines *l, struct line_unit *u)
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
	if (!dwarf_ok(l, dwarf_offdie_b(l->dwarf, u->die, true, &die, &l->error)))
		return;
	if (dwarf_ok(l, dwarf_srclines_b(die, &version, &tables, &ctx, &l->error))) {
		if (read_files(l, u, ctx) &&
		    dwarf_ok(l, dwarf_srclines_from_linecontext(ctx, &line, &n, &l->error)))
			read_rows(l, u, line, n);
		dwarf_srclines_dealloc_b(ctx);
	}
	dwarf_dealloc(l->dwarf, die, DW_DLA_DIE);
}

static struct line_unit *unit_by_die(const struct lines *l, Dwarf_Off die)
{
	struct line_unit *u = array_last_up_to(l->unit, l->units, sizeof(*u), die);

	return u && u->die == die ? u : NULL;
}

static void read_units(struct lines *l)
{
	Dwarf_Unsigned next, last = 0;

	for (;;) {
		Dwarf_Off off = 0;
		Dwarf_Die die;

		/* The headers must be walked in order; that they go forward ends the loop. */
		if (!dwarf_ok(l,
			      dwarf_next_cu_header_d(l->dwarf, true, NULL, NULL, NULL, NULL, NULL,
						     NULL, NULL, NULL, &next, NULL, &l->error)) ||
		    next <= last)
			return;
		last = next;
		if (!dwarf_ok(l, dwarf_siblingof_b(l->dwarf, NULL, true, &die, &l->error)))
			continue;
		if (dwarf_ok(l, dwarf_dieoffset(die, &off, &l->error)) &&
		    (l->units == 0 || off > l->unit[l->units - 1].die) &&
		    array_grow((void **)&l->unit, l->units, sizeof(*l->unit)))
			l->unit[l->units++] = (struct line_unit){.die = off};
		dwarf_dealloc(l->dwarf, die, DW_DLA_DIE);
	}
}

static void read_aranges(struct lines *l)
{
	Dwarf_Arange *arange;
	Dwarf_Signed n;

	if (!dwarf_ok(l, dwarf_get_aranges(l->dwarf, &arange, &n, &l->error)))
		return;
	for (Dwarf_Signed i = 0; i < n; i++) {
		Dwarf_Unsigned segment, segment_size, size = 0;
		struct line_unit *u;
		Dwarf_Addr start = 0;
		Dwarf_Off die = 0;

		if (dwarf_ok(l, dwarf_get_arange_info_b(arange[i], &segment, &segment_size, &start,
							&size, &die, &l->error)) &&
		    size > 0 && (u = unit_by_die(l, die)) &&
		    array_grow((void **)&l->range, l->ranges, sizeof(*l->range))) {
			u->in_aranges = true;
			l->range[l->ranges++] =
				(struct line_range){start, size, (size_t)(u - l->unit)};
		}
		dwarf_dealloc(l->dwarf, arange[i], DW_DLA_ARANGE);
	}
	dwarf_dealloc(l->dwarf, arange, DW_DLA_LIST);
	if (l->ranges > 0)
		qsort(l->range, l->ranges, sizeof(*l->range), array_compare_keys);
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
static bool dwarf_sound(const struct lines *l)
{
	Elf_Scn *scn = NULL;
	size_t names;

	if (elf_getshdrstrndx(l->elf, &names))
		return false;
	while ((scn = elf_nextscn(l->elf, scn))) {
		const Elf_Data *data;
		const char *name;
		GElf_Shdr sh;

		if (!gelf_getshdr(scn, &sh))
			return false;
		name = elf_strptr(l->elf, names, sh.sh_name);
		if (!name || (strcmp(name, ".debug_rnglists") && strcmp(name, ".debug_loclists")) ||
		    (sh.sh_flags & SHF_COMPRESSED))
			continue;
		data = elf_rawdata(scn, NULL);
		if (!data || !lists_sound(data))
			return false;
	}
	return true;
}

static bool dwarf_open(struct lines *l)
{
	if (l->tried)
		return l->dwarf;
	l->tried = true;
	if (!dwarf_sound(l))
		return false;
	/* A failed call leaves no debug object; its error is freed with a null one. */
	if (!dwarf_ok(l, dwarf_elf_init(l->elf, DW_DLC_READ, NULL, NULL, &l->dwarf, &l->error))) {
		l->dwarf = NULL;
		return false;
	}
	read_units(l);
	read_aranges(l);
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
static struct line_unit *unit_by_address(const struct lines *l, uint64_t addr)
{
	const struct line_range *r = array_last_up_to(l->range, l->ranges, sizeof(*r), addr);

	return r && addr - r->start < r->size ? &l->unit[r->unit] : NULL;
}

bool lines_find(struct lines *l, gva_t addr, const char **file, unsigned *line)
{
	struct line_unit *u;

	if (!dwarf_open(l))
		return false;
	u = unit_by_address(l, addr.v);
	if (u) {
		load_unit(l, u);
		return unit_line(u, addr.v, file, line);
	}
	for (size_t i = 0; i < l->units && !l->rest_loaded; i++) {
		if (!l->unit[i].in_aranges)
			load_unit(l, &l->unit[i]);
	}
	l->rest_loaded = true;
	for (size_t i = 0; i < l->units; i++) {
		if (!l->unit[i].in_aranges && unit_line(&l->unit[i], addr.v, file, line))
			return true;
	}
	return false;
}
