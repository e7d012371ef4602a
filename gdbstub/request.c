// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/request.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* What is left of the packet. Takers return false, and take nothing, if what they want is not
 * there. */
struct text {
	const uint8_t *p;
	const uint8_t *end;
};

static size_t left(const struct text *t)
{
	return (size_t)(t->end - t->p);
}

static bool take_char(struct text *t, char c)
{
	if (t->p == t->end || *t->p != (uint8_t)c)
		return false;
	t->p++;
	return true;
}

static bool take_word(struct text *t, const char *word)
{
	size_t n = strlen(word);

	if (left(t) < n || memcmp(t->p, word, n) != 0)
		return false;
	t->p += n;
	return true;
}

static int digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Hex number of at most 64 bits. */
static bool take_number(struct text *t, uint64_t *v)
{
	const uint8_t *p = t->p;

	*v = 0;
	for (; p < t->end && digit(*p) >= 0; p++) {
		if (*v >> 60)
			return false;
		*v = *v << 4 | (uint64_t)digit(*p);
	}
	if (p == t->p)
		return false;
	t->p = p;
	return true;
}

static bool take_small(struct text *t, unsigned *v)
{
	uint64_t wide;

	if (!take_number(t, &wide) || wide > INT_MAX)
		return false;
	*v = (unsigned)wide;
	return true;
}

/* Pairs of hex digits, up to n bytes or the first other character. */
static size_t take_bytes(struct text *t, struct buf *out, uint64_t n)
{
	size_t taken = 0;

	for (; taken < n && left(t) >= 2 && digit(t->p[0]) >= 0 && digit(t->p[1]) >= 0; taken++) {
		buf_put_u8(out, (uint8_t)(digit(t->p[0]) << 4 | digit(t->p[1])));
		t->p += 2;
	}
	return taken;
}

/* Hex bytes to the end. */
static bool take_rest(struct text *t, struct buf *out)
{
	take_bytes(t, out, UINT64_MAX);
	return left(t) == 0;
}

/* "1f", "-1", "0", or with a process, of which there is one: "p1.1f", "p1". */
static bool take_thread(struct text *t, int *thread)
{
	unsigned v;

	if (take_char(t, 'p')) {
		if (!take_word(t, "-1") && !take_small(t, &v))
			return false;
		*thread = GDB_THREAD_ALL;
		if (!take_char(t, '.'))
			return true;
	}
	if (take_word(t, "-1")) {
		*thread = GDB_THREAD_ALL;
		return true;
	}
	if (!take_small(t, &v))
		return false;
	*thread = (int)v;
	return true;
}

static bool take_span(struct text *t, struct gdb_request *r)
{
	return take_number(t, &r->addr) && take_char(t, ',') && take_number(t, &r->len);
}

/* --- One parser a packet -------------------------------------------------------------------- */

/* Where what follows is of no interest. */
static bool parse_anything(struct text *t, struct gdb_request *r)
{
	(void)t;
	(void)r;
	return true;
}

static bool parse_rest_as_data(struct text *t, struct gdb_request *r)
{
	buf_put(&r->data, t->p, left(t));
	return true;
}

static bool parse_hex_data(struct text *t, struct gdb_request *r)
{
	return take_rest(t, &r->data);
}

static bool parse_register(struct text *t, struct gdb_request *r)
{
	return take_small(t, &r->number) && left(t) == 0;
}

static bool parse_write_register(struct text *t, struct gdb_request *r)
{
	return take_small(t, &r->number) && take_char(t, '=') && take_rest(t, &r->data);
}

static bool parse_span(struct text *t, struct gdb_request *r)
{
	return take_span(t, r) && left(t) == 0;
}

static bool parse_write_memory(struct text *t, struct gdb_request *r)
{
	return take_span(t, r) && take_char(t, ':') && take_rest(t, &r->data) &&
	       r->data.len == r->len;
}

