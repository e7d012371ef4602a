// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/expr.h"

#include <errno.h>

/* GDB manual, "Bytecode Descriptions". */
enum op {
	OP_ADD = 0x02,
	OP_SUB = 0x03,
	OP_MUL = 0x04,
	OP_DIV_SIGNED = 0x05,
	OP_DIV_UNSIGNED = 0x06,
	OP_REM_SIGNED = 0x07,
	OP_REM_UNSIGNED = 0x08,
	OP_LSH = 0x09,
	OP_RSH_SIGNED = 0x0a,
	OP_RSH_UNSIGNED = 0x0b,
	OP_LOG_NOT = 0x0e,
	OP_BIT_AND = 0x0f,
	OP_BIT_OR = 0x10,
	OP_BIT_XOR = 0x11,
	OP_BIT_NOT = 0x12,
	OP_EQUAL = 0x13,
	OP_LESS_SIGNED = 0x14,
	OP_LESS_UNSIGNED = 0x15,
	OP_EXT = 0x16,
	OP_REF8 = 0x17,
	OP_REF16 = 0x18,
	OP_REF32 = 0x19,
	OP_REF64 = 0x1a,
	OP_IF_GOTO = 0x20,
	OP_GOTO = 0x21,
	OP_CONST8 = 0x22,
	OP_CONST16 = 0x23,
	OP_CONST32 = 0x24,
	OP_CONST64 = 0x25,
	OP_REG = 0x26,
	OP_END = 0x27,
	OP_DUP = 0x28,
	OP_POP = 0x29,
	OP_ZERO_EXT = 0x2a,
	OP_SWAP = 0x2b,
	OP_PICK = 0x32,
	OP_ROT = 0x33,
	OPS
};

/* Bytes of operand behind the op, values it takes off the stack. */
struct shape {
	bool known;
	uint8_t operand;
	uint8_t pops;
};

static const struct shape shapes[OPS] = {
	[OP_ADD] = {true, 0, 2},	  [OP_SUB] = {true, 0, 2},
	[OP_MUL] = {true, 0, 2},	  [OP_DIV_SIGNED] = {true, 0, 2},
	[OP_DIV_UNSIGNED] = {true, 0, 2}, [OP_REM_SIGNED] = {true, 0, 2},
	[OP_REM_UNSIGNED] = {true, 0, 2}, [OP_LSH] = {true, 0, 2},
	[OP_RSH_SIGNED] = {true, 0, 2},	  [OP_RSH_UNSIGNED] = {true, 0, 2},
	[OP_LOG_NOT] = {true, 0, 1},	  [OP_BIT_AND] = {true, 0, 2},
	[OP_BIT_OR] = {true, 0, 2},	  [OP_BIT_XOR] = {true, 0, 2},
	[OP_BIT_NOT] = {true, 0, 1},	  [OP_EQUAL] = {true, 0, 2},
	[OP_LESS_SIGNED] = {true, 0, 2},  [OP_LESS_UNSIGNED] = {true, 0, 2},
	[OP_EXT] = {true, 1, 1},	  [OP_REF8] = {true, 0, 1},
	[OP_REF16] = {true, 0, 1},	  [OP_REF32] = {true, 0, 1},
	[OP_REF64] = {true, 0, 1},	  [OP_IF_GOTO] = {true, 2, 1},
	[OP_GOTO] = {true, 2, 0},	  [OP_CONST8] = {true, 1, 0},
	[OP_CONST16] = {true, 2, 0},	  [OP_CONST32] = {true, 4, 0},
	[OP_CONST64] = {true, 8, 0},	  [OP_REG] = {true, 2, 0},
	[OP_END] = {true, 0, 0},	  [OP_DUP] = {true, 0, 1},
	[OP_POP] = {true, 0, 1},	  [OP_ZERO_EXT] = {true, 1, 1},
	[OP_SWAP] = {true, 0, 2},	  [OP_PICK] = {true, 1, 0},
	[OP_ROT] = {true, 0, 3},
};

struct stack {
	uint64_t v[GDB_EXPR_STACK];
	size_t n;
};

/* Bits n and up of v are copies of bit n - 1, or zero. n outside 1-63 leaves v as it is. */
static uint64_t extend(uint64_t v, uint64_t n, bool sign)
{
	uint64_t low;

	if (n == 0 || n > 63)
		return v;
	low = (1ull << n) - 1;
	v &= low;
	return sign && v >> (n - 1) ? v | ~low : v;
}

static uint64_t shift_right(uint64_t v, uint64_t n, bool sign)
{
	uint64_t fill = sign && v >> 63 ? ~0ull : 0;

	if (n == 0)
		return v;
	return n > 63 ? fill : v >> n | fill << (64 - n);
}

