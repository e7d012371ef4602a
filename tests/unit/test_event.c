// SPDX-License-Identifier: GPL-3.0-or-later
/* The codec of events and of the machine description: what goes in comes out, and garbage is
 * refused. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/random_event.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS 100000
#define GARBAGE_RUNS 200000
#define GARBAGE_MAX 300
/* What a landmark of a computing guest may cost before compression. */
#define LANDMARK_BYTES_MAX 64

/* Events are read from one frame or from many, whose borders carry no meaning. */
static void test_identity(void **state)
{
	uint64_t random = 1, write_boundary = 0, read_boundary = 0;
	struct kvm_regs write_regs = {0}, read_regs = {0};
	struct event_codec encoder = {0}, decoder = {0};
	uint64_t replayed = random, left = 0;
	struct buf frame = {0};
	struct reader in = {0};
	struct err err;

	(void)state;
	for (unsigned i = 0; i < EVENTS; i++) {
		struct event expected, got;

		if (!left) {
			left = 1 + random_below(&random, 200);
			/* The same random numbers once for writing, once for comparing. */
			replayed = random;
			buf_clear(&frame);
			for (uint64_t n = 0; n < left; n++) {
				struct event e =
					random_event(&random, &write_boundary, &write_regs);

				event_encode(&encoder, &e, &frame);
			}
			assert_false(frame.failed);
			in = reader_init(frame.data, frame.len);
		}
		expected = random_event(&replayed, &read_boundary, &read_regs);
		assert_int_equal(event_decode(&decoder, &in, &got, &err), 1);
		assert_true(same_event(&expected, &got));
		if (--left == 0)
			assert_int_equal(event_decode(&decoder, &in, &got, &err), 0);
	}
	buf_free(&frame);
}

/* Others index arrays by what is decoded, so it must be in range whatever the bytes were. */
static void assert_sane(const struct event *e, uint64_t last_boundary)
{
	assert_in_range(e->type, EVENT_LANDMARK, EVENT_TIME);
	assert_true(e->boundary >= last_boundary);
	if (e->type == EVENT_INPUT) {
		assert_true(e->input.len && e->input.len <= INPUT_MAX);
		assert_in_range(e->input.when, INPUT_AT_BOUNDARY, INPUT_AT_LANDMARK);
		assert_in_range(e->input.channel, 0, INPUT_CHANNELS - 1);
	}
	if (e->type == EVENT_LANDMARK)
		assert_true(e->landmark.operands <= WITNESS_MAX);
	if (e->type == EVENT_END)
		assert_in_range(e->end.end, END_NONE + 1, END_COUNT - 1);
}

static void decode_garbage(const uint8_t *data, size_t len)
{
	struct event_codec codec = {0};
	/* A copy of exactly this size, so that the sanitizer sees a read past the end. */
	uint8_t *copy = malloc(len ? len : 1);
	struct reader in;
	struct event e;
	struct err err = {0};
	uint64_t last = 0;
	size_t events = 0;
	int rc;

	assert_non_null(copy);
	memcpy(copy, data, len);
	in = reader_init(copy, len);
	while ((rc = event_decode(&codec, &in, &e, &err)) > 0) {
		assert_sane(&e, last);
		last = e.boundary;
		assert_true(++events <= len);
	}
	if (rc < 0) {
		assert_int_equal(rc, -EBADMSG);
		assert_true(err.text[0]);
		/* Damage stays damage. */
		if (in.failed)
			assert_int_equal(event_decode(&codec, &in, &e, &err), -EBADMSG);
	}
	free(copy);
}

static void test_garbage(void **state)
{
	uint64_t random = 2;
	uint8_t data[GARBAGE_MAX];

	(void)state;
	for (unsigned run = 0; run < GARBAGE_RUNS; run++) {
		size_t len = random_below(&random, sizeof(data) + 1);

		for (size_t i = 0; i < len; i++)
			data[i] = (uint8_t)random_u64(&random);
		/* Most first bytes are no event type, which would end it at once. */
		if (len && run % 2)
			data[0] = (uint8_t)(1 + random_below(&random, 4));
		decode_garbage(data, len);
	}
}

