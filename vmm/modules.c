// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/modules.h"

#include "vmm/load_internal.h"
#include "vmm/paging.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Documentation/arch/x86/x86_64/mm.rst: "module mapping space"; with KASLR it begins higher. */
#define MODULES_START 0xffffffffa0000000ull
#define MODULES_END 0xffffffffff000000ull

/* include/linux/export.h: struct kernel_symbol with relative references, from Linux 5.4 on. */
struct kernel_symbol {
	int32_t value_offset;
	int32_t name_offset;
	int32_t namespace_offset;
};

/* kernel/module/main.c, prepare_coming_module: the first in Linux 5.10 and later, the second before. The last
 * argument, of four (RCX) or three (RDX), is the module; the second says what becomes of it. */
static const struct {
	const char *name;
	uint8_t subject;
} announcers[MODULES_HOOKS_MAX] = {
	{"blocking_notifier_call_chain_robust", 1},
	{"blocking_notifier_call_chain", 2},
};

/* include/linux/module.h: enum module_state. */
#define MODULE_STATE_COMING 1u

static bool find_section(const struct elf_view *elf, const char *name, Elf64_Shdr *s)
{
	for (uint64_t i = 0; i < elf->shnum; i++) {
		*s = elf_shdr(elf, i);
		if (strcmp(elf_section_name(elf, s), name) == 0)
			return s->sh_type == SHT_PROGBITS &&
			       load_range_ok(s->sh_offset, s->sh_size, elf->size);
	}
	return false;
}

/* True if the string at this address is in the section and equal. */
static bool string_is(const struct elf_view *elf, const Elf64_Shdr *strings, uint64_t addr,
		      const char *want)
{
	uint64_t at = addr - strings->sh_addr;
	uint64_t len = strlen(want) + 1;

	return load_range_ok(at, len, strings->sh_size) &&
	       memcmp(elf->data + strings->sh_offset + at, want, len) == 0;
}

/* Address of an exported function, from the table that modules are linked by. */
static bool find_export(const struct elf_view *elf, const char *name, gva_t *gva)
{
	static const char *const tables[] = {"__ksymtab_gpl", "__ksymtab"};
	Elf64_Shdr strings, table;

	if (!find_section(elf, "__ksymtab_strings", &strings))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		struct kernel_symbol sym;

		if (!find_section(elf, tables[i], &table))
			continue;
		for (uint64_t at = 0; load_range_ok(at, sizeof(sym), table.sh_size); at += sizeof(sym)) {
			uint64_t here = table.sh_addr + at;

			memcpy(&sym, elf->data + table.sh_offset + at, sizeof(sym));
			if (!string_is(elf, &strings,
				       here + offsetof(struct kernel_symbol, name_offset) +
					       (uint64_t)(int64_t)sym.name_offset,
				       name))
				continue;
			*gva = GVA(here + (uint64_t)(int64_t)sym.value_offset);
			return true;
		}
	}
	return false;
}

static const struct text_range *find_text(const struct guest_entry *entry, gva_t gva)
{
	for (size_t i = 0; i < entry->text_len; i++) {
		const struct text_range *t = &entry->text[i];

		if (gva.v - t->gva.v < t->size)
			return t;
	}
	return NULL;
}

/* MOV r64, r64 and XOR r32 with itself, as compilers put them at a function's start; nothing that the
 * kernel patches at run time looks so. */
static bool read_replaceable(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *op,
			     struct modules_hook *hook)
{
	if (insn->operand_count_visible != 2 || op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    op[1].type != ZYDIS_OPERAND_TYPE_REGISTER || insn->raw.prefix_count > insn->raw.rex.W + 1u)
		return false;
	if (insn->mnemonic == ZYDIS_MNEMONIC_MOV && op[0].size == 64 &&
	    ZydisRegisterGetClass(op[1].reg.value) == ZYDIS_REGCLASS_GPR64)
		hook->clears = false;
	else if (insn->mnemonic == ZYDIS_MNEMONIC_XOR && op[0].size == 32 &&
		 op[0].reg.value == op[1].reg.value)
		hook->clears = true;
	else
		return false;
	hook->to = (uint8_t)ZydisRegisterGetId(op[0].reg.value);
	hook->from = (uint8_t)ZydisRegisterGetId(op[1].reg.value);
	hook->len = insn->length;
	return true;
}

/* The first replaceable instruction that the function executes whatever its arguments are. The call at the
 * very start is that of ftrace, which comes back. */
