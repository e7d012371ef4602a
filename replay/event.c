// SPDX-License-Identifier: GPL-3.0-or-later
#include "replay/event.h"

#include "vmm/cpuid.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RFLAGS_RF (1ull << 16)
#define NAME_MAX_LEN 256

/* Flag bits of the encoding. */
#define LANDMARK_HAS_CLOCK 1u
#define DEVICE_DISK 1u
#define DEVICE_RNG 2u
#define DEVICE_NET 4u
#define DEVICE_DISK_THIN 8u
#define DEVICE_BEGUN 16u     /* no device: where the machine begins */
/* Bits of the recording host's kind. */
#define HOST_CPUID_HIDDEN 1u
#define HOST_ENTRY_SEEN 2u

#define END_AT_LANDMARK 1u
#define END_HAS_DIGEST 2u

const char *clock_kind_name(enum clock_kind kind)
{
	return kind == CLOCK_EMUL ? "emul" : "state";
}

void trace_machine_encode(const struct trace_machine *tm, struct buf *out)
{
	uint64_t rate;

	memcpy(&rate, &tm->time_rate, sizeof(rate));
	buf_put_u64(out, tm->config.mem_size);
	buf_put_u64(out, tm->config.seed);
	buf_put_u64(out, (uint64_t)tm->config.epoch);
	buf_put_u8(out, (uint8_t)((tm->config.disk ? DEVICE_DISK : 0) |
				  (tm->config.rng ? DEVICE_RNG : 0) |
				  (tm->config.net ? DEVICE_NET : 0) | (tm->thin ? DEVICE_DISK_THIN : 0) |
				  (tm->begun ? DEVICE_BEGUN : 0)));
	buf_put_u8(out, tm->config.ports);
	buf_put_u8(out, (uint8_t)tm->clock);
	buf_put_u8(out, (uint8_t)((tm->cpuid_hidden ? HOST_CPUID_HIDDEN : 0) |
				  (tm->entry_seen ? HOST_ENTRY_SEEN : 0)));
	buf_put_u64(out, tm->quantum);
	buf_put_u64(out, rate);
	buf_put_u64(out, tm->config.xfeatures);
	buf_put_u64(out, tm->kernel_size);
	buf_put_u64(out, tm->initrd_size);
	buf_put_u64(out, tm->disk_size);
	buf_put_u64(out, tm->disk_hash);
	buf_put_str(out, tm->cmdline);
	buf_put_str(out, tm->host_cpu);
	buf_put_u32(out, tm->cpu_number);
	buf_put_str(out, tm->host_kernel);
}

