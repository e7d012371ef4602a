// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/mark.h"

#include <errno.h>

/* Bits of the flags. */
#define MARK_PENDING 1u
#define MARK_ENDED 2u
#define MARK_AT_BOUNDARY 4u
#define MARK_COUNTING 8u
#define MARK_RAN 16u
#define MARK_FLAGS 31u

#define COUNTS 6

/* In the order of the file. */
static void list_counts(struct replay_counts *c, uint64_t *field[COUNTS])
{
	field[0] = &c->landmarks;
	field[1] = &c->digests;
	field[2] = &c->inputs;
	field[3] = &c->times;
	field[4] = &c->stops;
	field[5] = &c->ambiguous;
}

void replay_mark_encode(const struct replay_mark *mark, struct buf *out)
{
	const struct replay_file_place *p = &mark->next;
	struct replay_counts counts = mark->counts;
	uint64_t *count[COUNTS];

	buf_put_u8(out, (uint8_t)((p->pending ? MARK_PENDING : 0) | (p->frame.ended ? MARK_ENDED : 0) |
				  (mark->at_boundary ? MARK_AT_BOUNDARY : 0) |
				  (mark->counting ? MARK_COUNTING : 0) | (mark->ran ? MARK_RAN : 0)));
	buf_put_u64(out, p->frame.offset);
	buf_put_u64(out, p->frame.sequence);
	buf_put_u64(out, p->consumed);
	buf_put_u64(out, p->codec.boundary);
	for (unsigned i = 0; i < REGS_COUNT; i++)
		buf_put_u64(out, ((const uint64_t *)&p->codec.regs)[i]);
	buf_put_u64(out, mark->events);
	buf_put_u64(out, mark->last_good);
	buf_put_u64(out, mark->steps);
	buf_put_u64(out, mark->done);
	buf_put_u64(out, mark->last_span);
	buf_put_u64(out, mark->searched);
	list_counts(&counts, count);
	for (unsigned i = 0; i < COUNTS; i++)
		buf_put_u64(out, *count[i]);
}

int replay_mark_decode(struct reader *in, struct replay_mark *mark, struct err *err)
{
	struct replay_file_place *p = &mark->next;
	uint64_t *count[COUNTS];
	uint8_t flags = reader_u8(in);

	*mark = (struct replay_mark){.at_boundary = flags & MARK_AT_BOUNDARY, .counting = flags & MARK_COUNTING};
	mark->ran = flags & MARK_RAN;
	p->pending = flags & MARK_PENDING;
	p->frame.ended = flags & MARK_ENDED;
	p->frame.offset = reader_u64(in);
	p->frame.sequence = reader_u64(in);
	p->consumed = reader_u64(in);
	p->codec.boundary = reader_u64(in);
	for (unsigned i = 0; i < REGS_COUNT; i++)
		((uint64_t *)&p->codec.regs)[i] = reader_u64(in);
	mark->events = reader_u64(in);
	mark->last_good = reader_u64(in);
	mark->steps = reader_u64(in);
	mark->done = reader_u64(in);
	mark->last_span = reader_u64(in);
	mark->searched = reader_u64(in);
	list_counts(&mark->counts, count);
	for (unsigned i = 0; i < COUNTS; i++)
		*count[i] = reader_u64(in);
	if (in->failed || flags & ~MARK_FLAGS)
		return err_set(err, EBADMSG, "this snapshot holds no place in a trace");
	return 0;
}
