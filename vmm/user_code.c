// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/user_code.h"

#include "vmm/kick.h"

#include <asm/processor-flags.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>
#include <xxhash.h>

/* Paging-structure entries (SDM 3A, 4.5.4) and EFER. */
#define ENTRY_PRESENT 0x1ull
#define ENTRY_USER 0x4ull
#define ENTRY_LARGE 0x80ull
#define ENTRY_NX (1ull << 63)
#define ENTRY_ADDR 0x000ffffffffff000ull
#define EFER_LMA (1ull << 10)
#define ENTRIES 512
/* User addresses are the lower half. */
#define ENTRIES_USER 256

/* Contents remembered; beyond it pages are looked at again, which costs time and nothing else. A power of two. */
#define SEEN 8192

/* Pages and tables that one scan visits at most: 256 MiB of code. Tables may point at each other in circles. */
#define VISITS_MAX 65536

/* Time between two scans, in units of what the first of them took. */
#define SHARE 32u

struct user_code {
	uint64_t seen[SEEN]; /* hashes of pages, each in the slot of its low bits; 0: none */
	struct user_code_found found[USER_INSTRUCTIONS];
	uint64_t next; /* host_ns when the next scan is due */
};

struct scan {
	struct user_code *u;
	const struct memory *mem;
	uint64_t cr3;
	unsigned visits;
};

int user_code_create(struct user_code **u, struct err *err)
{
	*u = calloc(1, sizeof(**u));
	return *u ? 0 : err_set(err, ENOMEM, "out of memory");
}

void user_code_destroy(struct user_code *u)
{
	free(u);
}

const char *user_instruction_name(enum user_instruction i)
{
	static const char *const names[USER_INSTRUCTIONS] = {"rdtsc", "rdtscp", "rdpid", "rdrand", "rdseed"};

	return i < USER_INSTRUCTIONS ? names[i] : "unknown";
}

static bool is_untrappable(ZydisMnemonic mnemonic, enum user_instruction *which)
{
	static const ZydisMnemonic mnemonics[USER_INSTRUCTIONS] = {
		[USER_RDTSC] = ZYDIS_MNEMONIC_RDTSC,   [USER_RDTSCP] = ZYDIS_MNEMONIC_RDTSCP,
		[USER_RDPID] = ZYDIS_MNEMONIC_RDPID,   [USER_RDRAND] = ZYDIS_MNEMONIC_RDRAND,
		[USER_RDSEED] = ZYDIS_MNEMONIC_RDSEED,
	};

	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++) {
		if (mnemonics[i] == mnemonic) {
			*which = (enum user_instruction)i;
			return true;
		}
	}
	return false;
}

/* All of them begin with 0f 31, 0f 01 or 0f c7: most pages hold none, and need not be decoded. */
static bool may_hold_one(const uint8_t *page)
{
	const uint8_t *p = page, *end = page + PAGE_SIZE - 1;

	while ((p = memchr(p, 0x0f, (size_t)(end - p)))) {
		if (p[1] == 0x31 || (p[1] == 0x01 && p + 2 <= end && p[2] == 0xf9) || p[1] == 0xc7)
			return true;
		p++;
	}
	return false;
}

static void decode_page(struct scan *s, const uint8_t *page, uint64_t gva)
{
	ZydisDecoder decoder;
	size_t at = 0;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	while (at < PAGE_SIZE) {
		ZydisDecodedInstruction insn;
		enum user_instruction which;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, page + at, PAGE_SIZE - at,
								&insn))) {
			at++;
			continue;
		}
		if (is_untrappable(insn.mnemonic, &which)) {
			struct user_code_found *found = &s->u->found[which];

			if (!found->places++) {
				found->gva = GVA(gva + at);
				found->cr3 = s->cr3;
			}
		}
		at += insn.length;
	}
}

static void look_at_page(struct scan *s, uint64_t gpa, uint64_t gva)
{
	const uint8_t *page = memory_at(s->mem, GPA(gpa), PAGE_SIZE);
	uint64_t hash, *seen;

	if (!page || s->visits++ >= VISITS_MAX)
		return;
	hash = XXH3_64bits(page, PAGE_SIZE) | 1;
	seen = &s->u->seen[hash >> 1 & (SEEN - 1)];
	if (*seen == hash)
		return;
	*seen = hash;
	if (may_hold_one(page))
		decode_page(s, page, gva);
}

/* level: 4 is the PML4. */
static void walk_table(struct scan *s, uint64_t table, unsigned level, uint64_t gva)
{
	unsigned shift = PAGE_SHIFT + 9 * (level - 1);
	const uint64_t *entry = memory_at(s->mem, GPA(table), PAGE_SIZE);

	if (!entry || s->visits++ >= VISITS_MAX)
		return;
	for (unsigned i = 0; i < (level == 4 ? ENTRIES_USER : ENTRIES); i++) {
		uint64_t e = entry[i], at = gva | (uint64_t)i << shift;

		if (!(e & ENTRY_PRESENT) || !(e & ENTRY_USER) || (e & ENTRY_NX))
			continue;
		if (level == 1)
			look_at_page(s, e & ENTRY_ADDR, at);
		else if (!(e & ENTRY_LARGE))
			walk_table(s, e & ENTRY_ADDR, level - 1, at);
		else if (level < 4)
			for (uint64_t n = 0; n < 1ull << shift && s->visits < VISITS_MAX; n += PAGE_SIZE)
				look_at_page(s, (e & ENTRY_ADDR & ~((1ull << shift) - 1)) + n, at + n);
	}
}

void user_code_scan(struct user_code *u, const struct memory *mem, const struct kvm_sregs *sregs)
{
	struct scan s = {.u = u, .mem = mem, .cr3 = sregs->cr3 & ENTRY_ADDR};
	uint64_t began = host_ns(), now;

	if ((sregs->cr0 & X86_CR0_PG) && (sregs->efer & EFER_LMA) && !(sregs->cr4 & X86_CR4_LA57))
		walk_table(&s, s.cr3, 4, 0);
	now = host_ns();
	u->next = now + SHARE * (now - began);
}

bool user_code_is_due(const struct user_code *u)
{
	return host_ns() >= u->next;
}

const struct user_code_found *user_code_found(const struct user_code *u)
{
	return u->found;
}
