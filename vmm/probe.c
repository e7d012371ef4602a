// SPDX-License-Identifier: GPL-3.0-or-later
/* Asking the host what it can do, and choosing between mechanisms by the answer. */
#include "vmm/caps.h"
#include "vmm/probe_internal.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Leaves 0x80000002 to 4 (SDM 2A, CPUID). For people to read; nothing is decided by it. */
static void describe_host(struct host_caps *caps)
{
	uint32_t brand[13] = {0};
	const char *text = (const char *)brand;
	struct utsname u;

	if (uname(&u) == 0)
		snprintf(caps->kernel, sizeof(caps->kernel), "%s", u.release);
	for (uint32_t i = 0; i < 3; i++)
		__get_cpuid(0x80000002 + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2],
			    &brand[4 * i + 3]);
	/* Intel pads on the left. */
	text += strspn(text, " ");
	snprintf(caps->cpu, sizeof(caps->cpu), "%s", *text ? text : "unknown");
}

/* That KVM runs a guest at all; everything else would just be "not available" without it. */
static int check_guest_runs(struct probe_guest *g, struct err *err)
{
	const struct probe_start how = {0};
	struct snippet code = {0};
	struct kvm_regs regs;

	snippet_put_done(&code);
	if (probe_start(g, &code, &how) && probe_run_done(g, &regs))
		return 0;
	return err_set(
		err, ENOTSUP,
		"this host's KVM does not run the simplest guest in long mode (exit reason %u): "
		"see the kernel log for messages of kvm",
		g->broken ? 0 : g->run->exit_reason);
}

/* --- Costs --- */

#define SAMPLES 51

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint32_t median(uint64_t *samples, size_t n)
{
	uint64_t m;

	qsort(samples, n, sizeof(samples[0]), compare_u64);
	m = samples[n / 2];
	return m > UINT32_MAX ? UINT32_MAX : (uint32_t)m;
}

/* Median time of an entry that must come back as `exit`; 0 if it does not. */
static uint32_t time_runs(struct probe_guest *g, int exit)
{
	uint64_t samples[SAMPLES];

	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t t = probe_now_ns();

		if (probe_run(g) != exit)
			return 0;
		samples[i] = probe_now_ns() - t;
	}
	return median(samples, SAMPLES);
}

static uint32_t time_ioctl(struct probe_guest *g)
{
	uint64_t samples[SAMPLES];
	struct kvm_regs regs;

	for (unsigned i = 0; i < SAMPLES; i++) {
		uint64_t t = probe_now_ns();

		if (!probe_get_regs(g, &regs))
			return 0;
		samples[i] = probe_now_ns() - t;
	}
	return median(samples, SAMPLES);
}

/* CPU time of a loop with entry and exit; 0 if it fails. */
static uint64_t time_loop(struct probe_guest *g, uint32_t turns)
{
	const struct probe_start how = {0};
	struct snippet code = {0};
	struct kvm_regs regs;
	uint64_t t;

	snippet_put_loop(&code, turns);
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how))
		return 0;
	t = probe_cpu_ns();
	return probe_run_done(g, &regs) ? probe_cpu_ns() - t : 0;
}

/* From the difference of two loops, so that entry and exit fall out; a CPU that runs the code
 * itself needs longer loops to show. At least 1; 0 if it fails. */
static uint32_t time_instruction(struct probe_guest *g)
{
	const uint64_t slow = 50;
	uint64_t samples[9];
	uint32_t ns = 0;

	for (uint32_t turns = 1000; turns <= 100000 && ns < slow; turns *= 100) {
		for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
			uint64_t shorter = time_loop(g, turns), longer = time_loop(g, 2 * turns);

			if (!shorter || !longer)
				return 0;
			samples[i] = longer > shorter ? (longer - shorter) / (2ull * turns) : 0;
		}
		ns = median(samples, ARRAY_SIZE(samples));
	}
	return ns ? ns : 1;
}

static void probe_costs(struct probe_guest *g, struct host_caps *caps)
{
	const struct probe_start how = {0};
	struct snippet exits = {0}, nops = {0};

	EMIT(&exits, 0xe6, PORT_DONE, 0xeb, 0xfc); /* out; jmp to it */
	EMIT(&nops, 0x90, 0xeb, 0xfd);		   /* nop; jmp to it */
	if (probe_start(g, &exits, &how)) {
		caps->ns_exit = time_runs(g, KVM_EXIT_IO);
		caps->ns_ioctl = time_ioctl(g);
	}
	if (caps->step[0] && probe_start(g, &nops, &how) &&
	    probe_debug(g, KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ, 0, 0))
		caps->ns_step = time_runs(g, KVM_EXIT_DEBUG);
	caps->ns_instruction_cpl0 = time_instruction(g);
}

/* --- All of it --- */

