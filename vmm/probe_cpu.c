// SPDX-License-Identifier: GPL-3.0-or-later
/* What the host does with a guest's instructions: counting, stopping, intercepting, emulating. */
#include "vmm/probe_internal.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CR4_TSD 0x4ull
#define CR4_OSXSAVE 0x40000ull

/* DR7 (SDM 3B 18.2.4): bit 10 reads as one; G0; for data, 8 bytes written. */
#define DR7_EXEC0 0x402ull
#define DR7_WRITE0 0x90402ull

#define RFLAGS_TF 0x100u
#define RFLAGS_IOPL 0x3000ull

#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_FMASK 0xc0000084u

static struct probe_start at_level(unsigned cpl)
{
	return (struct probe_start){.cpl = cpl};
}

static uint64_t code_at(unsigned cpl)
{
	return cpl ? GUEST_CODE3 : GUEST_CODE0;
}

static bool emulation_failed(const struct probe_guest *g, int exit)
{
	return exit == KVM_EXIT_INTERNAL_ERROR &&
	       g->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
}

/* --- Clocks --- */

/* By how much the 64-bit counter at `at` of the file grows between two exits with a loop between
 * them, and what CPU time that takes. */
static bool measure_loop(struct probe_guest *g, int fd, int64_t at, const struct probe_start *how,
			 uint32_t turns, uint64_t *grown, uint64_t *ns)
{
	struct snippet code = {0};
	struct kvm_regs regs;
	uint64_t before, after, began;
	bool done;

	snippet_put_done(&code);
	snippet_put_loop(&code, turns);
	snippet_put_done(&code);
	if (!probe_start(g, &code, how) || !probe_run_done(g, &regs) ||
	    pread(fd, &before, sizeof(before), at) != (ssize_t)sizeof(before))
		return false;
	began = probe_cpu_ns();
	done = probe_run_done(g, &regs);
	*ns = probe_cpu_ns() - began;
	if (!done || pread(fd, &after, sizeof(after), at) != (ssize_t)sizeof(after))
		return false;
	*grown = after - before;
	return true;
}

/* The OUT behind the loop counts too. */
static bool counts_exactly(struct probe_guest *g, int fd, int64_t at, const struct probe_start *how,
			   uint32_t turns)
{
	uint64_t grown, ns;

	return measure_loop(g, fd, at, how, turns, &grown, &ns) &&
	       grown == snippet_loop_length(turns) + 1;
}

/* The same with so long a loop that at least three signals come meanwhile. */
static bool counts_exactly_kicked(struct probe_guest *g, int fd, int64_t at, unsigned cpl,
				  uint32_t turns)
{
	const struct probe_start how = {.cpl = cpl, .kick_us = 200};

	for (int tries = 0; tries < 6; tries++, turns *= 4) {
		if (!counts_exactly(g, fd, at, &how, turns))
			return false;
		if (g->kicks >= 3)
			return true;
	}
	return false;
}

/* What an instruction costs at least: the fastest of some loops, since only others' work makes one slower. */
static uint32_t least_ns(struct probe_guest *g, int fd, int64_t at)
{
	const struct probe_start kernel = at_level(0);
	uint64_t least = UINT64_MAX, grown, ns;

	for (int i = 0; i < 3; i++)
		if (measure_loop(g, fd, at, &kernel, 500, &grown, &ns) && grown && ns / grown < least)
			least = ns / grown;
	return least == UINT64_MAX || !least ? 1 : (uint32_t)least;
}

void probe_clock(struct probe_guest *g, struct host_caps *caps, bool full)
{
	const struct probe_start kernel = at_level(0), user = at_level(3);
	int64_t at;
	int fd;

	/* Opened per vCPU: a guest that was made anew has another one. */
	fd = g->broken ? -1 : ioctl(g->vcpu, KVM_GET_STATS_FD, 0ul);
	if (fd < 0)
		return;
	caps->has_stats_fd = true;
	at = probe_find_stat(fd, "insn_emulation");
	if (at >= 0 && counts_exactly(g, fd, at, &kernel, full ? 10000 : 500) &&
	    counts_exactly_kicked(g, fd, at, 0, full ? 20000 : 2000)) {
		caps->emul_clock = true;
		caps->ns_count = least_ns(g, fd, at);
		caps->emul_clock_cpl3 = counts_exactly(g, fd, at, &user, 500) &&
					counts_exactly_kicked(g, fd, at, 3, 2000);
	}
	close(fd);
}

