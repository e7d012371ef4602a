// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/regs.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Features by the names that gdb knows (GDB manual, "Standard Target Features", "i386 Features");
 * the last one before AVX is ours. gdb takes what it does not know as plain registers. */
enum feature { CORE, SSE, SEGMENTS, SYSTEM, AVX, FEATURES };

/* Bits of a flags register: gdb prints their names. */
struct flag {
	const char *name;
	uint8_t bit;
};

struct flags_type {
	const char *id;
	uint8_t size;
	const struct flag *flags; /* ends with a NULL name */
};

/* Intel SDM vol. 1, 3.4.3. */
static const struct flag eflags_bits[] = {
	{"CF", 0},  {"", 1},	{"PF", 2},   {"AF", 4},	  {"ZF", 6},  {"SF", 7},
	{"TF", 8},  {"IF", 9},	{"DF", 10},  {"OF", 11},  {"NT", 14}, {"RF", 16},
	{"VM", 17}, {"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21}, {NULL, 0}};
/* Intel SDM vol. 1, 10.2.3. */
static const struct flag mxcsr_bits[] = {{"IE", 0},  {"DE", 1},	 {"ZE", 2},  {"OE", 3},	 {"UE", 4},
					 {"PE", 5},  {"DAZ", 6}, {"IM", 7},  {"DM", 8},	 {"ZM", 9},
					 {"OM", 10}, {"UM", 11}, {"PM", 12}, {"FZ", 15}, {NULL, 0}};
/* Intel SDM vol. 3, 2.5. */
static const struct flag cr0_bits[] = {{"PE", 0},  {"MP", 1},  {"EM", 2},  {"TS", 3},
				       {"ET", 4},  {"NE", 5},  {"WP", 16}, {"AM", 18},
				       {"NW", 29}, {"CD", 30}, {"PG", 31}, {NULL, 0}};
static const struct flag cr4_bits[] = {
	{"VME", 0},	    {"PVI", 1},	   {"TSD", 2},	    {"DE", 3},	  {"PSE", 4},
	{"PAE", 5},	    {"MCE", 6},	   {"PGE", 7},	    {"PCE", 8},	  {"OSFXSR", 9},
	{"OSXMMEXCPT", 10}, {"UMIP", 11},  {"LA57", 12},    {"VMXE", 13}, {"SMXE", 14},
	{"FSGSBASE", 16},   {"PCIDE", 17}, {"OSXSAVE", 18}, {"SMEP", 20}, {"SMAP", 21},
	{"PKE", 22},	    {"CET", 23},   {NULL, 0}};
/* Intel SDM vol. 3, 2.2.1; AMD APM vol. 2, 3.1.7. */
static const struct flag efer_bits[] = {{"SCE", 0},   {"LME", 8},    {"LMA", 10}, {"NXE", 11},
					{"SVME", 12}, {"FFXSR", 14}, {NULL, 0}};

static const struct flags_type flags_types[FEATURES][4] = {
	[CORE] = {{"i386_eflags", 4, eflags_bits}},
	[SSE] = {{"i386_mxcsr", 4, mxcsr_bits}},
	[SYSTEM] = {{"system_cr0", 8, cr0_bits},
		    {"system_cr4", 8, cr4_bits},
		    {"system_efer", 8, efer_bits}},
};

static const char *const feature_names[FEATURES] = {
	[CORE] = "org.gnu.gdb.i386.core",	  [SSE] = "org.gnu.gdb.i386.sse",
	[SEGMENTS] = "org.gnu.gdb.i386.segments", [SYSTEM] = "org.hindsight.system",
	[AVX] = "org.gnu.gdb.i386.avx",
};

/* The parts of an SSE register (GDB manual, "Predefined Target Types" has the elements). */
static const char vec128[] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
			     "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
			     "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
			     "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
			     "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
			     "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
			     "<union id=\"vec128\">"
			     "<field name=\"v4_float\" type=\"v4f\"/>"
			     "<field name=\"v2_double\" type=\"v2d\"/>"
			     "<field name=\"v16_int8\" type=\"v16i8\"/>"
			     "<field name=\"v8_int16\" type=\"v8i16\"/>"
			     "<field name=\"v4_int32\" type=\"v4i32\"/>"
			     "<field name=\"v2_int64\" type=\"v2i64\"/>"
			     "<field name=\"uint128\" type=\"uint128\"/>"
			     "</union>";

struct reg {
	const char *name;
	const char *type;
	uint16_t offset;
	uint8_t size;
	uint8_t feature;
	uint8_t group;
	bool read_only;
};

#define R(feature_, group_, name_, type_, field, ...)                                              \
	{                                                                                          \
		.name = name_, .type = type_, .offset = offsetof(struct gdb_registers, field),     \
		.size = sizeof(((struct gdb_registers *)0)->field), .feature = feature_,           \
		.group = group_, __VA_ARGS__                                                       \
	}
#define GENERAL(name, type, field) R(CORE, GDB_REGS_GENERAL, name, type, field, )
#define SELECTOR(name, i) R(CORE, GDB_REGS_SYSTEM, name, "int32", selector[i], )
#define ST(i) R(CORE, GDB_REGS_FLOAT, "st" #i, "i387_ext", st[i], )
#define X87(name) R(CORE, GDB_REGS_FLOAT, #name, "int", name, )
#define XMM(i) R(SSE, GDB_REGS_FLOAT, "xmm" #i, "vec128", xmm[i], )
#define SYS(name, type, field) R(SYSTEM, GDB_REGS_SYSTEM, name, type, field, )
#define SHOWN(name, type, field) R(SYSTEM, GDB_REGS_SYSTEM, name, type, field, .read_only = true)
#define YMMH(i) R(AVX, GDB_REGS_FLOAT, "ymm" #i "h", "uint128", ymmh[i], )

/* A register's number is its index. The order of the first 57 is gdb's own for x86-64; fs_base,
 * gs_base, k_gs_base, cr0-cr8 and efer are named as QEMU names them, since scripts look for those.
 */
static const struct reg regs[] = {
	GENERAL("rax", "int64", gpr[GDB_RAX]),
	GENERAL("rbx", "int64", gpr[GDB_RBX]),
	GENERAL("rcx", "int64", gpr[GDB_RCX]),
	GENERAL("rdx", "int64", gpr[GDB_RDX]),
	GENERAL("rsi", "int64", gpr[GDB_RSI]),
	GENERAL("rdi", "int64", gpr[GDB_RDI]),
	GENERAL("rbp", "data_ptr", gpr[GDB_RBP]),
	GENERAL("rsp", "data_ptr", gpr[GDB_RSP]),
	GENERAL("r8", "int64", gpr[GDB_R8]),
	GENERAL("r9", "int64", gpr[GDB_R9]),
	GENERAL("r10", "int64", gpr[GDB_R10]),
	GENERAL("r11", "int64", gpr[GDB_R11]),
	GENERAL("r12", "int64", gpr[GDB_R12]),
	GENERAL("r13", "int64", gpr[GDB_R13]),
	GENERAL("r14", "int64", gpr[GDB_R14]),
	GENERAL("r15", "int64", gpr[GDB_R15]),
	GENERAL("rip", "code_ptr", rip),
	GENERAL("eflags", "i386_eflags", rflags),
	SELECTOR("cs", GDB_CS),
	SELECTOR("ss", GDB_SS),
	SELECTOR("ds", GDB_DS),
	SELECTOR("es", GDB_ES),
	SELECTOR("fs", GDB_FS),
	SELECTOR("gs", GDB_GS),
	ST(0),
	ST(1),
	ST(2),
	ST(3),
	ST(4),
	ST(5),
	ST(6),
	ST(7),
	X87(fctrl),
	X87(fstat),
	X87(ftag),
	X87(fiseg),
	X87(fioff),
	X87(foseg),
	X87(fooff),
	X87(fop),
	XMM(0),
	XMM(1),
	XMM(2),
	XMM(3),
	XMM(4),
	XMM(5),
	XMM(6),
	XMM(7),
	XMM(8),
	XMM(9),
	XMM(10),
	XMM(11),
	XMM(12),
	XMM(13),
	XMM(14),
	XMM(15),
	R(SSE, GDB_REGS_FLOAT, "mxcsr", "i386_mxcsr", mxcsr, ),
	R(SEGMENTS, GDB_REGS_SYSTEM, "fs_base", "int64", base[GDB_FS], ),
	R(SEGMENTS, GDB_REGS_SYSTEM, "gs_base", "int64", base[GDB_GS], ),
	SYS("k_gs_base", "int64", kernel_gs_base),
	SYS("cr0", "system_cr0", cr0),
	SYS("cr2", "int64", cr2),
	SYS("cr3", "int64", cr3),
	SYS("cr4", "system_cr4", cr4),
	SYS("cr8", "int64", cr8),
	SYS("efer", "system_efer", efer),
	SYS("star", "int64", star),
	SYS("lstar", "code_ptr", lstar),
	SYS("cstar", "code_ptr", cstar),
	SYS("sfmask", "int64", sfmask),
	SYS("gdt_base", "data_ptr", gdt_base),
	SYS("gdt_limit", "int32", gdt_limit),
	SYS("idt_base", "data_ptr", idt_base),
	SYS("idt_limit", "int32", idt_limit),
	SHOWN("tr", "int32", tr),
	SHOWN("tr_base", "data_ptr", tr_base),
	SHOWN("ldtr", "int32", ldtr),
	SHOWN("ldtr_base", "data_ptr", ldtr_base),
	SHOWN("cs_base", "int64", base[GDB_CS]),
	SHOWN("ss_base", "int64", base[GDB_SS]),
	SHOWN("ds_base", "int64", base[GDB_DS]),
	SHOWN("es_base", "int64", base[GDB_ES]),
	SYS("dr0", "int64", dr[0]),
	SYS("dr1", "int64", dr[1]),
	SYS("dr2", "int64", dr[2]),
	SYS("dr3", "int64", dr[3]),
	SYS("dr6", "int64", dr6),
	SYS("dr7", "int64", dr7),
	YMMH(0),
	YMMH(1),
	YMMH(2),
	YMMH(3),
	YMMH(4),
	YMMH(5),
	YMMH(6),
	YMMH(7),
	YMMH(8),
	YMMH(9),
	YMMH(10),
	YMMH(11),
	YMMH(12),
	YMMH(13),
	YMMH(14),
	YMMH(15),
};

#define AVX_REGS 16

unsigned gdb_regs_count(bool avx)
{
	return (unsigned)ARRAY_SIZE(regs) - (avx ? 0 : AVX_REGS);
}

unsigned gdb_reg_group(unsigned number)
{
	return regs[number].group;
}

size_t gdb_reg_size(unsigned number)
{
	return regs[number].size;
}

bool gdb_reg_writable(unsigned number)
{
	return !regs[number].read_only;
}

uint8_t *gdb_reg_bytes(struct gdb_registers *r, unsigned number)
{
	return (uint8_t *)r + regs[number].offset;
}

__attribute__((format(printf, 2, 3))) static void print(struct buf *xml, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	buf_put(xml, line, strlen(line));
}

static void describe_flags(struct buf *xml, const struct flags_type *t)
{
	print(xml, "<flags id=\"%s\" size=\"%u\">", t->id, t->size);
	for (const struct flag *f = t->flags; f->name; f++)
		print(xml, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", f->name, f->bit, f->bit);
	print(xml, "</flags>");
}

static void describe_feature(struct buf *xml, enum feature feature)
{
	print(xml, "<feature name=\"%s\">\n", feature_names[feature]);
	if (feature == SSE)
		buf_put(xml, vec128, sizeof(vec128) - 1);
	for (const struct flags_type *t = flags_types[feature]; t->id; t++)
		describe_flags(xml, t);
	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		const struct reg *r = &regs[i];

		if (r->feature != feature)
			continue;
		/* What a function call in the guest does to the machine's own registers should not
		 * be undone (gdb 13 does so all the same). */
		print(xml, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"%s%s/>\n",
		      r->name, r->size * 8u, r->type, i,
		      strcmp(r->type, "int") == 0 ? " group=\"float\"" : "",
		      feature == SYSTEM ? " group=\"system\" save-restore=\"no\"" : "");
	}
	print(xml, "</feature>\n");
}

void gdb_regs_describe(struct buf *xml, bool avx)
{
	print(xml, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
		   "<target version=\"1.0\"><architecture>i386:x86-64</architecture>\n");
	for (enum feature f = 0; f < FEATURES; f++) {
		if (f != AVX || avx)
			describe_feature(xml, f);
	}
	print(xml, "</target>\n");
}
