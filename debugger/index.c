// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/index.h"

#include "base/new_file.h"
#include "debugger/begin.h"
#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

/* A replay comes back this often, to see whether a checkpoint is due. */
#define SLICE_NS (20 * NSEC_PER_MSEC)
/* A checkpoint is due as well when so much has been printed: its note has a limit (SNAPSHOT_DATA_MAX). */
#define PRINTED_MAX (4u << 20)
#define COPY_SIZE (256u << 10)

struct maker {
	const struct index_options *o;
	struct replay replay;
	struct snapshots *snapshots;
	struct snapshot *start, *last;
	uint64_t work;      /* ns of replaying */
	uint64_t last_work; /* at the last checkpoint */
	struct buf printed; /* since then: u8 stream, u8 byte, each */
};

/* --- notes ----------------------------------------------------------------------------------- */

static void on_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct maker *x = ctx;

	buf_put_u8(&x->printed, (uint8_t)stream);
	buf_put_u8(&x->printed, byte);
}

static int write_note(const struct maker *x, struct buf *out, struct err *err)
{
	int rc = replay_save(&x->replay, out, err);

	buf_put_u64(out, x->work);
	buf_put(out, x->printed.data, x->printed.len);
	if (rc == 0 && (out->failed || x->printed.failed))
		rc = err_set(err, ENOMEM, "out of memory");
	return rc;
}

int index_read_note(const struct snapshot *s, struct index_note *note, struct err *err)
{
	struct reader r = reader_init(s->data, s->data_len);
	size_t left;

	reader_take(&r, REPLAY_SAVED_SIZE);
	note->work = reader_u64(&r);
	left = reader_left(&r);
	note->printed = reader_init(reader_take(&r, left), left);
	if (r.failed || left % 2)
		return err_set(err, EBADMSG, "the trace's checkpoint at boundary %" PRIu64 " is none", s->boundary);
	return 0;
}

static void print(const struct replay *r, struct reader printed)
{
	while (r->output && reader_left(&printed)) {
		uint8_t stream = reader_u8(&printed);

		r->output(r->output_ctx, stream, reader_u8(&printed));
	}
}

/* --- making ---------------------------------------------------------------------------------- */

/* Freeze the present; not being able to is no error, the next boundary will do. */
static int take(struct maker *x, struct snapshot **s, struct err *err)
{
	struct snapshot_note note = {0};
	struct buf data = {0};
	int rc = write_note(x, &data, err);

	note.data = data.data;
	note.data_len = data.len;
	if (rc == 0)
		rc = snapshot_take(x->snapshots, &note, s, err);
	buf_free(&data);
	if (rc < 0)
		return rc == -EBUSY ? 0 : rc;
	x->last = *s;
	x->last_work = x->work;
	buf_clear(&x->printed);
	return 0;
}

/* A late timer: back to the last checkpoint. */
static int try_again(struct maker *x, struct err *err)
{
	x->work = x->last_work;
	return index_restore(x->snapshots, &x->replay, x->last, err);
}

static int run(struct maker *x, struct position target, struct err *err)
{
	uint64_t began = host_cpu_ns();
	int rc;

	rc = replay_advance(&x->replay, target, err);
	x->work += host_cpu_ns() - began;
	return rc == -EAGAIN ? try_again(x, err) : rc;
}

static bool is_due(const struct maker *x)
{
	return x->work - x->last_work >= x->o->every || x->printed.len >= PRINTED_MAX;
}

static int replay_all(struct maker *x, struct err *err)
{
	const struct machine *m = x->replay.machine;
	int rc = run(x, (struct position){m->boundary, 0}, err);

	if (rc == 0)
		rc = take(x, &x->start, err);
	if (rc == 0 && !x->start)
		rc = err_set(err, EIO, "the start of the trace cannot be frozen");
	while (rc == 0 && !m->end) {
		struct position next = {is_due(x) ? m->boundary + 1 : UINT64_MAX, 0};
		struct snapshot *s;

		rc = run(x, next, err);
		if (rc == 0 && !m->end && m->boundary >= next.boundary)
			rc = take(x, &s, err);
	}
	if (rc == 0 && m->end == END_INTERRUPTED && x->o->interrupted && *x->o->interrupted)
		rc = err_set(err, EINTR, "interrupted; the trace is as it was");
	return rc;
}

