// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/recorder.h"

#include "vmm/kick.h"
#include "vmm/paging.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Boundaries between two digests while the guest is busy: about 10 ms of exits. */
#define DIGEST_EVERY 1024
/* A wake-up from HLT that takes at most this many boundaries is idling and costs no log bytes. */
#define IDLE_WAKEUP 64
/* An unfinished frame is written after this much host time, so a crash costs little. */
#define FLUSH_NS (200 * NSEC_PER_MSEC)
#define FLUSH_BYTES (64u << 10)
/* vtime never jumps further than this at one landmark. */
#define ADVANCE_MAX NSEC_PER_SEC
/* Steps to leave an interrupt shadow or a string instruction before the kick is given up. */
#define LEAVE_STEPS 256
/* Meanwhile kicks come this rarely: where a step takes as long as a quantum, they would leave no time to get anywhere. */
#define LEAVE_KICK_NS (50 * NSEC_PER_MSEC)
/* Code that was written since the last digest is passed over so many times, each with all the steps: a kernel that patches
 * itself reads what it patches, and a replay's planted byte with it. Then for as many times only what was written since
 * the first of these steps counts: code that was loaded and stays is a good place all the same. Then nothing does, or a
 * guest that never leaves such code would wait for ever. */
#define FRESH_TRIES 8
/* After a kick in user code, where no landmark can be: look again this soon. */
#define RETRY_NS (100 * NSEC_PER_USEC)
/* A guest that computes for so long (time in the guest) without boundary or landmark gets a landmark though nothing
 * is due, so that a replay which lost its way is noticed. Without a clock less often: the place is most likely in a loop,
 * and to find it again means to look at passes through it, of which a second can have many millions. */
#define HEARTBEAT_NS NSEC_PER_SEC
#define HEARTBEAT_STATE_NS (10 * NSEC_PER_SEC)
/* Longest sleep at HLT or for input before interruption and limits are looked at. */
#define SLEEP_NS (50 * NSEC_PER_MSEC)

/* Events of one channel at one place at most, so that a flood of frames does not keep the guest. */
#define INPUT_BURST 64
/* Descriptors that a sleep looks at. */
#define WATCHED_FDS 64

#define RFLAGS_IF (1u << 9)

struct recorder {
	struct machine *m;
	struct recorder_options o;
	struct trace_writer *w;
	struct kick_timer timer;
	struct event_codec codec;
	struct buf log;
	struct recorder_counts counts;
	struct user_code *user_code;

	uint64_t start;       /* host_ns at the start */
	uint64_t last_flush;  /* host_ns */
	uint64_t clock_base;  /* instruction clock at the last boundary */

	/* How far vtime lags behind host time, as of the last kick. */
	uint64_t lag;
	uint64_t last_cpu, last_free, last_vtime;

	uint64_t quiet_from;  /* vCPU's free_ns at the last boundary or landmark */

	unsigned leaving;     /* steps left for leaving an unsuitable place; 0: not leaving */
	unsigned left;        /* so often in vain, since the last boundary or landmark */
	struct memory_dirty *written; /* since the first of these steps; NULL: with a clock */
	enum machine_end ending; /* the run is to end at the next place that can be found again */
	uint64_t jitter;      /* generator for the length of quanta */

	uint64_t last_digest;   /* boundary */
	uint64_t last_halt;     /* boundary of the last HLT */
	uint64_t idle;          /* boundaries since the last digest that were idling */
	bool at_boundary;       /* the guest has not run since the last boundary */
	bool at_landmark;       /* ... since the last landmark */

	struct input_source source[INPUT_CHANNELS]; /* those that can still give something */
	unsigned sources;
	bool input_waits;       /* a kick has seen input; take it at the next boundary */
	bool time_waits;        /* a kick found time due where no landmark can be: let it pass there */
};

static int flush(struct recorder *r, struct err *err)
{
	int rc = 0;

	if (r->log.failed)
		return err_set(err, ENOMEM, "out of memory for the log");
	if (r->log.len)
		rc = trace_writer_frame(r->w, TRACE_EVENTS, r->log.data, r->log.len, err);
	buf_clear(&r->log);
	r->last_flush = host_ns();
	return rc;
}

