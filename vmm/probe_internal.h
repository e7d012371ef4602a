/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The parts of host_probe() that its files share: a tiny VM in long mode, and the probes that run
 * in it. Included by the probes and their test only.
 */
#ifndef VMM_PROBE_INTERNAL_H
#define VMM_PROBE_INTERNAL_H

#include "base/err.h"
#include "vmm/caps.h"

#include <linux/kvm.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

/*
 * Guest memory, where linear and physical addresses are equal and every page is writable and open
 *to user mode (no SMEP, no SMAP), so that one snippet can run at both levels:
 *
 *	0x001000  page tables (PML4, PDPT, PD, PT: 2 MiB by 4 KiB pages)
 *	0x005000  IDT, then GDT and TSS
 *	0x007000  one HLT per vector: where a fault ends, its number is (RIP - base) / 16
 *	0x008000  code at CPL0		0x00a000  code at CPL3
 *	0x00c000  stack at CPL0		0x00e000  stack at CPL3
 *	0x00f000  data
 *	0x100000  one page in a slot of its own, read-only to the guest
 *	0x110000  eight pages in a slot of their own, with a dirty log
 *	0x130000  a page that no slot has
 */
#define GUEST_VECTORS 0x7000u
#define GUEST_CODE0 0x8000u
#define GUEST_CODE3 0xa000u
#define GUEST_STACK0 0xcff0u
#define GUEST_STACK3 0xeff0u
#define GUEST_DATA 0xf000u
#define GUEST_PT 0x4000u /* its entry n maps page n */
#define GUEST_RAM_SIZE 0x10000u
#define GUEST_RO 0x100000u
#define GUEST_LOGGED 0x110000u
#define GUEST_LOGGED_PAGES 8u
#define GUEST_HOLE 0x130000u
#define GUEST_LOGGED_SLOT 2u

/* Selectors; SYSCALL and SYSRET fix their order (SDM 3A 5.8.8). */
#define GUEST_CS0 0x08u
#define GUEST_SS0 0x10u
#define GUEST_SS3 0x1bu
#define GUEST_CS3 0x23u
#define GUEST_TR 0x28u

/* A snippet that is content ends with OUT to this port, at either level (IOPL is 3). */
#define PORT_DONE 0x5a
#define PORT_IN 0x5b

/* The MSR that every probe guest has denied by a filter, if there is one: the TSC. */
#define GUEST_DENIED_MSR 0x10u

/* What CPUID leaf 0 must show if KVM_SET_CPUID2 is obeyed. */
#define GUEST_VENDOR "HindsightPrb"

#define X86_UD 6
#define X86_GP 13

/* Machine code being put together. */
struct snippet {
	uint8_t bytes[1024];
	size_t len;
};

