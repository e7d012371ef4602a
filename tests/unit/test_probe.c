// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The probes against the host they run on. Which capabilities there are is the host's matter; that
 * they hang together, and are the same each time, is ours.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "vmm/caps.h"
#include "vmm/probe_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bounds are generous: the host may be busy, or itself emulated. */
#define QUICK_MAX_NS (2 * NSEC_PER_SEC)

/* Tests of the probes need a KVM that can be opened; those of messages and choices do not. */
static void need_kvm(void)
{
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		print_message("no usable /dev/kvm (%s): skipped\n", strerror(errno));
		skip();
	}
}

static struct host_caps probe(bool full)
{
	struct err err = {0};
	struct host_caps caps;

	if (host_probe(&caps, full, &err) < 0)
		fail_msg("host_probe: %s", err.text);
	return caps;
}

/* What a quick probe fills. */
static void assert_same_quick(const struct host_caps *a, const struct host_caps *b)
{
	assert_string_equal(a->kernel, b->kernel);
	assert_string_equal(a->cpu, b->cpu);
	assert_int_equal(a->kvm_api, b->kvm_api);
	assert_int_equal(a->has_stats_fd, b->has_stats_fd);
	assert_int_equal(a->emul_clock, b->emul_clock);
	assert_int_equal(a->emul_clock_cpl3, b->emul_clock_cpl3);
	assert_int_equal(a->step[0], b->step[0]);
	assert_int_equal(a->hw_breakpoint[0], b->hw_breakpoint[0]);
	assert_int_equal(a->hw_breakpoint_rehits, b->hw_breakpoint_rehits);
	assert_int_equal(a->int3[0], b->int3[0]);
	assert_int_equal(a->hlt_breakpoint, b->hlt_breakpoint);
	assert_int_equal(a->step_leaks_tf, b->step_leaks_tf);
	assert_int_equal(a->window_exact, b->window_exact);
	assert_int_equal(a->cpuid_honoured[0], b->cpuid_honoured[0]);
	assert_int_equal(a->cpuid_honoured[1], b->cpuid_honoured[1]);
	assert_int_equal(a->syscall_works, b->syscall_works);
	assert_int_equal(a->tr_set_free, b->tr_set_free);
	assert_int_equal(a->msr_filter, b->msr_filter);
	assert_int_equal(a->sync_regs, b->sync_regs);
	assert_int_equal(a->in_sync_eax_lost, b->in_sync_eax_lost);
	assert_int_equal(a->ro_slot[0], b->ro_slot[0]);
	assert_int_equal(a->dirty_log, b->dirty_log);
	assert_int_equal(a->table_flush, b->table_flush);
}

static void assert_same_full(const struct host_caps *a, const struct host_caps *b)
{
	assert_same_quick(a, b);
	assert_int_equal(a->pmu, b->pmu);
	assert_int_equal(a->step[1], b->step[1]);
	assert_int_equal(a->hw_breakpoint[1], b->hw_breakpoint[1]);
	assert_int_equal(a->int3[1], b->int3[1]);
	assert_int_equal(a->data_breakpoint, b->data_breakpoint);
	assert_int_equal(a->rdtsc_traps, b->rdtsc_traps);
	assert_int_equal(a->ro_slot[1], b->ro_slot[1]);
	assert_int_equal(a->mprotect_store[0], b->mprotect_store[0]);
	assert_int_equal(a->mprotect_store[1], b->mprotect_store[1]);
	assert_int_equal(a->hole_load[0], b->hole_load[0]);
	assert_int_equal(a->hole_load[1], b->hole_load[1]);
	assert_int_equal(a->dirty_ring, b->dirty_ring);
	assert_int_equal(a->gaps, b->gaps);
}

static void test_quick_is_repeatable(void **state)
{
	struct host_caps first, again;
	uint64_t ns;

	(void)state;
	need_kvm();
	first = probe(false);
	for (int i = 0; i < 3; i++) {
		ns = probe_now_ns();
		again = probe(false);
		ns = probe_now_ns() - ns;
		print_message("quick probe: %.1f ms\n", (double)ns / (double)NSEC_PER_MSEC);
		assert_true(ns < QUICK_MAX_NS);
		assert_same_quick(&first, &again);
	}
}

static void test_full_is_repeatable_and_contains_quick(void **state)
{
	struct host_caps quick, first, again;
	uint64_t ns;

	(void)state;
	need_kvm();
	quick = probe(false);
	ns = probe_now_ns();
	first = probe(true);
	ns = probe_now_ns() - ns;
	print_message("full probe: %.1f ms\n", (double)ns / (double)NSEC_PER_MSEC);
	again = probe(true);
	assert_same_quick(&quick, &first);
	assert_same_full(&first, &again);
}

