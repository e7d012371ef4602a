/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Breakpoints and watchpoints that gdb has set. gdb takes all of them out at every stop and puts
 * them back at every resume, so this is only a table: the target is handed it when it is to run,
 * and applies what changed.
 */
#ifndef GDBSTUB_POINT_H
#define GDBSTUB_POINT_H

#include "base/err.h"
#include "base/types.h"
#include "gdbstub/expr.h"

/* Enough for anybody; bounds what a hostile peer makes us keep. */
#define GDB_POINTS_MAX 65536
#define GDB_CONDITIONS_MAX (16u << 20) /* bytes, of all points together */

/* The digit in a Z packet (GDB manual, "Packets"). */
enum gdb_point_type {
	GDB_POINT_SOFT = 0,
	GDB_POINT_HARD = 1,
	GDB_POINT_WRITE =
		2, /* hit by a store that changes a byte; gdb passes over others in silence */
	GDB_POINT_READ = 3,
	GDB_POINT_ACCESS = 4,
	GDB_POINT_TYPES
};

struct gdb_point {
	enum gdb_point_type type;
	uint64_t addr; /* linear */
	uint64_t len;  /* watched bytes; of a breakpoint, a kind that x86 has no use for */
	/* Agent expressions, each with its length (u32) before it; the point counts as hit if one
	 * is not zero, or there is none. */
	uint8_t *conditions;
	uint32_t conditions_len;
};

/* Zero-initialise; release with gdb_points_clear. Sorted by address, then type and length. */
struct gdb_points {
	struct gdb_point *list;
	size_t count;
	size_t cap;
	size_t conditions_len; /* of all */
};

void gdb_points_clear(struct gdb_points *p);
/* Set a point; one that is there already gets the conditions of the new one, which are copied. */
int gdb_points_set(struct gdb_points *p, const struct gdb_point *point, struct err *err);
/* Taking out what is not there is no error. */
void gdb_points_remove(struct gdb_points *p, const struct gdb_point *point);

static inline bool gdb_point_is_watch(const struct gdb_point *p)
{
	return p->type >= GDB_POINT_WRITE;
}

/* The first point whose address is addr or more: from there the list is walked up to
 * gdb_points_end. */
const struct gdb_point *gdb_points_from(const struct gdb_points *p, uint64_t addr);
static inline const struct gdb_point *gdb_points_end(const struct gdb_points *p)
{
	return p->list ? p->list + p->count : NULL;
}

/* The point's conditions hold. One that cannot be evaluated does: gdb evaluates again and knows
 * better. */
bool gdb_point_holds(const struct gdb_point *p, const struct gdb_expr_env *env);

#endif
