// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The hook in a kernel's announcement of modules, found by the table of exports alone, and the rewriting of
 * what the page tables say is executable in the area of modules.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/loader_image.h"
#include "vmm/modules.h"
#include "vmm/paging.h"

#define KERNEL 0xffffffff81000000ull
#define KERNEL_PHYS 0x1000000ull
#define RODATA_OFFSET 0x200000ull
#define AREA 0xffffffffa0000000ull

#define PTE_PRESENT 1ull
#define PTE_NX (1ull << 63)
#define TABLES 0x200000ull /* PML4, PDPT, PD, PTs */
#define PAGES_TRIED 1024u

static const struct kvm_sregs sregs = {.cr0 = 0x80000001, .cr3 = TABLES, .cr4 = 0x20, .efer = 0xd00};

/* One exported function: its code, then what hooking it must find. */
struct function {
	const char *code;
	size_t size;
	int place; /* of the replaced instruction; -1: none fit */
	struct modules_hook hook;
};

#define CODE(s) s, sizeof(s) - 1

static const struct function functions[] = {
	/* push rbp; mov rbp, rsp */
	{CODE("\x55\x48\x89\xe5\x31\xdb\xc3"), 1, {.len = 3, .from = 4, .to = 5}},
	/* endbr64; call ftrace; push r14; xor ebx, ebx; je */
	{CODE("\xf3\x0f\x1e\xfa\xe8\0\0\0\0\x41\x56\x31\xdb\x74\0\xc3"), 11, {.len = 2, .clears = true, .from = 3, .to = 3}},
	/* xor r14d, r14d */
	{CODE("\x45\x31\xf6\xc3"), 0, {.len = 3, .clears = true, .from = 14, .to = 14}},
	/* mov r15, rdi */
	{CODE("\x49\x89\xff\xc3"), 0, {.len = 3, .from = 7, .to = 15}},
	/* sub rsp, 16; mov rax, [rdi]; mov ebx, eax; xor eax, ebx; je; mov rbp, rsp: behind a branch */
	{CODE("\x48\x83\xec\x10\x48\x8b\x07\x89\xc3\x31\xd8\x74\0\x48\x89\xe5\xc3"), -1, {.len = 0}},
	/* nop; nop; nop; nop; nop; call; mov rbp, rsp: behind a call */
	{CODE("\x90\x90\x90\x90\x90\xe8\0\0\0\0\x48\x89\xe5\xc3"), -1, {.len = 0}},
	/* what does not decode */
	{CODE("\x06\x06\x06"), -1, {.len = 0}},
};

/* A vmlinux with two exports, of which the second has the name. The code is not the first in the text. */
static struct buf vmlinux(const struct function *f, const char *name)
{
	static uint8_t text[64], rodata[0x200];
	struct plan p = {
		.entry = KERNEL_PHYS,
		.part = {{KERNEL, KERNEL_PHYS, text, sizeof(text), 0, 0, PF_R | PF_X},
			 {KERNEL + RODATA_OFFSET, KERNEL_PHYS + RODATA_OFFSET, rodata, sizeof(rodata), 0, 0, PF_R}},
		.parts = 2,
	};
	uint64_t at = KERNEL + RODATA_OFFSET;
	int32_t export[6] = {
		(int32_t)(KERNEL - at), 0x100 - 4, 0,
		(int32_t)(KERNEL + 16 - (at + 12)), 0x108 - 16, 0,
	};

	memset(text, 0x90, sizeof(text));
	memcpy(text + 16, f->code, f->size);
	memset(rodata, 0, sizeof(rodata));
	memcpy(rodata, export, sizeof(export));
	strcpy((char *)rodata + 0x100, "another");
	strcpy((char *)rodata + 0x108, name);
	strcpy((char *)rodata + 0x180, "Linux version 6.1.0 (me@here) #1\n");
	p.sect[0] = (struct sect){".text", KERNEL, part_offset(&p, 0), sizeof(text), SHF_ALLOC | SHF_EXECINSTR};
	p.sect[1] = (struct sect){"__ksymtab_gpl", at, part_offset(&p, 1), sizeof(export), SHF_ALLOC};
	p.sect[2] = (struct sect){"__ksymtab_strings", at + 0x100, part_offset(&p, 1) + 0x100, 0x80, SHF_ALLOC};
	p.sects = 3;
	return build(&p);
}

