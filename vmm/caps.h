/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What this host's KVM really does, found by running tiny guests (never assumed from its name). The
 * machine picks its mechanisms from this; `hindsight doctor` prints it.
 */
#ifndef VMM_CAPS_H
#define VMM_CAPS_H

#include "base/err.h"
#include "base/types.h"

/* What a guest's INT3 at CPL0 comes back as, with KVM_GUESTDBG_USE_SW_BP. */
enum int3_exit {
	INT3_LOST,     /* goes to the guest's IDT: unusable as a breakpoint */
	INT3_DEBUG,    /* KVM_EXIT_DEBUG */
	INT3_EMULATION /* KVM_EXIT_INTERNAL_ERROR suberror 1, RIP on the 0xcc */
};

/* What a store to a page that is not writable comes back as. */
enum write_trap {
	WRITE_TRAP_NONE,  /* lost, or applied all the same */
	WRITE_TRAP_MMIO,  /* KVM_EXIT_MMIO with the data; not applied */
	WRITE_TRAP_EFAULT /* KVM_RUN fails with EFAULT, RIP on the instruction */
};

/* What makes KVM see that the VMM has replaced guest page tables, which hosts without nested paging shadow. */
enum table_flush {
	TABLES_STALE,	 /* nothing that is known */
	TABLES_BY_SREGS, /* KVM_SET_SREGS with a change */
	TABLES_BY_SLOT	 /* the removal of a memory slot */
};

/* Types of TR's segment (SDM 3A 3.5): a 32-bit or 64-bit TSS. LTR makes it busy. */
#define SEGMENT_TSS 9u
#define SEGMENT_TSS_BUSY 11u

/* Instructions that an emulating KVM is known to refuse at CPL0: bits of host_caps.gaps. All are
 * served, RDTSCP by rewriting, the others by assist. */
enum emulation_gap {
	GAP_CMPXCHG16B,
	GAP_FWAIT,
	GAP_LDMXCSR,
	GAP_MOVD_XMM,
	GAP_CLAC,
	GAP_XGETBV,
	GAP_XSAVE,
	GAP_RDTSCP,
	GAP_INT_N,
	GAP_SSE_ARITH,
	GAP_AVX,
	GAP_VERW,
	GAP_COUNT
};

/*
 * A field whose probe was not run, or ended in any unexpected way, says "not available" (false, 0,
 * NONE, LOST). Fields marked (full) are filled by a full probe only.
 */
struct host_caps {
	char kernel[96]; /* uname release */
	char cpu[64];	 /* CPUID brand string */
	int kvm_api;	 /* 0: /dev/kvm could not be used */

	/* Clocks. */
	bool has_stats_fd;    /* KVM_GET_STATS_FD of the vCPU */
	bool emul_clock;      /* insn_emulation counts every CPL0 instruction, also under kicks */
	bool emul_clock_cpl3; /* and those at CPL3 */
	uint32_t ns_count;    /* least CPU time for an instruction that it counts, of a loop of the simplest; 0: no clock */
	bool pmu;	      /* perf_event_open can count guest branches (full) */

	/* Stepping and breakpoints; [0] at CPL0, [1] at CPL3 ([1]: full). */
	bool step[2];
	bool hw_breakpoint[2];
	bool hw_breakpoint_rehits; /* RF is not set after a hit: disarm for one step */
	enum int3_exit int3[2];
	bool hlt_breakpoint;  /* a planted HLT exits at CPL0 (true on every known KVM) */
	bool data_breakpoint; /* DR0-3 on a store, at both levels (full) */
	bool step_leaks_tf;   /* PUSHF under single-step stores TF */
	bool window_exact;    /* interrupt window opens at the first possible instruction */

	/* CPU model. */
	bool cpuid_honoured[2]; /* KVM_SET_CPUID2 decides what CPUID answers; [cpl] */
	bool rdtsc_traps;	/* CR4.TSD makes RDTSC at CPL3 fault (full) */
	bool syscall_works;	/* SYSCALL at CPL3 really enters CPL0 */
	bool msr_filter;	/* a denied RDMSR or WRMSR comes to user space */
	bool sync_regs;		/* REGS, SREGS and EVENTS */
	bool tr_set_free;	/* user code's I/O goes by the bitmap in the TSS only if TR is set as one that is not busy */
	bool in_sync_eax_lost;	/* RAX written back by sync regs beats the data of an unfinished IN:
				   put the answer into both */

	/* Memory; [0] at CPL0, [1] at CPL3 ([1]: full). */
	enum write_trap ro_slot[2];
	enum write_trap mprotect_store[2]; /* (full) */
	bool hole_load[2];		   /* a load where there is no slot can be answered (full) */
	bool dirty_log;			   /* shows exactly the written pages */
	enum table_flush table_flush;
	bool dirty_ring;		   /* (full) */

	uint32_t gaps; /* bit set: (1u << enum emulation_gap) fails at CPL0 (full) */

	/* Cost, median ns (full). */
	uint32_t ns_exit, ns_ioctl, ns_step, ns_instruction_cpl0;
};

/*
 * Run the probes. full: all of them (doctor); otherwise only those the machine's strategies need
 * (record and replay call it at each start; it must stay below about 50 ms on any host).
 * Fails with -ENOENT (no /dev/kvm), -EACCES (no permission), -ENOTSUP (API too old or something
 * indispensable missing, see caps_check); the sentence says what to do. *caps holds what was found
 * up to then. Takes SIGUSR2 while it runs and gives it back, so only one thread may be in here.
 */
int host_probe(struct host_caps *caps, bool full, struct err *err);

const char *emulation_gap_name(enum emulation_gap gap);

/*
 * The choice of mechanisms: pure functions of what was found, so that the machine, doctor and the
 * tests cannot disagree about it.
 */

/* How execution is stopped at an address of the guest kernel (CPL0). */
enum bp_mechanism {
	BP_NONE, /* this host has no way: reported by doctor as not usable */
	BP_HW,	 /* DR0-3 by KVM_SET_GUEST_DEBUG: four at a time, nothing planted in memory */
	BP_INT3, /* planted 0xcc; host_caps.int3[0] says what the hit looks like */
	BP_HLT	 /* planted 0xf4: KVM_EXIT_HLT with RIP just past it; CPL0 only */
};

/* The mechanism for the first few addresses (BP_HW, where there is one, else
 * caps_breakpoint_planted). */
enum bp_mechanism caps_breakpoint(const struct host_caps *caps);

/* The mechanism for any number of addresses: BP_INT3, BP_HLT or BP_NONE. */
enum bp_mechanism caps_breakpoint_planted(const struct host_caps *caps);

/*
 * True: the first place with IF=1 is found by request_interrupt_window. False: by single steps,
 * because the window opens late or at a place that varies.
 */
bool caps_use_window(const struct host_caps *caps);

/* True: positions between boundaries carry a reading of an exact clock; false: state landmarks. */
bool caps_has_clock(const struct host_caps *caps);

/* 0, or -ENOTSUP with the first mechanism that the program cannot do without and the host lacks. */
int caps_check(const struct host_caps *caps, struct err *err);

/* "system registers", "memory slot", "none". */
const char *table_flush_name(enum table_flush flush);
/* "hw", "int3", "hlt", "none". */
const char *bp_mechanism_name(enum bp_mechanism mechanism);

#endif