int trace_machine_decode(const uint8_t *data, size_t len, struct trace_machine *tm, struct err *err)
{
	struct reader in = reader_init(data, len);
	uint64_t rate;
	uint8_t clock, devices, host;

	*tm = (struct trace_machine){0};
	tm->config.mem_size = reader_u64(&in);
	tm->config.seed = reader_u64(&in);
	tm->config.epoch = (int64_t)reader_u64(&in);
	devices = reader_u8(&in);
	tm->config.disk = devices & DEVICE_DISK;
	tm->config.rng = devices & DEVICE_RNG;
	tm->config.net = devices & DEVICE_NET;
	tm->thin = devices & DEVICE_DISK_THIN;
	tm->begun = devices & DEVICE_BEGUN;
	tm->config.ports = reader_u8(&in);
	clock = reader_u8(&in);
	host = reader_u8(&in);
	tm->cpuid_hidden = host & HOST_CPUID_HIDDEN;
	tm->entry_seen = host & HOST_ENTRY_SEEN;
	tm->quantum = reader_u64(&in);
	rate = reader_u64(&in);
	memcpy(&tm->time_rate, &rate, sizeof(rate));
	tm->config.xfeatures = reader_u64(&in);
	tm->kernel_size = reader_u64(&in);
	tm->initrd_size = reader_u64(&in);
	tm->disk_size = reader_u64(&in);
	tm->disk_hash = reader_u64(&in);
	tm->cmdline = reader_str(&in, CMDLINE_MAX);
	tm->host_cpu = reader_str(&in, NAME_MAX_LEN);
	tm->cpu_number = reader_u32(&in);
	tm->host_kernel = reader_str(&in, NAME_MAX_LEN);
	if (in.failed || reader_left(&in))
		return err_set(err, EBADMSG, "the trace's machine description is damaged");
	if (clock > CLOCK_EMUL)
		return err_set(err, EBADMSG, "the trace needs clock kind %u, which this hindsight does not know",
			       clock);
	if (!cpuid_is_xfeatures(tm->config.xfeatures))
		return err_set(err, EBADMSG, "the trace's machine description has impossible vector registers");
	tm->clock = (enum clock_kind)clock;
	if (host > (HOST_CPUID_HIDDEN | HOST_ENTRY_SEEN))
		return err_set(err, EBADMSG, "the trace's machine description has an impossible kind of host");
	if (devices > (DEVICE_DISK | DEVICE_RNG | DEVICE_NET | DEVICE_DISK_THIN | DEVICE_BEGUN) ||
	    tm->config.ports > VIRTIO_CONSOLE_PORTS || (tm->thin && !tm->config.disk))
		return err_set(err, EBADMSG, "the trace's machine has devices that this hindsight does not know");
	if (tm->config.mem_size < MEMORY_MIN || tm->config.mem_size > MEMORY_MAX ||
	    tm->config.mem_size % PAGE_SIZE)
		return err_set(err, EBADMSG, "the trace's machine description has an impossible memory size");
	return 0;
}

static void counts_encode(const struct assist_counts *counts, struct buf *out)
{
	buf_put_varint(out, counts->len);
	for (unsigned i = 0; i < counts->len; i++) {
		buf_put_str(out, counts->of[i].name);
		buf_put_varint(out, counts->of[i].count);
	}
}

static void counts_decode(struct reader *in, struct assist_counts *counts)
{
	uint64_t n = reader_varint(in);

	if (n > ASSIST_COUNTS_MAX)
		in->failed = true;
	for (uint64_t i = 0; i < n && !in->failed; i++) {
		char *name = reader_str(in, ASSIST_NAME_MAX - 1);

		if (!name)
			return;
		strcpy(counts->of[i].name, name);
		free(name);
		counts->of[i].count = reader_varint(in);
		counts->len++;
	}
}

void trace_end_encode(const struct trace_end *end, struct buf *out)
{
	counts_encode(&end->assists, out);
	counts_encode(&end->modules, out);
	buf_put_varint(out, end->notes);
	for (unsigned i = 0; i < end->notes; i++) {
		buf_put_u64(out, end->note[i].gva.v);
		buf_put_u8(out, (uint8_t)end->note[i].kind);
		buf_put_str(out, end->note[i].module);
	}
	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++) {
		buf_put_varint(out, end->user_code[i].places);
		if (end->user_code[i].places) {
			buf_put_u64(out, end->user_code[i].gva.v);
			buf_put_u64(out, end->user_code[i].cr3);
		}
	}
}

static void notes_decode(struct reader *in, struct trace_end *end)
{
	uint64_t n = reader_varint(in);

	if (n > REWRITE_NOTES_MAX)
		in->failed = true;
	for (uint64_t i = 0; i < n && !in->failed; i++) {
		struct rewrite_note *note = &end->note[i];
		char *module;

		note->gva = GVA(reader_u64(in));
		note->kind = reader_u8(in);
		if (note->kind >= REWRITE_KINDS)
			in->failed = true;
		module = reader_str(in, REWRITE_MODULE_NAME - 1);
		if (!module)
			return;
		strcpy(note->module, module);
		free(module);
		end->notes++;
	}
}

