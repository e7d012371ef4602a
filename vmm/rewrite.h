/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Rewriting of nondeterministic instructions. KVM cannot hand RDTSC, RDTSCP, RDRAND, RDSEED or
 * (where KVM_SET_CPUID2 is ignored) CPUID to user space, so in the guest's text they become
 * IN EAX, imm8 (E5 ib) with a reserved port: position-independent, and an ordinary exit at CPL0 on
 * any KVM. The instruction's kind is the port; the destination register of RDRAND and RDSEED is kept in
 * the low four bits of a REX prefix before the IN, which IN ignores:
 *
 *   RDTSC          0f 31         ->  e5 PORT
 *   CPUID          0f a2         ->  e5 PORT
 *   RDTSCP         0f 01 f9      ->  e5 PORT 90
 *   RDRAND r32     0f c7 /6      ->  4r e5 PORT        (r64: with its own port; longer forms + 90s)
 *
 * 16-bit RDRAND/RDSEED have ports of their own too. A LOCK or REP prefix on these leaves the
 * instruction alone (it faults or is another instruction).
 */
#ifndef VMM_REWRITE_H
#define VMM_REWRITE_H

#include "base/buf.h"
#include "base/err.h"
#include "vmm/loader.h"
#include "vmm/memory.h"

/* Unassigned on a PC (between the first 8259 and the 8254), so no driver probes it. */
#define REWRITE_PORT_FIRST 0x28

enum rewrite_kind {
	REWRITE_RDTSC,
	REWRITE_RDTSCP,
	REWRITE_CPUID,
	REWRITE_RDRAND16,
	REWRITE_RDRAND32,
	REWRITE_RDRAND64,
	REWRITE_RDSEED16,
	REWRITE_RDSEED32,
	REWRITE_RDSEED64,
	REWRITE_KINDS
};

struct rewrite_site {
	gva_t gva;
	gpa_t gpa;
	enum rewrite_kind kind;
	uint8_t len;
	uint8_t original[15];
};

struct rewrite_sites {
	struct rewrite_site *site; /* sorted by gpa */
	size_t len;
};

/* Decode the text ranges (with the ELF's function symbols where it has them: from symbol to symbol; else
 * linearly, resynchronising after undecodable bytes) and rewrite in RAM. Free with rewrite_sites_free. */
int rewrite_text(struct memory *mem, const struct guest_image *image, const struct text_range *text,
		 size_t text_len, struct rewrite_sites *sites, struct err *err);
void rewrite_sites_free(struct rewrite_sites *sites);
/* Replace the rewritten bytes in a copy of guest memory [gpa, gpa+len) by the original ones. */
void rewrite_show_original(const struct rewrite_sites *sites, gpa_t gpa, uint8_t *bytes, size_t len);
const char *rewrite_kind_name(enum rewrite_kind kind);

/* True if the port is one of ours; kind receives which. */
bool rewrite_port_kind(uint16_t port, enum rewrite_kind *kind);
/* Destination register (0-15, x86 numbering) from the bytes before the address after the IN:
 * before[2..3] are the two bytes of the IN, before[1] is the REX prefix. */
unsigned rewrite_destination(const uint8_t before[4]);

#endif
