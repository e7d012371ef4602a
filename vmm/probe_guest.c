// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * The guest that the probes run in: 64 KiB of RAM, long mode, handlers that halt. Nothing of it is
 * shared with the machine, so that a mistake there cannot hide a quirk of the host here.
 */
#include "vmm/probe_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PROBE_SIGNAL SIGUSR2
/*
 * A probe may use this much CPU time, so that a busy host does not look like one that cannot do
 * things (record and replay must find the same), and this much time in all, for a guest that
 * sleeps.
 */
#define WATCHDOG_CPU_NS (200 * NSEC_PER_MSEC)
#define WATCHDOG_NS (5 * NSEC_PER_SEC)

/* Page table entries: present, writable, user, and accessed and dirty from the start so that no CPU
 * has a reason to write to them (SDM 3A 4.5). */
#define PTE_TABLE 0x27u
#define PTE_PAGE 0x67u

#define PML4_AT 0x1000u
#define IDT_AT 0x5000u
#define GDT_AT 0x6000u
#define TSS_AT 0x6100u
#define TSS_SIZE 0x68u

#define CR0_PE 0x1ull
#define CR0_MP 0x2ull
#define CR0_ET 0x10ull
#define CR0_NE 0x20ull
#define CR0_WP 0x10000ull
#define CR0_PG 0x80000000ull
#define CR4_PAE 0x20ull
#define CR4_OSFXSR 0x200ull
#define CR4_OSXMMEXCPT 0x400ull
#define EFER_SCE 0x1ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull

#define RFLAGS_FIXED 0x2ull
#define RFLAGS_IOPL3 0x3000ull

/* Interrupt gate, present, DPL 3 (SDM 3A 6.14.1). */
#define GATE_INTERRUPT_USER 0xeeu

#define CPUID_ENTRIES 256
#define DIRTY_RING_BYTES 65536u

void snippet_put(struct snippet *s, const uint8_t *bytes, size_t len)
{
	/* Snippets are built from constants of this program: one too long is a bug in it. */
	if (len > sizeof(s->bytes) - s->len)
		abort();
	memcpy(s->bytes + s->len, bytes, len);
	s->len += len;
}

void snippet_put_imm32(struct snippet *s, uint8_t opcode, uint32_t imm)
{
	EMIT(s, opcode, (uint8_t)imm, (uint8_t)(imm >> 8), (uint8_t)(imm >> 16),
	     (uint8_t)(imm >> 24));
}

void snippet_put_done(struct snippet *s)
{
	EMIT(s, 0xe6, PORT_DONE); /* out PORT_DONE, al */
}

void snippet_put_loop(struct snippet *s, uint32_t turns)
{
	snippet_put_imm32(s, 0xb9, turns); /* mov ecx, turns */
	EMIT(s, 0xff, 0xc9);		   /* dec ecx */
	EMIT(s, 0x75, 0xfc);		   /* jnz to the dec */
}

uint64_t snippet_loop_length(uint32_t turns)
{
	return 1 + 2 * (uint64_t)turns;
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

uint64_t probe_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t probe_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

int probe_extension(const struct probe_guest *g, int cap)
{
	int rc = ioctl(g->kvm, KVM_CHECK_EXTENSION, (unsigned long)cap);

	return rc < 0 ? 0 : rc;
}

/* --- The watchdog --- */

static void on_watchdog(int sig, siginfo_t *info, void *context)
{
	struct kvm_run *run = info->si_value.sival_ptr;

	(void)sig;
	(void)context;
	/* Somebody's kill(2) carries no pointer. */
	if (info->si_code == SI_TIMER)
		__atomic_store_n(&run->immediate_exit, 1, __ATOMIC_RELAXED);
}

static int watchdog_create(struct probe_guest *g, struct err *err)
{
	struct sigaction action = {.sa_sigaction = on_watchdog, .sa_flags = SA_SIGINFO};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = PROBE_SIGNAL};
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, PROBE_SIGNAL);
	if (sigaction(PROBE_SIGNAL, &action, &g->old_action) < 0)
		return err_sys(err, errno, "cannot install the handler that ends a probe");
	pthread_sigmask(SIG_UNBLOCK, &mask, &g->old_mask);
	g->has_action = true;
	event.sigev_value.sival_ptr = g->run;
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &g->timer) < 0)
		return err_sys(err, errno, "cannot create the timer that ends a probe");
	g->has_timer = true;
	return 0;
}

/* A signal that the timer has queued for this very thread is delivered when timer_delete returns at
 * the latest, so the handler cannot come after that. */
