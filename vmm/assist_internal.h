/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the rows of the assist table share: one decoded instruction with its operands, and the ways
 * to read and write what they name.
 */
#ifndef VMM_ASSIST_INTERNAL_H
#define VMM_ASSIST_INTERNAL_H

#include "vmm/assist.h"
#include "vmm/cpuid.h"

#include <Zydis/Zydis.h>

/* Long mode is active (SDM 4, IA32_EFER). */
#define EFER_LMA (1ull << 10)

/* A row's function returns 0 (done), ASSIST_EVENT or a negative errno value with err filled. */
#define ASSIST_EVENT 1

enum assist_event {
	ASSIST_FAULT,	 /* an exception; RIP stays on the instruction, registers as before */
	ASSIST_INTERRUPT /* a software interrupt; RIP goes past the instruction */
};

struct assist {
	struct vcpu *v;
	struct kvm_sregs sregs;
	struct kvm_regs regs; /* a copy; becomes the vCPU's when the instruction completes */
	uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	_Alignas(struct kvm_xsave) uint8_t fpu[sizeof(struct kvm_xsave)]; /* by assist_get_fpu */
	struct err *err;

	/* With ASSIST_EVENT; set by assist_raise. */
	enum assist_event event;
	uint8_t vector;
	uint32_t error;
	uint64_t address; /* CR2 of a page fault */
};

/* Exception vectors (SDM 3A, table 6-1). */
enum {
	VECTOR_DB = 1,
	VECTOR_BP = 3,
	VECTOR_UD = 6,
	VECTOR_NM = 7,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_MF = 16,
	VECTOR_XM = 19
};

/* The instruction faults. The error code is ignored for vectors that have none. Returns
 * ASSIST_EVENT. */
int assist_raise(struct assist *a, uint8_t vector, uint32_t error);

/* A general register by its Zydis name, any width. */
uint64_t *assist_gpr(struct assist *a, ZydisRegister reg);

/* Linear address of a memory operand, with the checks that come before paging (SDM 3A 5.3). */
int assist_address(struct assist *a, const ZydisDecodedOperand *op, size_t size, size_t alignment,
		   gva_t *gva);

/* Copy from or to a memory operand of at most a page. alignment: 1, or what the instruction demands on pain of #GP.
 */
int assist_load(struct assist *a, const ZydisDecodedOperand *op, void *out, size_t size,
		size_t alignment);
int assist_store(struct assist *a, const ZydisDecodedOperand *op, const void *data, size_t size,
		 size_t alignment);
/* What the CPU itself reads, from a descriptor table: as supervisor, whatever CPL and SMAP say. */
int assist_load_system(struct assist *a, gva_t gva, void *out, size_t size);
/* Faults as assist_store would, without storing. */
int assist_check_store(struct assist *a, const ZydisDecodedOperand *op, size_t size,
		       size_t alignment);

/* XSAVE area, standard format (SDM 1, 13.4): offsets in bytes. */
#define XSAVE_FCW 0
#define XSAVE_FSW 2
#define XSAVE_FOP 6
#define XSAVE_FIP 8
#define XSAVE_FDP 16
#define XSAVE_MXCSR 24
#define XSAVE_ST 32
#define XSAVE_XMM 160
#define XSAVE_XMM_SIZE 256
#define XSAVE_HEADER 512

/* Read the vCPU's floating-point state into a->fpu; components in their initial state are spelled out. */
int assist_get_fpu(struct assist *a);
/* Set it to a->fpu; x87 and SSE state are marked as present. */
int assist_set_fpu(struct assist *a);

/* assist_exec.c. -EOPNOTSUPP without a message if this is no instruction for it; else *kind is set. */
int assist_exec(struct assist *a, enum assist_kind *kind);

/* assist_system.c */
int assist_descriptor(struct assist *a);
int assist_clac_stac(struct assist *a);
int assist_undefined(struct assist *a);

/* assist_xsave.c */
int assist_xsave(struct assist *a);
int assist_xrstor(struct assist *a);
int assist_xgetbv(struct assist *a);
int assist_xsetbv(struct assist *a);

#endif
