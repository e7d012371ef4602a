// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/machine.h"

#include "vmm/cpuid.h"
#include "vmm/paging.h"
#include "vmm/watched.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/*
 * What a boundary costs in vtime, ns. About what the access takes on a PC of the ISA age, so that a
 * guest's delay loops over port reads end after a sensible number of them. A read of the time-stamp
 * counter must cost something too, or a loop that waits for it to move never ends.
 */
#define CHARGE_PIO 1000
#define CHARGE_MMIO 500
#define CHARGE_REWRITTEN 200
#define CHARGE_MSR 200
#define CHARGE_HLT 200

#define MSR_TSC 0x10u
#define MSR_MISC_ENABLE 0x1a0u
#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_AUX 0xc0000103u
#define RFLAGS_CF 1u
/* OF, SF, ZF, AF and PF: cleared by RDRAND and RDSEED (SDM 2B). */
#define RFLAGS_RANDOM_CLEARS 0x8d4u
#define RFLAGS_PF 0x4u
#define RFLAGS_ZF 0x40u
/* OF, SF, ZF, AF, PF and CF: those that XOR sets (AF, which it leaves undefined, is cleared). */
#define RFLAGS_ARITHMETIC 0x8d5u
#define RFLAGS_RF (1ull << 16)

/* IA32_APIC_BASE bit 11; while it is set KVM shows an APIC in CPUID. */
#define APIC_ENABLED (1ull << 11)

/* Identity-map page for KVM's real-mode task on hosts without unrestricted guest: outside RAM. */
#define TSS_ADDR 0xfffbd000ul

static const struct {
	uint32_t base, count;
} native_msrs[] = {
	/* What KVM keeps exactly and no host varies; all else comes to user space. */
	{0x174, 3},        /* SYSENTER */
	{0x277, 1},        /* PAT */
	{0xc0000080, 5},   /* EFER, STAR, LSTAR, CSTAR, SFMASK */
	{0xc0000100, 3},   /* FS, GS and kernel GS base */
};