/* Nearly right is more dangerous than wrong. */
static void test_damaged_events(void **state)
{
	uint64_t random = 3;
	struct buf good = {0};

	(void)state;
	for (unsigned run = 0; run < GARBAGE_RUNS / 10; run++) {
		struct event_codec codec = {0};
		struct kvm_regs regs = {0};
		uint64_t boundary = 0;

		buf_clear(&good);
		for (unsigned i = 0; i < 4; i++) {
			struct event e = random_event(&random, &boundary, &regs);

			event_encode(&codec, &e, &good);
		}
		assert_false(good.failed);
		for (uint64_t n = 1 + random_below(&random, 3); n; n--)
			good.data[random_below(&random, good.len)] ^=
				(uint8_t)(1u << random_below(&random, 8));
		decode_garbage(good.data, random_below(&random, good.len + 1));
	}
	buf_free(&good);
}

/* An event cut anywhere is an error, never a shorter event. */
static void test_cut_events(void **state)
{
	uint64_t random = 4;

	(void)state;
	for (unsigned run = 0; run < 500; run++) {
		struct event_codec encoder = {0};
		struct kvm_regs regs = {0};
		uint64_t boundary = 0;
		struct event e = random_event(&random, &boundary, &regs);
		struct buf whole = {0};
		struct err err;

		event_encode(&encoder, &e, &whole);
		assert_false(whole.failed);
		for (size_t len = 1; len < whole.len; len++) {
			struct event_codec decoder = {0};
			struct reader in = reader_init(whole.data, len);
			struct event got;

			assert_int_equal(event_decode(&decoder, &in, &got, &err), -EBADMSG);
		}
		buf_free(&whole);
	}
}

static void test_boundary_overflow(void **state)
{
	struct event_codec codec = {.boundary = UINT64_MAX - 1};
	struct buf b = {0};
	struct reader in;
	struct event e;
	struct err err = {0};

	(void)state;
	buf_put_u8(&b, EVENT_DIGEST);
	buf_put_varint(&b, 2);
	for (unsigned i = 0; i < 17; i++)
		buf_put_u8(&b, 0);
	assert_false(b.failed);
	in = reader_init(b.data, b.len);
	assert_int_equal(event_decode(&codec, &in, &e, &err), -EBADMSG);
	assert_true(err.text[0]);
	buf_free(&b);
}

/* A loop that counts, sums up into two registers and writes through a pointer. */
static void test_landmark_size(void **state)
{
	struct event_codec codec = {0};
	uint64_t random = 5;
	struct event e = {.type = EVENT_LANDMARK, .boundary = 4711};
	struct buf b = {0};
	size_t first;

	(void)state;
	e.landmark.has_clock = true;
	e.landmark.clock = 7400;
	e.landmark.advance = 5123456;
	e.landmark.regs = (struct kvm_regs){.rsp = 0x181f40,
					    .rbp = 0x181f80,
					    .rip = 0x101234,
					    .rdi = 0x140000,
					    .rflags = 0x202};
	event_encode(&codec, &e, &b);
	first = b.len;
	for (unsigned i = 0; i < 100; i++) {
		size_t before = b.len;

		e.boundary += random_below(&random, 3);
		e.landmark.clock = random_below(&random, 1 << 20);
		e.landmark.advance = 5000000 + random_below(&random, 1 << 20);
		e.landmark.witness = (uint16_t)random_u64(&random);
		e.landmark.regs.rax = random_u64(&random);
		e.landmark.regs.rdx = random_u64(&random);
		e.landmark.regs.rcx = random_below(&random, 100000);
		e.landmark.regs.rip = 0x101200 + random_below(&random, 0x80);
		e.landmark.regs.rflags = 0x202 | (random_u64(&random) & 0x8d5);
		random_digest(&random, &e.landmark.digest);
		event_encode(&codec, &e, &b);
		assert_false(b.failed);
		assert_true(b.len - before <= LANDMARK_BYTES_MAX);
	}
	assert_true(first <= 2 * LANDMARK_BYTES_MAX);
	buf_free(&b);
}

static struct trace_machine some_machine(void)
{
	return (struct trace_machine){
		.config = {.mem_size = 64ull << 20,
			   .seed = UINT64_MAX,
			   .epoch = -1,
			   .xfeatures = 7,
			   .disk = true,
			   .ports = 3},
		.clock = CLOCK_EMUL,
		.quantum = 5000000,
		.time_rate = 0.1,
		.kernel_size = 123456,
		.initrd_size = 7,
		.disk_size = 512,
		.thin = true,
		.begun = true,
		.disk_hash = 0x123456789abcdef0,
		.cmdline = (char *)"console=ttyS0 \xff\x01 quiet",
		.host_cpu = (char *)"AuthenticAMD family 25 model 97",
		.cpu_number = 0x12345678,
		.host_kernel = (char *)"",
		.cpuid_hidden = true,
		.entry_seen = true,
	};
}