void probe_pmu(struct probe_guest *g, struct host_caps *caps)
{
	const struct probe_start how = at_level(0);
	const uint32_t turns = 10000, slack = 64;
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_BRANCH_INSTRUCTIONS,
		.pinned = 1,
		.exclude_host = 1,
	};
	uint64_t grown, ns;
	int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		return;
	/* One taken or not taken branch a turn; entering the guest may count as a few more. */
	caps->pmu = measure_loop(g, fd, 0, &how, turns, &grown, &ns) && grown >= turns &&
		    grown <= turns + slack;
	close(fd);
}

/* --- Stepping and breakpoints --- */

/* INC EAX this often, and the end. Each is two bytes long. */
static void put_increments(struct snippet *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		EMIT(s, 0xff, 0xc0);
}

static bool debug_exit_at(struct probe_guest *g, uint64_t rip, uint64_t rax)
{
	struct kvm_regs regs;
	int exit = probe_run(g);

	return probe_get_regs(g, &regs) && exit == KVM_EXIT_DEBUG && regs.rip == rip &&
	       regs.rax == rax;
}

static bool ends_with_rax(struct probe_guest *g, uint64_t rax)
{
	struct kvm_regs regs;

	return probe_run_done(g, &regs) && regs.rax == rax;
}

static void probe_step_flags(struct probe_guest *g, struct host_caps *caps)
{
	const struct probe_start how = at_level(0);
	struct snippet code = {0};
	struct kvm_regs regs;
	uint64_t flags;

	EMIT(&code, 0x9c); /* pushfq */
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how) ||
	    !probe_debug(g, KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ, 0, 0) ||
	    !debug_exit_at(g, GUEST_CODE0 + 1, 0) || !probe_get_regs(g, &regs) ||
	    regs.rsp != GUEST_STACK0 - 8)
		return;
	memcpy(&flags, g->ram + regs.rsp, sizeof(flags));
	caps->step_leaks_tf = flags & RFLAGS_TF;
}

void probe_step(struct probe_guest *g, struct host_caps *caps, unsigned cpl)
{
	const struct probe_start how = at_level(cpl);
	struct snippet code = {0};

	put_increments(&code, 2);
	EMIT(&code, 0xeb, 0x02); /* jmp over the next */
	put_increments(&code, 2);
	snippet_put_done(&code);
	/* BLOCKIRQ as in earnest, where a step must not slip into an interrupt. */
	if (!probe_start(g, &code, &how) ||
	    !probe_debug(g, KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ, 0, 0) ||
	    !debug_exit_at(g, code_at(cpl) + 2, 1) || !debug_exit_at(g, code_at(cpl) + 4, 2) ||
	    !debug_exit_at(g, code_at(cpl) + 8, 2) || !probe_debug(g, 0, 0, 0) ||
	    !ends_with_rax(g, 3)) {
		/*
		 * The guest may have taken the #DB itself and been stepped over the HLT of its
		 * handler. An emulating KVM then remembers the HLT: it would come out as an exit of
		 * the next snippet, one instruction into it.
		 */
		g->broken = true;
		return;
	}
	caps->step[cpl ? 1 : 0] = true;
	if (cpl == 0)
		probe_step_flags(g, caps);
}

void probe_hw_breakpoint(struct probe_guest *g, struct host_caps *caps, unsigned cpl)
{
	const struct probe_start how = at_level(cpl);
	const uint64_t target = code_at(cpl) + 2;
	struct snippet code = {0};
	bool again;

	put_increments(&code, 3);
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how) ||
	    !probe_debug(g, KVM_GUESTDBG_USE_HW_BP, target, DR7_EXEC0) ||
	    !debug_exit_at(g, target, 1))
		return;
	if (cpl == 0) {
		again = debug_exit_at(g, target, 1);
		/* Without a second hit the guest is at its end already. */
		if (again && (!probe_debug(g, 0, 0, 0) || !ends_with_rax(g, 3)))
			return;
		caps->hw_breakpoint_rehits = again;
	} else if (!probe_debug(g, 0, 0, 0) || !ends_with_rax(g, 3)) {
		return;
	}
	caps->hw_breakpoint[cpl ? 1 : 0] = true;
}