static void watchdog_destroy(struct probe_guest *g)
{
	if (g->has_timer)
		timer_delete(g->timer);
	if (g->has_action) {
		pthread_sigmask(SIG_SETMASK, &g->old_mask, NULL);
		sigaction(PROBE_SIGNAL, &g->old_action, NULL);
	}
	g->has_timer = false;
	g->has_action = false;
}

/* Periodic, so that a signal that comes at a bad moment is followed by another. */
static void watchdog_start(struct probe_guest *g, unsigned kick_us)
{
	uint64_t period = kick_us ? kick_us * NSEC_PER_USEC : WATCHDOG_CPU_NS;
	struct timespec t = {
		.tv_sec = (time_t)(period / NSEC_PER_SEC),
		.tv_nsec = (long)(period % NSEC_PER_SEC),
	};
	struct itimerspec spec = {.it_value = t, .it_interval = t};

	g->kicks = 0;
	g->cpu_deadline_ns = probe_cpu_ns() + WATCHDOG_CPU_NS;
	g->deadline_ns = probe_now_ns() + WATCHDOG_NS;
	timer_settime(g->timer, 0, &spec, NULL);
}

/* --- Memory and registers --- */

static void put_u64(uint8_t *at, uint64_t v)
{
	memcpy(at, &v, sizeof(v));
}

static void build_page_tables(uint8_t *ram)
{
	for (unsigned level = 0; level < 3; level++) {
		uint32_t table = PML4_AT + level * (uint32_t)PAGE_SIZE;

		put_u64(ram + table, (table + PAGE_SIZE) | PTE_TABLE);
	}
	for (unsigned i = 0; i < 512; i++)
		put_u64(ram + PML4_AT + 3 * PAGE_SIZE + i * 8, (i * PAGE_SIZE) | PTE_PAGE);
}

static void build_handlers(uint8_t *ram)
{
	for (uint32_t vector = 0; vector < 256; vector++) {
		uint32_t handler = GUEST_VECTORS + vector * 16;

		ram[handler] = 0xf4; /* hlt */
		put_u64(ram + IDT_AT + vector * 16, (handler & 0xffff) | (uint64_t)GUEST_CS0 << 16 |
							    (uint64_t)GATE_INTERRUPT_USER << 40);
	}
}

/* Flat descriptors (SDM 3A 3.4.5) and a TSS, for its RSP0. */
static void build_gdt(uint8_t *ram)
{
	put_u64(ram + GDT_AT + GUEST_CS0, 0x00af9b000000ffffull);
	put_u64(ram + GDT_AT + GUEST_SS0, 0x00cf93000000ffffull);
	put_u64(ram + GDT_AT + (GUEST_SS3 & ~7u), 0x00cff3000000ffffull);
	put_u64(ram + GDT_AT + (GUEST_CS3 & ~7u), 0x00affb000000ffffull);
	put_u64(ram + GDT_AT + GUEST_TR,
		0x00008b0000000000ull | (uint64_t)TSS_AT << 16 | (TSS_SIZE - 1));
	put_u64(ram + TSS_AT + 4, GUEST_STACK0);
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.dpl = selector & 3,
		.db = !code,
		.s = 1,
		.l = code,
		.g = 1,
	};
}

static void build_sregs(struct kvm_sregs *s, unsigned cpl)
{
	struct kvm_segment data = flat_segment(cpl ? GUEST_SS3 : GUEST_SS0, 3, false);

	s->cs = flat_segment(cpl ? GUEST_CS3 : GUEST_CS0, 11, true);
	s->ds = s->es = s->fs = s->gs = s->ss = data;
	s->tr = (struct kvm_segment){
		.base = TSS_AT,
		.limit = TSS_SIZE - 1,
		.selector = GUEST_TR,
		.type = SEGMENT_TSS_BUSY,
		.present = 1,
	};
	s->gdt.base = GDT_AT;
	s->gdt.limit = GUEST_TR + 16 - 1;
	s->idt.base = IDT_AT;
	s->idt.limit = 0xfff;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = PML4_AT;
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA;
}

/* --- Making it --- */

static int require(int kvm_fd, int cap, const char *name, struct err *err)
{
	if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)cap) > 0)
		return 0;
	return err_set(
		err, ENOTSUP,
		"this host's KVM has no %s, which hindsight cannot do without: a newer kernel "
		"is needed",
		name);
}