static void test_machine_identity(void **state)
{
	struct trace_machine in = some_machine(), out;
	struct buf b = {0};
	struct err err;

	(void)state;
	trace_machine_encode(&in, &b);
	assert_false(b.failed);
	assert_int_equal(trace_machine_decode(b.data, b.len, &out, &err), 0);
	assert_int_equal(out.config.mem_size, in.config.mem_size);
	assert_int_equal(out.config.seed, in.config.seed);
	assert_int_equal(out.config.epoch, in.config.epoch);
	assert_int_equal(out.config.xfeatures, in.config.xfeatures);
	assert_int_equal(out.clock, in.clock);
	assert_int_equal(out.quantum, in.quantum);
	assert_memory_equal(&out.time_rate, &in.time_rate, sizeof(in.time_rate));
	assert_int_equal(out.kernel_size, in.kernel_size);
	assert_int_equal(out.initrd_size, in.initrd_size);
	assert_int_equal(out.disk_size, in.disk_size);
	assert_true(out.disk_hash == in.disk_hash);
	assert_true(out.thin && out.begun && out.config.disk && !out.config.rng && !out.config.net);
	assert_int_equal(out.config.ports, in.config.ports);
	assert_string_equal(out.cmdline, in.cmdline);
	assert_string_equal(out.host_cpu, in.host_cpu);
	assert_int_equal(out.cpu_number, in.cpu_number);
	assert_string_equal(out.host_kernel, in.host_kernel);
	assert_true(out.cpuid_hidden && out.entry_seen);
	trace_machine_free(&out);
	buf_free(&b);
}

static void some_counts(struct assist_counts *c, unsigned len, uint64_t *x)
{
	c->len = len;
	for (unsigned i = 0; i < len; i++) {
		snprintf(c->of[i].name, ASSIST_NAME_MAX, "kind %u of twenty-three", i);
		*x = *x * 6364136223846793005ull + 1442695040888963407ull;
		c->of[i].count = *x >> (i * 2);
	}
}

static void test_end_identity(void **state)
{
	struct trace_end in = {0}, out;
	uint64_t x = 77;
	struct err err;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct buf b = {0};

		memset(&in, 0, sizeof(in));
		some_counts(&in.assists, round % (ASSIST_COUNTS_MAX + 1), &x);
		some_counts(&in.modules, round / 2 % (ASSIST_COUNTS_MAX + 1), &x);
		for (unsigned i = 0; i < round % (REWRITE_NOTES_MAX + 1); i++) {
			struct rewrite_note *note = &in.note[in.notes++];

			x = x * 6364136223846793005ull + 1442695040888963407ull;
			note->gva = GVA(x);
			note->kind = (x >> 32) % REWRITE_KINDS;
			snprintf(note->module, sizeof(note->module), "%.*s", (int)(i % 56),
				 "a_module_whose_name_is_as_long_as_it_may_be_at_the_most_");
		}
		for (unsigned i = round % 2; i < USER_INSTRUCTIONS; i += 2)
			in.user_code[i] = (struct user_code_found){.places = x >> i, .gva = GVA(x * i), .cr3 = x};
		trace_end_encode(&in, &b);
		assert_int_equal(trace_end_decode(b.data, b.len, &out, &err), 0);
		assert_memory_equal(&in, &out, sizeof(in));
		for (size_t cut = 0; cut < b.len; cut++)
			assert_int_equal(trace_end_decode(b.data, cut, &out, &err), -EBADMSG);
		buf_put_u8(&b, 0);
		assert_int_equal(trace_end_decode(b.data, b.len, &out, &err), -EBADMSG);
		buf_free(&b);
	}
	/* One too many; one whose name is too long. The same of instructions in modules, and one of no kind. */
	assert_int_equal(trace_end_decode((const uint8_t *)"\x21", 1, &out, &err), -EBADMSG);
	assert_int_equal(trace_end_decode((const uint8_t *)"\x01\x18xxxxxxxxxxxxxxxxxxxxxxxx\x01", 27, &out, &err),
			 -EBADMSG);
	assert_int_equal(trace_end_decode((const uint8_t *)"\0\0\x81\x01", 4, &out, &err), -EBADMSG);
	assert_int_equal(trace_end_decode((const uint8_t *)"\0\0\x01" "addressx" "\0\x38"
					  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\0\0\0\0", 74, &out, &err),
			 -EBADMSG);
	assert_int_equal(trace_end_decode((const uint8_t *)"\0\0\x01" "addressx" "\x09\0\0\0\0\0\0", 18, &out, &err),
			 -EBADMSG);
	assert_int_equal(trace_end_decode((const uint8_t *)"\0\0\x01" "addressx" "\x08\0\0\0\0\0\0", 18, &out, &err), 0);
}