static int set_msr_filter(struct machine *m, struct err *err)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
			 KVM_MSR_EXIT_REASON_FILTER},
	};
	struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
	uint8_t allow = 0xff;

	for (size_t i = 0; i < ARRAY_SIZE(native_msrs); i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			.base = native_msrs[i].base,
			.nmsrs = native_msrs[i].count,
			.bitmap = &allow,
		};
	if (ioctl(m->vm_fd, KVM_ENABLE_CAP, &cap) < 0 ||
	    ioctl(m->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
		return err_sys(err, errno,
			       "this KVM cannot pass MSR accesses to user space (Linux 5.10 can)");
	return 0;
}

static int open_vm(struct machine *m, struct err *err)
{
	m->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (m->kvm_fd < 0)
		return err_sys(err, errno, "cannot open /dev/kvm; see hindsight doctor");
	m->vm_fd = ioctl(m->kvm_fd, KVM_CREATE_VM, 0);
	if (m->vm_fd < 0)
		return err_sys(err, errno, "cannot create a virtual machine");
	/* Needed by some Intel hosts only; others may not know it. */
	(void)ioctl(m->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR);
	return m->caps.msr_filter ? set_msr_filter(m, err) : 0;
}

/* Put the kernel into RAM and rewrite it. */
static int load_kernel(struct machine *m, const struct guest_image *packed,
		       const struct kvm_sregs *reset, struct err *err)
{
	struct guest_image image = *packed;
	uint8_t *unpacked;
	int rc = loader_unpack(&image, &unpacked, err);

	if (rc < 0)
		return rc;
	rc = loader_load(m->mem, &image, reset, &m->entry, err);
	if (rc == 0)
		rc = rewrite_text(m->mem, &image, m->entry.text, m->entry.text_len, &m->sites, err);
	if (rc == 0)
		rc = modules_hook_kernel(&m->modules, m->mem, &image, &m->entry, &m->sites, err);
	free(m->entry.text);
	m->entry.text = NULL;
	free(unpacked);
	return rc;
}

static int load(struct machine *m, const struct guest_image *image, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	struct kvm_sregs reset;
	int rc = vcpu_get_sregs(v, &reset, err);

	if (rc == 0)
		rc = load_kernel(m, image, &reset, err);
	if (rc < 0)
		return rc;
	m->entry.sregs.apic_base &= ~APIC_ENABLED;
	rc = vcpu_set_sregs(v, &m->entry.sregs, err);
	if (rc < 0)
		return rc;
	*vcpu_regs_mut(v) = m->entry.regs;
	return 0;
}

static int create_vcpu(struct machine *m, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	int rc = vcpu_create(v, m->kvm_fd, m->vm_fd, &m->caps, m->mem, m->config.xfeatures, err);

	watched_attach(m);
	return rc;
}

int machine_create(struct machine **out, const struct machine_config *config,
		   const struct guest_image *image, bool digests, struct err *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return err_set(err, ENOMEM, "out of memory");
	m->config = *config;
	m->kvm_fd = m->vm_fd = -1;
	m->vcpu[0].fd = m->vcpu[0].clock.fd = m->vcpu[0].faults.fd = -1;
	/* Zero is a fixed point of the generator. */
	m->entropy = config->seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull;
	m->dev_entropy = config->seed * 0xd1342543de82ef95ull + 0x9fb21c651e98df25ull;
	rc = host_probe(&m->caps, false, err);
	if (rc < 0)
		goto fail;
	if (m->config.xfeatures == MACHINE_XFEATURES_OF_HOST)
		m->config.xfeatures = cpuid_choose_xfeatures(&m->caps);
	rc = open_vm(m, err);
	if (rc < 0)
		goto fail;
	rc = memory_create(&m->mem, m->vm_fd, config->mem_size, digests, err);
	if (rc < 0)
		goto fail;
	rc = create_vcpu(m, err);
	if (rc < 0)
		goto fail;
	rc = devices_init(m, image, err);
	if (rc < 0)
		goto fail;
	rc = load(m, image, err);
	if (rc < 0)
		goto fail;
	*out = m;
	return 0;
fail:
	machine_destroy(m);
	return rc;
}

static void close_vm(struct machine *m)
{
	/* Of the process before, where this is a branch: to be made anew. */
	kick_timer_destroy(&m->watch_timer);
	vcpu_destroy(&m->vcpu[0]);
	if (m->vm_fd >= 0)
		close(m->vm_fd);
	if (m->kvm_fd >= 0)
		close(m->kvm_fd);
	m->kvm_fd = m->vm_fd = -1;
}

int machine_reopen(struct machine *m, struct err *err)
{
	int rc;

	close_vm(m);
	m->faults_forgotten = 0;
	rc = open_vm(m, err);
	if (rc == 0)
		rc = memory_move(m->mem, m->vm_fd, err);
	if (rc == 0)
		rc = create_vcpu(m, err);
	return rc;
}

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	devices_destroy(m);
	close_vm(m);
	memory_destroy(m->mem);
	rewrite_sites_free(&m->sites);
	free(m->entry.text);
	free(m->guard);
	free(m);
}

void machine_end(struct machine *m, enum machine_end end, uint32_t code)
{
	if (m->end != END_NONE)
		return;
	m->end = end;
	m->end_code = code;
}

const char *machine_end_name(enum machine_end end)
{
	static const char *const names[END_COUNT] = {
		[END_NONE] = "still running",
		[END_EXIT] = "the guest wrote its exit port",
		[END_RESET] = "the guest reset the machine",
		[END_TRIPLE_FAULT] = "triple fault",
		[END_HALTED] = "halted with nothing left to wake it",
		[END_LIMIT] = "time limit reached",
		[END_UNTIL] = "the awaited output appeared",
		[END_INTERRUPTED] = "interrupted",
		[END_OF_TRACE] = "the trace ends here without an end mark",
	};

	return end < END_COUNT ? names[end] : "unknown";
}

bool machine_end_is_imposed(enum machine_end end)
{
	return end == END_LIMIT || end == END_UNTIL || end == END_INTERRUPTED || end == END_OF_TRACE;
}

void machine_pass_time(struct machine *m, uint64_t advance)
{
	m->vtime += advance;
	if (m->vtime >= m->deadline)
		devices_tick(m);
}

void machine_land(struct machine *m, uint64_t advance)
{
	struct vcpu *v = &m->vcpu[0];

	/* RF is set or not by the way the host stopped; an interrupt frame would show it. */
	if (vcpu_regs(v)->rflags & RFLAGS_RF)
		vcpu_regs_mut(v)->rflags &= ~RFLAGS_RF;
	machine_pass_time(m, advance);
}

/* The history is a chain of multiply-xorshift steps: cheap, and any difference stays in it. */
static void note_history(struct machine *m, uint64_t what, uint64_t data)
{
	uint64_t h = (m->io_history ^ what) * 0x9fb21c651e98df25ull;

	h = (h ^ (h >> 29) ^ data) * 0xc2b2ae3d27d4eb4full;
	m->io_history = h ^ (h >> 32);
}

