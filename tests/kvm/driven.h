/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A machine without recorder or replayer, that pauses where a test wants. Interrupts come at
 * boundaries only, so what it does is a function of its state, wherever it is stopped. Include
 * after recording.h.
 */
#ifndef DRIVEN_H
#define DRIVEN_H

struct driven {
	struct machine *m;
	uint64_t boundaries, steps; /* pause after so many; 0: do not */
	bool at_kick;
	bool in_user; /* of the kicks, only where it interrupts user code */
};

static inline int driven_plan(void *ctx, struct machine *m, struct vcpu_request *req,
			      struct err *err)
{
	const struct driven *d = ctx;

	(void)m;
	(void)err;
	if (d->steps) {
		req->step = true;
		req->window = false;
	}
	return 0;
}

static inline int driven_stopped(void *ctx, struct machine *m, enum vcpu_stop stop, struct err *err)
{
	struct driven *d = ctx;
	bool kick =
		stop == VCPU_KICK && d->at_kick && (!d->in_user || vcpu_cpl(&m->vcpu[0], err) == 3);

	if (kick || (d->steps && stop == VCPU_STEP && --d->steps == 0))
		m->pause = true;
	return 0;
}

static inline int driven_boundary(void *ctx, struct machine *m, struct err *err)
{
	struct driven *d = ctx;

	(void)err;
	if (d->boundaries && --d->boundaries == 0)
		m->pause = true;
	return 0;
}

static inline int driven_halted(void *ctx, struct machine *m, uint64_t deadline, struct err *err)
{
	(void)ctx;
	(void)m;
	(void)deadline;
	(void)err;
	return 0;
}

static const struct nondet_ops driven_ops = {
	.plan = driven_plan,
	.stopped = driven_stopped,
	.boundary = driven_boundary,
	.halted = driven_halted,
};

static inline void driven_open(struct driven *d, const char *guest, const char *cmdline,
			       uint64_t mem_size)
{
	struct guest_image image = {.cmdline = cmdline};
	struct machine_config config = {.mem_size = mem_size, .seed = 7};
	struct err err;

	*d = (struct driven){0};
	image.kernel = map_guest(guest, &image.kernel_size);
	assert_ok(machine_create(&d->m, &config, &image, true, &err), err);
	munmap((void *)image.kernel, image.kernel_size);
	d->m->nondet = &driven_ops;
	d->m->nondet_ctx = d;
}

static inline void driven_close(struct driven *d)
{
	machine_destroy(d->m);
	d->m = NULL;
}

/* Run on, until it pauses or ends. */
static inline void driven_run(struct driven *d)
{
	struct err err;

	d->m->pause = false;
	assert_ok(machine_run(d->m, &err), err);
	d->boundaries = d->steps = 0;
}

static inline struct machine_digest driven_digest(struct driven *d)
{
	struct machine_digest digest;
	struct err err;

	assert_ok(machine_digest(d->m, &digest, &err), err);
	return digest;
}

#define assert_same_digest(a, b)                                                                   \
	do {                                                                                       \
		const struct machine_digest a_ = (a), b_ = (b);                                    \
		assert_int_equal(a_.state, b_.state);                                              \
		assert_int_equal(a_.memory, b_.memory);                                            \
	} while (0)

#endif
