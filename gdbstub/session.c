// SPDX-License-Identifier: GPL-3.0-or-later
#include "gdbstub/session_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Text for the user is sent in pieces of this size. */
#define CONSOLE_PIECE 2048
/* What is kept while gdb takes none. */
#define CONSOLE_KEEP 8192

/* --- Errors and text ------------------------------------------------------------------------ */

void session_reply_error_text(struct gdb_session *s, const struct err *err)
{
	buf_clear(&s->reply);
	gdb_put_text(&s->reply, "E.%s", err->text);
}

void session_reply_error(struct gdb_session *s, int rc, const struct err *err)
{
	if (s->error_text) {
		session_reply_error_text(s, err);
		return;
	}
	buf_clear(&s->reply);
	gdb_put_text(&s->reply, "E%02x", (unsigned)-rc & 0xff);
}

static void send_console(struct gdb_session *s)
{
	struct buf packet = {0};

	for (size_t pos = 0; pos < s->console.len && !s->abandoned; pos += CONSOLE_PIECE) {
		size_t n = s->console.len - pos;

		buf_clear(&packet);
		buf_put_u8(&packet, 'O');
		gdb_put_hex(&packet, s->console.data + pos, n < CONSOLE_PIECE ? n : CONSOLE_PIECE);
		if (!packet.failed)
			gdb_conn_send(&s->conn, packet.data, packet.len);
	}
	buf_free(&packet);
	buf_clear(&s->console);
}

void gdb_session_print(struct gdb_session *s, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!s->console_open && s->console.len + strlen(text) > CONSOLE_KEEP)
		return;
	buf_put(&s->console, text, strlen(text));
	if (s->console_open && s->console.len >= CONSOLE_PIECE)
		send_console(s);
}

void session_begin(struct gdb_session *s, bool running)
{
	s->running = running;
	s->interrupted = false;
	s->console_open = true;
}

void session_end(struct gdb_session *s)
{
	send_console(s);
	s->console_open = false;
	s->running = false;
	s->interrupted = false;
}

uint64_t session_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

bool gdb_session_interrupted(struct gdb_session *s)
{
	if (!s->conn.gone)
		gdb_conn_wait(&s->conn, 0);
	if (s->console_open)
		send_console(s);
	if (gdb_decoder_take_break(&s->conn.in))
		s->interrupted = true;
	/* Ctrl-C makes gdb 13 leave a monitor command without a word. The next request tells; the
	 * reply to this one would be taken for the reply to that. */
	if (!s->running && gdb_decoder_has_packet(&s->conn.in))
		s->abandoned = true;
	return s->interrupted || s->abandoned || s->conn.gone || gdb_conn_quit(&s->conn);
}

/* --- Registers and memory ------------------------------------------------------------------- */

int session_read_registers(struct gdb_session *s, unsigned groups, struct gdb_registers *r,
			   struct err *err)
{
	memset(r, 0, sizeof(*r));
	return s->target->ops->read_registers(s->target->ctx, s->general_thread, groups, r, err);
}

static void read_registers(struct gdb_session *s)
{
	struct gdb_registers regs;
	struct err err;
	int rc = session_read_registers(s, GDB_REGS_ALL, &regs, &err);

	if (rc) {
		session_reply_error(s, rc, &err);
		return;
	}
	for (unsigned i = 0; i < gdb_regs_count(s->target->avx); i++)
		gdb_put_hex(&s->reply, gdb_reg_bytes(&regs, i), gdb_reg_size(i));
}

static int store_registers(struct gdb_session *s, unsigned groups, const struct gdb_registers *regs,
			   struct err *err)
{
	return s->target->ops->write_registers(s->target->ctx, s, s->general_thread, groups, regs,
					       err);
}

static int write_registers(struct gdb_session *s, struct err *err)
{
	const unsigned count = gdb_regs_count(s->target->avx);
	struct reader r = reader_init(s->request.data.data, s->request.data.len);
	struct gdb_registers regs;
	int rc = session_read_registers(s, GDB_REGS_ALL, &regs, err);

	if (rc)
		return rc;
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *bytes = reader_take(&r, gdb_reg_size(i));

		if (bytes && gdb_reg_writable(i))
			memcpy(gdb_reg_bytes(&regs, i), bytes, gdb_reg_size(i));
	}
	if (r.failed || reader_left(&r))
		return err_set(err, EINVAL,
			       "these are not the registers of the target description");
	return store_registers(s, GDB_REGS_ALL, &regs, err);
}