uint64_t machine_next_entropy(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* One count a ns of vtime. */
static uint64_t guest_tsc(const struct machine *m)
{
	return m->vtime + m->tsc_offset;
}

static uint64_t *gpr(struct kvm_regs *r, unsigned n)
{
	uint64_t *const map[16] = {
		(uint64_t *)&r->rax, (uint64_t *)&r->rcx, (uint64_t *)&r->rdx, (uint64_t *)&r->rbx,
		(uint64_t *)&r->rsp, (uint64_t *)&r->rbp, (uint64_t *)&r->rsi, (uint64_t *)&r->rdi,
		(uint64_t *)&r->r8,  (uint64_t *)&r->r9,  (uint64_t *)&r->r10, (uint64_t *)&r->r11,
		(uint64_t *)&r->r12, (uint64_t *)&r->r13, (uint64_t *)&r->r14, (uint64_t *)&r->r15,
	};

	return map[n & 15];
}

static void answer_random(struct kvm_regs *r, enum rewrite_kind kind, unsigned n, uint64_t value)
{
	uint64_t *dest = gpr(r, n);

	switch (kind) {
	case REWRITE_RDRAND16:
	case REWRITE_RDSEED16:
		*dest = (*dest & ~0xffffull) | (value & 0xffff);
		break;
	case REWRITE_RDRAND32:
	case REWRITE_RDSEED32:
		*dest = (uint32_t)value;
		break;
	default:
		*dest = value;
	}
	r->rflags = (r->rflags & ~(uint64_t)RFLAGS_RANDOM_CLEARS) | RFLAGS_CF;
}

/* The guest executed what was RDTSC, CPUID or the like. The IN is completed first, because registers set
 * before an IN completes are lost on some hosts. */
static int rewritten(struct machine *m, struct vcpu *v, enum rewrite_kind kind, struct err *err)
{
	struct kvm_regs *r;
	uint64_t rax = vcpu_regs(v)->rax, rcx = vcpu_regs(v)->rcx;
	uint64_t value = 0, xcr0;
	struct kvm_sregs sregs;
	uint8_t before[4];
	uint32_t out[4];
	int rc = vcpu_complete(v, err);

	/* An ioctl, which what Linux executes most can do without. */
	if (rc == 0 && kind != REWRITE_RDTSC && kind != REWRITE_RDTSCP)
		rc = vcpu_get_sregs(v, &sregs, err);
	if (rc < 0)
		return rc;
	m->rewritten_executed++;
	r = vcpu_regs_mut(v);
	r->rax = rax;
	switch (kind) {
	case REWRITE_RDTSCP:
		r->rcx = (uint32_t)m->tsc_aux;
		/* fall through */
	case REWRITE_RDTSC:
		value = guest_tsc(m);
		r->rax = (uint32_t)value;
		r->rdx = value >> 32;
		break;
	case REWRITE_CPUID:
		rc = vcpu_get_xcr0(v, &xcr0, err);
		if (rc < 0)
			return rc;
		cpuid_answer(m->config.xfeatures, (uint32_t)rax, (uint32_t)rcx, sregs.cr4, xcr0, out);
		r->rax = out[0];
		r->rbx = out[1];
		r->rcx = out[2];
		r->rdx = out[3];
		break;
	default:
		if (paging_read(m->mem, &sregs, GVA(r->rip - sizeof(before)), before, sizeof(before)) < 0)
			break; /* the guest made the IN itself at a page's edge: nothing to answer */
		value = machine_next_entropy(&m->entropy);
		answer_random(r, kind, rewrite_destination(before), value);
		break;
	}
	note_history(m, (uint64_t)kind << 32 | (uint32_t)rax, value);
	return 0;
}

/* The kernel announces a module: rewrite it, and do what the instruction did that gave way to the hook. An
 * IN from the port that is no hook reads zeros. */
static int announced(struct machine *m, struct vcpu *v, struct err *err)
{
	uint64_t rax = vcpu_regs(v)->rax;
	const struct modules_hook *hook;
	char name[MODULES_NAME_LEN];
	struct kvm_sregs sregs;
	struct kvm_regs *r;
	int rc = vcpu_complete(v, err);

	if (rc < 0 || (rc = vcpu_get_sregs(v, &sregs, err)) < 0)
		return rc;
	hook = modules_find_hook(&m->modules, vcpu_regs(v)->rip);
	note_history(m, (uint64_t)REWRITE_PORT_HOOK << 32, hook != NULL);
	if (!hook)
		return 0;
	r = vcpu_regs_mut(v);
	r->rax = rax;
	modules_read_name(hook, m->mem, &sregs, r, name);
	*gpr(r, hook->to) = hook->clears ? 0 : *gpr(r, hook->from);
	if (hook->clears)
		r->rflags = (r->rflags & ~(uint64_t)RFLAGS_ARITHMETIC) | RFLAGS_ZF | RFLAGS_PF;
	m->modules_announced++;
	return modules_rewrite(m->mem, &sregs, name, &m->sites, err);
}

static int boundary_io(struct machine *m, struct vcpu *v, struct err *err)
{
	struct kvm_run *run = v->run;
	uint16_t port = run->io.port;
	unsigned size = run->io.size;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	const struct device *d;
	enum rewrite_kind kind;

	if (run->io.direction == KVM_EXIT_IO_IN && size == 4 && run->io.count == 1 &&
	    rewrite_port_kind(port, &kind)) {
		m->vtime += CHARGE_REWRITTEN;
		memset(data, 0, 4);
		return rewritten(m, v, kind, err);
	}
	if (run->io.direction == KVM_EXIT_IO_IN && size == 4 && run->io.count == 1 &&
	    port == REWRITE_PORT_HOOK) {
		m->vtime += CHARGE_REWRITTEN;
		memset(data, 0, 4);
		return announced(m, v, err);
	}
	d = devices_find_port(m, port);
	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		uint32_t value = 0xffffffff;

		m->vtime += CHARGE_PIO;
		if (run->io.direction == KVM_EXIT_IO_IN) {
			if (d)
				value = d->ops->pio_read(d->state, port, size);
			memcpy(data, &value, size);
		} else {
			value = 0;
			memcpy(&value, data, size);
			if (d)
				d->ops->pio_write(d->state, port, size, value);
		}
		note_history(m, (uint64_t)port << 8 | (uint64_t)run->io.direction << 4 | size, value);
	}
	if (d)
		devices_update_deadline(m);
	return 0;
}

