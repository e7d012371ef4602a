// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/replay.h"

#include <errno.h>

/* Margins grow by this with each run that went too far, up to where everything is stepped. */
#define CAUTION_GROWTH 4
#define CAUTION_MAX 65536.0

/* What was shown before a new start is not shown again. */
static void on_output(void *ctx, enum dev_stream stream, uint8_t byte)
{
	struct replay *r = ctx;

	if (r->output_bytes++ >= r->output_skip && r->output)
		r->output(r->output_ctx, stream, byte);
}

static void take_down(struct replay *r)
{
	replayer_destroy(r->replayer);
	machine_destroy(r->machine);
	replay_file_close(r->file);
	r->replayer = NULL;
	r->machine = NULL;
	r->file = NULL;
}

static int begin(struct replay *r, struct err *err)
{
	if (!r->file->tm.begun)
		return 0;
	if (!r->options.begin)
		return err_set(err, ENOTSUP, "the trace begins with a snapshot, which cannot be used here");
	return r->options.begin(r->machine, r->file, err);
}

static int set_up(struct replay *r, struct err *err)
{
	int rc = replay_file_open(&r->file, r->path, err);

	if (rc == 0)
		rc = replay_file_attach_disk(r->file, r->options.disk, err);
	if (rc == 0)
		rc = machine_create(&r->machine, &r->file->tm.config, &r->file->image, true, err);
	if (rc == 0)
		rc = begin(r, err);
	if (rc < 0)
		return rc;
	r->machine->output = on_output;
	r->machine->output_ctx = r;
	r->output_bytes = 0;
	if (r->options.clock == CLOCK_EMUL && !caps_has_clock(&r->machine->caps))
		r->options.clock = CLOCK_STATE;
	return replayer_create(&r->replayer, r->machine, r->file, &r->options, err);
}

int replay_open(struct replay *r, const char *path, bool use_clock, const struct replay_options *options,
		void (*output)(void *ctx, enum dev_stream stream, uint8_t byte), void *output_ctx,
		struct err *err)
{
	int rc;

	*r = (struct replay){.path = path,
			     .options = *options,
			     .output = output,
			     .output_ctx = output_ctx};
	r->options.clock = use_clock ? CLOCK_EMUL : CLOCK_STATE;
	r->caution = 1;
	rc = set_up(r, err);
	if (rc < 0)
		take_down(r);
	return rc;
}

void replay_close(struct replay *r)
{
	take_down(r);
}

/* It went too far behind this boundary or, if that was noticed here, the one before. */
static int note_failure(struct replay *r, struct err *err)
{
	uint64_t to = r->machine->boundary, from = to ? to - 1 : 0;
	bool first = r->caution == 1;

	if (r->caution >= CAUTION_MAX) {
		r->caution = 1;
		return err_set(err, EIO, "every run of the replay goes too far; is the host very busy?");
	}
	if (first || from < r->hard_from)
		r->hard_from = from;
	if (first || to > r->hard_to)
		r->hard_to = to;
	r->caution *= CAUTION_GROWTH;
	return -EAGAIN;
}

/* Places where runs have gone too far are before us, or here. */
static bool is_hard(const struct replay *r)
{
	return r->caution > 1 && r->machine->boundary <= r->hard_to;
}

int replay_advance(struct replay *r, struct position target, struct err *err)
{
	bool within = is_hard(r) && r->machine->boundary >= r->hard_from;
	struct position change = {within ? r->hard_to + 1 : r->hard_from, 0};
	int rc;

	if (!is_hard(r))
		r->caution = 1;
	else if (position_order(change, target) < 0)
		target = change;
	replayer_set_caution(r->replayer, within ? r->caution : 1);
	replayer_set_target(r->replayer, target);
	rc = replayer_run(r->replayer, err);
	return rc == -EAGAIN ? note_failure(r, err) : rc;
}

static struct position target_of(const struct replay *r)
{
	return r->options.has_target ? r->options.target : (struct position){UINT64_MAX, 0};
}

bool replay_is_over(const struct replay *r)
{
	return r->machine->end || position_order(replayer_position(r->replayer), target_of(r)) >= 0 ||
	       (r->options.target_time && r->machine->vtime >= r->options.target_time);
}

int replay_run(struct replay *r, struct err *err)
{
	int rc;

	do {
		rc = replay_advance(r, target_of(r), err);
		if (rc != -EAGAIN)
			continue;
		if (r->output_bytes > r->output_skip)
			r->output_skip = r->output_bytes;
		take_down(r);
		r->restarts++;
		if (r->options.restarted)
			r->options.restarted(r->options.watched_ctx);
		rc = set_up(r, err);
	} while (rc == 0 && !replay_is_over(r));
	return rc;
}

void replay_set_target(struct replay *r, struct position target)
{
	r->options.has_target = true;
	r->options.target = target;
}

int replay_save(const struct replay *r, struct buf *out, struct err *err)
{
	buf_put_u64(out, r->output_bytes);
	return replayer_save(r->replayer, out, err);
}

int replay_restore(struct replay *r, const void *data, size_t len, struct err *err)
{
	struct reader in = reader_init(data, len);

	if (r->output_bytes > r->output_skip)
		r->output_skip = r->output_bytes;
	r->output_bytes = reader_u64(&in);
	return replayer_restore(r->replayer, &in, err);
}