int probe_open_kvm(const char *path, int *kvm_fd, struct err *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
		{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
		{KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
		{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
		{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
		{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
		{KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
		{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
		{KVM_CAP_SET_GUEST_DEBUG, "KVM_CAP_SET_GUEST_DEBUG"},
	};
	int version, rc;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	/* With a device node but no driver behind it open fails with ENXIO or ENODEV. */
	if (fd < 0 && (errno == ENOENT || errno == ENXIO || errno == ENODEV))
		return err_set(
			err, ENOENT,
			"there is no %s: load kvm_intel or kvm_amd (modprobe), and see that "
			"virtualisation is enabled in the firmware; on a cloud machine choose a "
			"type with nested virtualisation, in a container pass --device %s",
			path, path);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return err_set(
			err, EACCES,
			"no permission to open %s: add your user to the group kvm (usermod -aG "
			"kvm USER, then log in again), or run as root",
			path);
	if (fd < 0)
		return err_sys(err, errno, "cannot open %s", path);

	version = ioctl(fd, KVM_GET_API_VERSION, 0ul);
	if (version != KVM_API_VERSION) {
		rc = version < 0
			     ? err_set(err, ENOTSUP, "%s is not a KVM device", path)
			     : err_set(err, ENOTSUP,
				       "%s speaks version %d of KVM's interface; hindsight needs "
				       "version %d (KVM_GET_API_VERSION)",
				       path, version, KVM_API_VERSION);
		goto fail;
	}
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		rc = require(fd, needed[i].cap, needed[i].name, err);
		if (rc < 0)
			goto fail;
	}
	*kvm_fd = fd;
	return 0;

fail:
	close(fd);
	return rc;
}

/* The host's table under another vendor string, which no CPU has: whoever sees it sees the table.
 */
static int set_cpuid(struct probe_guest *g, struct err *err)
{
	const char vendor[] = GUEST_VENDOR;
	struct kvm_cpuid2 *table;
	int rc = 0;

	table = calloc(1, sizeof(*table) + CPUID_ENTRIES * sizeof(table->entries[0]));
	if (!table)
		return err_sys(err, ENOMEM, "cannot list the host's CPU features");
	table->nent = CPUID_ENTRIES;
	if (ioctl(g->kvm, KVM_GET_SUPPORTED_CPUID, table) < 0) {
		rc = err_sys(err, errno, "cannot list the host's CPU features");
		goto out;
	}
	for (uint32_t i = 0; i < table->nent; i++) {
		struct kvm_cpuid_entry2 *e = &table->entries[i];

		if (e->function == 0 || e->function == 0x80000000) {
			memcpy(&e->ebx, vendor, 4);
			memcpy(&e->edx, vendor + 4, 4);
			memcpy(&e->ecx, vendor + 8, 4);
		}
	}
	if (ioctl(g->vcpu, KVM_SET_CPUID2, table) < 0)
		rc = err_sys(err, errno, "KVM refuses a CPUID table");
out:
	free(table);
	return rc;
}

/* Denied means: come to user space instead of faulting. A host without it is found by
 * probe_msr_filter. */
static void set_msr_filter(struct probe_guest *g)
{
	uint8_t bitmap = 0;
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args[0] = KVM_MSR_EXIT_REASON_FILTER,
	};
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = {.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			      .nmsrs = 1,
			      .base = GUEST_DENIED_MSR,
			      .bitmap = &bitmap},
	};

	g->msr_filter = ioctl(g->vm, KVM_ENABLE_CAP, &cap) == 0 &&
			ioctl(g->vm, KVM_X86_SET_MSR_FILTER, &filter) == 0;
}

static int add_slot(struct probe_guest *g, uint32_t slot, uint32_t flags, uint64_t gpa, size_t size,
		    uint8_t **hva, struct err *err)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = size};
	/* Shared, as the machine's memory is. */
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return err_sys(err, errno, "cannot map memory for a guest");
	*hva = p;
	region.userspace_addr = (uint64_t)(uintptr_t)p;
	if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return err_sys(err, errno, "KVM refuses a memory slot");
	return 0;
}

static int add_memory(struct probe_guest *g, struct err *err)
{
	int rc = add_slot(g, 0, 0, 0, GUEST_RAM_SIZE, &g->ram, err);

	if (rc < 0)
		return rc;
	build_page_tables(g->ram);
	build_handlers(g->ram);
	build_gdt(g->ram);
	rc = add_slot(g, 1, KVM_MEM_READONLY, GUEST_RO, PAGE_SIZE, &g->ro, err);
	if (rc < 0)
		return rc;
	return add_slot(g, GUEST_LOGGED_SLOT, KVM_MEM_LOG_DIRTY_PAGES, GUEST_LOGGED,
			GUEST_LOGGED_PAGES * PAGE_SIZE, &g->logged, err);
}

static int create_vm(struct probe_guest *g, struct err *err)
{
	do
		g->vm = ioctl(g->kvm, KVM_CREATE_VM, 0ul);
	while (g->vm < 0 && errno == EINTR);
	if (g->vm < 0 && errno == EBUSY)
		return err_sys(
			err, EBUSY,
			"cannot make a virtual machine; another hypervisor (VirtualBox, VMware) "
			"holds the CPU");
	if (g->vm < 0)
		return err_sys(err, errno, "cannot make a virtual machine");
	/* Intel hosts without unrestricted guests want three pages below 4 GiB. */
	if (ioctl(g->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0)
		return err_sys(err, errno, "KVM_SET_TSS_ADDR failed");
	if (g->dirty_ring_size) {
		struct kvm_enable_cap cap = {
			.cap = KVM_CAP_DIRTY_LOG_RING,
			.args[0] = g->dirty_ring_size,
		};

		if (ioctl(g->vm, KVM_ENABLE_CAP, &cap) < 0)
			return err_sys(err, errno, "KVM refuses a dirty ring");
	}
	return 0;
}

int probe_guest_open(struct probe_guest *g, int kvm_fd, bool dirty_ring, struct err *err)
{
	struct kvm_sregs sregs;
	int size, rc;

	*g = (struct probe_guest){.kvm = kvm_fd, .vm = -1, .vcpu = -1};
	g->dirty_ring_size = dirty_ring ? DIRTY_RING_BYTES : 0;
	rc = create_vm(g, err);
	if (rc < 0)
		goto fail;
	rc = add_memory(g, err);
	if (rc < 0)
		goto fail;
	set_msr_filter(g);

	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0ul);
	size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0ul);
	if (g->vcpu < 0 || size < 0) {
		rc = err_sys(err, errno, "cannot make a virtual CPU");
		goto fail;
	}
	g->run_size = (size_t)size;
	g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED) {
		g->run = NULL;
		rc = err_sys(err, errno, "cannot map a virtual CPU");
		goto fail;
	}
	rc = set_cpuid(g, err);
	if (rc < 0)
		goto fail;
	if (ioctl(g->vcpu, KVM_GET_SREGS, &sregs) < 0) {
		rc = err_sys(err, errno, "KVM_GET_SREGS failed");
		goto fail;
	}
	g->sregs[0] = g->sregs[1] = sregs;
	build_sregs(&g->sregs[0], 0);
	build_sregs(&g->sregs[1], 3);
	rc = watchdog_create(g, err);
	if (rc < 0)
		goto fail;
	return 0;