static bool data_breakpoint_fires(struct probe_guest *g, unsigned cpl)
{
	const struct probe_start how = at_level(cpl);
	struct snippet code = {0};

	put_increments(&code, 1);
	EMIT(&code, 0x48, 0x89, 0x04); /* mov [GUEST_DATA], rax */
	snippet_put_imm32(&code, 0x25, GUEST_DATA);
	put_increments(&code, 1);
	snippet_put_done(&code);
	return probe_start(g, &code, &how) &&
	       probe_debug(g, KVM_GUESTDBG_USE_HW_BP, GUEST_DATA, DR7_WRITE0) &&
	       debug_exit_at(g, code_at(cpl) + 10, 1) && ends_with_rax(g, 2);
}

void probe_data_breakpoint(struct probe_guest *g, struct host_caps *caps)
{
	caps->data_breakpoint = data_breakpoint_fires(g, 0) && data_breakpoint_fires(g, 3);
}

void probe_int3(struct probe_guest *g, struct host_caps *caps, unsigned cpl)
{
	const struct probe_start how = at_level(cpl);
	struct snippet code = {0};
	struct kvm_regs regs;
	int exit;

	put_increments(&code, 1);
	EMIT(&code, 0xcc);
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how) || !probe_debug(g, KVM_GUESTDBG_USE_SW_BP, 0, 0))
		return;
	exit = probe_run(g);
	if (!probe_get_regs(g, &regs) || regs.rip != code_at(cpl) + 2 || regs.rax != 1)
		return;
	if (exit == KVM_EXIT_DEBUG)
		caps->int3[cpl ? 1 : 0] = INT3_DEBUG;
	else if (emulation_failed(g, exit))
		caps->int3[cpl ? 1 : 0] = INT3_EMULATION;
}

void probe_hlt(struct probe_guest *g, struct host_caps *caps)
{
	const struct probe_start how = at_level(0);
	struct snippet code = {0};
	struct kvm_regs regs;

	put_increments(&code, 1);
	EMIT(&code, 0xf4);
	put_increments(&code, 1);
	snippet_put_done(&code);
	caps->hlt_breakpoint = probe_start(g, &code, &how) && probe_run(g) == KVM_EXIT_HLT &&
			       probe_get_regs(g, &regs) && regs.rip == GUEST_CODE0 + 3 &&
			       regs.rax == 1 && ends_with_rax(g, 2);
}

/* --- The interrupt window --- */

enum window_opener {
	OPEN_STI,     /* opens one instruction later: the shadow (SDM 2B, STI) */
	OPEN_POPF,    /* opens at once */
	OPEN_IRET,    /* likewise */
	OPEN_STI_LATE /* the second time: the first STI is undone by a CLI in its shadow */
};

/* Code with interrupts off, then the opener, then INC EBX many times. */
static void build_window(struct snippet *s, enum window_opener opener, unsigned nops,
			 uint32_t turns)
{
	if (turns)
		snippet_put_loop(s, turns);
	for (unsigned i = 0; i < nops; i++)
		EMIT(s, 0x90);
	switch (opener) {
	case OPEN_STI_LATE:
		EMIT(s, 0xfb, 0xfa, 0x90); /* sti; cli; nop */
		EMIT(s, 0xfb);
		break;
	case OPEN_STI:
		EMIT(s, 0xfb);
		break;
	case OPEN_POPF:
		snippet_put_imm32(s, 0x68, 0x202); /* push 0x202 */
		EMIT(s, 0x9d);			   /* popfq */
		break;
	case OPEN_IRET:
		EMIT(s, 0x48, 0x89, 0xe2);				 /* mov rdx, rsp */
		EMIT(s, 0x6a, GUEST_SS0);				 /* push ss */
		EMIT(s, 0x52);						 /* push rdx */
		snippet_put_imm32(s, 0x68, 0x202);			 /* push 0x202 */
		EMIT(s, 0x6a, GUEST_CS0);				 /* push cs */
		EMIT(s, 0x48, 0x8d, 0x15, 3, 0, 0, 0, 0x52, 0x48, 0xcf); /* push past; iretq */
		break;
	}
	for (unsigned i = 0; i < 100; i++)
		EMIT(s, 0xff, 0xc3); /* inc ebx */
	snippet_put_done(s);
}

