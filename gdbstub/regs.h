/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Registers as gdb sees them: one 64-bit description whatever mode the CPU is in, since gdb loses
 * the connection when the description changes under it. One table says for each register its
 * number, name, size, type and place in struct gdb_registers; packets and target description are
 * made from it.
 */
#ifndef GDBSTUB_REGS_H
#define GDBSTUB_REGS_H

#include "base/buf.h"
#include "base/err.h"

/* What a target fetches or stores together. */
enum {
	GDB_REGS_GENERAL = 1, /* gpr, rip, rflags */
	GDB_REGS_SYSTEM = 2,  /* segments, bases, control registers, MSRs */
	GDB_REGS_FLOAT = 4,   /* x87, SSE, AVX */
};

/* In gdb's order, which is not the CPU's. */
enum gdb_gpr {
	GDB_RAX,
	GDB_RBX,
	GDB_RCX,
	GDB_RDX,
	GDB_RSI,
	GDB_RDI,
	GDB_RBP,
	GDB_RSP,
	GDB_R8,
	GDB_R9,
	GDB_R10,
	GDB_R11,
	GDB_R12,
	GDB_R13,
	GDB_R14,
	GDB_R15,
	GDB_GPRS
};

enum gdb_segment { GDB_CS, GDB_SS, GDB_DS, GDB_ES, GDB_FS, GDB_GS, GDB_SEGMENTS };

/* Numbers of registers that packets name outright. */
enum { GDB_REGNUM_RBP = 6, GDB_REGNUM_RSP = 7, GDB_REGNUM_RIP = 16 };

struct gdb_registers {
	/* GDB_REGS_GENERAL */
	uint64_t gpr[GDB_GPRS];
	uint64_t rip; /* linear: CS base added, so that gdb looks at the right code in real mode */
	uint32_t rflags;
	/* GDB_REGS_SYSTEM */
	uint32_t selector[GDB_SEGMENTS];
	uint64_t base[GDB_SEGMENTS];
	uint64_t kernel_gs_base;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer;
	uint64_t star, lstar, cstar, sfmask;
	uint64_t gdt_base, idt_base;
	uint32_t gdt_limit, idt_limit, tr, ldtr;
	uint64_t tr_base, ldtr_base;
	uint64_t dr[4], dr6, dr7;
	/* GDB_REGS_FLOAT */
	uint8_t st[8][10];
	uint32_t fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop; /* ftag: two bits each */
	uint8_t xmm[16][16];
	uint32_t mxcsr;
	uint8_t ymmh[16][16]; /* only where the target has AVX */
};

/* Registers of the description; those of AVX come last. */
unsigned gdb_regs_count(bool avx);
/* Group of a register, size in bytes. The number must be below gdb_regs_count. */
unsigned gdb_reg_group(unsigned number);
size_t gdb_reg_size(unsigned number);
/* gdb may write it: the base of CS, SS, DS and ES is for looking only. */
bool gdb_reg_writable(unsigned number);
/* Its bytes, little endian. */
uint8_t *gdb_reg_bytes(struct gdb_registers *r, unsigned number);
/* All groups in which there is a register. */
#define GDB_REGS_ALL (GDB_REGS_GENERAL | GDB_REGS_SYSTEM | GDB_REGS_FLOAT)

/* Append the target description (XML). */
void gdb_regs_describe(struct buf *xml, bool avx);

#endif