static bool parse_write_binary(struct text *t, struct gdb_request *r)
{
	if (!take_span(t, r) || !take_char(t, ':') || left(t) != r->len)
		return false;
	return parse_rest_as_data(t, r);
}

static bool parse_search(struct text *t, struct gdb_request *r)
{
	if (!take_number(t, &r->addr) || !take_char(t, ';') || !take_number(t, &r->len) ||
	    !take_char(t, ';') || left(t) == 0)
		return false;
	return parse_rest_as_data(t, r);
}

static bool parse_point(struct text *t, struct gdb_request *r)
{
	unsigned type;

	if (!take_small(t, &type) || !take_char(t, ',') || !take_number(t, &r->point.addr) ||
	    !take_char(t, ',') || !take_number(t, &r->point.len))
		return false;
	if (type >= GDB_POINT_TYPES) {
		r->type = GDB_UNKNOWN;
		t->p = t->end;
		return true;
	}
	r->point.type = (enum gdb_point_type)type;
	return true;
}

static bool parse_clear_point(struct text *t, struct gdb_request *r)
{
	return parse_point(t, r) && left(t) == 0;
}

static bool parse_set_point(struct text *t, struct gdb_request *r)
{
	if (!parse_point(t, r))
		return false;
	if (r->type == GDB_SET_POINT && gdb_point_is_watch(&r->point) &&
	    (r->point.len == 0 || r->point.addr + (r->point.len - 1) < r->point.addr))
		return false;
	/* ";X" length "," code, and again, with or without another ';'. No commands. */
	while (left(t)) {
		uint64_t len;

		take_char(t, ';');
		if (!take_char(t, 'X') || !take_number(t, &len) || !take_char(t, ',') ||
		    len > left(t) / 2)
			return false;
		buf_put_u32(&r->data, (uint32_t)len);
		if (take_bytes(t, &r->data, len) != len)
			return false;
	}
	r->point.conditions = r->data.data;
	r->point.conditions_len = (uint32_t)r->data.len;
	return true;
}

static bool resume_selected(struct gdb_request *r, enum gdb_action_kind kind)
{
	r->selected = true;
	r->n_actions = 1;
	r->actions[0] = (struct gdb_action){.kind = kind, .thread = GDB_THREAD_ALL};
	return true;
}

static bool take_pc(struct text *t, struct gdb_request *r)
{
	if (left(t) == 0)
		return true;
	r->has_pc = true;
	return take_number(t, &r->addr) && left(t) == 0;
}

static bool parse_continue(struct text *t, struct gdb_request *r)
{
	return take_pc(t, r) && resume_selected(r, GDB_CONTINUE);
}

static bool parse_step(struct text *t, struct gdb_request *r)
{
	return take_pc(t, r) && resume_selected(r, GDB_STEP);
}

/* A signal number comes first; kernels take none from gdb. */
static bool take_signal(struct text *t)
{
	uint64_t sig;

	return take_number(t, &sig) && sig <= 0xff;
}

static bool take_signal_and_pc(struct text *t, struct gdb_request *r)
{
	return take_signal(t) && (left(t) == 0 || (take_char(t, ';') && left(t) && take_pc(t, r)));
}

static bool parse_continue_signal(struct text *t, struct gdb_request *r)
{
	return take_signal_and_pc(t, r) && resume_selected(r, GDB_CONTINUE);
}

static bool parse_step_signal(struct text *t, struct gdb_request *r)
{
	return take_signal_and_pc(t, r) && resume_selected(r, GDB_STEP);
}

static bool take_action(struct text *t, struct gdb_action *a)
{
	if (left(t) == 0)
		return false;
	*a = (struct gdb_action){.thread = GDB_THREAD_ALL};
	switch (*t->p++) {
	case 'c':
		a->kind = GDB_CONTINUE;
		break;
	case 'C':
		a->kind = GDB_CONTINUE;
		if (!take_signal(t))
			return false;
		break;
	case 's':
		a->kind = GDB_STEP;
		break;
	case 'S':
		a->kind = GDB_STEP;
		if (!take_signal(t))
			return false;
		break;
	case 'r':
		a->kind = GDB_STEP_RANGE;
		if (!take_number(t, &a->start) || !take_char(t, ',') || !take_number(t, &a->end))
			return false;
		break;
	case 't':
		a->kind = GDB_STAY;
		break;
	default:
		return false;
	}
	return !take_char(t, ':') || take_thread(t, &a->thread);
}