int trace_end_decode(const uint8_t *data, size_t len, struct trace_end *end, struct err *err)
{
	struct reader in = reader_init(data, len);

	*end = (struct trace_end){0};
	counts_decode(&in, &end->assists);
	counts_decode(&in, &end->modules);
	notes_decode(&in, end);
	for (unsigned i = 0; i < USER_INSTRUCTIONS; i++) {
		end->user_code[i].places = reader_varint(&in);
		if (end->user_code[i].places) {
			end->user_code[i].gva = GVA(reader_u64(&in));
			end->user_code[i].cr3 = reader_u64(&in);
		}
	}
	if (in.failed || reader_left(&in))
		return err_set(err, EBADMSG, "the trace's end frame is damaged");
	return 0;
}

void trace_machine_free(struct trace_machine *tm)
{
	free(tm->cmdline);
	free(tm->host_cpu);
	free(tm->host_kernel);
	*tm = (struct trace_machine){0};
}

/* Values that share their high half differ in few low bits; others are stored whole, which a varint would make
 * longer. */
static void put_word(uint64_t v, struct buf *out)
{
	uint8_t bytes[7];
	unsigned n = 0;

	if (v >> 49) {
		buf_put_u8(out, 0xff);
		buf_put_u64(out, v);
		return;
	}
	for (; v; v >>= 8)
		bytes[n++] = (uint8_t)v;
	buf_put_u8(out, (uint8_t)n);
	buf_put(out, bytes, n);
}

static uint64_t get_word(struct reader *in)
{
	uint8_t n = reader_u8(in);
	uint64_t v = 0;

	if (n == 0xff)
		return reader_u64(in);
	if (n > 7)
		in->failed = true;
	for (unsigned b = 0; b < n && !in->failed; b++)
		v |= (uint64_t)reader_u8(in) << (8 * b);
	return v;
}

/* A bit for each register that differs from the last ones logged, then the XOR of each of these. */
static void put_regs(struct event_codec *c, const struct kvm_regs *regs, struct buf *out)
{
	const uint64_t *now = (const uint64_t *)regs;
	uint64_t *last = (uint64_t *)&c->regs;
	uint64_t changed = 0;

	for (unsigned i = 0; i < REGS_COUNT; i++)
		if (now[i] != last[i])
			changed |= 1ull << i;
	buf_put_varint(out, changed);
	for (unsigned i = 0; i < REGS_COUNT; i++) {
		if (!(changed >> i & 1))
			continue;
		put_word(now[i] ^ last[i], out);
		last[i] = now[i];
	}
}

static void get_regs(struct event_codec *c, struct reader *in, struct kvm_regs *regs)
{
	uint64_t *last = (uint64_t *)&c->regs;
	uint64_t changed = reader_varint(in);

	if (changed >> REGS_COUNT)
		in->failed = true;
	for (unsigned i = 0; i < REGS_COUNT && !in->failed; i++)
		if (changed >> i & 1)
			last[i] ^= get_word(in);
	*regs = c->regs;
}

/* Memory operands at a landmark without a clock. */
static void put_operands(const struct event *e, struct buf *out)
{
	buf_put_u8(out, e->landmark.operands);
	for (unsigned i = 0; i < e->landmark.operands; i++)
		put_word(e->landmark.operand[i], out);
}

static void get_operands(struct reader *in, struct event *e)
{
	e->landmark.operands = reader_u8(in);
	if (e->landmark.operands > WITNESS_MAX)
		in->failed = true;
	for (unsigned i = 0; i < e->landmark.operands && !in->failed; i++)
		e->landmark.operand[i] = get_word(in);
}

/* Where a clock finds the place, RIP and RCX serve the search and the hash stands for the other registers:
 * they are the larger part of a landmark's bytes. */
static void put_place(struct event_codec *c, const struct kvm_regs *regs, struct buf *out)
{
	buf_put_varint(out, regs->rip ^ c->regs.rip);
	buf_put_varint(out, regs->rcx ^ c->regs.rcx);
	c->regs.rip = regs->rip;
	c->regs.rcx = regs->rcx;
}