static void boundary_mmio(struct machine *m, struct vcpu *v)
{
	struct kvm_run *run = v->run;
	/* 1 to 8, of any alignment: what crosses a page or is longer comes in pieces. */
	unsigned size = run->mmio.len <= 8 ? run->mmio.len : 8;
	uint64_t offset, value = 0;
	const struct device *d = devices_find_mapped(m, GPA(run->mmio.phys_addr), size, &offset);

	m->vtime += CHARGE_MMIO;
	m->accessed = d;
	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, size);
		if (d)
			d->ops->mmio_write(d->state, offset, size, value);
	} else {
		/* Where nothing lives reads give ones, as an open bus does. */
		uint64_t answer = d ? d->ops->mmio_read(d->state, offset, size) : UINT64_MAX;

		memcpy(run->mmio.data, &answer, sizeof(answer));
		memcpy(&value, &answer, size);
	}
	m->accessed = NULL;
	note_history(m, run->mmio.phys_addr << 1 | run->mmio.is_write, value);
	if (d)
		devices_update_deadline(m);
}

static void boundary_msr(struct machine *m, struct vcpu *v)
{
	struct kvm_run *run = v->run;
	bool write = run->exit_reason == KVM_EXIT_X86_WRMSR;

	m->vtime += CHARGE_MSR;
	run->msr.error = 0;
	switch (run->msr.index) {
	case MSR_TSC:
		if (write)
			m->tsc_offset = run->msr.data - m->vtime;
		else
			run->msr.data = guest_tsc(m);
		break;
	case MSR_TSC_AUX:
		if (write)
			m->tsc_aux = run->msr.data;
		else
			run->msr.data = m->tsc_aux;
		break;
	case MSR_MISC_ENABLE:
	case MSR_APIC_BASE:
		if (!write)
			run->msr.data = 0;
		break;
	default:
		run->msr.error = 1; /* #GP, as on a CPU without it */
	}
	note_history(m, (uint64_t)run->msr.index << 8 | write, run->msr.error ? 0 : run->msr.data);
}

/* The guest has halted: let vtime jump from deadline to deadline until something interrupts. */
static int halt(struct machine *m, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];

	m->halted = true;
	if (!v->run->if_flag)
		machine_end(m, END_HALTED, 0);
	while (!m->end && !pic_pending(&m->pic)) {
		uint64_t deadline = m->deadline, vtime = m->vtime;
		int rc = m->nondet->halted(m->nondet_ctx, m, deadline, err);

		if (rc != 0)
			return rc < 0 ? rc : 0; /* still halted */
		if (m->end || pic_pending(&m->pic))
			break;
		if (m->vtime != vtime || m->deadline != deadline)
			continue;
		if (deadline == TIME_NEVER) {
			machine_end(m, END_HALTED, 0);
			break;
		}
		machine_pass_time(m, deadline - m->vtime);
	}
	m->halted = false;
	return 0;
}

