/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Random events and their comparison, for the tests of codec and trace. Include after <cmocka.h>.
 */
#ifndef RANDOM_EVENT_H
#define RANDOM_EVENT_H

#include "replay/event.h"

#include <string.h>

/* xorshift64 (Marsaglia 2003); the state must not be 0. */
static inline uint64_t random_u64(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x;
}

static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	return (random_u64(state) >> 11) % n;
}

/* Of any magnitude, the edges of encodings included. */
static inline uint64_t random_value(uint64_t *state)
{
	uint64_t v = random_u64(state);

	switch (random_below(state, 4)) {
	case 0:
		return 0;
	case 1:
		return v;
	case 2:
		return UINT64_MAX >> (v & 63);
	default:
		return v >> (v & 63);
	}
}

static inline void random_regs(uint64_t *state, struct kvm_regs *regs)
{
	uint64_t word[REGS_COUNT];

	memcpy(word, regs, sizeof(word));
	for (uint64_t n = random_below(state, 8); n; n--)
		word[random_below(state, REGS_COUNT)] ^= random_value(state);
	memcpy(regs, word, sizeof(word));
}

static inline void random_digest(uint64_t *state, struct machine_digest *digest)
{
	digest->state = random_u64(state);
	digest->memory = random_u64(state);
}

/* The event that might follow one at *boundary with these registers; both are moved on. */
static inline struct event random_event(uint64_t *state, uint64_t *boundary, struct kvm_regs *regs)
{
	struct event e;

	memset(&e, 0, sizeof(e));
	e.type = (enum event_type)(EVENT_LANDMARK + random_below(state, EVENT_TIME));
	*boundary += random_value(state) >> 24;
	e.boundary = *boundary;
	switch (e.type) {
	case EVENT_LANDMARK:
		random_regs(state, regs);
		e.landmark.has_clock = random_below(state, 2);
		if (e.landmark.has_clock)
			e.landmark.clock = random_value(state);
		e.landmark.advance = random_value(state);
		e.landmark.witness = (uint16_t)random_u64(state);
		e.landmark.regs_hash = event_regs_hash(regs);
		e.landmark.regs = *regs;
		if (e.landmark.has_clock)
			e.landmark.regs = (struct kvm_regs){.rip = regs->rip, .rcx = regs->rcx};
		else
			e.landmark.operands = (uint8_t)random_below(state, WITNESS_MAX + 1);
		for (unsigned i = 0; i < e.landmark.operands; i++)
			e.landmark.operand[i] = random_value(state);
		random_digest(state, &e.landmark.digest);
		break;
	case EVENT_DIGEST:
		random_regs(state, regs);
		e.digest.regs = *regs;
		random_digest(state, &e.digest.digest);
		break;
	case EVENT_INPUT:
		e.input.when = (enum input_when)random_below(state, INPUT_AT_LANDMARK + 1);
		if (e.input.when == INPUT_HALTED)
			e.input.vtime = random_value(state);
		e.input.channel = (uint8_t)random_below(state, INPUT_CHANNELS);
		e.input.len = (uint16_t)(1 + random_below(state, random_below(state, 4) ? 16 : INPUT_MAX));
		for (unsigned i = 0; i < e.input.len; i++)
			e.input.bytes[i] = (uint8_t)random_u64(state);
		break;
	case EVENT_TIME:
		e.time.advance = random_value(state);
		break;
	case EVENT_END:
		e.end.end = (enum machine_end)(END_NONE + 1 + random_below(state, END_COUNT - 1));
		e.end.code = (uint32_t)random_u64(state);
		e.end.at_landmark = random_below(state, 2);
		e.end.has_digest = random_below(state, 2);
		e.end.vtime = random_value(state);
		if (e.end.has_digest) {
			random_regs(state, regs);
			e.end.regs = *regs;
			random_digest(state, &e.end.digest);
		}
		break;
	}
	return e;
}

static inline bool same_digest(const struct machine_digest *a, const struct machine_digest *b)
{
	return a->state == b->state && a->memory == b->memory;
}

static inline bool same_regs(const struct kvm_regs *a, const struct kvm_regs *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static inline bool same_event(const struct event *a, const struct event *b)
{
	if (a->type != b->type || a->boundary != b->boundary)
		return false;
	switch (a->type) {
	case EVENT_LANDMARK:
		return a->landmark.has_clock == b->landmark.has_clock &&
		       a->landmark.clock == b->landmark.clock &&
		       a->landmark.advance == b->landmark.advance &&
		       a->landmark.witness == b->landmark.witness &&
		       a->landmark.regs_hash == b->landmark.regs_hash &&
		       same_regs(&a->landmark.regs, &b->landmark.regs) &&
		       a->landmark.operands == b->landmark.operands &&
		       memcmp(a->landmark.operand, b->landmark.operand,
			      a->landmark.operands * sizeof(uint64_t)) == 0 &&
		       same_digest(&a->landmark.digest, &b->landmark.digest);
	case EVENT_DIGEST:
		return same_regs(&a->digest.regs, &b->digest.regs) &&
		       same_digest(&a->digest.digest, &b->digest.digest);
	case EVENT_INPUT:
		return a->input.when == b->input.when && a->input.vtime == b->input.vtime &&
		       a->input.channel == b->input.channel && a->input.len == b->input.len &&
		       memcmp(a->input.bytes, b->input.bytes, a->input.len) == 0;
	case EVENT_TIME:
		return a->time.advance == b->time.advance;
	case EVENT_END:
		return a->end.end == b->end.end && a->end.code == b->end.code &&
		       a->end.at_landmark == b->end.at_landmark &&
		       a->end.has_digest == b->end.has_digest && a->end.vtime == b->end.vtime &&
		       same_regs(&a->end.regs, &b->end.regs) &&
		       same_digest(&a->end.digest, &b->end.digest);
	}
	return false;
}

#endif
