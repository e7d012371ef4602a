/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Agent expressions: the byte code into which gdb compiles the condition of a breakpoint (GDB
 * manual, appendix "The GDB Agent Expression Mechanism"). It comes from the peer, so it is bounded
 * in every way.
 */
#ifndef GDBSTUB_EXPR_H
#define GDBSTUB_EXPR_H

#include "base/err.h"
#include "base/types.h"

/* gdb's own need is a stack of some ten values and no loops. */
#define GDB_EXPR_STACK 64
#define GDB_EXPR_STEPS 10000

/* Where values come from; each returns 0 or a negative errno. */
struct gdb_expr_env {
	void *ctx;
	int (*get_register)(void *ctx, unsigned number, uint64_t *value);
	int (*read_memory)(void *ctx, uint64_t addr, void *data, size_t n);
};

/*
 * Evaluate; *value is the top of the stack at the end. -EINVAL for code that makes no sense,
 * -ENOTSUP for what is for tracepoints or floating point, -EDOM for a division by zero, -ELOOP if
 * it takes too long, and whatever env returns.
 */
int gdb_expr_eval(const uint8_t *code, size_t len, const struct gdb_expr_env *env, uint64_t *value);

#endif