static int log_event(struct recorder *r, const struct event *e, struct err *err)
{
	size_t before = r->log.len;

	event_encode(&r->codec, e, &r->log);
	r->counts.log_bytes += r->log.len - before;
	if (e->type == EVENT_LANDMARK)
		r->counts.landmark_bytes += r->log.len - before;
	if (r->log.len >= FLUSH_BYTES || r->log.failed || host_ns() - r->last_flush >= FLUSH_NS)
		return flush(r, err);
	return 0;
}

static int look_at_user_code(struct recorder *r, struct machine *m, struct err *err)
{
	struct kvm_sregs sregs;
	int rc = vcpu_get_sregs(&m->vcpu[0], &sregs, err);

	if (rc == 0)
		user_code_scan(r->user_code, m->mem, &sregs);
	return rc;
}

static int log_digest(struct recorder *r, struct machine *m, struct err *err)
{
	struct event e = {.type = EVENT_DIGEST, .boundary = m->boundary};
	int rc = machine_digest(m, &e.digest.digest, err);

	if (rc < 0)
		return rc;
	rc = look_at_user_code(r, m, err);
	if (rc < 0)
		return rc;
	e.digest.regs = event_regs(&m->vcpu[0]);
	r->counts.digests++;
	r->last_digest = m->boundary;
	r->idle = 0;
	return log_event(r, &e, err);
}

/* --- input ----------------------------------------------------------------------------------- */

/* Some source has something for which the machine has room. */
static bool input_due(struct recorder *r, const struct machine *m)
{
	for (unsigned i = 0; i < r->sources; i++) {
		const struct input_source *s = &r->source[i];

		/* Asked in any case: a terminal has an escape key, also when the guest takes no more. */
		if (s->ready(s->ctx) && devices_room(m, s->channel))
			return true;
	}
	return false;
}

/* Some source may yet have something for which the machine has room. A halted machine makes no more room, so without
 * one of these no input can wake it. */
static bool input_possible(const struct recorder *r, const struct machine *m)
{
	for (unsigned i = 0; i < r->sources; i++)
		if (devices_room(m, r->source[i].channel))
			return true;
	return false;
}

/* Take what this source has and the machine has room for. *passed: vtime that passes before the first of it. */
static int take_from(struct recorder *r, struct machine *m, struct input_source *s,
		     enum input_when when, uint64_t *passed, struct err *err)
{
	for (unsigned i = 0; i < INPUT_BURST; i++) {
		struct event e = {.type = EVENT_INPUT, .boundary = m->boundary};
		size_t room = devices_room(m, s->channel);
		int n = room ? s->take(s->ctx, e.input.bytes, room, err) : 0;

		if (n <= 0)
			return n;
		if (*passed)
			machine_pass_time(m, *passed);
		*passed = 0;
		e.input.when = when;
		e.input.vtime = m->vtime;
		e.input.channel = (uint8_t)s->channel;
		e.input.len = (uint16_t)n;
		devices_receive(m, s->channel, e.input.bytes, (size_t)n);
		r->counts.inputs++;
		n = r->w ? log_event(r, &e, err) : 0;
		if (n < 0)
			return n;
	}
	return 0;
}

static int take_input(struct recorder *r, struct machine *m, enum input_when when, uint64_t passed,
		      struct err *err)
{
	for (unsigned i = 0; i < r->sources; i++) {
		int rc = take_from(r, m, &r->source[i], when, &passed, err);

		if (rc == -ENODATA)
			r->source[i--] = r->source[--r->sources];
		else if (rc < 0)
			return rc;
	}
	return 0;
}

/* Let the time by which the guest lags pass here, at a boundary. */
static int pass_time(struct recorder *r, struct machine *m, struct err *err)
{
	struct event e = {.type = EVENT_TIME, .boundary = m->boundary, .time.advance = r->lag};

	r->time_waits = false;
	r->lag = 0;
	r->last_vtime += e.time.advance;
	r->counts.times++;
	machine_pass_time(m, e.time.advance);
	return r->w ? log_event(r, &e, err) : 0;
}

/* --- kicks ----------------------------------------------------------------------------------- */