void snippet_put(struct snippet *s, const uint8_t *bytes, size_t len);
/* The bytes of one or more instructions. */
#define EMIT(s, ...)                                                                               \
	snippet_put((s), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
/* An opcode followed by a 32-bit little-endian immediate or displacement. */
void snippet_put_imm32(struct snippet *s, uint8_t opcode, uint32_t imm);
/* OUT PORT_DONE, AL. */
void snippet_put_done(struct snippet *s);
/* MOV ECX, turns; then DEC ECX, JNZ back: snippet_loop_length(turns) instructions. */
void snippet_put_loop(struct snippet *s, uint32_t turns);
uint64_t snippet_loop_length(uint32_t turns);

struct probe_guest {
	int kvm; /* borrowed */
	int vm;
	int vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *ram;		   /* GUEST_RAM_SIZE */
	uint8_t *ro;		   /* one page */
	uint8_t *logged;	   /* GUEST_LOGGED_PAGES */
	struct kvm_sregs sregs[2]; /* as a snippet finds them, by level: [0] CPL0, [1] CPL3 */
	bool msr_filter;	   /* GUEST_DENIED_MSR is denied */
	size_t dirty_ring_size;	   /* bytes of the ring, 0: KVM_GET_DIRTY_LOG is in use */
	bool broken;		   /* must be made anew before the next snippet */

	/* The watchdog: a signal to this thread that makes KVM_RUN come back. */
	timer_t timer;
	bool has_timer;
	bool has_action;
	struct sigaction old_action;
	sigset_t old_mask;
	uint64_t cpu_deadline_ns; /* of this thread */
	uint64_t deadline_ns;
	unsigned kicks; /* how often it came since the snippet was started */
};

/* An open /dev/kvm that has everything the program cannot do without, or a negative errno (see
 * host_probe). `path` is a parameter for the tests. */
int probe_open_kvm(const char *path, int *kvm_fd, struct err *err);

/* KVM_CHECK_EXTENSION; 0 if unknown. */
int probe_extension(const struct probe_guest *g, int cap);

/* Make the guest. It takes SIGUSR2 of the process until it is closed, so only one thread may probe.
 */
int probe_guest_open(struct probe_guest *g, int kvm_fd, bool dirty_ring, struct err *err);
/* May be called again, and after probe_guest_open has failed. */
void probe_guest_close(struct probe_guest *g);

/* What a snippet is started with; the zero value of every field but `cpl` and `code` is the usual.
 */
struct probe_start {
	unsigned cpl; /* 0 or 3 */
	uint64_t rbx;
	uint64_t cr4;	  /* bits to set on top */
	unsigned kick_us; /* disturb the guest by a signal this often */
};

/*
 * Bring the vCPU into its first state with the snippet at its level's code page, RIP on it,
 * interrupts off, and start the watchdog. A guest that was left broken is made anew. Fails when KVM
 * refuses.
 */
bool probe_start(struct probe_guest *g, const struct snippet *code, const struct probe_start *how);

/* Run on to the next exit: its KVM_EXIT_ number, or a negative errno; -ETIME: the watchdog bit. */
int probe_run(struct probe_guest *g);
/* Run on; true if it came to OUT PORT_DONE. Fills regs in any case. */
bool probe_run_done(struct probe_guest *g, struct kvm_regs *regs);

bool probe_get_regs(const struct probe_guest *g, struct kvm_regs *regs);
/* Vector of the exception or INT that the guest ended in, if `exit` at `rip` is the HLT of its
 * handler, else -1. */
int probe_vector(int exit, uint64_t rip);
/* control is or'ed with KVM_GUESTDBG_ENABLE; 0 switches debugging off. */
bool probe_debug(struct probe_guest *g, uint32_t control, uint64_t dr0, uint64_t dr7);
uint64_t probe_now_ns(void);
/* Time that this thread, with the guest in it, has had a CPU. */
uint64_t probe_cpu_ns(void);

/* Position of the statistic in the file of KVM_GET_STATS_FD, or -1. */
int64_t probe_find_stat(int stats_fd, const char *name);

/* Each fills its fields of caps from what a guest does; they never fail, they find nothing. */
void probe_clock(struct probe_guest *g, struct host_caps *caps, bool full);
void probe_pmu(struct probe_guest *g, struct host_caps *caps);
void probe_step(struct probe_guest *g, struct host_caps *caps, unsigned cpl);
void probe_hw_breakpoint(struct probe_guest *g, struct host_caps *caps, unsigned cpl);
void probe_data_breakpoint(struct probe_guest *g, struct host_caps *caps);
void probe_int3(struct probe_guest *g, struct host_caps *caps, unsigned cpl);
void probe_hlt(struct probe_guest *g, struct host_caps *caps);
void probe_window(struct probe_guest *g, struct host_caps *caps);
void probe_cpuid(struct probe_guest *g, struct host_caps *caps, unsigned cpl);
void probe_syscall(struct probe_guest *g, struct host_caps *caps);
void probe_io_bitmap(struct probe_guest *g, struct host_caps *caps);
void probe_rdtsc(struct probe_guest *g, struct host_caps *caps);
void probe_msr_filter(struct probe_guest *g, struct host_caps *caps);
void probe_sync_regs(struct probe_guest *g, struct host_caps *caps);
void probe_gaps(struct probe_guest *g, struct host_caps *caps);
void probe_ro_slot(struct probe_guest *g, struct host_caps *caps, unsigned cpl);
void probe_mprotect(struct probe_guest *g, struct host_caps *caps, unsigned cpl);
void probe_hole_load(struct probe_guest *g, struct host_caps *caps, unsigned cpl);
void probe_dirty_log(struct probe_guest *g, struct host_caps *caps);
void probe_table_flush(struct probe_guest *g, struct host_caps *caps);
void probe_dirty_ring(int kvm_fd, struct host_caps *caps);

#endif
