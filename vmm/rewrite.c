// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/rewrite.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <gelf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPCODE_IN_EAX_IMM8 0xe5
#define OPCODE_NOP 0x90
#define RANDOM_KINDS (REWRITE_KINDS - REWRITE_RDRAND16)

/* Registers 8-15 have the ports after those of all kinds. */
#define PORT_HIGH (REWRITE_PORT_FIRST + REWRITE_KINDS)
_Static_assert(PORT_HIGH + RANDOM_KINDS - 1 == REWRITE_PORT_LAST, "ports of the rewritten kinds");

/* Low three bits of the destination as a prefix that IN ignores (SDM 2A 2.1.1), or a NOP before it. F2 and
 * F3 do not serve: KVM takes them for a repeat count. */
static const uint8_t register_prefix[8] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x67, 0x90};

/* What a symbol says about the bytes from it on; for equal addresses the greater one decides. */
enum mark_kind {
	MARK_LABEL,   /* code of unknown length */
	MARK_DATA,    /* not code */
	MARK_FUNCTION /* code of known length */
};

struct mark {
	uint64_t gva;
	uint64_t end; /* of a MARK_FUNCTION */
	enum mark_kind kind;
};

struct marks {
	struct mark *mark; /* sorted by gva, one for each address */
	size_t len;
};

struct rewriter {
	struct memory *mem;
	const gpa_t *page; /* where each page of the range lies; NULL: they follow each other */
	const char *module; /* whose pages they are, if page */
	ZydisDecoder decoder;
	struct marks marks;
	struct rewrite_sites *sites;
	size_t cap;
	struct err *err;
};

const char *rewrite_kind_name(enum rewrite_kind kind)
{
	static const char *const name[REWRITE_HOOK + 1] = {
		[REWRITE_RDTSC] = "rdtsc",
		[REWRITE_RDTSCP] = "rdtscp",
		[REWRITE_CPUID] = "cpuid",
		[REWRITE_RDRAND16] = "rdrand (16 bits)",
		[REWRITE_RDRAND32] = "rdrand (32 bits)",
		[REWRITE_RDRAND64] = "rdrand (64 bits)",
		[REWRITE_RDSEED16] = "rdseed (16 bits)",
		[REWRITE_RDSEED32] = "rdseed (32 bits)",
		[REWRITE_RDSEED64] = "rdseed (64 bits)",
		[REWRITE_HOOK] = "hook for modules",
	};

	return (unsigned)kind <= REWRITE_HOOK ? name[kind] : "unknown";
}

bool rewrite_port_kind(uint16_t port, enum rewrite_kind *kind)
{
	if (port < REWRITE_PORT_FIRST || port > REWRITE_PORT_LAST)
		return false;
	if (port < PORT_HIGH)
		*kind = (enum rewrite_kind)(port - REWRITE_PORT_FIRST);
	else
		*kind = (enum rewrite_kind)(port - PORT_HIGH + REWRITE_RDRAND16);
	return true;
}

unsigned rewrite_destination(const uint8_t before[4])
{
	for (unsigned i = 0; i < ARRAY_SIZE(register_prefix); i++)
		if (before[1] == register_prefix[i])
			return before[3] >= PORT_HIGH ? i + 8 : i;
	return 0;
}

void rewrite_sites_free(struct rewrite_sites *sites)
{
	free(sites->site);
	free(sites->note);
	*sites = (struct rewrite_sites){0};
}

void rewrite_show_original(const struct rewrite_sites *sites, gpa_t gpa, uint8_t *bytes, size_t len)
{
	size_t low = 0, high = sites->len;

	/* The first site that ends after gpa. */
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (sites->site[mid].gpa.v + sites->site[mid].len <= gpa.v)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < sites->len; low++) {
		const struct rewrite_site *s = &sites->site[low];
		uint64_t start, end;

		if (s->gpa.v > gpa.v && s->gpa.v - gpa.v >= len)
			break;
		start = s->gpa.v > gpa.v ? s->gpa.v : gpa.v;
		end = s->gpa.v + s->len < gpa.v + len ? s->gpa.v + s->len : gpa.v + len;
		if (memcmp(bytes + (start - gpa.v), s->written + (start - s->gpa.v), end - start) == 0)
			memcpy(bytes + (start - gpa.v), s->original + (start - s->gpa.v), end - start);
	}
}

