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
	rc = replayer_create(&r->replayer, r->machine, r->file, &r->options, err);
	if (rc == 0)
		replayer_set_caution(r->replayer, r->caution);
	return rc;
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

int replay_run(struct replay *r, struct err *err)
{
	int rc;

	while ((rc = replayer_run(r->replayer, err)) == -EAGAIN) {
		rc = replay_widen(r, err);
		if (rc < 0)
			return rc;
		if (r->output_bytes > r->output_skip)
			r->output_skip = r->output_bytes;
		take_down(r);
		r->restarts++;
		if (r->options.restarted)
			r->options.restarted(r->options.watched_ctx);
		rc = set_up(r, err);
		if (rc < 0)
			return rc;
	}
	return rc;
}

int replay_widen(struct replay *r, struct err *err)
{
	if (r->caution >= CAUTION_MAX)
		return err_set(err, EIO, "every run of the replay goes too far; is the host very busy?");
	replay_set_caution(r, r->caution * CAUTION_GROWTH);
	return 0;
}

void replay_set_caution(struct replay *r, double caution)
{
	r->caution = caution;
	replayer_set_caution(r->replayer, caution);
}

void replay_set_target(struct replay *r, struct position target)
{
	r->options.has_target = true;
	r->options.target = target;
	replayer_set_target(r->replayer, target);
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