static void get_place(struct event_codec *c, struct reader *in, struct kvm_regs *regs)
{
	c->regs.rip ^= reader_varint(in);
	c->regs.rcx ^= reader_varint(in);
	*regs = (struct kvm_regs){.rip = c->regs.rip, .rcx = c->regs.rcx};
}

static void put_digest(const struct machine_digest *d, struct buf *out)
{
	buf_put_u64(out, d->state);
	buf_put_u64(out, d->memory);
}

static void get_digest(struct reader *in, struct machine_digest *d)
{
	d->state = reader_u64(in);
	d->memory = reader_u64(in);
}

void event_encode(struct event_codec *c, const struct event *e, struct buf *out)
{
	buf_put_u8(out, (uint8_t)e->type);
	buf_put_varint(out, e->boundary - c->boundary);
	c->boundary = e->boundary;
	switch (e->type) {
	case EVENT_LANDMARK:
		buf_put_u8(out, e->landmark.has_clock ? LANDMARK_HAS_CLOCK : 0);
		if (e->landmark.has_clock)
			buf_put_varint(out, e->landmark.clock);
		buf_put_varint(out, e->landmark.advance);
		buf_put_u16(out, e->landmark.witness);
		buf_put_u32(out, e->landmark.regs_hash);
		if (e->landmark.has_clock) {
			put_place(c, &e->landmark.regs, out);
		} else {
			put_regs(c, &e->landmark.regs, out);
			put_operands(e, out);
		}
		put_digest(&e->landmark.digest, out);
		break;
	case EVENT_DIGEST:
		put_regs(c, &e->digest.regs, out);
		put_digest(&e->digest.digest, out);
		break;
	case EVENT_INPUT:
		buf_put_u8(out, (uint8_t)e->input.when);
		if (e->input.when == INPUT_HALTED)
			buf_put_varint(out, e->input.vtime);
		buf_put_u8(out, e->input.channel);
		buf_put_varint(out, e->input.len);
		buf_put(out, e->input.bytes, e->input.len);
		break;
	case EVENT_TIME:
		buf_put_varint(out, e->time.advance);
		break;
	case EVENT_END:
		buf_put_u8(out, (uint8_t)((e->end.at_landmark ? END_AT_LANDMARK : 0) |
					  (e->end.has_digest ? END_HAS_DIGEST : 0)));
		buf_put_u8(out, (uint8_t)e->end.end);
		buf_put_u32(out, e->end.code);
		buf_put_varint(out, e->end.vtime);
		if (e->end.has_digest) {
			put_regs(c, &e->end.regs, out);
			put_digest(&e->end.digest, out);
		}
		break;
	}
}