static void hook_in_each_kind_of_start(void **state)
{
	static const char *const names[] = {"blocking_notifier_call_chain_robust",
					    "blocking_notifier_call_chain"};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_SIZE(functions); i++) {
		const struct function *f = &functions[i / 2];
		struct buf file = vmlinux(f, names[i % 2]);
		struct guest_image image = {.kernel = file.data, .kernel_size = file.len, .cmdline = ""};
		struct rewrite_sites sites = {0};
		struct run r = load(&file);
		struct modules modules;
		const struct modules_hook *h;
		uint8_t want[64];

		assert_loaded(&r, GUEST_LINUX);
		memcpy(want, memory_at(r.mem, GPA(KERNEL_PHYS), sizeof(want)), sizeof(want));
		assert_int_equal(modules_hook_kernel(&modules, r.mem, &image, &r.entry, &sites, &r.err), 0);
		assert_int_equal(modules.hooks, f->place >= 0);
		if (f->place >= 0) {
			size_t at = 16 + (size_t)f->place;
			uint8_t shown[64];

			memset(want + at, 0x90, f->hook.len);
			memcpy(want + at, "\xe5\x37", 2);
			h = modules_find_hook(&modules, KERNEL + at + 2);
			assert_non_null(h);
			assert_int_equal(h->gva.v, KERNEL + at);
			assert_int_equal(h->len, f->hook.len);
			assert_int_equal(h->clears, f->hook.clears);
			assert_int_equal(h->from, f->hook.from);
			assert_int_equal(h->subject, i % 2 ? 2 : 1);
			assert_int_equal(h->to, f->hook.to);
			assert_null(modules_find_hook(&modules, KERNEL + at));
			/* A debugger sees what was there. */
			memcpy(shown, want, sizeof(shown));
			rewrite_show_original(&sites, GPA(KERNEL_PHYS), shown, sizeof(shown));
			assert_memory_equal(shown + 16, f->code, f->size);
		}
		assert_bytes(&r, KERNEL_PHYS, want, sizeof(want));
		rewrite_sites_free(&sites);
		done(&r, &file);
	}
}

static void no_hook_elsewhere(void **state)
{
	struct buf file = vmlinux(&functions[0], "blocking_notifier_call_chain_robusta");
	struct guest_image image = {.kernel = file.data, .kernel_size = file.len, .cmdline = ""};
	struct rewrite_sites sites = {0};
	struct run r = load(&file);
	struct modules modules;

	(void)state;
	assert_int_equal(modules_hook_kernel(&modules, r.mem, &image, &r.entry, &sites, &r.err), 0);
	assert_int_equal(modules.hooks, 0);
	r.entry.kind = GUEST_ELF64;
	assert_int_equal(modules_hook_kernel(&modules, r.mem, &image, &r.entry, &sites, &r.err), 0);
	assert_int_equal(modules.hooks + sites.len, 0);
	done(&r, &file);
}

/* Damaged tables of exports: whatever they say, nothing outside of the file is read. */
static void damaged_exports(void **state)
{
	struct buf file = vmlinux(&functions[0], "blocking_notifier_call_chain_robust");
	uint64_t seed = 0xabcdef;
	unsigned hooked = 0;

	(void)state;
	for (int i = 0; i < DAMAGES / 10; i++) {
		struct buf b = damaged(&file, &seed);
		struct guest_image image = {.kernel = b.data, .kernel_size = b.len, .cmdline = ""};
		struct rewrite_sites sites = {0};
		struct run r = load(&b);
		struct modules modules;

		if (r.ret == 0) {
			assert_int_equal(modules_hook_kernel(&modules, r.mem, &image, &r.entry, &sites, &r.err),
					 0);
			hooked += modules.hooks;
			rewrite_sites_free(&sites);
		}
		done(&r, &b);
	}
	assert_in_range(hooked, 1, DAMAGES / 10 - 1);
	buf_free(&file);
}

static uint64_t *table(struct memory *mem, unsigned i)
{
	return memory_at_dirty(mem, GPA(TABLES + i * PAGE_SIZE), PAGE_SIZE);
}

/* Two page tables for the start of the area of modules. */
static struct memory *area(void)
{
	struct memory *mem;

	assert_int_equal(memory_create(&mem, -1, 4 * MIB, false, NULL), 0);
	table(mem, 0)[511] = (TABLES + PAGE_SIZE) | PTE_PRESENT;
	table(mem, 1)[510] = (TABLES + 2 * PAGE_SIZE) | PTE_PRESENT;
	table(mem, 2)[256] = (TABLES + 3 * PAGE_SIZE) | PTE_PRESENT;
	table(mem, 2)[257] = (TABLES + 4 * PAGE_SIZE) | PTE_PRESENT;
	return mem;
}