void probe_window(struct probe_guest *g, struct host_caps *caps)
{
	static const struct {
		enum window_opener opener;
		unsigned nops;
		uint32_t turns;
	} variants[] = {
		{OPEN_STI, 0, 0},      {OPEN_POPF, 0, 0},  {OPEN_STI, 1, 0},	{OPEN_STI, 3, 10},
		{OPEN_POPF, 5, 30},    {OPEN_STI, 10, 0},  {OPEN_IRET, 2, 0},	{OPEN_STI, 64, 0},
		{OPEN_STI_LATE, 7, 0}, {OPEN_STI, 0, 150}, {OPEN_POPF, 0, 200}, {OPEN_STI, 1, 550},
	};
	const struct probe_start how = at_level(0);

	for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
		enum window_opener opener = variants[i].opener;
		bool shadow = opener == OPEN_STI || opener == OPEN_STI_LATE;
		struct snippet code = {0};
		struct kvm_regs regs;

		build_window(&code, opener, variants[i].nops, variants[i].turns);
		if (!probe_start(g, &code, &how))
			return;
		g->run->request_interrupt_window = 1;
		if (probe_run(g) != KVM_EXIT_IRQ_WINDOW_OPEN || !probe_get_regs(g, &regs) ||
		    regs.rbx != (shadow ? 1 : 0) || !g->run->if_flag ||
		    !g->run->ready_for_interrupt_injection)
			return;
	}
	caps->window_exact = true;
}

/* --- The CPU model --- */

void probe_cpuid(struct probe_guest *g, struct host_caps *caps, unsigned cpl)
{
	const struct probe_start how = at_level(cpl);
	struct snippet code = {0};
	struct kvm_regs regs;
	char vendor[sizeof(GUEST_VENDOR)] = {0};

	EMIT(&code, 0x31, 0xc0); /* xor eax, eax */
	EMIT(&code, 0x0f, 0xa2); /* cpuid */
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how) || !probe_run_done(g, &regs))
		return;
	memcpy(vendor, &regs.rbx, 4);
	memcpy(vendor + 4, &regs.rdx, 4);
	memcpy(vendor + 8, &regs.rcx, 4);
	caps->cpuid_honoured[cpl ? 1 : 0] = strcmp(vendor, GUEST_VENDOR) == 0;
}

static bool set_syscall_msrs(struct probe_guest *g)
{
	const struct kvm_msr_entry wanted[] = {
		{.index = MSR_STAR, .data = (uint64_t)GUEST_SS0 << 48 | (uint64_t)GUEST_CS0 << 32},
		{.index = MSR_LSTAR, .data = GUEST_CODE0},
		{.index = MSR_FMASK, .data = 0},
	};
	struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + sizeof(wanted));
	bool done = false;

	if (msrs) {
		msrs->nmsrs = ARRAY_SIZE(wanted);
		memcpy(msrs->entries, wanted, sizeof(wanted));
		done = ioctl(g->vcpu, KVM_SET_MSRS, msrs) == (int)ARRAY_SIZE(wanted);
	}
	free(msrs);
	return done;
}

void probe_syscall(struct probe_guest *g, struct host_caps *caps)
{
	static const uint8_t entry[] = {0x8c, 0xc8, 0xe6, PORT_DONE}; /* mov eax, cs; out */
	const struct probe_start how = at_level(3);
	struct snippet code = {0};
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	EMIT(&code, 0x0f, 0x05); /* syscall */
	EMIT(&code, 0x0f, 0x0b); /* ud2 */
	if (!probe_start(g, &code, &how) || !set_syscall_msrs(g))
		return;
	memcpy(g->ram + GUEST_CODE0, entry, sizeof(entry));
	caps->syscall_works = probe_run_done(g, &regs) && regs.rax == GUEST_CS0 &&
			      regs.rcx == GUEST_CODE3 + 2 &&
			      ioctl(g->vcpu, KVM_GET_SREGS, &sregs) == 0 && sregs.ss.dpl == 0;
}

/* OUT at CPL3 where IOPL does not allow it, but the bitmap in the TSS does (SDM 1, 19.5.2): that begins, as the TSS says,
 * where itself begins, and there are zeros for PORT_DONE. */