int event_decode(struct event_codec *c, struct reader *in, struct event *e, struct err *err)
{
	uint64_t delta, len;
	uint8_t flags;

	if (!in->failed && in->pos == in->len)
		return 0;
	*e = (struct event){.type = (enum event_type)reader_u8(in)};
	delta = reader_varint(in);
	if (delta > UINT64_MAX - c->boundary)
		goto bad;
	c->boundary += delta;
	e->boundary = c->boundary;
	switch (e->type) {
	case EVENT_LANDMARK:
		flags = reader_u8(in);
		e->landmark.has_clock = flags & LANDMARK_HAS_CLOCK;
		if (e->landmark.has_clock)
			e->landmark.clock = reader_varint(in);
		e->landmark.advance = reader_varint(in);
		e->landmark.witness = reader_u16(in);
		e->landmark.regs_hash = reader_u32(in);
		if (e->landmark.has_clock) {
			get_place(c, in, &e->landmark.regs);
		} else {
			get_regs(c, in, &e->landmark.regs);
			get_operands(in, e);
		}
		get_digest(in, &e->landmark.digest);
		break;
	case EVENT_DIGEST:
		get_regs(c, in, &e->digest.regs);
		get_digest(in, &e->digest.digest);
		break;
	case EVENT_INPUT:
		e->input.when = (enum input_when)reader_u8(in);
		if (e->input.when == INPUT_HALTED)
			e->input.vtime = reader_varint(in);
		e->input.channel = reader_u8(in);
		len = reader_varint(in);
		if (!len || len > INPUT_MAX || e->input.channel >= INPUT_CHANNELS ||
		    e->input.when > INPUT_AT_LANDMARK)
			goto bad;
		e->input.len = (uint16_t)len;
		reader_get(in, e->input.bytes, e->input.len);
		break;
	case EVENT_TIME:
		e->time.advance = reader_varint(in);
		break;
	case EVENT_END:
		flags = reader_u8(in);
		e->end.at_landmark = flags & END_AT_LANDMARK;
		e->end.has_digest = flags & END_HAS_DIGEST;
		e->end.end = (enum machine_end)reader_u8(in);
		e->end.code = reader_u32(in);
		e->end.vtime = reader_varint(in);
		if (e->end.has_digest) {
			get_regs(c, in, &e->end.regs);
			get_digest(in, &e->end.digest);
		}
		if (e->end.end == END_NONE || e->end.end >= END_COUNT)
			goto bad;
		break;
	default:
		goto bad;
	}
	if (!in->failed)
		return 1;
bad:
	return err_set(err, EBADMSG, "an event in the trace is damaged (after boundary %llu)",
		       (unsigned long long)c->boundary);
}

struct kvm_regs event_regs(const struct vcpu *v)
{
	struct kvm_regs regs = *vcpu_regs(v);

	regs.rflags &= ~RFLAGS_RF;
	return regs;
}

uint32_t event_regs_hash(const struct kvm_regs *regs)
{
	return (uint32_t)XXH3_64bits(regs, sizeof(*regs));
}

bool event_landmark_has_regs(const struct event *e, const struct kvm_regs *regs)
{
	return regs->rip == e->landmark.regs.rip && regs->rcx == e->landmark.regs.rcx &&
	       event_regs_hash(regs) == e->landmark.regs_hash &&
	       (e->landmark.has_clock || memcmp(regs, &e->landmark.regs, sizeof(*regs)) == 0);
}

const char *event_reg_name(unsigned i)
{
	static const char *const names[REGS_COUNT] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi",
						      "rsp", "rbp", "r8",  "r9",  "r10", "r11",
						      "r12", "r13", "r14", "r15", "rip", "rflags"};

	return i < REGS_COUNT ? names[i] : "?";
}

const char *event_type_name(enum event_type type)
{
	switch (type) {
	case EVENT_LANDMARK:
		return "landmark";
	case EVENT_DIGEST:
		return "digest";
	case EVENT_INPUT:
		return "input";
	case EVENT_END:
		return "end";
	case EVENT_TIME:
		return "time";
	}
	return "unknown";
}

void event_channel_name(unsigned channel, char name[CHANNEL_NAME_MAX])
{
	if (channel == INPUT_SERIAL)
		snprintf(name, CHANNEL_NAME_MAX, "the serial line");
	else if (channel == INPUT_NET)
		snprintf(name, CHANNEL_NAME_MAX, "the network card");
	else if (channel == INPUT_WINDOW)
		snprintf(name, CHANNEL_NAME_MAX, "the window's size");
	else
		snprintf(name, CHANNEL_NAME_MAX, "port %u", (channel - INPUT_PORT) % 256);
}

bool event_regs_differ(const struct kvm_regs *now, const struct kvm_regs *then, char *what, size_t size)
{
	const uint64_t *a = (const uint64_t *)now, *b = (const uint64_t *)then;

	for (unsigned i = 0; i < REGS_COUNT; i++) {
		if (a[i] == b[i])
			continue;
		snprintf(what, size, "register %s is 0x%" PRIx64 ", recorded 0x%" PRIx64, event_reg_name(i), a[i], b[i]);
		return true;
	}
	return false;
}