static int make_checkpoints(struct maker *x, const char *trace, struct err *err)
{
	struct replay_options ro = {.has_target = true,
				    .positions = true,
				    .slice = SLICE_NS,
				    .interrupted = x->o->interrupted,
				    .disk = x->o->disk,
				    .fault = x->o->fault,
				    .begin = begin_restore};
	int rc = replay_open(&x->replay, trace, x->o->use_clock, &ro, on_output, x, err);

	if (rc == 0)
		rc = snapshots_create(&x->snapshots, x->o->memory, INDEX_SPILL_DIR, err);
	if (rc == 0)
		rc = snapshots_attach(x->snapshots, x->replay.machine, err);
	if (rc == 0)
		rc = replay_all(x, err);
	/* It needs no checkpoint: the trace begins there. */
	if (rc == 0)
		snapshot_delete(x->snapshots, x->start);
	return rc;
}

/* --- the file -------------------------------------------------------------------------------- */

static int copy_bytes(int from, int to, uint64_t len, struct err *err)
{
	uint8_t *piece = malloc(COPY_SIZE);
	int rc = piece ? 0 : err_set(err, ENOMEM, "out of memory");

	while (rc == 0 && len) {
		ssize_t n = read(from, piece, len < COPY_SIZE ? (size_t)len : COPY_SIZE);

		if (n <= 0)
			rc = err_sys(err, n < 0 ? errno : EIO, "cannot read the trace");
		for (ssize_t done = 0, w; rc == 0 && done < n; done += w) {
			w = write(to, piece + done, (size_t)(n - done));
			if (w < 0)
				rc = err_sys(err, errno, "cannot write the trace");
		}
		len -= n > 0 ? (uint64_t)n : 0;
	}
	free(piece);
	return rc;
}

static int refuse_size(uint64_t bytes, uint64_t mem_size, const char *hint, struct err *err)
{
	uint64_t max = trace_snapshots_max(mem_size);

	return bytes <= max ? 0
			    : err_set(err, EFBIG, "the checkpoints take %" PRIu64 " MiB, more than the %" PRIu64
				      " MiB that a trace of this guest may hold; %s", bytes >> 20, max >> 20, hint);
}

/* The end of what is not index, and whether there is something behind it. */
static int find_end(const char *trace, struct trace_place *end, struct err *err)
{
	struct trace_reader *r;
	int rc = trace_reader_open(&r, trace, err);

	if (rc < 0)
		return rc;
	rc = trace_reader_find_checkpoints(r, err);
	*end = trace_reader_tell(r);
	trace_reader_close(r);
	return rc;
}

/* Put a snapshot file into frames behind what fd holds up to `end`. */
static int append(int fd, struct trace_place end, int file, uint64_t *bytes, struct err *err)
{
	struct trace_writer *w;
	int rc, own = dup(fd);

	if (own < 0)
		return err_sys(err, errno, "cannot write the trace");
	rc = trace_writer_continue(&w, own, end, err);
	if (rc < 0)
		return rc;
	rc = trace_writer_file(w, TRACE_CHECKPOINTS, file, err);
	*bytes = trace_writer_size(w) - end.offset;
	if (rc == 0)
		return trace_writer_close(w, err);
	trace_writer_close(w, NULL);
	return rc;
}

