/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the rows of the assist table share: one decoded instruction with its operands, and the ways
 * to read and write what they name.
 */
#ifndef VMM_ASSIST_INTERNAL_H
#define VMM_ASSIST_INTERNAL_H

#include "vmm/assist.h"

#include <Zydis/Zydis.h>

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
	VECTOR_MF = 16
};

/* The instruction faults. The error code is ignored for vectors that have none. Returns
 * ASSIST_EVENT. */
int assist_raise(struct assist *a, uint8_t vector, uint32_t error);

/* A general register by its Zydis name, any width. */
uint64_t *assist_gpr(struct assist *a, ZydisRegister reg);

/* Copy from or to a memory operand. alignment: 1, or what the instruction demands on pain of #GP.
 */
int assist_load(struct assist *a, const ZydisDecodedOperand *op, void *out, size_t size,
		size_t alignment);
int assist_store(struct assist *a, const ZydisDecodedOperand *op, const void *data, size_t size,
		 size_t alignment);
/* Faults as assist_store would, without storing. */
int assist_check_store(struct assist *a, const ZydisDecodedOperand *op, size_t size,
		       size_t alignment);

/* XSAVE area, standard format (SDM 1, 13.4): offsets in bytes, bits of the header's first word. */
#define XSAVE_FCW 0
#define XSAVE_FSW 2
#define XSAVE_MXCSR 24
#define XSAVE_XMM 160
#define XSAVE_XMM_SIZE 256
#define XSAVE_HEADER 512
#define XSAVE_HAS_X87 1ull
#define XSAVE_HAS_SSE 2ull

/* x87 and SSE state, spelled out where it is the initial one. */
int assist_get_fpu(struct assist *a, struct kvm_xsave *area);
/* Marks the SSE state as present. */
int assist_set_fpu(struct assist *a, struct kvm_xsave *area);

/* assist_sse.c. First: is there a row for this instruction with these operands, and of which kind?
 */
bool assist_sse_knows(const struct assist *a, enum assist_kind *kind);
int assist_sse(struct assist *a);
int assist_ldmxcsr(struct assist *a);
int assist_stmxcsr(struct assist *a);

#endif