fail:
	probe_guest_close(g);
	return rc;
}

static void unmap(uint8_t **p, size_t size)
{
	if (*p)
		munmap(*p, size);
	*p = NULL;
}

void probe_guest_close(struct probe_guest *g)
{
	watchdog_destroy(g);
	if (g->run)
		munmap(g->run, g->run_size);
	if (g->vcpu >= 0)
		close(g->vcpu);
	if (g->vm >= 0)
		close(g->vm);
	unmap(&g->ram, GUEST_RAM_SIZE);
	unmap(&g->ro, PAGE_SIZE);
	unmap(&g->logged, GUEST_LOGGED_PAGES * PAGE_SIZE);
	g->run = NULL;
	g->vm = -1;
	g->vcpu = -1;
}

/* --- Running it --- */

/* An IN, an MMIO or an MSR access that the last snippet left unfinished would be completed by the
 * first entry of the next one, into its registers. */
static void finish_pending(struct probe_guest *g)
{
	g->run->immediate_exit = 1;
	ioctl(g->vcpu, KVM_RUN, 0ul);
	g->run->immediate_exit = 0;
}

static bool reset_vcpu(struct probe_guest *g, const struct probe_start *how)
{
	struct kvm_sregs sregs = g->sregs[how->cpl ? 1 : 0];
	struct kvm_regs regs = {
		.rip = how->cpl ? GUEST_CODE3 : GUEST_CODE0,
		.rsp = how->cpl ? GUEST_STACK3 : GUEST_STACK0,
		.rbx = how->rbx,
		.rflags = RFLAGS_FIXED | RFLAGS_IOPL3,
	};
	struct kvm_vcpu_events events;
	struct kvm_run *run = g->run;

	finish_pending(g);
	sregs.cr4 |= how->cr4;
	run->request_interrupt_window = 0;
	run->kvm_valid_regs = 0;
	run->kvm_dirty_regs = 0;
	if (!probe_debug(g, 0, 0, 0) || ioctl(g->vcpu, KVM_SET_SREGS, &sregs) < 0 ||
	    ioctl(g->vcpu, KVM_SET_REGS, &regs) < 0 ||
	    ioctl(g->vcpu, KVM_GET_VCPU_EVENTS, &events) < 0)
		return false;
	events.exception.injected = 0;
	events.exception.pending = 0;
	events.interrupt.injected = 0;
	events.interrupt.shadow = 0;
	events.nmi.injected = 0;
	events.nmi.pending = 0;
	events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
	return ioctl(g->vcpu, KVM_SET_VCPU_EVENTS, &events) == 0;
}