static bool parse_vcont(struct text *t, struct gdb_request *r)
{
	do {
		if (r->n_actions == GDB_ACTIONS_MAX || !take_action(t, &r->actions[r->n_actions]))
			return false;
		r->n_actions++;
	} while (take_char(t, ';'));
	return left(t) == 0;
}

static bool parse_select_thread(struct text *t, struct gdb_request *r)
{
	if (left(t) == 0)
		return false;
	r->number = *t->p++;
	return (r->number == 'g' || r->number == 'c') && take_thread(t, &r->thread) && left(t) == 0;
}

static bool parse_thread(struct text *t, struct gdb_request *r)
{
	return take_thread(t, &r->thread) && left(t) == 0;
}

static bool parse_features(struct text *t, struct gdb_request *r)
{
	if (left(t) == 0)
		return true;
	return take_char(t, ':') && parse_rest_as_data(t, r);
}

/* "ANNEX:OFFSET,LENGTH" */
static bool parse_object(struct text *t, struct gdb_request *r, enum gdb_object object)
{
	const uint8_t *colon = left(t) ? memchr(t->p, ':', left(t)) : NULL;

	if (!colon)
		return false;
	buf_put(&r->data, t->p, (size_t)(colon - t->p));
	t->p = colon + 1;
	r->object = object;
	return take_span(t, r) && left(t) == 0;
}

static bool parse_xfer_features(struct text *t, struct gdb_request *r)
{
	return parse_object(t, r, GDB_OBJECT_FEATURES);
}

static bool parse_xfer_memory_map(struct text *t, struct gdb_request *r)
{
	return parse_object(t, r, GDB_OBJECT_MEMORY_MAP);
}

static bool parse_xfer_threads(struct text *t, struct gdb_request *r)
{
	return parse_object(t, r, GDB_OBJECT_THREADS);
}

static bool parse_xfer_auxv(struct text *t, struct gdb_request *r)
{
	return parse_object(t, r, GDB_OBJECT_AUXV);
}

/* "FILE;ARG;ARG...", each in hex. The file is whatever gdb thinks it debugs. */
static bool parse_run(struct text *t, struct gdb_request *r)
{
	r->number = 1;
	if (take_char(t, ';'))
		take_bytes(t, &r->data, UINT64_MAX);
	buf_clear(&r->data);
	while (take_char(t, ';')) {
		if (r->data.len)
			buf_put_u8(&r->data, ' ');
		take_bytes(t, &r->data, UINT64_MAX);
	}
	return left(t) == 0;
}

static bool parse_vkill(struct text *t, struct gdb_request *r)
{
	(void)t;
	r->number = 1;
	return true;
}

static bool parse_flag(struct text *t, struct gdb_request *r)
{
	return take_small(t, &r->number) && left(t) == 0;
}

struct parser {
	const char *word; /* the packet begins with it */
	enum gdb_request_type type;
	bool (*parse)(struct text *t, struct gdb_request *r); /* NULL: it is the whole packet */
};