static int handle_boundary(struct machine *m, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	int rc = 0;

	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		rc = boundary_io(m, v, err);
		break;
	case KVM_EXIT_MMIO:
		boundary_mmio(m, v);
		break;
	case KVM_EXIT_HLT:
		m->vtime += CHARGE_HLT;
		note_history(m, KVM_EXIT_HLT, 0);
		break;
	case KVM_EXIT_SHUTDOWN:
		note_history(m, KVM_EXIT_SHUTDOWN, 0);
		machine_end(m, END_TRIPLE_FAULT, 0);
		break;
	default:
		boundary_msr(m, v);
	}
	if (rc < 0)
		return rc;
	if (m->vtime >= m->deadline)
		devices_tick(m);
	m->boundary++;
	rc = m->nondet->boundary(m->nondet_ctx, m, err);
	if (rc == 0 && !m->end && v->run->exit_reason == KVM_EXIT_HLT)
		rc = halt(m, err);
	return rc;
}

/*
 * If an interrupt waits, inject it, or ask for a stop at the first place where it can be: by interrupt
 * window where the probe found that exact, else by single steps. Both find the same place every time.
 */
static int deliver(struct machine *m, struct vcpu *v, struct vcpu_request *req, struct err *err)
{
	int rc;

	if (!pic_pending(&m->pic))
		return 0;
	if (!vcpu_interruptible(v)) {
		rc = vcpu_complete(v, err);
		if (rc < 0)
			return rc;
	}
	if (vcpu_interruptible(v) && !v->event_queued && m->between && vcpu_after_shadow(v)) {
		req->step = true;
		return 0;
	}
	if (vcpu_interruptible(v) && !v->event_queued) {
		rc = vcpu_interrupt(v, pic_acknowledge(&m->pic), err);
		if (rc < 0)
			return rc;
		m->irqs_delivered++;
		if (!pic_pending(&m->pic))
			return 0;
	}
	if (caps_use_window(&m->caps))
		req->window = true;
	else
		req->step = true;
	return 0;
}

static int handle_stop(struct machine *m, struct vcpu *v, const struct vcpu_request *req,
		       enum vcpu_stop stop, struct err *err)
{
	m->between = true;
	if (stop == VCPU_BOUNDARY) {
		bool watched;
		int rc = watched_try(m, &watched, err);

		if (rc == 0 && !watched) {
			m->between = false;
			return handle_boundary(m, err);
		}
		if (rc == 0)
			rc = vcpu_complete(v, err);
		if (rc < 0 || !watched_stops(v, req, &stop))
			return rc;
	}
	return m->nondet->stopped(m->nondet_ctx, m, stop, err);
}

int machine_run(struct machine *m, struct err *err)
{
	struct vcpu *v = &m->vcpu[0];
	int rc = 0;

	if (!m->started)
		rc = m->nondet->boundary(m->nondet_ctx, m, err);
	m->started = true;
	if (rc == 0 && m->halted && !m->end)
		rc = halt(m, err);
	while (rc == 0 && !m->end && !machine_paused(m)) {
		struct vcpu_request req = {0};
		struct watched_delivery delivery;
		enum vcpu_stop stop;
		bool unfinished;

		rc = deliver(m, v, &req, err);
		if (rc == 0)
			rc = m->nondet->plan(m->nondet_ctx, m, &req, err);
		if (rc < 0 || m->end || machine_paused(m))
			break;
		/* The plan itself raised an interrupt, by landing: deliver it first. */
		if (pic_pending(&m->pic) && !req.step && !req.window)
			continue;
		rc = watched_deliver(m, &req, &delivery, err);
		if (rc == 0)
			rc = vcpu_run(v, &req, &stop, err);
		rc = watched_delivered(m, &delivery, rc, err);
		if (rc == 0)
			rc = watched_unfinished(m, &delivery, stop, &unfinished, err);
		if (rc < 0)
			break;
		if (unfinished)
			continue;
		m->irq_steps += req.step && pic_pending(&m->pic);
		rc = handle_stop(m, v, &req, stop, err);
		if (rc == 0 && m->watched_rc < 0) {
			*err = m->watched_err;
			rc = m->watched_rc;
		}
	}
	return rc;
}