static void probe_strategies(struct probe_guest *g, struct host_caps *caps, bool full)
{
	probe_clock(g, caps, full);
	probe_step(g, caps, 0);
	probe_hw_breakpoint(g, caps, 0);
	probe_int3(g, caps, 0);
	probe_hlt(g, caps);
	probe_window(g, caps);
	probe_cpuid(g, caps, 0);
	probe_cpuid(g, caps, 3);
	probe_syscall(g, caps);
	probe_io_bitmap(g, caps);
	probe_msr_filter(g, caps);
	probe_sync_regs(g, caps);
	probe_ro_slot(g, caps, 0);
	probe_dirty_log(g, caps);
	probe_table_flush(g, caps);
}

static void probe_rest(struct probe_guest *g, struct host_caps *caps)
{
	probe_pmu(g, caps);
	probe_step(g, caps, 3);
	probe_hw_breakpoint(g, caps, 3);
	probe_data_breakpoint(g, caps);
	probe_int3(g, caps, 3);
	probe_rdtsc(g, caps);
	probe_ro_slot(g, caps, 3);
	probe_mprotect(g, caps, 0);
	probe_mprotect(g, caps, 3);
	probe_hole_load(g, caps, 0);
	probe_hole_load(g, caps, 3);
	probe_gaps(g, caps);
	probe_costs(g, caps);
	probe_dirty_ring(g->kvm, caps);
}

int host_probe(struct host_caps *caps, bool full, struct err *err)
{
	struct probe_guest g;
	int kvm_fd, rc;

	*caps = (struct host_caps){0};
	describe_host(caps);
	rc = probe_open_kvm("/dev/kvm", &kvm_fd, err);
	if (rc < 0)
		return rc;
	caps->kvm_api = KVM_API_VERSION;
	rc = probe_guest_open(&g, kvm_fd, false, err);
	if (rc < 0)
		goto close_kvm;
	rc = check_guest_runs(&g, err);
	if (rc < 0)
		goto close_guest;
	probe_strategies(&g, caps, full);
	if (full)
		probe_rest(&g, caps);
	rc = caps_check(caps, err);

close_guest:
	probe_guest_close(&g);
close_kvm:
	close(kvm_fd);
	return rc;
}

/* --- The choice --- */

int caps_check(const struct host_caps *caps, struct err *err)
{
	const struct {
		bool present;
		const char *what;
	} needed[] = {
		{caps->sync_regs, "registers shared through kvm_run (KVM_CAP_SYNC_REGS)"},
		{caps->step[0], "single-stepping of guest kernels (KVM_SET_GUEST_DEBUG, BLOCKIRQ)"},
		{caps_breakpoint(caps) != BP_NONE, "a breakpoint in guest kernels"},
		{caps->dirty_log, "an exact log of written pages (KVM_GET_DIRTY_LOG)"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (!needed[i].present)
			return err_set(
				err, ENOTSUP,
				"this host's KVM has no working %s, which hindsight cannot do "
				"without",
				needed[i].what);
	}
	return 0;
}

const char *emulation_gap_name(enum emulation_gap gap)
{
	static const char *const names[GAP_COUNT] = {
		[GAP_CMPXCHG16B] = "cmpxchg16b",
		[GAP_FWAIT] = "fwait",
		[GAP_LDMXCSR] = "ldmxcsr",
		[GAP_MOVD_XMM] = "movd xmm",
		[GAP_CLAC] = "clac",
		[GAP_XGETBV] = "xgetbv",
		[GAP_XSAVE] = "xsave",
		[GAP_RDTSCP] = "rdtscp",
		[GAP_INT_N] = "int n",
		[GAP_SSE_ARITH] = "sse arithmetic",
		[GAP_AVX] = "avx",
		[GAP_VERW] = "verw",
	};

	return (unsigned)gap < GAP_COUNT ? names[gap] : "unknown";
}

enum bp_mechanism caps_breakpoint_planted(const struct host_caps *caps)
{
	if (caps->int3[0] != INT3_LOST)
		return BP_INT3;
	return caps->hlt_breakpoint ? BP_HLT : BP_NONE;
}

enum bp_mechanism caps_breakpoint(const struct host_caps *caps)
{
	return caps->hw_breakpoint[0] ? BP_HW : caps_breakpoint_planted(caps);
}

bool caps_use_window(const struct host_caps *caps)
{
	return caps->window_exact;
}

bool caps_has_clock(const struct host_caps *caps)
{
	return caps->emul_clock;
}

const char *bp_mechanism_name(enum bp_mechanism mechanism)
{
	switch (mechanism) {
	case BP_HW:
		return "hw";
	case BP_INT3:
		return "int3";
	case BP_HLT:
		return "hlt";
	case BP_NONE:
		break;
	}
	return "none";
}

const char *table_flush_name(enum table_flush flush)
{
	switch (flush) {
	case TABLES_BY_SREGS:
		return "system registers";
	case TABLES_BY_SLOT:
		return "memory slot";
	case TABLES_STALE:
		break;
	}
	return "none";
}
