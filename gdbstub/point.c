// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/point.h"

#include "base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void gdb_points_clear(struct gdb_points *p)
{
	for (size_t i = 0; i < p->count; i++)
		free(p->list[i].conditions);
	free(p->list);
	*p = (struct gdb_points){0};
}

static int compare(const struct gdb_point *a, const struct gdb_point *b)
{
	if (a->addr != b->addr)
		return a->addr < b->addr ? -1 : 1;
	if (a->type != b->type)
		return a->type < b->type ? -1 : 1;
	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	return 0;
}

/* Index of the first point that is not before key. */
static size_t lower_bound(const struct gdb_points *p, const struct gdb_point *key)
{
	size_t low = 0, high = p->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (compare(&p->list[mid], key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct gdb_point *insert(struct gdb_points *p, size_t at, const struct gdb_point *point)
{
	if (p->count == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 16;
		struct gdb_point *list = reallocarray(p->list, cap, sizeof(*list));

		if (!list)
			return NULL;
		p->list = list;
		p->cap = cap;
	}
	memmove(&p->list[at + 1], &p->list[at], (p->count - at) * sizeof(*p->list));
	p->count++;
	p->list[at] = *point;
	p->list[at].conditions = NULL;
	p->list[at].conditions_len = 0;
	return &p->list[at];
}

int gdb_points_set(struct gdb_points *p, const struct gdb_point *point, struct err *err)
{
	size_t at = lower_bound(p, point);
	bool there = at < p->count && compare(&p->list[at], point) == 0;
	struct gdb_point *own = there ? &p->list[at] : NULL;
	uint8_t *conditions = NULL;

	if (!there && p->count == GDB_POINTS_MAX)
		return err_set(err, ENOSPC, "there are %d breakpoints and watchpoints already",
			       GDB_POINTS_MAX);
	if (p->conditions_len + point->conditions_len > GDB_CONDITIONS_MAX)
		return err_set(err, ENOSPC,
			       "the conditions of all breakpoints take more than %u bytes",
			       GDB_CONDITIONS_MAX);
	if (point->conditions_len) {
		conditions = malloc(point->conditions_len);
		if (!conditions)
			return err_set(err, ENOMEM, "out of memory");
		memcpy(conditions, point->conditions, point->conditions_len);
	}
	if (!own)
		own = insert(p, at, point);
	if (!own) {
		free(conditions);
		return err_set(err, ENOMEM, "out of memory");
	}
	p->conditions_len += point->conditions_len;
	p->conditions_len -= own->conditions_len;
	free(own->conditions);
	own->conditions = conditions;
	own->conditions_len = point->conditions_len;
	return 0;
}

void gdb_points_remove(struct gdb_points *p, const struct gdb_point *point)
{
	size_t at = lower_bound(p, point);

	if (at == p->count || compare(&p->list[at], point) != 0)
		return;
	p->conditions_len -= p->list[at].conditions_len;
	free(p->list[at].conditions);
	memmove(&p->list[at], &p->list[at + 1], (p->count - at - 1) * sizeof(*p->list));
	p->count--;
}

const struct gdb_point *gdb_points_from(const struct gdb_points *p, uint64_t addr)
{
	const struct gdb_point key = {.addr = addr};

	return p->list ? p->list + lower_bound(p, &key) : NULL;
}

bool gdb_point_holds(const struct gdb_point *p, const struct gdb_expr_env *env)
{
	struct reader r = reader_init(p->conditions, p->conditions_len);

	if (!p->conditions_len)
		return true;
	while (reader_left(&r)) {
		size_t len = reader_u32(&r);
		const uint8_t *code = reader_take(&r, len);
		uint64_t value;

		if (r.failed || gdb_expr_eval(code, len, env, &value) || value)
			return true;
	}
	return false;
}