static int mark_compare(const void *a, const void *b)
{
	const struct mark *x = a, *y = b;

	if (x->gva != y->gva)
		return x->gva < y->gva ? -1 : 1;
	return (int)y->kind - (int)x->kind;
}

/* Sort, keep one mark for each address, and let nested functions share their ends. */
static void marks_finish(struct marks *marks)
{
	uint64_t end = 0;
	size_t kept = 0;

	if (!marks->len)
		return;
	qsort(marks->mark, marks->len, sizeof(marks->mark[0]), mark_compare);
	for (size_t i = 0; i < marks->len; i++) {
		struct mark *m = &marks->mark[i];

		if (kept && marks->mark[kept - 1].gva == m->gva)
			continue;
		if (m->kind == MARK_FUNCTION) {
			if (end < m->end)
				end = m->end;
			m->end = end;
		}
		marks->mark[kept++] = *m;
	}
	marks->len = kept;
}

static bool symbol_mark(Elf *elf, const GElf_Sym *sym, struct mark *mark)
{
	Elf_Scn *scn;
	GElf_Shdr shdr;

	if (sym->st_shndx == SHN_UNDEF || sym->st_shndx >= SHN_LORESERVE)
		return false;
	*mark = (struct mark){.gva = sym->st_value};
	switch (GELF_ST_TYPE(sym->st_info)) {
	case STT_FUNC:
	case STT_GNU_IFUNC:
		if (sym->st_size && sym->st_size <= UINT64_MAX - sym->st_value) {
			mark->kind = MARK_FUNCTION;
			mark->end = sym->st_value + sym->st_size;
		}
		break;
	case STT_OBJECT:
		mark->kind = MARK_DATA;
		break;
	case STT_NOTYPE:
		break;
	default:
		return false;
	}
	/* Only those of code: Linux's per-CPU data has addresses from 0 on, which may be text's
	 * too. */
	scn = elf_getscn(elf, sym->st_shndx);
	return scn && gelf_getshdr(scn, &shdr) && (shdr.sh_flags & SHF_EXECINSTR);
}

static int marks_add_table(struct rewriter *r, Elf *elf, Elf_Data *data, size_t count)
{
	struct mark *grown = realloc(r->marks.mark, (r->marks.len + count) * sizeof(*grown));

	if (!grown)
		return err_set(r->err, ENOMEM, "no memory for the kernel's symbols");
	r->marks.mark = grown;
	for (size_t i = 0; i < count; i++) {
		GElf_Sym sym;

		if (gelf_getsym(data, (int)i, &sym) && symbol_mark(elf, &sym, &grown[r->marks.len]))
			r->marks.len++;
	}
	return 0;
}

/* Symbols are a help and no condition: a file without, or with damaged ones, is decoded linearly.
 */
static int marks_read(struct rewriter *r, const struct guest_image *image)
{
	Elf_Scn *scn = NULL;
	Elf *elf;
	int ret = 0;

	if (elf_version(EV_CURRENT) == EV_NONE)
		return 0;
	/* libelf only reads from the image; its parameter lacks the const. */
	elf = elf_memory((char *)(uintptr_t)image->kernel, image->kernel_size);
	if (!elf)
		return 0;
	while (elf_kind(elf) == ELF_K_ELF && (scn = elf_nextscn(elf, scn))) {
		GElf_Shdr shdr;
		Elf_Data *data;
		size_t entry = gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT);

		if (!gelf_getshdr(scn, &shdr) || shdr.sh_type != SHT_SYMTAB || !entry)
			continue;
		data = elf_getdata(scn, NULL);
		if (data && data->d_size >= entry)
			ret = marks_add_table(r, elf, data, data->d_size / entry);
		break; /* ELF allows one such table */
	}
	elf_end(elf);
	marks_finish(&r->marks);
	return ret;
}