static void map(struct memory *mem, unsigned page, uint64_t gpa, uint64_t flags)
{
	table(mem, 3 + page / 512)[page % 512] = gpa | flags | PTE_PRESENT;
}

static void executable_pages_by_brute_force(void **state)
{
	uint64_t seed = 0x777;

	(void)state;
	for (int round = 0; round < 50; round++) {
		struct memory *mem = area();
		gva_t at = GVA(AREA);
		gpa_t gpa;

		for (unsigned i = 0; i < PAGES_TRIED; i++) {
			uint64_t dice = next_random(&seed) % 8;

			if (dice < 3)
				map(mem, i, (next_random(&seed) % 512) << PAGE_SHIFT, dice == 0 ? PTE_NX : 0);
		}
		for (unsigned i = 0; i < PAGES_TRIED; i++) {
			uint64_t entry = table(mem, 3 + i / 512)[i % 512];

			if (!(entry & PTE_PRESENT) || (entry & PTE_NX))
				continue;
			assert_true(paging_find_executable(mem, &sregs, &at, GVA(0xffffffffff000000), &gpa));
			assert_int_equal(at.v, AREA + i * PAGE_SIZE);
			assert_int_equal(gpa.v, entry & ~PTE_PRESENT);
			at.v += PAGE_SIZE;
		}
		assert_false(paging_find_executable(mem, &sregs, &at, GVA(0xffffffffff000000), &gpa));
		memory_destroy(mem);
	}
}

static void assert_note(const struct rewrite_note *note, uint64_t gva, enum rewrite_kind kind, const char *module)
{
	assert_int_equal(note->gva.v, gva);
	assert_int_equal(note->kind, kind);
	assert_string_equal(note->module, module);
}

/* A module that loads itself again and again: all are counted, the first noted. */
static void notes_are_bounded(void **state)
{
	struct memory *mem = area();
	struct rewrite_sites sites = {0};
	uint8_t *page = memory_at_dirty(mem, GPA(0x10000), PAGE_SIZE);

	(void)state;
	map(mem, 0, 0x10000, 0);
	for (unsigned round = 0; round < REWRITE_NOTES_MAX + 7; round++) {
		memcpy(page, "\x0f\x31", 2);
		assert_int_equal(modules_rewrite(mem, &sregs, "", &sites, NULL), 0);
	}
	assert_int_equal(sites.module_count[REWRITE_RDTSC], REWRITE_NOTES_MAX + 7);
	assert_int_equal(sites.notes, REWRITE_NOTES_MAX);
	rewrite_sites_free(&sites);
	memory_destroy(mem);
}

/* A name is what looks like one, where a module is announced as coming; whatever else is announced has none. */
static void names_of_modules(void **state)
{
	static const char longest[] = "a_module_whose_name_is_as_long_as_it_may_be_at_the_most";
	const struct modules_hook robust = {.subject = 1}, plain = {.subject = 2};
	struct memory *mem = area();
	char *at = (char *)memory_at_dirty(mem, GPA(0x10000), PAGE_SIZE) + 0x800 + MODULES_NAME_OFFSET;
	struct kvm_regs regs = {.rcx = AREA + 0x800, .rdx = AREA, .rsi = 1};
	char name[MODULES_NAME_LEN];

	(void)state;
	map(mem, 0, 0x10000, 0);
	strcpy(at, "crc7");
	modules_read_name(&robust, mem, &sregs, &regs, name);
	assert_string_equal(name, "crc7");
	strcpy(at, longest);
	assert_int_equal(strlen(longest), MODULES_NAME_LEN - 1);
	modules_read_name(&robust, mem, &sregs, &regs, name);
	assert_string_equal(name, longest);
	modules_read_name(&plain, mem, &sregs, &regs, name);
	assert_string_equal(name, "");
	regs.rdx = regs.rcx;
	modules_read_name(&plain, mem, &sregs, &regs, name);
	assert_string_equal(name, longest);

	at[MODULES_NAME_LEN - 1] = 'x'; /* no end */
	modules_read_name(&robust, mem, &sregs, &regs, name);
	assert_string_equal(name, "");
	strcpy(at, "crc7\033[2J");
	modules_read_name(&robust, mem, &sregs, &regs, name);
	assert_string_equal(name, "");
	strcpy(at, "crc7");
	regs.rcx = AREA + PAGE_SIZE; /* not mapped */
	modules_read_name(&robust, mem, &sregs, &regs, name);
	assert_string_equal(name, "");
	regs.rcx = AREA + 0x800;
	regs.rsi = 2; /* going */
	modules_read_name(&robust, mem, &sregs, &regs, name);
	assert_string_equal(name, "");
	memory_destroy(mem);
}

