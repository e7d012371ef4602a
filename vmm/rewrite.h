/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Rewriting of nondeterministic instructions. KVM cannot hand RDTSC, RDTSCP, RDRAND, RDSEED or
 * (where KVM_SET_CPUID2 is ignored) CPUID to user space, so in the guest's text they become
 * IN EAX, imm8 (E5 ib) with a reserved port: position-independent, and an ordinary exit at CPL0 on
 * any KVM. The port tells what it was. The destination register of RDRAND and RDSEED is kept in
 * two places: bit 3 chooses between two ports, and bits 2:0 are one of eight prefixes (Rn below)
 * that IN ignores. REX could hold it in 64-bit mode only; these serve every mode alike.
 *
 *   RDTSC          0f 31         ->  e5 PORT
 *   CPUID          0f a2         ->  e5 PORT
 *   RDTSCP         0f 01 f9      ->  e5 PORT 90
 *   RDRAND         0f c7 /6      ->  Rn e5 PORT
 *   RDSEED         0f c7 /7      ->  Rn e5 PORT
 *
 *   n    0   1   2   3   4   5   6   7
 *   Rn  26  2e  36  3e  64  65  67  90
 *
 * Longer forms (operand-size prefix, needed or redundant REX) end in NOPs. A LOCK or REP prefix on
 * these leaves the instruction alone (it faults or is another instruction).
 *
 * ELFCLASS64 images and programs with a 64-bit boot header are decoded as 64-bit code, all others as 32-bit code. A 64-bit image's .code32
 * part cannot be told from the rest: RDTSC, RDTSCP and CPUID are encoded equally there, and a
 * decoder that takes INC and DEC (40-4f) for REX prefixes is in step again one instruction later.
 */
#ifndef VMM_REWRITE_H
#define VMM_REWRITE_H

#include "base/buf.h"
#include "base/err.h"
#include "vmm/loader.h"
#include "vmm/memory.h"

/*
 * Between the first 8259 and the 8254. What drivers probe there (Super-I/O chips at 0x2e) they read
 * by bytes; no device of a PC has a 32-bit port there, and IN EAX is what is claimed.
 */
#define REWRITE_PORT_FIRST 0x28
#define REWRITE_PORT_LAST 0x36
/* Of the hook that vmm/modules.h puts into the kernel. */
#define REWRITE_PORT_HOOK 0x37

/* Of IN EAX, imm8. */
#define REWRITE_IN_LENGTH 2u

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
	REWRITE_KINDS,
	REWRITE_HOOK = REWRITE_KINDS /* the hook for modules, which replaces another instruction */
};

/* An instruction, or the part of it that lies in one page. */
struct rewrite_site {
	gva_t gva;
	gpa_t gpa;
	enum rewrite_kind kind;
	uint8_t len;
	bool tail;      /* not its first part */
	bool in_module; /* by rewrite_pages */
	uint8_t original[15];
	uint8_t written[15];
};

/* A module's name (MODULE_NAME_LEN of include/linux/moduleparam.h, of 64-bit kernels) and what was rewritten there, for
 * whoever asks later: the module may be gone by then. */
#define REWRITE_MODULE_NAME 56u
#define REWRITE_NOTES_MAX 128u

struct rewrite_note {
	gva_t gva;
	enum rewrite_kind kind;
	char module[REWRITE_MODULE_NAME]; /* "" if not known */
};

struct rewrite_sites {
	struct rewrite_site *site; /* sorted by gpa */
	size_t len;
	/* In modules, also in those that are gone: how often, and where for the first of them. */
	uint64_t module_count[REWRITE_KINDS];
	struct rewrite_note *note; /* room for REWRITE_NOTES_MAX from the first on: most guests have none */
	unsigned notes;
};

/*
 * Decode the text ranges and rewrite in RAM. Where the image is an ELF file with symbols: from
 * symbol to symbol, leaving out data (STT_OBJECT) and what lies between the end of a function of
 * known size and the next symbol. Elsewhere linearly, resynchronising after undecodable bytes. Only
 * bytes that are the start of an instruction in this decode are touched. Free with
 * rewrite_sites_free. -EFAULT if a range is not RAM, -ENOMEM.
 */
int rewrite_text(struct memory *mem, const struct guest_image *image, const struct text_range *text,
		 size_t text_len, struct rewrite_sites *sites, struct err *err);
void rewrite_sites_free(struct rewrite_sites *sites);
/*
 * The same for 64-bit code that has come to [gva, gva+pages) later, page i of which lies at page[i]; gva is
 * page-aligned; module is its name, "" if that is not known. Decoded linearly. Adds to sites, and drops those
 * whose code is there no more. What has been rewritten already stays as it is.
 */
int rewrite_pages(struct memory *mem, gva_t gva, const gpa_t *page, size_t pages, const char *module,
		  struct rewrite_sites *sites, struct err *err);
/* Replace the instruction of this length at gva, which lies at gpa, by an IN from REWRITE_PORT_HOOK. */
int rewrite_hook(struct memory *mem, gva_t gva, gpa_t gpa, uint8_t len, struct rewrite_sites *sites,
		 struct err *err);
/* Replace the rewritten bytes in a copy of guest memory [gpa, gpa+len) by the original ones; where other
 * code has taken their place nothing is replaced. */
void rewrite_show_original(const struct rewrite_sites *sites, gpa_t gpa, uint8_t *bytes,
			   size_t len);
const char *rewrite_kind_name(enum rewrite_kind kind);

/* True if a 32-bit IN from this port is one of ours; kind receives which. */
bool rewrite_port_kind(uint16_t port, enum rewrite_kind *kind);
/* Destination register (0-15, x86 numbering) from the bytes before the address after the IN:
 * before[2..3] are the two bytes of the IN, before[1] is the prefix. 0 if it is none of ours. */
unsigned rewrite_destination(const uint8_t before[4]);

#endif