static void set_timer(struct recorder *r, uint64_t first)
{
	kick_timer_set(&r->timer, first, r->o.quantum);
}

/* The seed moves where the guest is interrupted: half to one and a half quanta. */
static uint64_t next_quantum(struct recorder *r)
{
	r->jitter = r->jitter * 6364136223846793005ull + 1442695040888963407ull;
	return r->o.quantum / 2 + (r->jitter >> 33) % r->o.quantum + 1;
}

static void set_leaving(struct recorder *r, unsigned steps)
{
	if (!steps != !r->leaving)
		set_timer(r, steps ? LEAVE_KICK_NS : next_quantum(r));
	r->leaving = steps;
}

/* --- boundaries ------------------------------------------------------------------------------ */

static int on_boundary(void *ctx, struct machine *m, struct err *err)
{
	struct recorder *r = ctx;
	bool halt = m->vcpu[0].run->exit_reason == KVM_EXIT_HLT;
	int rc = 0;

	set_leaving(r, 0);
	r->left = 0;
	r->at_boundary = true;
	if (r->ending)
		machine_end(m, r->ending, 0);
	r->quiet_from = m->vcpu[0].free_ns;
	if (r->input_waits || (halt && r->sources)) {
		r->input_waits = false;
		rc = take_input(r, m, INPUT_AT_BOUNDARY, 0, err);
		if (rc < 0)
			return rc;
	}
	if (r->time_waits) {
		rc = pass_time(r, m, err);
		if (rc < 0)
			return rc;
	}
	if (!r->w)
		return 0;
	if (user_code_is_due(r->user_code)) {
		rc = look_at_user_code(r, m, err);
		if (rc < 0)
			return rc;
	}
	if (halt) {
		if (m->boundary - r->last_halt <= IDLE_WAKEUP)
			r->idle += m->boundary - r->last_halt;
		r->last_halt = m->boundary;
	}
	if (m->boundary == 0 || m->boundary - r->last_digest - r->idle >= DIGEST_EVERY) {
		rc = log_digest(r, m, err);
		if (rc < 0)
			return rc;
	}
	if (r->o.clock == CLOCK_EMUL)
		r->clock_base = vcpu_clock(&m->vcpu[0]);
	return 0;
}

/* Why the run must end now, or END_NONE. */
static enum machine_end check_limits(const struct recorder *r)
{
	if (r->o.interrupted && *r->o.interrupted)
		return END_INTERRUPTED;
	return r->o.max_ns && host_ns() - r->start >= r->o.max_ns ? END_LIMIT : END_NONE;
}

static void end_at_limits(const struct recorder *r, struct machine *m)
{
	enum machine_end end = check_limits(r);

	if (end)
		machine_end(m, end, 0);
}