/* Offset of the next bytes from `from` on that could be one of ours; size if there are none. */
static size_t find_candidate(const uint8_t *code, size_t from, size_t size)
{
	while (from + 1 < size) {
		const uint8_t *p = memchr(code + from, 0x0f, size - from - 1);

		if (!p)
			break;
		from = (size_t)(p - code);
		switch (p[1]) {
		case 0x31: /* RDTSC */
		case 0xa2: /* CPUID */
		case 0xc7: /* group 9: RDRAND, RDSEED */
			return from;
		case 0x01: /* group 7: RDTSCP */
			if (from + 2 < size && p[2] == 0xf9)
				return from;
			break;
		}
		from++;
	}
	return size;
}

static bool instruction_kind(const ZydisDecodedInstruction *insn, enum rewrite_kind *kind)
{
	static const uint16_t width[3] = {16, 32, 64};

	for (unsigned i = 0; i < insn->raw.prefix_count; i++) {
		uint8_t prefix = insn->raw.prefixes[i].value;

		if (prefix == 0xf0 || prefix == 0xf2 || prefix == 0xf3)
			return false;
	}
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_RDTSC:
		*kind = REWRITE_RDTSC;
		return true;
	case ZYDIS_MNEMONIC_RDTSCP:
		*kind = REWRITE_RDTSCP;
		return true;
	case ZYDIS_MNEMONIC_CPUID:
		*kind = REWRITE_CPUID;
		return true;
	case ZYDIS_MNEMONIC_RDRAND:
		*kind = REWRITE_RDRAND16;
		break;
	case ZYDIS_MNEMONIC_RDSEED:
		*kind = REWRITE_RDSEED16;
		break;
	default:
		return false;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(width); i++) {
		if (insn->operand_width == width[i]) {
			*kind = (enum rewrite_kind)(*kind + i);
			return true;
		}
	}
	return false;
}

/* The replacement of the whole instruction, padded. */
static void encode(const ZydisDecodedInstruction *insn, enum rewrite_kind kind, uint8_t *out)
{
	unsigned port = REWRITE_PORT_FIRST + kind;
	unsigned n = 0;

	memset(out, OPCODE_NOP, insn->length);
	if (kind >= REWRITE_RDRAND16) {
		if (insn->raw.rex.B)
			port = PORT_HIGH + (kind - REWRITE_RDRAND16);
		out[n++] = register_prefix[insn->raw.modrm.rm];
	}
	out[n++] = OPCODE_IN_EAX_IMM8;
	out[n] = (uint8_t)port;
}

static struct rewrite_site *add_site(struct rewriter *r)
{
	struct rewrite_sites *s = r->sites;

	if (s->len == r->cap) {
		size_t cap = r->cap ? 2 * r->cap : 256;
		struct rewrite_site *grown = realloc(s->site, cap * sizeof(*grown));

		if (!grown)
			return NULL;
		s->site = grown;
		r->cap = cap;
	}
	return &s->site[s->len++];
}

/* Where the byte at this offset of a range lies, and how many follow it there. */
static gpa_t place(const struct rewriter *r, const struct text_range *t, size_t offset, size_t *room)
{
	if (!r->page) {
		*room = t->size - offset;
		return GPA(t->gpa.v + offset);
	}
	*room = PAGE_SIZE - offset % PAGE_SIZE;
	return GPA(r->page[offset / PAGE_SIZE].v + offset % PAGE_SIZE);
}

static int note_module(struct rewrite_sites *sites, gva_t gva, enum rewrite_kind kind, const char *module)
{
	struct rewrite_note *note;

	sites->module_count[kind]++;
	if (sites->notes == REWRITE_NOTES_MAX)
		return 0;
	if (!sites->note)
		sites->note = calloc(REWRITE_NOTES_MAX, sizeof(*sites->note));
	if (!sites->note)
		return -ENOMEM;
	note = &sites->note[sites->notes++];
	*note = (struct rewrite_note){.gva = gva, .kind = kind};
	snprintf(note->module, sizeof(note->module), "%s", module);
	return 0;
}