static void test_capabilities_hang_together(void **state)
{
	struct host_caps c;

	(void)state;
	need_kvm();
	c = probe(true);
	assert_int_equal(c.kvm_api, 12);
	assert_true(strlen(c.kernel) > 0 && strlen(c.cpu) > 0);
	assert_true(!c.emul_clock || c.has_stats_fd);
	assert_true(!c.emul_clock_cpl3 || c.emul_clock);
	assert_int_equal(c.ns_count > 0, c.emul_clock);
	assert_true(!c.hw_breakpoint_rehits || c.hw_breakpoint[0]);
	assert_true(!c.step_leaks_tf || c.step[0]);
	assert_true(!c.in_sync_eax_lost || c.sync_regs);
	/* Only an emulator fails to emulate. */
	assert_true(c.int3[0] != INT3_EMULATION || c.emul_clock || c.gaps);
	assert_int_equal(c.gaps >> GAP_COUNT, 0);
	/* What caps_check asks for, since host_probe has succeeded. */
	assert_true(c.sync_regs && c.step[0] && c.dirty_log);
	assert_int_not_equal(c.table_flush, TABLES_STALE);
	assert_true(c.ns_exit > 0 && c.ns_ioctl > 0 && c.ns_step > 0);
	assert_true(c.ns_instruction_cpl0 > 0);
	assert_true(caps_breakpoint(&c) != BP_NONE);
	assert_int_equal(caps_use_window(&c), c.window_exact);
}

/* Neither the process's signals nor the thread's mask are changed by a probe. */
static void test_signal_is_given_back(void **state)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN}, old, after;
	sigset_t block, old_mask, mask;
	struct host_caps first, second;

	(void)state;
	need_kvm();
	first = probe(false);
	sigemptyset(&block);
	sigaddset(&block, SIGUSR2);
	assert_int_equal(sigaction(SIGUSR2, &ignore, &old), 0);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &block, &old_mask), 0);
	second = probe(false);
	assert_int_equal(sigaction(SIGUSR2, &old, &after), 0);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &old_mask, &mask), 0);
	assert_true(after.sa_handler == SIG_IGN);
	assert_int_equal(sigismember(&mask, SIGUSR2), 1);
	/* A caller that blocks the signal finds the same, kicked clock included. */
	assert_same_quick(&first, &second);
}

/* Each file that a probe opens, and each VM, is closed. */
static void test_nothing_is_left_open(void **state)
{
	int before, after;

	(void)state;
	need_kvm();
	probe(true);
	before = dup(0);
	probe(true);
	after = dup(0);
	assert_int_equal(after, before + 1);
	close(before);
	close(after);
}