static int write_checkpoints(struct maker *x, int fd, struct trace_place end, uint64_t *bytes, struct err *err)
{
	const struct snapshot_export all = {0};
	int file, rc;

	if (!snapshots_next(x->snapshots, NULL))
		return 0;
	rc = nameless_file_create(INDEX_SPILL_DIR, &file, err);
	if (rc < 0)
		return rc;
	rc = snapshots_export_to(x->snapshots, file, &all, err);
	if (rc == 0)
		rc = refuse_size((uint64_t)lseek(file, 0, SEEK_END), x->replay.file->tm.config.mem_size,
				 "make fewer, with a longer --every", err);
	if (rc == 0)
		rc = append(fd, end, file, bytes, err);
	close(file);
	return rc;
}

static int write_trace(struct maker *x, const char *trace, const char *output, uint64_t *bytes, struct err *err)
{
	struct trace_place end;
	struct new_file out;
	int from, rc = find_end(trace, &end, err);

	if (rc < 0)
		return rc;
	from = open(trace, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return err_sys(err, errno, "cannot open the trace %s", trace);
	rc = new_file_create(&out, output, err);
	if (rc == 0) {
		rc = copy_bytes(from, out.fd, end.offset, err);
		if (rc == 0)
			rc = write_checkpoints(x, out.fd, end, bytes, err);
		if (rc == 0)
			rc = new_file_commit(&out, err);
		else
			new_file_abandon(&out);
	}
	close(from);
	return rc < 0 ? err_prefix(err, rc, "no index was made, %s is as it was", output) : 0;
}

static void read_figures(const struct snapshots *t, struct index_figures *f)
{
	struct snapshots_figures s;

	snapshots_figures(t, &s);
	f->checkpoints = s.snapshots;
	f->pages = s.store.pages;
}

int index_make(const char *trace, const struct index_options *o, struct index_figures *f, struct err *err)
{
	struct maker x = {.o = o};
	/* Of a link, what it points to is written anew. */
	char *real = realpath(trace, NULL);
	int rc = real ? make_checkpoints(&x, trace, err) : err_sys(err, errno, "cannot open the trace %s", trace);

	*f = (struct index_figures){0};
	if (rc == 0)
		rc = write_trace(&x, real, o->output ? o->output : real, &f->bytes, err);
	if (rc == 0)
		read_figures(x.snapshots, f);
	snapshots_destroy(x.snapshots);
	replay_close(&x.replay);
	buf_free(&x.printed);
	free(real);
	return rc;
}

/* --- using ----------------------------------------------------------------------------------- */

/* The frames' content, one behind the other. */
static int collect(struct trace_reader *r, int file, struct err *err)
{
	const uint8_t *data;
	size_t len;
	int rc;

	while ((rc = trace_reader_next_checkpoints(r, &data, &len, err)) > 0) {
		ssize_t n = write(file, data, len);

		if (n != (ssize_t)len)
			return err_sys(err, n < 0 ? errno : ENOSPC, "no room in %s for the trace's checkpoints",
				       INDEX_SPILL_DIR);
	}
	return rc;
}

static int check_order(const struct snapshots *t, const struct snapshot *before, struct err *err)
{
	struct index_note note;
	const struct snapshot *s;
	uint64_t work = 0;

	for (s = before ? before->next : snapshots_next(t, NULL); s; s = s->next) {
		int rc = index_read_note(s, &note, err);

		if (rc < 0)
			return rc;
		if ((s->prev && s->boundary <= s->prev->boundary) || note.work < work)
			return err_set(err, EBADMSG, "the checkpoints of the trace are not in order");
		work = note.work;
	}
	return 0;
}

static int load(struct snapshots *t, struct trace_reader *r, const char *trace, struct err *err)
{
	struct snapshot *before = NULL, *last;
	int file, rc = nameless_file_create(INDEX_SPILL_DIR, &file, err);

	if (rc < 0)
		return rc;
	for (struct snapshot *s = snapshots_next(t, NULL); s; s = s->next)
		before = s;
	rc = collect(r, file, err);
	if (rc == 0)
		rc = snapshots_import_from(t, file, "the index", NULL, NULL, 0, &last, err);
	if (rc == 0)
		rc = check_order(t, before, err);
	close(file);
	return rc < 0 ? err_prefix(err, rc, "%s (hindsight index makes the index anew)", trace) : 0;
}

static int read_mem_size(struct trace_reader *r, uint64_t *mem_size, struct err *err)
{
	struct trace_machine tm = {0};
	enum trace_frame type;
	const uint8_t *data;
	size_t len;
	int rc = trace_reader_next(r, &type, &data, &len, err);

	if (rc == 0 || (rc > 0 && type != TRACE_MACHINE))
		rc = err_set(err, EBADMSG, "the trace ends before its machine description");
	if (rc > 0)
		rc = trace_machine_decode(data, len, &tm, err);
	*mem_size = tm.config.mem_size;
	trace_machine_free(&tm);
	return rc;
}

int index_load(struct snapshots *t, const char *trace, struct index_figures *f, struct err *err)
{
	struct trace_reader *r;
	struct trace_place at;
	uint64_t mem_size;
	int rc = trace_reader_open(&r, trace, err);

	*f = (struct index_figures){0};
	if (rc < 0)
		return rc;
	rc = read_mem_size(r, &mem_size, err);
	if (rc == 0)
		rc = trace_reader_find_checkpoints(r, err);
	at = trace_reader_tell(r);
	if (rc > 0) {
		rc = refuse_size(trace_reader_measure(r, TRACE_CHECKPOINTS), mem_size, "hindsight index makes them anew", err);
		if (rc == 0)
			rc = load(t, r, trace, err);
	}
	if (rc == 0) {
		f->bytes = trace_reader_tell(r).offset - at.offset;
		read_figures(t, f);
	}
	trace_reader_close(r);
	return rc;
}

int index_freeze(struct snapshots *t, const struct replay *r, const char *label, struct snapshot **s, struct err *err)
{
	struct snapshot_note note = {.label = label};
	struct buf place = {0};
	int rc = replay_save(r, &place, err);

	note.data = place.data;
	note.data_len = place.len;
	if (rc == 0)
		rc = snapshot_take(t, &note, s, err);
	buf_free(&place);
	return rc;
}

int index_restore(struct snapshots *t, struct replay *r, struct snapshot *s, struct err *err)
{
	int rc = snapshot_restore(t, s, err);

	if (rc == 0)
		rc = replay_restore(r, s->data, s->data_len, err);
	/* Those of the trace, which hold a note besides the place, stand before the end; a debugger's can stand at it. */
	if (rc == 0 && (r->machine->boundary != s->boundary || (r->machine->end && s->data_len > REPLAY_SAVED_SIZE)))
		rc = err_set(err, EBADMSG, "the checkpoint at boundary %" PRIu64 " is of another place; make the index "
			     "anew with hindsight index", s->boundary);
	return rc;
}

static int enter(struct snapshots *t, struct replay *r, uint64_t boundary, uint64_t vtime, struct err *err)
{
	struct index_figures f;
	struct snapshot *last = NULL;
	struct index_note note;
	int rc = index_load(t, r->path, &f, err);

	for (struct snapshot *s = snapshots_next(t, NULL); rc == 0 && s && s->boundary <= boundary; s = s->next) {
		if (vtime && s->vtime >= vtime)
			break;
		rc = index_read_note(s, &note, err);
		if (rc == 0)
			print(r, note.printed);
		last = s;
	}
	return rc == 0 && last ? index_restore(t, r, last, err) : rc;
}

int index_enter(struct replay *r, uint64_t boundary, uint64_t vtime, uint64_t memory, struct err *err)
{
	struct snapshots *t;
	int rc = snapshots_create(&t, memory, INDEX_SPILL_DIR, err);

	if (rc < 0)
		return rc;
	rc = snapshots_attach(t, r->machine, err);
	if (rc == 0)
		rc = enter(t, r, boundary, vtime, err);
	snapshots_destroy(t);
	return rc;
}