static int rewrite_one(struct rewriter *r, const ZydisDecodedInstruction *insn,
		       enum rewrite_kind kind, const struct text_range *t, size_t offset)
{
	uint8_t code[ZYDIS_MAX_INSTRUCTION_LENGTH];
	size_t room;

	encode(insn, kind, code);
	for (size_t done = 0; done < insn->length; done += room) {
		gpa_t gpa = place(r, t, offset + done, &room);
		struct rewrite_site *site = add_site(r);
		uint8_t *bytes;

		if (room > insn->length - done)
			room = insn->length - done;
		bytes = memory_at_dirty(r->mem, gpa, room);
		if (!bytes || !site)
			goto no_memory;
		*site = (struct rewrite_site){.gva = GVA(t->gva.v + offset + done),
					      .gpa = gpa,
					      .kind = kind,
					      .len = (uint8_t)room,
					      .tail = done > 0,
					      .in_module = r->page != NULL};
		if (site->in_module && !site->tail && note_module(r->sites, site->gva, kind, r->module) < 0)
			goto no_memory;
		memcpy(site->original, bytes, room);
		memcpy(site->written, code + done, room);
		memcpy(bytes, code + done, room);
	}
	return 0;

no_memory:
	return err_set(r->err, ENOMEM, "no memory for the table of rewritten instructions");
}

/*
 * Decode code[from, to), where `from` is an instruction's start, as far as there are candidates. An
 * instruction that would reach beyond `to` is none.
 */
static int rewrite_span(struct rewriter *r, const struct text_range *t, const uint8_t *code,
			size_t from, size_t to)
{
	size_t candidate = find_candidate(code, from, to);
	bool locked = false; /* what follows was undecodable only for its LOCK prefix */

	while (candidate < to) {
		ZydisDecodedInstruction insn;
		enum rewrite_kind kind;
		int ret;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&r->decoder, NULL, code + from,
								to - from, &insn))) {
			locked = code[from++] == 0xf0;
		} else {
			if (from + insn.length > candidate && !locked &&
			    instruction_kind(&insn, &kind)) {
				ret = rewrite_one(r, &insn, kind, t, from);
				if (ret)
					return ret;
			}
			from += insn.length;
			locked = false;
		}
		if (from > candidate)
			candidate = find_candidate(code, from, to);
	}
	return 0;
}