static int check_register(const struct gdb_session *s, struct err *err)
{
	if (s->request.number >= gdb_regs_count(s->target->avx))
		return err_set(err, EINVAL, "there is no register %u", s->request.number);
	return 0;
}

static void read_register(struct gdb_session *s)
{
	const unsigned number = s->request.number;
	struct gdb_registers regs;
	struct err err;
	int rc = check_register(s, &err);

	if (!rc)
		rc = session_read_registers(s, gdb_reg_group(number), &regs, &err);
	if (rc)
		session_reply_error(s, rc, &err);
	else
		gdb_put_hex(&s->reply, gdb_reg_bytes(&regs, number), gdb_reg_size(number));
}

static int write_register(struct gdb_session *s, struct err *err)
{
	const unsigned number = s->request.number;
	struct gdb_registers regs;
	int rc = check_register(s, err);

	if (rc)
		return rc;
	if (s->request.data.len != gdb_reg_size(number))
		return err_set(err, EINVAL, "register %u has %zu bytes", number,
			       gdb_reg_size(number));
	rc = session_read_registers(s, gdb_reg_group(number), &regs, err);
	if (rc)
		return rc;
	/* After a function call gdb writes back every register there is, those too that can only be
	 * read. */
	if (memcmp(gdb_reg_bytes(&regs, number), s->request.data.data, s->request.data.len) == 0)
		return 0;
	if (!gdb_reg_writable(number))
		return err_set(err, EPERM, "this register can only be read");
	memcpy(gdb_reg_bytes(&regs, number), s->request.data.data, s->request.data.len);
	return store_registers(s, gdb_reg_group(number), &regs, err);
}

static void read_memory(struct gdb_session *s, bool binary)
{
	const struct gdb_target *t = s->target;
	const size_t max = (GDB_PACKET_MAX - 1) / 2;
	size_t n = s->request.len < max ? (size_t)s->request.len : max;
	size_t done = 0;
	uint8_t *data = malloc(n + 1);
	struct err err;
	int rc = 0;

	if (!data)
		rc = err_set(&err, ENOMEM, "out of memory");
	else if (n)
		rc = t->ops->read_memory(t->ctx, s->general_thread,
					 s->physical ? GDB_PHYSICAL : GDB_LINEAR, s->request.addr,
					 data, n, &done, &err);
	else if (!binary) /* an empty reply would mean that the packet is unknown */
		rc = err_set(&err, EINVAL, "a read of no bytes");
	if (rc) {
		session_reply_error(s, rc, &err);
	} else if (binary) {
		buf_put_u8(&s->reply, 'b');
		gdb_put_binary(&s->reply, data, done);
	} else {
		gdb_put_hex(&s->reply, data, done);
	}
	free(data);
}

static int write_memory(struct gdb_session *s, struct err *err)
{
	const struct gdb_target *t = s->target;

	/* gdb's way to find out whether X is understood; must not count as a change to the past. */
	if (!s->request.data.len)
		return 0;
	return t->ops->write_memory(t->ctx, s, s->general_thread,
				    s->physical ? GDB_PHYSICAL : GDB_LINEAR, s->request.addr,
				    s->request.data.data, s->request.data.len, err);
}

/* --- Breakpoints ---------------------------------------------------------------------------- */

static int set_point(struct gdb_session *s, struct err *err)
{
	const struct gdb_target *t = s->target;
	int rc = t->ops->check_point ? t->ops->check_point(t->ctx, &s->request.point, err) : 0;

	return rc ? rc : gdb_points_set(&s->points, &s->request.point, err);
}

struct condition_env {
	const struct gdb_target *target;
	int thread;
	unsigned groups; /* that regs holds */
	struct gdb_registers regs;
};

static int condition_register(void *ctx, unsigned number, uint64_t *value)
{
	struct condition_env *env = ctx;
	const struct gdb_target *t = env->target;
	unsigned group;
	int rc;

	if (number >= gdb_regs_count(t->avx) || gdb_reg_size(number) > sizeof(*value))
		return -EINVAL;
	group = gdb_reg_group(number);
	if (!(env->groups & group)) {
		struct err err;

		rc = t->ops->read_registers(t->ctx, env->thread, group, &env->regs, &err);
		if (rc)
			return rc;
		env->groups |= group;
	}
	*value = 0;
	memcpy(value, gdb_reg_bytes(&env->regs, number), gdb_reg_size(number));
	return 0;
}