/* The first that fits is taken: longer words stand before their beginnings. */
static const struct parser parsers[] = {
	{"qSupported", GDB_FEATURES, parse_features},
	{"QStartNoAckMode", GDB_NO_ACKS, NULL},
	{"qXfer:features:read:", GDB_READ_OBJECT, parse_xfer_features},
	{"qXfer:memory-map:read:", GDB_READ_OBJECT, parse_xfer_memory_map},
	{"qXfer:threads:read:", GDB_READ_OBJECT, parse_xfer_threads},
	{"qXfer:auxv:read:", GDB_READ_OBJECT, parse_xfer_auxv},
	{"qRcmd,", GDB_MONITOR, parse_hex_data},
	{"qSearch:memory:", GDB_SEARCH_MEMORY, parse_search},
	{"qCRC:", GDB_CRC_MEMORY, parse_span},
	{"qThreadExtraInfo,", GDB_THREAD_INFO, parse_thread},
	{"qfThreadInfo", GDB_FIRST_THREADS, NULL},
	{"qsThreadInfo", GDB_MORE_THREADS, NULL},
	{"qAttached", GDB_ATTACHED, parse_anything},
	/* QEMU's, by which scripts know a machine from a process; either case of q. */
	{"qqemu.sstepbits", GDB_STEP_FLAGS_KNOWN, NULL},
	{"Qqemu.sstepbits", GDB_STEP_FLAGS_KNOWN, NULL},
	{"qqemu.sstep=", GDB_SET_STEP_FLAGS, parse_flag},
	{"Qqemu.sstep=", GDB_SET_STEP_FLAGS, parse_flag},
	{"qqemu.sstep", GDB_GET_STEP_FLAGS, NULL},
	{"Qqemu.sstep", GDB_GET_STEP_FLAGS, NULL},
	{"qqemu.PhyMemMode", GDB_GET_PHYSICAL, NULL},
	{"Qqemu.PhyMemMode:", GDB_SET_PHYSICAL, parse_flag},
	{"vCont;", GDB_RESUME, parse_vcont},
	{"vCont?", GDB_RESUME_KINDS, NULL},
	{"vKill;", GDB_KILL, parse_vkill},
	{"vRun", GDB_RESTART, parse_run},
	{"bs", GDB_REVERSE_STEP, NULL},
	{"bc", GDB_REVERSE_CONTINUE, NULL},
	{"qC", GDB_CURRENT_THREAD, NULL},
	{"?", GDB_STOP_REASON, NULL},
	{"!", GDB_EXTENDED_MODE, NULL},
	{"g", GDB_READ_REGISTERS, NULL},
	{"G", GDB_WRITE_REGISTERS, parse_hex_data},
	{"p", GDB_READ_REGISTER, parse_register},
	{"P", GDB_WRITE_REGISTER, parse_write_register},
	{"m", GDB_READ_MEMORY, parse_span},
	{"x", GDB_READ_BINARY, parse_span},
	{"M", GDB_WRITE_MEMORY, parse_write_memory},
	{"X", GDB_WRITE_MEMORY, parse_write_binary},
	{"Z", GDB_SET_POINT, parse_set_point},
	{"z", GDB_CLEAR_POINT, parse_clear_point},
	{"c", GDB_RESUME, parse_continue},
	{"s", GDB_RESUME, parse_step},
	{"C", GDB_RESUME, parse_continue_signal},
	{"S", GDB_RESUME, parse_step_signal},
	{"H", GDB_SELECT_THREAD, parse_select_thread},
	{"T", GDB_THREAD_ALIVE, parse_thread},
	{"R", GDB_RESTART, parse_anything},
	{"k", GDB_KILL, parse_anything},
	{"D", GDB_DETACH, parse_anything},
};

int gdb_request_parse(struct gdb_request *r, const uint8_t *payload, size_t len, struct err *err)
{
	struct buf data = r->data;

	buf_clear(&data);
	*r = (struct gdb_request){.data = data};
	for (size_t i = 0; i < ARRAY_SIZE(parsers); i++) {
		const struct parser *parser = &parsers[i];
		struct text t = {payload, payload + len};

		if (!take_word(&t, parser->word) || (!parser->parse && left(&t)))
			continue;
		r->type = parser->type;
		if (parser->parse && !parser->parse(&t, r))
			return err_set(err, EINVAL, "the packet '%s' is malformed", parser->word);
		if (r->data.failed)
			return err_set(err, ENOMEM, "out of memory");
		return 0;
	}
	return 0;
}