/* First mark at or after gva. */
static size_t marks_find(const struct marks *marks, uint64_t gva)
{
	size_t low = 0, high = marks->len;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (marks->mark[mid].gva < gva)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Length of a range after gva, within size, that ends at `end`. */
static size_t offset_of(uint64_t gva, uint64_t end, uint64_t size)
{
	uint64_t offset = end > gva ? end - gva : 0;

	return (size_t)(offset < size ? offset : size);
}

static int rewrite_range(struct rewriter *r, const struct text_range *t)
{
	const uint8_t *code = memory_at(r->mem, t->gpa, t->size);
	const struct marks *marks = &r->marks;
	size_t i = marks_find(marks, t->gva.v);
	uint64_t first = i < marks->len ? marks->mark[i].gva : UINT64_MAX;
	int ret;

	if (!t->size)
		return 0;
	if (!code)
		return err_set(r->err, EFAULT,
			       "the text \"%s\" at physical address 0x%" PRIx64 " is not in RAM",
			       t->name, t->gpa.v);
	/* What precedes the first symbol, or all of it. */
	ret = rewrite_span(r, t, code, 0, offset_of(t->gva.v, first, t->size));
	for (; !ret && i < marks->len && marks->mark[i].gva - t->gva.v < t->size; i++) {
		const struct mark *m = &marks->mark[i];
		uint64_t to = i + 1 < marks->len ? m[1].gva : UINT64_MAX;

		if (m->kind == MARK_DATA)
			continue;
		if (m->kind == MARK_FUNCTION && m->end < to)
			to = m->end;
		ret = rewrite_span(r, t, code, (size_t)(m->gva - t->gva.v),
				   offset_of(t->gva.v, to, t->size));
	}
	return ret;
}

static int site_compare(const void *a, const void *b)
{
	const struct rewrite_site *x = a, *y = b;

	return x->gpa.v < y->gpa.v ? -1 : x->gpa.v > y->gpa.v;
}

static bool image_is_64bit(const struct guest_image *image)
{
	return loader_is_boot64(image) ||
	       (image->kernel_size > EI_CLASS && memcmp(image->kernel, ELFMAG, SELFMAG) == 0 &&
		image->kernel[EI_CLASS] == ELFCLASS64);
}

int rewrite_text(struct memory *mem, const struct guest_image *image, const struct text_range *text,
		 size_t text_len, struct rewrite_sites *sites, struct err *err)
{
	struct rewriter r = {.mem = mem, .sites = sites, .err = err};
	int ret;

	*sites = (struct rewrite_sites){0};
	if (image_is_64bit(image))
		ZydisDecoderInit(&r.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else
		ZydisDecoderInit(&r.decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	ret = marks_read(&r, image);
	for (size_t i = 0; !ret && i < text_len; i++)
		ret = rewrite_range(&r, &text[i]);
	if (sites->len)
		qsort(sites->site, sites->len, sizeof(sites->site[0]), site_compare);
	free(r.marks.mark);
	if (ret)
		rewrite_sites_free(sites);
	return ret;
}

int rewrite_hook(struct memory *mem, gva_t gva, gpa_t gpa, uint8_t len, struct rewrite_sites *sites,
		 struct err *err)
{
	struct rewrite_site *grown = realloc(sites->site, (sites->len + 1) * sizeof(*grown));
	uint8_t *bytes = memory_at_dirty(mem, gpa, len);
	struct rewrite_site *site;

	if (!grown || !bytes)
		return err_set(err, ENOMEM, "no memory for the table of rewritten instructions");
	sites->site = grown;
	site = &grown[sites->len++];
	*site = (struct rewrite_site){.gva = gva, .gpa = gpa, .kind = REWRITE_HOOK, .len = len};
	memcpy(site->original, bytes, len);
	memset(site->written, OPCODE_NOP, len);
	site->written[0] = OPCODE_IN_EAX_IMM8;
	site->written[1] = REWRITE_PORT_HOOK;
	memcpy(bytes, site->written, len);
	qsort(sites->site, sites->len, sizeof(sites->site[0]), site_compare);
	return 0;
}

/* Sites whose bytes are no longer ours: freed, and perhaps used again. */
static void drop_stale(const struct memory *mem, struct rewrite_sites *sites)
{
	size_t kept = 0;

	for (size_t i = 0; i < sites->len; i++) {
		const struct rewrite_site *s = &sites->site[i];
		const void *now = memory_at(mem, s->gpa, s->len);

		if (now && memcmp(now, s->written, s->len) == 0)
			sites->site[kept++] = *s;
	}
	sites->len = kept;
}

int rewrite_pages(struct memory *mem, gva_t gva, const gpa_t *page, size_t pages, const char *module,
		  struct rewrite_sites *sites, struct err *err)
{
	struct text_range range = {.gva = gva, .size = pages * PAGE_SIZE};
	struct rewriter r = {
		.mem = mem, .page = page, .module = module, .sites = sites, .cap = sites->len, .err = err};
	uint8_t *code = malloc(range.size);
	int ret = 0;

	if (!code)
		return err_set(err, ENOMEM, "no memory to rewrite %zu pages of code", pages);
	drop_stale(mem, sites);
	for (size_t i = 0; i < pages && !ret; i++)
		if (memory_read(mem, page[i], code + i * PAGE_SIZE, PAGE_SIZE))
			ret = err_set(err, EFAULT, "code at 0x%" PRIx64 " is not in RAM",
				      (uint64_t)(gva.v + i * PAGE_SIZE));
	ZydisDecoderInit(&r.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ret)
		ret = rewrite_span(&r, &range, code, 0, range.size);
	if (sites->len)
		qsort(sites->site, sites->len, sizeof(sites->site[0]), site_compare);
	free(code);
	return ret;
}