static int condition_memory(void *ctx, uint64_t addr, void *data, size_t n)
{
	struct condition_env *env = ctx;
	const struct gdb_target *t = env->target;
	size_t done = 0;
	struct err err;
	int rc = t->ops->read_memory(t->ctx, env->thread, GDB_LINEAR, addr, data, n, &done, &err);

	return rc ? rc : done == n ? 0 : -EFAULT;
}

bool gdb_target_point_holds(const struct gdb_target *t, int thread, const struct gdb_point *p)
{
	struct condition_env ctx = {.target = t, .thread = thread};
	const struct gdb_expr_env env = {
		.ctx = &ctx, .get_register = condition_register, .read_memory = condition_memory};

	return gdb_point_holds(p, &env);
}

/* --- The rest ------------------------------------------------------------------------------- */

static int check_thread(const struct gdb_session *s, struct err *err)
{
	if (s->request.thread < 1 || s->request.thread > s->target->threads)
		return err_set(err, ESRCH, "there is no thread %d", s->request.thread);
	return 0;
}

static int select_thread(struct gdb_session *s, struct err *err)
{
	bool any = s->request.thread == GDB_THREAD_ANY || s->request.thread == GDB_THREAD_ALL;
	int rc = any ? 0 : check_thread(s, err);

	if (rc)
		return rc;
	if (s->request.number == 'c')
		s->run_thread = s->request.thread;
	else
		s->general_thread = any ? s->stopped_thread : s->request.thread;
	return 0;
}

static int set_step_flags(struct gdb_session *s, struct err *err)
{
	unsigned known = STEP_ENABLE | (s->target->can_skip ? STEP_NO_IRQ | STEP_NO_TIMER : 0u);

	if (s->request.number & ~known)
		return err_set(err, EINVAL, "a step cannot pass over interrupts here");
	s->step_flags = s->request.number;
	return 0;
}

/* gdb leaves, or would if it were not in extended mode. */
static void leave(struct gdb_session *s, enum gdb_end end)
{
	s->end = end;
	s->ended = !s->extended;
}

static void reply_status(struct gdb_session *s, int rc, const struct err *err)
{
	if (rc)
		session_reply_error(s, rc, err);
	else
		gdb_put_text(&s->reply, "OK");
}

/* Carry out s->request; what is left in s->reply is the one answer to it. */
static void execute(struct gdb_session *s)
{
	struct gdb_request *q = &s->request;
	struct err err;

	switch (q->type) {
	case GDB_UNKNOWN:
		break;
	case GDB_EXTENDED_MODE:
		s->extended = true;
		reply_status(s, 0, NULL);
		break;
	case GDB_STOP_REASON:
		session_stop_reason(s);
		break;
	case GDB_READ_REGISTERS:
		read_registers(s);
		break;
	case GDB_WRITE_REGISTERS:
		reply_status(s, write_registers(s, &err), &err);
		break;
	case GDB_READ_REGISTER:
		read_register(s);
		break;
	case GDB_WRITE_REGISTER:
		reply_status(s, write_register(s, &err), &err);
		break;
	case GDB_READ_MEMORY:
		read_memory(s, false);
		break;
	case GDB_READ_BINARY:
		read_memory(s, true);
		break;
	case GDB_WRITE_MEMORY:
		reply_status(s, write_memory(s, &err), &err);
		break;
	case GDB_CRC_MEMORY:
		session_crc(s);
		break;
	case GDB_SEARCH_MEMORY:
		session_search(s);
		break;
	case GDB_SET_POINT:
		reply_status(s, set_point(s, &err), &err);
		break;
	case GDB_CLEAR_POINT:
		gdb_points_remove(&s->points, &q->point);
		reply_status(s, 0, NULL);
		break;
	case GDB_RESUME:
		session_run_forward(s);
		break;
	case GDB_REVERSE_STEP:
		session_run_reverse(s, GDB_RUN_STEP);
		break;
	case GDB_REVERSE_CONTINUE:
		session_run_reverse(s, GDB_RUN_CONTINUE);
		break;
	case GDB_RESUME_KINDS:
		gdb_put_text(&s->reply, "vCont;c;C;s;S;t;r");
		break;
	case GDB_SELECT_THREAD:
		reply_status(s, select_thread(s, &err), &err);
		break;
	case GDB_THREAD_ALIVE:
		reply_status(s, check_thread(s, &err), &err);
		break;
	case GDB_CURRENT_THREAD:
		gdb_put_text(&s->reply, "QC%x", (unsigned)s->general_thread);
		break;
	case GDB_FIRST_THREADS:
		session_threads(s);
		break;
	case GDB_MORE_THREADS:
		gdb_put_text(&s->reply, "l");
		break;
	case GDB_THREAD_INFO:
		if (check_thread(s, &err))
			session_reply_error(s, -ESRCH, &err);
		else
			session_thread_info(s);
		break;
	case GDB_FEATURES:
		session_features(s);
		break;
	case GDB_NO_ACKS:
		s->conn.in.acks = false;
		reply_status(s, 0, NULL);
		break;
	case GDB_READ_OBJECT:
		session_read_object(s);
		break;
	case GDB_MONITOR:
		session_monitor(s);
		break;
	case GDB_ATTACHED:
		gdb_put_text(&s->reply, "1"); /* it was there before gdb: gdb's end detaches */
		break;
	case GDB_RESTART:
		session_restart(s);
		break;
	case GDB_KILL:
		s->silent = !q->number;
		if (s->target->ops->kill)
			s->target->ops->kill(s->target->ctx);
		leave(s, GDB_END_KILLED);
		reply_status(s, 0, NULL);
		break;
	case GDB_DETACH:
		leave(s, GDB_END_DETACHED);
		reply_status(s, 0, NULL);
		break;
	case GDB_STEP_FLAGS_KNOWN:
		gdb_put_text(&s->reply,
			     s->target->can_skip ? "ENABLE=1,NOIRQ=2,NOTIMER=4" : "ENABLE=1");
		break;
	case GDB_GET_STEP_FLAGS:
		gdb_put_text(&s->reply, "0x%x", s->step_flags);
		break;
	case GDB_SET_STEP_FLAGS:
		reply_status(s, set_step_flags(s, &err), &err);
		break;
	case GDB_GET_PHYSICAL:
		gdb_put_text(&s->reply, "%d", s->physical);
		break;
	case GDB_SET_PHYSICAL:
		s->physical = q->number != 0;
		reply_status(s, 0, NULL);
		break;
	}
}

