/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A target without a machine: a CPU of a dozen real x86-64 instructions runs one small program, and
 * the past is found again by running it from the start. So gdb can disassemble, unwind and go both
 * ways over it, and what it is told can be checked against a model that is too small to be wrong.
 */
#ifndef TESTS_GDB_FAKE_TARGET_H
#define TESTS_GDB_FAKE_TARGET_H

#include "gdbstub/target.h"

#define FAKE_RAM 0x40000u /* a power of two; at linear and physical address 0 */

/* The program: main calls work in a loop, RCX times, then halts. */
#define FAKE_MAIN 0x1000u
#define FAKE_CALL 0x1004u /* the call in main */
#define FAKE_AFTER_CALL 0x1009u
#define FAKE_WORK 0x1010u
#define FAKE_INC 0x1014u	 /* inc rax */
#define FAKE_STORE 0x1017u	 /* mov [rdi], rax: changes FAKE_COUNTER */
#define FAKE_STORE_AGAIN 0x101au /* the same once more: changes nothing */
#define FAKE_LOAD 0x101du	 /* mov rdx, [rdi] */
#define FAKE_RET 0x1021u
#define FAKE_ROUND 11u	     /* instructions from one FAKE_CALL to the next */
#define FAKE_COUNTER 0x9000u /* RDI: how often work has run */
#define FAKE_TEXT 0x20000u   /* "hindsight" lies here */
#define FAKE_STACK 0x8000u

struct fake_edit;

struct fake {
	struct gdb_registers regs;
	uint8_t ram[FAKE_RAM];
	uint64_t written;    /* pages of RAM, a bit each, that are not all zeros any more */
	uint64_t position;   /* instructions since the start */
	uint64_t end;	     /* where the recording ends */
	bool live;	     /* no recording: ends by exiting, has no past */
	bool endless_memory; /* reads outside of RAM give zeros */
	unsigned slice_us;   /* sleep so long every 1,024 instructions: a slow machine */
	/* What gdb has changed, in order of position: the branch. */
	struct fake_edit *edits;
	size_t n_edits;
	unsigned branches;
	/* What tests look at. */
	struct gdb_resume last_resume;
	unsigned kills;
	struct gdb_target target;
};

/* rounds: how often main calls work. A recording of all of it, or live. */
struct fake *fake_create(uint64_t rounds, bool live);
/* As if just created: cheaper than a new one, for a fuzzer. */
void fake_renew(struct fake *f, uint64_t rounds, bool live);
void fake_destroy(struct fake *f);
/* Go to a position. */
void fake_seek(struct fake *f, uint64_t position);

#endif