static int divide(enum op op, uint64_t a, uint64_t b, uint64_t *v)
{
	if (b == 0)
		return -EDOM;
	if (op == OP_DIV_UNSIGNED)
		*v = a / b;
	else if (op == OP_REM_UNSIGNED)
		*v = a % b;
	else if (b == ~0ull) /* the most negative number divided by -1 traps */
		*v = op == OP_DIV_SIGNED ? 0 - a : 0;
	else if (op == OP_DIV_SIGNED)
		*v = (uint64_t)((int64_t)a / (int64_t)b);
	else
		*v = (uint64_t)((int64_t)a % (int64_t)b);
	return 0;
}

static int binary(enum op op, uint64_t a, uint64_t b, uint64_t *v)
{
	switch (op) {
	case OP_ADD:
		*v = a + b;
		return 0;
	case OP_SUB:
		*v = a - b;
		return 0;
	case OP_MUL:
		*v = a * b;
		return 0;
	case OP_LSH:
		*v = b > 63 ? 0 : a << b;
		return 0;
	case OP_RSH_SIGNED:
	case OP_RSH_UNSIGNED:
		*v = shift_right(a, b, op == OP_RSH_SIGNED);
		return 0;
	case OP_BIT_AND:
		*v = a & b;
		return 0;
	case OP_BIT_OR:
		*v = a | b;
		return 0;
	case OP_BIT_XOR:
		*v = a ^ b;
		return 0;
	case OP_EQUAL:
		*v = a == b;
		return 0;
	case OP_LESS_SIGNED:
		*v = (int64_t)a < (int64_t)b;
		return 0;
	case OP_LESS_UNSIGNED:
		*v = a < b;
		return 0;
	default:
		return divide(op, a, b, v);
	}
}

static int push(struct stack *s, uint64_t v)
{
	if (s->n == GDB_EXPR_STACK)
		return -EINVAL;
	s->v[s->n++] = v;
	return 0;
}

/* Read size bytes, little endian, at the address on top; the value takes its place. */
static int load(struct stack *s, size_t size, const struct gdb_expr_env *env)
{
	uint8_t bytes[8];
	uint64_t v = 0;
	int rc = env->read_memory(env->ctx, s->v[s->n - 1], bytes, size);

	if (rc)
		return rc;
	for (size_t i = 0; i < size; i++)
		v |= (uint64_t)bytes[i] << (8 * i);
	s->v[s->n - 1] = v;
	return 0;
}

/* An op that is no jump. */
static int step(struct stack *s, enum op op, uint64_t operand, const struct gdb_expr_env *env)
{
	uint64_t *top = s->n ? &s->v[s->n - 1] : s->v;
	uint64_t v;
	int rc;

	switch (op) {
	case OP_CONST8:
	case OP_CONST16:
	case OP_CONST32:
	case OP_CONST64:
		return push(s, operand);
	case OP_REG:
		rc = env->get_register(env->ctx, (unsigned)operand, &v);
		return rc ? rc : push(s, v);
	case OP_DUP:
		return push(s, *top);
	case OP_PICK:
		return operand < s->n ? push(s, s->v[s->n - 1 - operand]) : -EINVAL;
	case OP_POP:
		s->n--;
		return 0;
	case OP_SWAP:
		v = top[0];
		top[0] = top[-1];
		top[-1] = v;
		return 0;
	case OP_ROT: /* a b c => c a b */
		v = top[0];
		top[0] = top[-1];
		top[-1] = top[-2];
		top[-2] = v;
		return 0;
	case OP_LOG_NOT:
		*top = !*top;
		return 0;
	case OP_BIT_NOT:
		*top = ~*top;
		return 0;
	case OP_EXT:
	case OP_ZERO_EXT:
		*top = extend(*top, operand, op == OP_EXT);
		return 0;
	case OP_REF8:
		return load(s, 1, env);
	case OP_REF16:
		return load(s, 2, env);
	case OP_REF32:
		return load(s, 4, env);
	case OP_REF64:
		return load(s, 8, env);
	default:
		s->n--;
		return binary(op, top[-1], top[0], &top[-1]);
	}
}

int gdb_expr_eval(const uint8_t *code, size_t len, const struct gdb_expr_env *env, uint64_t *value)
{
	struct stack s = {.n = 0};
	size_t pc = 0;

	for (unsigned steps = 0; steps < GDB_EXPR_STEPS; steps++) {
		const struct shape *shape;
		uint64_t operand = 0;
		enum op op;
		int rc;

		if (pc >= len)
			return -EINVAL;
		op = (enum op)code[pc++];
		if (op >= OPS || !shapes[op].known)
			return -ENOTSUP;
		shape = &shapes[op];
		if (shape->operand > len - pc || shape->pops > s.n)
			return -EINVAL;
		for (unsigned i = 0; i < shape->operand; i++)
			operand = operand << 8 | code[pc++]; /* big endian */

		if (op == OP_END) {
			if (s.n == 0)
				return -EINVAL;
			*value = s.v[s.n - 1];
			return 0;
		}
		if (op == OP_GOTO || (op == OP_IF_GOTO && s.v[--s.n])) {
			pc = operand;
			continue;
		}
		if (op == OP_IF_GOTO)
			continue;
		rc = step(&s, op, operand, env);
		if (rc)
			return rc;
	}
	return -ELOOP;
}
