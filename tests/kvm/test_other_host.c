// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * What a trace says of the host it was made on is compared before anything runs: a trace with another head is
 * refused in one sentence that names both CPUs, or replays where user code sees our CPUID alone.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/kvm/recording.h"

#include <errno.h>

#define ELSEWHERE "GenuineIntel-6-55-4:01234567-89abcdef"

static struct recording rec;
static char changed[160];
static bool hides_cpuid; /* this host shows user code our CPUID */

/* Copy the recording to `changed`, with this CPU in its head and this said of CPUID. */
static void change_head(const char *cpu, bool cpuid_hidden)
{
	struct trace_writer *w;
	struct trace_reader *r;
	enum trace_frame type;
	const uint8_t *data;
	struct err err;
	size_t len;
	int rc;

	assert_ok(trace_reader_open(&r, rec.path, &err), err);
	assert_ok(trace_writer_create(&w, changed, &err), err);
	while ((rc = trace_reader_next(r, &type, &data, &len, &err)) > 0) {
		struct trace_machine tm;
		struct buf head = {0};

		if (type != TRACE_MACHINE) {
			assert_ok(trace_writer_frame(w, type, data, len, &err), err);
			continue;
		}
		assert_ok(trace_machine_decode(data, len, &tm, &err), err);
		free(tm.host_cpu);
		tm.host_cpu = strdup(cpu);
		tm.cpuid_hidden = cpuid_hidden;
		trace_machine_encode(&tm, &head);
		assert_ok(trace_writer_frame(w, type, head.data, head.len, &err), err);
		buf_free(&head);
		trace_machine_free(&tm);
	}
	assert_ok(rc, err);
	assert_ok(trace_writer_close(w, &err), err);
	trace_reader_close(r);
}

static int replay_changed(struct err *err)
{
	const struct replay_options options = {0};
	struct replay r;
	int rc = replay_open(&r, changed, true, &options, NULL, NULL, err);

	if (rc < 0)
		return rc;
	rc = replay_run(&r, err);
	replay_close(&r);
	return rc;
}

static void expect_refusal(void)
{
	char here[128];
	struct err err;

	cpuid_host_signature(here, sizeof(here));
	assert_int_equal(replay_changed(&err), -ENOTSUP);
	assert_non_null(strstr(err.text, ELSEWHERE));
	assert_non_null(strstr(err.text, here));
	assert_null(strchr(err.text, '\n'));
}

static void test_same_cpu(void **state)
{
	char here[128];
	struct err err;

	(void)state;
	cpuid_host_signature(here, sizeof(here));
	change_head(here, hides_cpuid);
	assert_ok(replay_changed(&err), err);
}

/* The recording host's user code saw that CPU. */
static void test_cpu_was_seen(void **state)
{
	(void)state;
	change_head(ELSEWHERE, false);
	expect_refusal();
}

/* It saw our CPUID; here it may not. */
static void test_cpu_was_hidden(void **state)
{
	struct err err;

	(void)state;
	change_head(ELSEWHERE, true);
	if (hides_cpuid)
		assert_ok(replay_changed(&err), err);
	else
		expect_refusal();
}

static int setup(void **state)
{
	struct replay_file *f;
	struct err err;

	(void)state;
	record_guest(&rec, "instrs", "", -1);
	snprintf(changed, sizeof(changed), "%s.changed", rec.path);
	assert_ok(replay_file_open(&f, rec.path, &err), err);
	hides_cpuid = f->tm.cpuid_hidden;
	replay_file_close(f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(changed);
	recording_free(&rec);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_cpu),
		cmocka_unit_test(test_cpu_was_seen),
		cmocka_unit_test(test_cpu_was_hidden),
	};
	int missing = kvm_missing("test_other_host");

	return missing ? missing - 1 : cmocka_run_group_tests(tests, setup, teardown);
}