static bool io_bitmap_works(struct probe_guest *g, uint8_t tss_type)
{
	const struct probe_start how = at_level(3);
	struct snippet code = {0};
	struct kvm_sregs sregs = g->sregs[1];
	struct kvm_regs regs;

	snippet_put_done(&code);
	sregs.tr.type = tss_type;
	if (!probe_start(g, &code, &how) || !probe_get_regs(g, &regs))
		return false;
	regs.rflags &= ~(uint64_t)RFLAGS_IOPL;
	return ioctl(g->vcpu, KVM_SET_SREGS, &sregs) == 0 && ioctl(g->vcpu, KVM_SET_REGS, &regs) == 0 &&
	       probe_run_done(g, &regs);
}

/* TR is always of a busy TSS. QEMU's emulation of SVM wants it otherwise (check_io in target/i386/tcg). */
void probe_io_bitmap(struct probe_guest *g, struct host_caps *caps)
{
	caps->tr_set_free = !io_bitmap_works(g, SEGMENT_TSS_BUSY) && io_bitmap_works(g, SEGMENT_TSS);
}

void probe_rdtsc(struct probe_guest *g, struct host_caps *caps)
{
	const struct probe_start how = {.cpl = 3, .cr4 = CR4_TSD};
	struct snippet code = {0};
	struct kvm_regs regs;
	int exit;

	EMIT(&code, 0x0f, 0x31); /* rdtsc */
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how))
		return;
	exit = probe_run(g);
	caps->rdtsc_traps = probe_get_regs(g, &regs) && probe_vector(exit, regs.rip) == X86_GP;
}

void probe_msr_filter(struct probe_guest *g, struct host_caps *caps)
{
	const struct probe_start how = at_level(0);
	struct snippet code = {0};
	struct kvm_run *run;
	struct kvm_regs regs;

	snippet_put_imm32(&code, 0xb9, GUEST_DENIED_MSR); /* mov ecx, index */
	EMIT(&code, 0x0f, 0x32);			  /* rdmsr */
	EMIT(&code, 0x0f, 0x30);			  /* wrmsr */
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how) || !g->msr_filter)
		return;
	run = g->run;
	if (probe_run(g) != KVM_EXIT_X86_RDMSR || run->msr.index != GUEST_DENIED_MSR ||
	    run->msr.reason != KVM_MSR_EXIT_REASON_FILTER)
		return;
	run->msr.data = 0x1122334455667788ull;
	run->msr.error = 0;
	if (probe_run(g) != KVM_EXIT_X86_WRMSR || run->msr.index != GUEST_DENIED_MSR ||
	    run->msr.data != 0x1122334455667788ull)
		return;
	run->msr.error = 0;
	caps->msr_filter =
		probe_run_done(g, &regs) && regs.rax == 0x55667788 && regs.rdx == 0x11223344;
}

/* --- Synchronised registers --- */

static bool sync_regs_work(struct probe_guest *g)
{
	const uint64_t all = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	const struct probe_start how = at_level(0);
	struct snippet code = {0};
	struct kvm_regs regs;

	snippet_put_done(&code);
	put_increments(&code, 1);
	snippet_put_done(&code);
	if (((uint64_t)probe_extension(g, KVM_CAP_SYNC_REGS) & all) != all ||
	    !probe_start(g, &code, &how))
		return false;
	g->run->kvm_valid_regs = all;
	if (!probe_run_done(g, &regs) || memcmp(&regs, &g->run->s.regs.regs, sizeof(regs)) != 0 ||
	    g->run->s.regs.sregs.cr3 != g->sregs[0].cr3)
		return false;
	g->run->s.regs.regs.rax = 0x1234;
	g->run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	return probe_run_done(g, &regs) && regs.rax == 0x1235 && g->run->s.regs.regs.rax == 0x1235;
}