/* Sleep until input, until `due` (host_ns; TIME_NEVER: none), or for a while. */
static void sleep_for_input(struct recorder *r, const struct machine *m, uint64_t due)
{
	uint64_t now = host_ns();
	uint64_t wait = due == TIME_NEVER || due > now + SLEEP_NS ? SLEEP_NS
			: due > now				  ? due - now
								  : 0;

	int timeout_ms = (int)((wait + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
	struct pollfd fds[WATCHED_FDS];
	unsigned n = 0;

	for (unsigned i = 0; i < r->sources; i++) {
		const struct input_source *s = &r->source[i];

		if (devices_room(m, s->channel))
			n += s->watch(s->ctx, fds + n, WATCHED_FDS - n, &timeout_ms);
	}
	poll(fds, n, timeout_ms);
}

static int on_halted(void *ctx, struct machine *m, uint64_t deadline, struct err *err)
{
	struct recorder *r = ctx;
	uint64_t began = host_ns(), due = TIME_NEVER;
	int rc;

	end_at_limits(r, m);
	/* Sleep only to keep real-time pace, or where input alone can wake the guest. */
	if (m->end || (deadline == TIME_NEVER ? !input_possible(r, m) : !r->o.realtime))
		return 0;
	if (r->w && r->log.len) {
		rc = flush(r, err);
		if (rc < 0)
			return rc;
	}
	if (deadline != TIME_NEVER)
		due = began + (uint64_t)((double)(deadline - m->vtime) / r->o.time_rate);
	while (!m->end && host_ns() < due && (deadline != TIME_NEVER || input_possible(r, m))) {
		uint64_t passed = (uint64_t)((double)(host_ns() - began) * r->o.time_rate);

		if (input_due(r, m)) {
			uint64_t inputs = r->counts.inputs;

			/* Before the deadline, so that the replayer can tell what came first. */
			if (deadline == TIME_NEVER || passed >= deadline - m->vtime)
				passed = 0;
			rc = take_input(r, m, INPUT_HALTED, passed, err);
			if (rc < 0 || r->counts.inputs != inputs)
				return rc;
			continue;
		}
		sleep_for_input(r, m, due);
		end_at_limits(r, m);
		if (r->o.wake && r->o.wake(r->o.wake_ctx)) {
			m->pause = true;
			return 1;
		}
	}
	return 0;
}

/* --- landmarks ------------------------------------------------------------------------------- */

enum place { PLACE_GOOD, PLACE_LEAVE, PLACE_DEFER };

/* Without a clock places are found by breakpoint, on some hosts one that lies in memory: code that the guest keeps
 * writing would overwrite it. */
static int code_is_fresh(struct recorder *r, struct machine *m, bool *fresh, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct kvm_sregs sregs;
	gpa_t gpa;
	int rc;

	*fresh = false;
	if (!r->written || r->left >= 2 * FRESH_TRIES)
		return 0;
	rc = vcpu_get_sregs(v, &sregs, err);
	if (rc < 0 || paging_translate(m->mem, &sregs, GVA(vcpu_regs(v)->rip), &gpa) < 0)
		return rc;
	return memory_page_written(m->mem, r->left >= FRESH_TRIES ? r->written : NULL, gpa, fresh, err);
}

/* Can this place be found again on this host? */
static int judge_place(struct recorder *r, struct machine *m, enum vcpu_stop stop, enum place *place,
		       struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	bool entry = stop == VCPU_ENTRY;
	bool clean, fresh;
	int rc = vcpu_complete(v, err);
	int cpl = rc < 0 ? rc : vcpu_cpl(v, err);

	if (cpl < 0)
		return cpl;
	/* In user mode the clock does not count, and breakpoints do not stop everywhere. With interrupts off
	 * nothing could be delivered, and the way to where they are on would be stepped; but a kernel that
	 * works with interrupts off between system calls has no better place than its entry. */
	if (cpl != 0 || (!(vcpu_regs(v)->rflags & RFLAGS_IF) && !r->ending && !entry)) {
		*place = PLACE_DEFER;
		return 0;
	}
	rc = vcpu_is_clean(v, &clean, err);
	if (rc < 0)
		return rc;
	rc = code_is_fresh(r, m, &fresh, err);
	if (rc < 0)
		return rc;
	*place = PLACE_GOOD;
	if (!clean || fresh || vcpu_after_shadow(v) || vcpu_in_string_instruction(v, NULL))
		*place = PLACE_LEAVE;
	else if (stop == VCPU_KICK)
		*place = PLACE_LEAVE; /* the instruction may have begun: accessed bits are set before a nested
				       * page fault. Behind a whole step nothing is half done. */
	else if (r->o.clock == CLOCK_EMUL && vcpu_clock(v) == r->clock_base && !entry)
		*place = PLACE_LEAVE; /* still at the boundary: nothing has been counted */
	return 0;
}

static int log_landmark(struct recorder *r, struct machine *m, uint64_t advance, struct err *err)
{
	struct event e = {.type = EVENT_LANDMARK, .boundary = m->boundary};
	uint64_t operand[WITNESS_MAX];
	struct witness w;
	int rc;

	r->counts.landmarks++;
	if (!r->w)
		return 0;
	if (r->o.clock == CLOCK_EMUL) {
		e.landmark.has_clock = true;
		e.landmark.clock = vcpu_clock(&m->vcpu[0]) - r->clock_base;
	}
	e.landmark.advance = advance;
	e.landmark.regs = event_regs(&m->vcpu[0]);
	e.landmark.regs_hash = event_regs_hash(&e.landmark.regs);
	witness_find(m, &e.landmark.regs, &w);
	witness_read(m, &w, operand);
	e.landmark.witness = witness_hash(operand, w.count);
	if (!e.landmark.has_clock) {
		e.landmark.operands = (uint8_t)w.count;
		memcpy(e.landmark.operand, operand, w.count * sizeof(*operand));
	}
	rc = machine_digest(m, &e.landmark.digest, err);
	if (rc < 0)
		return rc;
	return log_event(r, &e, err);
}

/* How far vtime has fallen behind the host since the last look. */
static void update_lag(struct recorder *r, struct machine *m)
{
	uint64_t cpu = host_cpu_ns();
	uint64_t free = m->vcpu[0].free_ns;
	/* Neither our own work nor time without a CPU ages the guest. */
	uint64_t ran = cpu - r->last_cpu < free - r->last_free ? cpu - r->last_cpu : free - r->last_free;
	uint64_t host = (uint64_t)((double)ran * r->o.time_rate);
	uint64_t guest = m->vtime - r->last_vtime;

	r->last_cpu = cpu;
	r->last_free = free;
	r->last_vtime = m->vtime;
	/* A guest that is ahead (it idled) gets no credit: it would stand still later. */
	r->lag = r->lag + host > guest ? r->lag + host - guest : 0;
	if (r->lag > ADVANCE_MAX)
		r->lag = ADVANCE_MAX;
}

static int try_land(struct recorder *r, struct machine *m, enum vcpu_stop stop, struct err *err)
{
	uint64_t heartbeat = r->o.clock == CLOCK_EMUL ? HEARTBEAT_NS : HEARTBEAT_STATE_NS;
	bool due = input_due(r, m) || m->vtime + r->lag >= m->deadline || r->ending ||
		   m->vcpu[0].free_ns - r->quiet_from >= heartbeat;
	enum place place;
	uint64_t advance = r->lag;
	int rc;

	if (!due || machine_interrupt_waits(m)) {
		set_leaving(r, 0);
		if (r->ending)
			machine_end(m, r->ending, 0);
		return 0;
	}
	rc = judge_place(r, m, stop, &place, err);
	if (rc < 0)
		return rc;
	if (place == PLACE_LEAVE) {
		/* A boundary on the way will do as well. */
		r->time_waits = true;
		if (!r->leaving && !r->left && r->written) {
			rc = memory_sync_dirty(m->mem, err);
			if (rc < 0)
				return rc;
			memory_dirty_clear(r->written);
		}
		set_leaving(r, r->leaving ? r->leaving - 1 : LEAVE_STEPS);
		if (r->leaving)
			return 0;
		r->left++;
		place = PLACE_DEFER;
	}
	set_leaving(r, 0);
	if (place == PLACE_DEFER) {
		r->counts.deferred++;
		r->input_waits = true;
		r->time_waits = true;
		set_timer(r, RETRY_NS);
		if (r->ending)
			machine_end(m, r->ending, 0);
		return 0;
	}
	rc = log_landmark(r, m, advance, err);
	if (rc < 0)
		return rc;
	r->lag = 0;
	r->left = 0;
	r->time_waits = false;
	r->quiet_from = m->vcpu[0].free_ns;
	r->last_vtime = m->vtime + advance;
	machine_land(m, advance);
	r->at_landmark = true;
	if (r->ending)
		machine_end(m, r->ending, 0);
	/* A guest that polls memory for what its interrupt handler stores never comes to a boundary. */
	r->input_waits = false;
	return take_input(r, m, INPUT_AT_LANDMARK, 0, err);
}

static int on_stopped(void *ctx, struct machine *m, enum vcpu_stop stop, struct err *err)
{
	struct recorder *r = ctx;
	int rc;

	if (stop == VCPU_KICK) {
		r->counts.kicks++;
		update_lag(r, m);
		set_timer(r, r->leaving ? LEAVE_KICK_NS : next_quantum(r));
		r->ending = check_limits(r);
		if (r->w && r->log.len && host_ns() - r->last_flush >= FLUSH_NS) {
			rc = flush(r, err);
			if (rc < 0)
				return rc;
		}
	} else if (!r->leaving && stop != VCPU_ENTRY) {
		return 0;
	}
	return try_land(r, m, stop, err);
}

static int on_plan(void *ctx, struct machine *m, struct vcpu_request *req, struct err *err)
{
	struct recorder *r = ctx;

	(void)m;
	(void)err;
	r->at_boundary = r->at_landmark = false;
	if (r->leaving)
		req->step = true;
	else
		req->entry = r->time_waits;
	return 0;
}

static const struct nondet_ops recorder_ops = {
	.plan = on_plan,
	.stopped = on_stopped,
	.boundary = on_boundary,
	.halted = on_halted,
};

int recorder_create(struct recorder **out, struct machine *m, const struct recorder_options *options,
		    struct trace_writer *w, struct err *err)
{
	struct recorder *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return err_set(err, ENOMEM, "out of memory");
	r->m = m;
	r->o = *options;
	r->w = w;
	r->jitter = m->config.seed;
	for (unsigned i = 0; i < options->n_sources && i < INPUT_CHANNELS; i++)
		r->source[r->sources++] = options->sources[i];
	rc = user_code_create(&r->user_code, err);
	if (rc == 0 && w && r->o.clock == CLOCK_STATE)
		rc = memory_dirty_open(m->mem, &r->written, err);
	if (rc == 0)
		rc = kick_timer_create(&r->timer, &m->vcpu[0], err);
	if (rc < 0) {
		if (r->written)
			memory_dirty_close(m->mem, r->written);
		user_code_destroy(r->user_code);
		free(r);
		return rc;
	}
	r->start = r->last_flush = host_ns();
	r->last_cpu = host_cpu_ns();
	r->last_free = r->quiet_from = m->vcpu[0].free_ns;
	r->last_vtime = m->vtime;
	/* A machine that begins with a snapshot begins as if behind a boundary. */
	r->at_boundary = w && m->started;
	r->last_digest = r->last_halt = m->boundary;
	if (r->o.clock == CLOCK_EMUL)
		r->clock_base = vcpu_clock(&m->vcpu[0]);
	m->nondet = &recorder_ops;
	m->nondet_ctx = r;
	set_timer(r, next_quantum(r));
	*out = r;
	return 0;
}

void recorder_rest(struct recorder *r)
{
	set_timer(r, 0);
}

/* The guest may never run for a whole quantum between two rests: what it has run counts. */
void recorder_go_on(struct recorder *r)
{
	uint64_t ran = r->m->vcpu[0].free_ns - r->last_free;

	set_timer(r, ran < r->o.quantum ? r->o.quantum - ran : RETRY_NS);
}

int recorder_finish(struct recorder *r, struct err *err)
{
	struct machine *m = r->m;
	struct event e = {.type = EVENT_END, .boundary = m->boundary};
	int rc;

	if (!r->w)
		return 0;
	if (m->end == END_NONE)
		return flush(r, err); /* failed: what was logged is all there is */
	rc = look_at_user_code(r, m, err);
	if (rc < 0)
		return rc;
	e.end.end = m->end;
	e.end.code = m->end_code;
	e.end.vtime = m->vtime;
	e.end.at_landmark = r->at_landmark;
	if (r->at_boundary || r->at_landmark) {
		e.end.has_digest = true;
		rc = machine_digest(m, &e.end.digest, err);
		if (rc < 0)
			return rc;
		e.end.regs = event_regs(&m->vcpu[0]);
	}
	rc = log_event(r, &e, err);
	if (rc == 0)
		rc = flush(r, err);
	return rc < 0 ? rc : recorder_write_end(r->w, m, recorder_user_code(r), err);
}

void recorder_destroy(struct recorder *r)
{
	if (!r)
		return;
	kick_timer_destroy(&r->timer);
	if (r->written)
		memory_dirty_close(r->m->mem, r->written);
	buf_free(&r->log);
	user_code_destroy(r->user_code);
	free(r);
}

const struct user_code_found *recorder_user_code(const struct recorder *r)
{
	return user_code_found(r->user_code);
}

const struct recorder_counts *recorder_counts(const struct recorder *r)
{
	return &r->counts;
}