bool probe_start(struct probe_guest *g, const struct snippet *code, const struct probe_start *how)
{
	if (g->broken) {
		int kvm_fd = g->kvm;
		bool ring = g->dirty_ring_size != 0;

		probe_guest_close(g);
		if (probe_guest_open(g, kvm_fd, ring, NULL) < 0) {
			g->broken = true;
			return false;
		}
	}
	if (!reset_vcpu(g, how)) {
		g->broken = true;
		return false;
	}
	memset(g->ram + GUEST_DATA, 0, PAGE_SIZE);
	memcpy(g->ram + (how->cpl ? GUEST_CODE3 : GUEST_CODE0), code->bytes, code->len);
	watchdog_start(g, how->kick_us);
	return true;
}

int probe_run(struct probe_guest *g)
{
	struct kvm_run *run = g->run;

	for (;;) {
		int rc = ioctl(g->vcpu, KVM_RUN, 0ul) < 0 ? -errno : 0;

		if (rc == 0 && run->exit_reason != KVM_EXIT_INTR) {
			/* A triple fault may leave more of the vCPU reset than we set again. */
			if (run->exit_reason == KVM_EXIT_SHUTDOWN)
				g->broken = true;
			return (int)run->exit_reason;
		}
		if (rc < 0 && rc != -EINTR && rc != -EAGAIN)
			return rc;
		/* In this order: a signal that comes in between is not forgotten. */
		__atomic_store_n(&run->immediate_exit, 0, __ATOMIC_RELAXED);
		g->kicks++;
		if (probe_cpu_ns() >= g->cpu_deadline_ns || probe_now_ns() >= g->deadline_ns)
			return -ETIME;
	}
}

bool probe_get_regs(const struct probe_guest *g, struct kvm_regs *regs)
{
	if (ioctl(g->vcpu, KVM_GET_REGS, regs) == 0)
		return true;
	memset(regs, 0, sizeof(*regs));
	return false;
}

bool probe_run_done(struct probe_guest *g, struct kvm_regs *regs)
{
	int exit = probe_run(g);

	return probe_get_regs(g, regs) && exit == KVM_EXIT_IO &&
	       g->run->io.direction == KVM_EXIT_IO_OUT && g->run->io.port == PORT_DONE;
}

int probe_vector(int exit, uint64_t rip)
{
	if (exit != KVM_EXIT_HLT || rip <= GUEST_VECTORS || rip > GUEST_VECTORS + 256 * 16)
		return -1;
	return (int)((rip - GUEST_VECTORS) / 16);
}

bool probe_debug(struct probe_guest *g, uint32_t control, uint64_t dr0, uint64_t dr7)
{
	struct kvm_guest_debug debug = {.control = control ? control | KVM_GUESTDBG_ENABLE : 0};

	debug.arch.debugreg[0] = dr0;
	debug.arch.debugreg[7] = dr7;
	return ioctl(g->vcpu, KVM_SET_GUEST_DEBUG, &debug) == 0;
}

int64_t probe_find_stat(int stats_fd, const char *name)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *desc = NULL;
	int64_t found = -1;
	size_t size;

	if (pread(stats_fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) ||
	    header.name_size > 1024 || header.num_desc > 10000)
		return -1;
	size = sizeof(*desc) + header.name_size;
	desc = calloc(1, size + 1);
	for (uint32_t i = 0; desc && i < header.num_desc; i++) {
		off_t at = (off_t)header.desc_offset + (off_t)(i * size);

		if (pread(stats_fd, desc, size, at) != (ssize_t)size)
			break;
		if (strcmp(desc->name, name) == 0 && desc->size == 1) {
			found = (int64_t)header.data_offset + desc->offset;
			break;
		}
	}
	free(desc);
	return found;
}