/* One packet, one reply: here and nowhere else. */
static void handle(struct gdb_session *s, const uint8_t *payload, size_t len)
{
	struct err err;
	int rc;

	buf_clear(&s->reply);
	s->silent = false;
	s->abandoned = false;
	rc = gdb_request_parse(&s->request, payload, len, &err);
	if (rc)
		session_reply_error(s, rc, &err);
	else
		execute(s);
	if (s->reply.failed) {
		err_set(&err, ENOMEM, "out of memory");
		session_reply_error(s, -ENOMEM, &err);
	}
	if (!s->silent && !s->abandoned)
		gdb_conn_send(&s->conn, s->reply.data, s->reply.len);
}

static void serve(struct gdb_session *s)
{
	while (!s->ended && !s->conn.gone && !gdb_conn_quit(&s->conn)) {
		const uint8_t *payload;
		size_t len;

		switch (gdb_decoder_next(&s->conn.in, &payload, &len)) {
		case GDB_ITEM_NONE:
			gdb_conn_wait(&s->conn, -1);
			break;
		case GDB_ITEM_BREAK:
			s->late_break_ns = session_now();
			break;
		case GDB_ITEM_PACKET:
			handle(s, payload, len);
			break;
		}
	}
}

int gdb_session_serve(int fd, const struct gdb_session_options *o, const struct gdb_target *target,
		      enum gdb_end *end, struct err *err)
{
	struct gdb_session *s = calloc(1, sizeof(*s));
	int rc;

	err->text[0] = 0;
	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	s->target = target;
	s->conn.listen_fd = o->listen_fd;
	s->conn.stall_ms = o->stall_ms ? o->stall_ms : GDB_STALL_MS;
	s->conn.quit = o->quit;
	s->step_flags = STEP_ENABLE;
	s->general_thread = s->stopped_thread = 1;
	s->end = GDB_END_LOST;
	rc = gdb_conn_open(&s->conn, fd, err);
	if (!rc) {
		serve(s);
		*end = s->end;
		if (s->conn.why.text[0])
			err_set(err, EPROTO, "the connection to gdb was dropped: %s",
				s->conn.why.text);
		if (gdb_conn_quit(&s->conn))
			rc = err_set(err, EINTR, "interrupted");
	}
	gdb_points_clear(&s->points);
	buf_free(&s->request.data);
	buf_free(&s->reply);
	buf_free(&s->console);
	gdb_conn_close(&s->conn);
	free(s);
	return rc;
}