static bool find_place(const uint8_t *code, size_t size, size_t *offset, struct modules_hook *hook)
{
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (size_t at = 0; at < size; at += insn.length) {
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code + at, size - at, &insn, op)))
			return false;
		if (read_replaceable(&insn, op, hook)) {
			*offset = at;
			return true;
		}
		switch (insn.meta.category) {
		case ZYDIS_CATEGORY_COND_BR:
		case ZYDIS_CATEGORY_UNCOND_BR:
		case ZYDIS_CATEGORY_RET:
			return false;
		case ZYDIS_CATEGORY_CALL:
			if (at > 4) /* behind ENDBR64 at most */
				return false;
			break;
		default:
			break;
		}
	}
	return false;
}

static int put_hook(struct modules *modules, struct memory *mem, const struct text_range *t,
		    gva_t function, uint8_t subject, struct rewrite_sites *sites, struct err *err)
{
	struct modules_hook hook;
	uint64_t offset = function.v - t->gva.v;
	const uint8_t *code = memory_at(mem, t->gpa, t->size);
	size_t at;

	if (!code || !find_place(code + offset, (size_t)(t->size - offset), &at, &hook))
		return 0;
	hook.gva = GVA(function.v + at);
	hook.subject = subject;
	modules->hook[modules->hooks++] = hook;
	return rewrite_hook(mem, hook.gva, GPA(t->gpa.v + offset + at), hook.len, sites, err);
}

int modules_hook_kernel(struct modules *modules, struct memory *mem, const struct guest_image *image,
			const struct guest_entry *entry, struct rewrite_sites *sites, struct err *err)
{
	struct elf_view elf;
	int ret = 0;

	*modules = (struct modules){0};
	if (entry->kind != GUEST_LINUX || elf_open(image, &elf, NULL) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(announcers) && !ret; i++) {
		const struct text_range *t;
		gva_t function;

		if (find_export(&elf, announcers[i].name, &function) && (t = find_text(entry, function)))
			ret = put_hook(modules, mem, t, function, announcers[i].subject, sites, err);
	}
	return ret;
}

const struct modules_hook *modules_find_hook(const struct modules *modules, uint64_t rip)
{
	for (unsigned i = 0; i < modules->hooks; i++) {
		if (modules->hook[i].gva.v + REWRITE_IN_LENGTH == rip)
			return &modules->hook[i];
	}
	return NULL;
}

void modules_read_name(const struct modules_hook *hook, const struct memory *mem, const struct kvm_sregs *sregs,
		       const struct kvm_regs *regs, char name[MODULES_NAME_LEN])
{
	uint64_t module = hook->subject == 1 ? regs->rcx : regs->rdx;

	/* Other things than modules are announced in the same way, so it must look like a name. */
	if (regs->rsi != MODULE_STATE_COMING ||
	    paging_read(mem, sregs, GVA(module + MODULES_NAME_OFFSET), name, MODULES_NAME_LEN) < 0 ||
	    !memchr(name, 0, MODULES_NAME_LEN))
		name[0] = 0;
	for (const char *c = name; *c; c++)
		if (*c <= 0x20 || *c >= 0x7f)
			name[0] = 0;
}

int modules_rewrite(struct memory *mem, const struct kvm_sregs *sregs, const char *name,
		    struct rewrite_sites *sites, struct err *err)
{
	const gva_t end = GVA(MODULES_END);
	gva_t at = GVA(MODULES_START), start = at;
	gpa_t *page = NULL;
	size_t pages = 0, cap = 0;
	bool more = true;
	int ret = 0;

	/* Runs of pages that follow each other, since instructions cross from one to the next. */
	while (more && !ret) {
		gpa_t gpa;

		more = paging_find_executable(mem, sregs, &at, end, &gpa);
		if (more && !memory_at(mem, gpa, PAGE_SIZE)) {
			at.v += PAGE_SIZE;
			continue;
		}
		if (pages && (!more || at.v != start.v + pages * PAGE_SIZE)) {
			ret = rewrite_pages(mem, start, page, pages, name, sites, err);
			pages = 0;
		}
		if (!more || ret)
			break;
		if (pages == cap) {
			gpa_t *grown = realloc(page, (cap ? 2 * cap : 64) * sizeof(*page));

			if (!grown) {
				ret = err_set(err, ENOMEM, "no memory for %zu pages of modules", cap);
				break;
			}
			page = grown;
			cap = cap ? 2 * cap : 64;
		}
		if (!pages)
			start = at;
		page[pages++] = gpa;
		at.v += PAGE_SIZE;
	}
	free(page);
	return ret;
}