static void refuse_machine(const void *data, size_t len)
{
	struct trace_machine tm;
	struct err err = {0};

	assert_int_equal(trace_machine_decode(data, len, &tm, &err), -EBADMSG);
	assert_true(err.text[0]);
	trace_machine_free(&tm);
}

static void refuse_changed(const struct trace_machine *tm)
{
	struct buf b = {0};

	trace_machine_encode(tm, &b);
	assert_false(b.failed);
	refuse_machine(b.data, b.len);
	buf_free(&b);
}

static void test_machine_refused(void **state)
{
	struct trace_machine tm = some_machine();
	char *line = malloc(CMDLINE_MAX + 2);
	struct buf b = {0};

	(void)state;
	trace_machine_encode(&tm, &b);
	for (size_t len = 0; len < b.len; len++)
		refuse_machine(b.data, len);
	buf_put_u8(&b, 0);
	assert_false(b.failed);
	refuse_machine(b.data, b.len);
	buf_free(&b);

	tm.config.mem_size = 0;
	refuse_changed(&tm);
	tm.config.mem_size = MEMORY_MIN + 1;
	refuse_changed(&tm);
	tm.config.mem_size = MEMORY_MAX + PAGE_SIZE;
	refuse_changed(&tm);
	tm.config.mem_size = UINT64_MAX & PAGE_MASK;
	refuse_changed(&tm);
	tm = some_machine();
	tm.clock = (enum clock_kind)77;
	refuse_changed(&tm);
	tm = some_machine();
	tm.config.ports = VIRTIO_CONSOLE_PORTS + 1;
	refuse_changed(&tm);
	tm = some_machine();
	tm.config.disk = false; /* but its image is elsewhere */
	refuse_changed(&tm);
	tm = some_machine();
	assert_non_null(line);
	memset(line, 'x', CMDLINE_MAX + 1);
	line[CMDLINE_MAX + 1] = 0;
	tm.cmdline = line;
	refuse_changed(&tm);
	free(line);
}

static void test_machine_garbage(void **state)
{
	struct trace_machine tm = some_machine();
	uint64_t random = 6;
	struct buf b = {0};

	(void)state;
	trace_machine_encode(&tm, &b);
	assert_false(b.failed);
	for (unsigned run = 0; run < 20000; run++) {
		uint8_t *copy = malloc(b.len);
		size_t len = run % 2 ? b.len : random_below(&random, b.len + 1);
		struct err err = {0};
		int rc;

		assert_non_null(copy);
		memcpy(copy, b.data, b.len);
		for (uint64_t n = 1 + random_below(&random, 4); n; n--)
			copy[random_below(&random, b.len)] = (uint8_t)random_u64(&random);
		rc = trace_machine_decode(copy, len, &tm, &err);
		assert_true(rc == 0 || (rc == -EBADMSG && err.text[0]));
		if (rc == 0)
			assert_true(tm.cmdline && tm.host_cpu && tm.host_kernel);
		trace_machine_free(&tm);
		free(copy);
	}
	buf_free(&b);
}

static void test_names(void **state)
{
	(void)state;
	for (unsigned i = 0; i < REGS_COUNT; i++)
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(event_reg_name(i), event_reg_name(j));
	assert_string_equal(event_reg_name(REGS_RIP), "rip");
	assert_string_equal(event_reg_name(REGS_RFLAGS), "rflags");
	assert_string_equal(event_reg_name(REGS_COUNT), "?");
	assert_string_equal(event_type_name(EVENT_LANDMARK), "landmark");
	assert_string_equal(event_type_name((enum event_type)0), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),	  cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_damaged_events),	  cmocka_unit_test(test_cut_events),
		cmocka_unit_test(test_boundary_overflow), cmocka_unit_test(test_landmark_size),
		cmocka_unit_test(test_machine_identity),  cmocka_unit_test(test_machine_refused),
		cmocka_unit_test(test_end_identity),	  cmocka_unit_test(test_machine_garbage),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