/* A guest that never comes back is ended, and the next one runs. */
static void test_watchdog_ends_a_loop(void **state)
{
	const struct probe_start levels[] = {{.cpl = 0}, {.cpl = 3}};
	struct snippet forever = {0}, done = {0};
	struct probe_guest g;
	struct kvm_regs regs;
	struct err err = {0};
	int fd;

	(void)state;
	need_kvm();
	EMIT(&forever, 0xeb, 0xfe); /* jmp to itself */
	snippet_put_done(&done);
	assert_int_equal(probe_open_kvm("/dev/kvm", &fd, &err), 0);
	assert_int_equal(probe_guest_open(&g, fd, false, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		assert_true(probe_start(&g, &forever, &levels[i]));
		assert_int_equal(probe_run(&g), -ETIME);
		assert_true(probe_start(&g, &done, &levels[i]));
		assert_true(probe_run_done(&g, &regs));
	}
	probe_guest_close(&g);
	close(fd);
}

/* A fault ends in its handler's HLT, and a triple fault spoils nothing for the next snippet. */
static void test_guest_faults(void **state)
{
	struct snippet ud = {0}, shutdown = {0}, done = {0};
	const struct probe_start kernel = {.cpl = 0}, user = {.cpl = 3};
	struct probe_guest g;
	struct kvm_regs regs;
	struct err err = {0};
	int fd, exit;

	(void)state;
	need_kvm();
	EMIT(&ud, 0x0f, 0x0b);			       /* ud2 */
	EMIT(&shutdown, 0x31, 0xe4);		       /* xor esp, esp */
	EMIT(&shutdown, 0x48, 0x0f, 0xba, 0xec, 0x3f); /* bts rsp, 63: no stack to fault on */
	EMIT(&shutdown, 0x0f, 0x0b);
	snippet_put_done(&done);
	assert_int_equal(probe_open_kvm("/dev/kvm", &fd, &err), 0);
	assert_int_equal(probe_guest_open(&g, fd, false, &err), 0);
	assert_true(probe_start(&g, &ud, &user));
	exit = probe_run(&g);
	assert_true(probe_get_regs(&g, &regs));
	assert_int_equal(probe_vector(exit, regs.rip), X86_UD);
	assert_true(probe_start(&g, &shutdown, &kernel));
	assert_int_equal(probe_run(&g), KVM_EXIT_SHUTDOWN);
	assert_true(probe_start(&g, &done, &kernel));
	assert_true(probe_run_done(&g, &regs));
	probe_guest_close(&g);
	close(fd);
}

static void test_vector_is_told_by_its_handler(void **state)
{
	(void)state;
	assert_int_equal(probe_vector(KVM_EXIT_HLT, GUEST_VECTORS + 1), 0);
	assert_int_equal(probe_vector(KVM_EXIT_HLT, GUEST_VECTORS + 16 * X86_GP + 1), X86_GP);
	assert_int_equal(probe_vector(KVM_EXIT_HLT, GUEST_VECTORS + 16 * 255 + 1), 255);
	assert_int_equal(probe_vector(KVM_EXIT_HLT, GUEST_CODE0 + 1), -1);
	assert_int_equal(probe_vector(KVM_EXIT_IO, GUEST_VECTORS + 1), -1);
}

static void test_errors_say_what_to_do(void **state)
{
	char path[] = "/tmp/hindsight-probe-XXXXXX";
	struct err err = {0};
	int fd = -1, file;

	(void)state;
	assert_int_equal(probe_open_kvm("/nonexistent/kvm", &fd, &err), -ENOENT);
	assert_non_null(strstr(err.text, "modprobe"));
	assert_non_null(strstr(err.text, "nested"));
	assert_int_equal(probe_open_kvm("/dev/null", &fd, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "not a KVM device"));
	assert_int_equal(fd, -1);
	/* Root may open anything. */
	if (geteuid() == 0)
		return;
	file = mkstemp(path);
	assert_true(file >= 0);
	assert_int_equal(fchmod(file, 0), 0);
	assert_int_equal(probe_open_kvm(path, &fd, &err), -EACCES);
	assert_non_null(strstr(err.text, "group kvm"));
	close(file);
	unlink(path);
}

static void test_choice_of_breakpoint(void **state)
{
	struct host_caps c = {0};

	(void)state;
	assert_int_equal(caps_breakpoint(&c), BP_NONE);
	assert_int_equal(caps_breakpoint_planted(&c), BP_NONE);
	c.hlt_breakpoint = true;
	assert_int_equal(caps_breakpoint(&c), BP_HLT);
	c.int3[0] = INT3_EMULATION;
	assert_int_equal(caps_breakpoint(&c), BP_INT3);
	c.int3[0] = INT3_DEBUG;
	assert_int_equal(caps_breakpoint_planted(&c), BP_INT3);
	c.hw_breakpoint[1] = true;
	assert_int_equal(caps_breakpoint(&c), BP_INT3);
	c.hw_breakpoint[0] = true;
	assert_int_equal(caps_breakpoint(&c), BP_HW);
	assert_int_equal(caps_breakpoint_planted(&c), BP_INT3);
	assert_string_equal(bp_mechanism_name(BP_HW), "hw");
	assert_string_equal(bp_mechanism_name(BP_NONE), "none");
}

static void test_what_is_indispensable(void **state)
{
	const struct host_caps good = {.sync_regs = true,
				       .step = {true, false},
				       .hlt_breakpoint = true,
				       .dirty_log = true};
	struct host_caps c = good;
	struct err err = {0};

	(void)state;
	assert_int_equal(caps_check(&c, &err), 0);
	assert_false(caps_has_clock(&c));
	c.sync_regs = false;
	assert_int_equal(caps_check(&c, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "KVM_CAP_SYNC_REGS"));
	c = good;
	c.step[0] = false;
	assert_int_equal(caps_check(&c, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "single-stepping"));
	c = good;
	c.hlt_breakpoint = false;
	assert_int_equal(caps_check(&c, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "breakpoint"));
	c = good;
	c.dirty_log = false;
	assert_int_equal(caps_check(&c, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, "KVM_GET_DIRTY_LOG"));
}

static void test_gap_names(void **state)
{
	(void)state;
	for (unsigned i = 0; i < GAP_COUNT; i++)
		assert_true(strlen(emulation_gap_name((enum emulation_gap)i)) > 0);
	assert_string_equal(emulation_gap_name(GAP_COUNT), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quick_is_repeatable),
		cmocka_unit_test(test_full_is_repeatable_and_contains_quick),
		cmocka_unit_test(test_capabilities_hang_together),
		cmocka_unit_test(test_signal_is_given_back),
		cmocka_unit_test(test_nothing_is_left_open),
		cmocka_unit_test(test_watchdog_ends_a_loop),
		cmocka_unit_test(test_guest_faults),
		cmocka_unit_test(test_vector_is_told_by_its_handler),
		cmocka_unit_test(test_errors_say_what_to_do),
		cmocka_unit_test(test_choice_of_breakpoint),
		cmocka_unit_test(test_what_is_indispensable),
		cmocka_unit_test(test_gap_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