void probe_sync_regs(struct probe_guest *g, struct host_caps *caps)
{
	const uint32_t answer = 0x11111111, stale = 0x22222222;
	const struct probe_start how = at_level(0);
	struct snippet code = {0};
	struct kvm_run *run;
	struct kvm_regs regs;

	caps->sync_regs = sync_regs_work(g);
	EMIT(&code, 0xe5, PORT_IN); /* in eax, PORT_IN */
	snippet_put_done(&code);
	if (!caps->sync_regs || !probe_start(g, &code, &how))
		return;
	run = g->run;
	run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	if (probe_run(g) != KVM_EXIT_IO || run->io.direction != KVM_EXIT_IO_IN ||
	    run->io.size != sizeof(answer))
		return;
	memcpy((uint8_t *)run + run->io.data_offset, &answer, sizeof(answer));
	run->s.regs.regs.rax = stale;
	run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	caps->in_sync_eax_lost = probe_run_done(g, &regs) && regs.rax != answer;
}

/* --- What is not emulated --- */

/* The instruction of each gap, with what it needs before it; memory operands are in the data page.
 */
static void put_gap(struct snippet *s, enum emulation_gap gap)
{
	switch (gap) {
	case GAP_CMPXCHG16B:
		EMIT(s, 0x48, 0x0f, 0xc7, 0x0c); /* cmpxchg16b [GUEST_DATA] */
		snippet_put_imm32(s, 0x25, GUEST_DATA);
		break;
	case GAP_FWAIT:
		EMIT(s, 0x9b);
		break;
	case GAP_LDMXCSR:
		EMIT(s, 0xc7, 0x04); /* mov dword [GUEST_DATA], 0x1f80: all exceptions masked */
		snippet_put_imm32(s, 0x25, GUEST_DATA);
		EMIT(s, 0x80, 0x1f, 0x00, 0x00);
		EMIT(s, 0x0f, 0xae, 0x14); /* ldmxcsr [GUEST_DATA] */
		snippet_put_imm32(s, 0x25, GUEST_DATA);
		break;
	case GAP_MOVD_XMM:
		EMIT(s, 0x66, 0x0f, 0x6e, 0xc1); /* movd xmm0, ecx */
		break;
	case GAP_CLAC:
		EMIT(s, 0x0f, 0x01, 0xca);
		break;
	case GAP_XGETBV:
		EMIT(s, 0x31, 0xc9);	   /* xor ecx, ecx */
		EMIT(s, 0x0f, 0x01, 0xd0); /* xgetbv */
		break;
	case GAP_XSAVE:
		snippet_put_imm32(s, 0xb8, 3); /* mov eax, x87 and SSE */
		EMIT(s, 0x0f, 0xae, 0x24);     /* xsave [GUEST_DATA] */
		snippet_put_imm32(s, 0x25, GUEST_DATA);
		break;
	case GAP_RDTSCP:
		EMIT(s, 0x0f, 0x01, 0xf9);
		break;
	case GAP_INT_N:
		EMIT(s, 0xcd, 0x80);
		break;
	case GAP_SSE_ARITH:
		EMIT(s, 0x0f, 0x58, 0xc1);	 /* addps xmm0, xmm1 */
		EMIT(s, 0x66, 0x0f, 0xfe, 0xc1); /* paddd xmm0, xmm1 */
		break;
	case GAP_AVX:
		EMIT(s, 0xc5, 0xf8, 0x58, 0xc1); /* vaddps xmm0, xmm0, xmm1 */
		break;
	case GAP_VERW:
		EMIT(s, 0x0f, 0x00, 0xe8); /* verw ax */
		break;
	case GAP_COUNT:
		break;
	}
	snippet_put_done(s);
}

/* x87, SSE and AVX on. */
static bool enable_avx(struct probe_guest *g)
{
	const struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = 7}};

	return ioctl(g->vcpu, KVM_SET_XCRS, &xcrs) == 0;
}

void probe_gaps(struct probe_guest *g, struct host_caps *caps)
{
	for (unsigned i = 0; i < GAP_COUNT; i++) {
		enum emulation_gap gap = (enum emulation_gap)i;
		bool xsave = gap == GAP_XGETBV || gap == GAP_XSAVE || gap == GAP_AVX;
		const struct probe_start how = {.cpl = 0, .cr4 = xsave ? CR4_OSXSAVE : 0};
		struct snippet code = {0};

		put_gap(&code, gap);
		/* A CPU without XSAVE or AVX refuses the control bits: the guest cannot use them.
		 */
		if (!probe_start(g, &code, &how) || (gap == GAP_AVX && !enable_avx(g)))
			continue;
		if (emulation_failed(g, probe_run(g)))
			caps->gaps |= 1u << i;
	}
}