/* RDTSC in the first page, CPUID across into the second, which lies elsewhere; RDTSC in pages that are no
 * code, and behind a page that is not RAM. */
static void modules_are_rewritten(void **state)
{
	struct memory *mem = area();
	struct rewrite_sites sites = {0};
	uint8_t *first = memory_at_dirty(mem, GPA(0x10000), PAGE_SIZE);
	uint8_t *second = memory_at_dirty(mem, GPA(0x8000), PAGE_SIZE);
	uint8_t *data_page = memory_at_dirty(mem, GPA(0x20000), PAGE_SIZE);
	uint8_t *last = memory_at_dirty(mem, GPA(0x30000), PAGE_SIZE);
	uint8_t shown[2] = {0xe5, 0x28};

	(void)state;
	memset(first, 0x90, PAGE_SIZE);
	memset(second, 0x90, PAGE_SIZE);
	memcpy(first, "\x0f\x31", 2);
	first[PAGE_SIZE - 1] = 0x0f;
	second[0] = 0xa2;
	memcpy(data_page, "\x0f\x31", 2);
	memcpy(last, "\x0f\x31", 2);
	map(mem, 0, 0x10000, 0);
	map(mem, 1, 0x8000, 0);
	map(mem, 2, 0x20000, PTE_NX);
	map(mem, 600, 0xfee00000, 0);
	map(mem, 601, 0x30000, 0);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(modules_rewrite(mem, &sregs, round ? "second" : "first", &sites, NULL), 0);
		assert_memory_equal(first, "\xe5\x28\x90", 3);
		assert_int_equal(first[PAGE_SIZE - 1], 0xe5);
		assert_int_equal(second[0], 0x2a);
		assert_memory_equal(data_page, "\x0f\x31", 2);
		assert_memory_equal(last, "\xe5\x28", 2);
		assert_int_equal(sites.len, 4);
	}
	assert_int_equal(sites.site[0].gva.v, AREA + PAGE_SIZE);
	assert_true(sites.site[0].tail);
	assert_int_equal(sites.site[2].gva.v, AREA + PAGE_SIZE - 1);
	assert_false(sites.site[2].tail);
	rewrite_show_original(&sites, GPA(0x10000), shown, 2);
	assert_memory_equal(shown, "\x0f\x31", 2);

	/* The first page is freed and used for data, which are shown as they are; then for code again. */
	memcpy(first, "\xe5\x29", 2);
	memcpy(shown, first, 2);
	rewrite_show_original(&sites, GPA(0x10000), shown, 2);
	assert_memory_equal(shown, "\xe5\x29", 2);
	memcpy(first, "\x0f\xa2", 2);
	assert_int_equal(modules_rewrite(mem, &sregs, "third", &sites, NULL), 0);
	assert_memory_equal(first, "\xe5\x2a", 2);
	assert_int_equal(sites.len, 4);
	rewrite_show_original(&sites, GPA(0x10000), shown, 1);
	assert_memory_equal(shown, "\x0f", 1);
	memcpy(shown, "\xe5\x2a", 2);
	rewrite_show_original(&sites, GPA(0x10000), shown, 2);
	assert_memory_equal(shown, "\x0f\xa2", 2);
	/* Noted are all four, in the order of their addresses each time. */
	assert_int_equal(sites.notes, 4);
	assert_note(&sites.note[0], AREA, REWRITE_RDTSC, "first");
	assert_note(&sites.note[1], AREA + PAGE_SIZE - 1, REWRITE_CPUID, "first");
	assert_note(&sites.note[2], AREA + 601 * PAGE_SIZE, REWRITE_RDTSC, "first");
	assert_note(&sites.note[3], AREA, REWRITE_CPUID, "third");
	rewrite_sites_free(&sites);
	memory_destroy(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hook_in_each_kind_of_start),
		cmocka_unit_test(no_hook_elsewhere),
		cmocka_unit_test(damaged_exports),
		cmocka_unit_test(executable_pages_by_brute_force),
		cmocka_unit_test(modules_are_rewritten),
		cmocka_unit_test(notes_are_bounded),
		cmocka_unit_test(names_of_modules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
