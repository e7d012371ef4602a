// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/gdb_regs.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* XSAVE area, standard format (SDM 1, 13.4): offsets in bytes, bits of the header's first word. */
#define X87_FCW 0
#define X87_FSW 2
#define X87_FTW 4
#define X87_FOP 6
#define X87_FIP 8
#define X87_FDP 16
#define X87_MXCSR 24
#define X87_ST 32
#define XMM_AREA 160
#define XSAVE_HEADER 512
#define YMM_AREA 576
#define HAS_YMM 4u

#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_KERNEL_GS_BASE 0xc0000102u

/* Linear to the CPU's RIP. */
static uint64_t code_base(const struct kvm_sregs *s)
{
	return s->cs.l ? 0 : s->cs.base;
}

static void read_general(const struct vcpu *v, struct gdb_registers *r, const struct kvm_sregs *s)
{
	const struct kvm_regs *k = vcpu_regs(v);
	const uint64_t gpr[GDB_GPRS] = {
		[GDB_RAX] = k->rax, [GDB_RBX] = k->rbx, [GDB_RCX] = k->rcx, [GDB_RDX] = k->rdx,
		[GDB_RSI] = k->rsi, [GDB_RDI] = k->rdi, [GDB_RBP] = k->rbp, [GDB_RSP] = k->rsp,
		[GDB_R8] = k->r8,   [GDB_R9] = k->r9,	[GDB_R10] = k->r10, [GDB_R11] = k->r11,
		[GDB_R12] = k->r12, [GDB_R13] = k->r13, [GDB_R14] = k->r14, [GDB_R15] = k->r15,
	};

	memcpy(r->gpr, gpr, sizeof(gpr));
	r->rip = k->rip + code_base(s);
	/* RF is set or not by the way the host stopped. */
	r->rflags = (uint32_t)k->rflags & ~(1u << 16);
}

#define MSRS 5

struct msrs {
	uint32_t nmsrs, pad; /* struct kvm_msrs without its flexible array */
	struct kvm_msr_entry entry[MSRS];
};

static int read_system(const struct vcpu *v, struct gdb_registers *r, const struct kvm_sregs *s, struct err *err)
{
	struct msrs msrs = {.nmsrs = MSRS,
			    .entry = {{.index = MSR_STAR}, {.index = MSR_LSTAR}, {.index = MSR_CSTAR},
				      {.index = MSR_SFMASK}, {.index = MSR_KERNEL_GS_BASE}}};
	const struct kvm_segment *segment[GDB_SEGMENTS] = {
		[GDB_CS] = &s->cs, [GDB_SS] = &s->ss, [GDB_DS] = &s->ds,
		[GDB_ES] = &s->es, [GDB_FS] = &s->fs, [GDB_GS] = &s->gs};
	struct kvm_debugregs debug;

	if (ioctl(v->fd, KVM_GET_MSRS, &msrs) != MSRS || ioctl(v->fd, KVM_GET_DEBUGREGS, &debug) < 0)
		return err_sys(err, errno, "cannot read the virtual CPU's MSRs and debug registers");
	for (unsigned i = 0; i < GDB_SEGMENTS; i++) {
		r->selector[i] = segment[i]->selector;
		r->base[i] = segment[i]->base;
	}
	r->star = msrs.entry[0].data;
	r->lstar = msrs.entry[1].data;
	r->cstar = msrs.entry[2].data;
	r->sfmask = msrs.entry[3].data;
	r->kernel_gs_base = msrs.entry[4].data;
	r->cr0 = s->cr0;
	r->cr2 = s->cr2;
	r->cr3 = s->cr3;
	r->cr4 = s->cr4;
	r->cr8 = s->cr8;
	r->efer = s->efer;
	r->gdt_base = s->gdt.base;
	r->gdt_limit = s->gdt.limit;
	r->idt_base = s->idt.base;
	r->idt_limit = s->idt.limit;
	r->tr = s->tr.selector;
	r->tr_base = s->tr.base;
	r->ldtr = s->ldt.selector;
	r->ldtr_base = s->ldt.base;
	memcpy(r->dr, debug.db, sizeof(r->dr));
	r->dr6 = debug.dr6;
	r->dr7 = debug.dr7;
	return 0;
}

static uint32_t word(const uint8_t *x, unsigned offset, unsigned size)
{
	uint32_t value = 0;

	memcpy(&value, x + offset, size);
	return value;
}

/* The tag word's two bits a register, from the one that FXSAVE keeps: valid or empty (SDM 1, 10.5.1.1). What a
 * register holds, gdb sees for itself. */
static uint32_t full_tags(uint8_t abridged)
{
	uint32_t tags = 0;

	for (unsigned i = 0; i < 8; i++)
		if (!(abridged >> i & 1))
			tags |= 3u << (2 * i);
	return tags;
}

static int read_float(const struct vcpu *v, struct gdb_registers *r, struct err *err)
{
	struct kvm_xsave area;
	const uint8_t *x = (const uint8_t *)&area;

	if (ioctl(v->fd, KVM_GET_XSAVE, &area) < 0)
		return err_sys(err, errno, "cannot read the floating-point state");
	for (unsigned i = 0; i < 8; i++)
		memcpy(r->st[i], x + X87_ST + 16 * i, sizeof(r->st[i]));
	r->fctrl = word(x, X87_FCW, 2);
	r->fstat = word(x, X87_FSW, 2);
	r->ftag = full_tags(x[X87_FTW]);
	r->fop = word(x, X87_FOP, 2);
	r->fioff = word(x, X87_FIP, 4);
	r->fiseg = word(x, X87_FIP + 4, 2);
	r->fooff = word(x, X87_FDP, 4);
	r->foseg = word(x, X87_FDP + 4, 2);
	r->mxcsr = word(x, X87_MXCSR, 4);
	memcpy(r->xmm, x + XMM_AREA, sizeof(r->xmm));
	memset(r->ymmh, 0, sizeof(r->ymmh));
	if (word(x, XSAVE_HEADER, 4) & HAS_YMM)
		memcpy(r->ymmh, x + YMM_AREA, sizeof(r->ymmh));
	return 0;
}

int gdb_regs_read(const struct vcpu *v, unsigned groups, struct gdb_registers *r, struct err *err)
{
	struct kvm_sregs sregs;
	int rc = vcpu_get_sregs(v, &sregs, err);

	if (rc == 0 && (groups & GDB_REGS_GENERAL))
		read_general(v, r, &sregs);
	if (rc == 0 && (groups & GDB_REGS_SYSTEM))
		rc = read_system(v, r, &sregs, err);
	if (rc == 0 && (groups & GDB_REGS_FLOAT))
		rc = read_float(v, r, err);
	return rc;
}

struct kvm_regs gdb_regs_general(const struct vcpu *v, const struct gdb_registers *r)
{
	struct kvm_sregs s;
	struct kvm_regs k = {
		.rax = r->gpr[GDB_RAX], .rbx = r->gpr[GDB_RBX], .rcx = r->gpr[GDB_RCX], .rdx = r->gpr[GDB_RDX],
		.rsi = r->gpr[GDB_RSI], .rdi = r->gpr[GDB_RDI], .rbp = r->gpr[GDB_RBP], .rsp = r->gpr[GDB_RSP],
		.r8 = r->gpr[GDB_R8],	.r9 = r->gpr[GDB_R9],	.r10 = r->gpr[GDB_R10], .r11 = r->gpr[GDB_R11],
		.r12 = r->gpr[GDB_R12], .r13 = r->gpr[GDB_R13], .r14 = r->gpr[GDB_R14], .r15 = r->gpr[GDB_R15],
		.rip = r->rip,		.rflags = r->rflags,
	};

	if (vcpu_get_sregs(v, &s, NULL) == 0)
		k.rip -= code_base(&s);
	return k;
}

static int write_system(struct vcpu *v, const struct gdb_registers *r, struct err *err)
{
	struct msrs msrs = {.nmsrs = MSRS,
			    .entry = {{.index = MSR_STAR, .data = r->star},
				      {.index = MSR_LSTAR, .data = r->lstar},
				      {.index = MSR_CSTAR, .data = r->cstar},
				      {.index = MSR_SFMASK, .data = r->sfmask},
				      {.index = MSR_KERNEL_GS_BASE, .data = r->kernel_gs_base}}};
	struct gdb_registers now;
	struct kvm_debugregs debug;
	struct kvm_sregs s;
	int rc = vcpu_get_sregs(v, &s, err);

	if (rc == 0)
		rc = read_system(v, &now, &s, err);
	if (rc < 0)
		return rc;
	if (memcmp(now.selector, r->selector, sizeof(now.selector)) != 0)
		return err_set(err, ENOTSUP,
			       "segment registers cannot be written, since that would not load their descriptors");
	s.fs.base = r->base[GDB_FS];
	s.gs.base = r->base[GDB_GS];
	s.cr0 = r->cr0;
	s.cr2 = r->cr2;
	s.cr3 = r->cr3;
	s.cr4 = r->cr4;
	s.cr8 = r->cr8;
	s.efer = r->efer;
	s.gdt.base = r->gdt_base;
	s.gdt.limit = (uint16_t)r->gdt_limit;
	s.idt.base = r->idt_base;
	s.idt.limit = (uint16_t)r->idt_limit;
	rc = vcpu_set_sregs(v, &s, err);
	if (rc < 0)
		return rc;
	if (ioctl(v->fd, KVM_GET_DEBUGREGS, &debug) < 0)
		return err_sys(err, errno, "cannot read the virtual CPU's debug registers");
	memcpy(debug.db, r->dr, sizeof(r->dr));
	debug.dr6 = r->dr6;
	debug.dr7 = r->dr7;
	if (ioctl(v->fd, KVM_SET_MSRS, &msrs) != MSRS || ioctl(v->fd, KVM_SET_DEBUGREGS, &debug) < 0)
		return err_set(err, EINVAL, "the virtual CPU refuses this value");
	return 0;
}

static void put_word(uint8_t *x, unsigned offset, unsigned size, uint32_t value)
{
	memcpy(x + offset, &value, size);
}

static uint8_t abridged_tags(uint32_t tags)
{
	uint8_t valid = 0;

	for (unsigned i = 0; i < 8; i++)
		if ((tags >> (2 * i) & 3) != 3)
			valid |= (uint8_t)(1u << i);
	return valid;
}

static int write_float(struct vcpu *v, const struct gdb_registers *r, struct err *err)
{
	static const uint8_t no_ymmh[sizeof(r->ymmh)];
	struct kvm_xsave area;
	uint8_t *x = (uint8_t *)&area;
	/* x87 and SSE are no longer in their initial state; AVX only if something is written. */
	uint32_t present = 3;

	if (ioctl(v->fd, KVM_GET_XSAVE, &area) < 0)
		return err_sys(err, errno, "cannot read the floating-point state");
	for (unsigned i = 0; i < 8; i++)
		memcpy(x + X87_ST + 16 * i, r->st[i], sizeof(r->st[i]));
	put_word(x, X87_FCW, 2, r->fctrl);
	put_word(x, X87_FSW, 2, r->fstat);
	x[X87_FTW] = abridged_tags(r->ftag);
	put_word(x, X87_FOP, 2, r->fop);
	put_word(x, X87_FIP, 4, r->fioff);
	put_word(x, X87_FIP + 4, 2, r->fiseg);
	put_word(x, X87_FDP, 4, r->fooff);
	put_word(x, X87_FDP + 4, 2, r->foseg);
	put_word(x, X87_MXCSR, 4, r->mxcsr);
	memcpy(x + XMM_AREA, r->xmm, sizeof(r->xmm));
	if ((word(x, XSAVE_HEADER, 4) & HAS_YMM) || memcmp(r->ymmh, no_ymmh, sizeof(no_ymmh)) != 0) {
		memcpy(x + YMM_AREA, r->ymmh, sizeof(r->ymmh));
		present |= HAS_YMM;
	}
	put_word(x, XSAVE_HEADER, 4, word(x, XSAVE_HEADER, 4) | present);
	if (ioctl(v->fd, KVM_SET_XSAVE, &area) < 0)
		return err_set(err, EINVAL, "the virtual CPU refuses this floating-point state");
	return 0;
}

int gdb_regs_write(struct vcpu *v, unsigned groups, const struct gdb_registers *r, struct err *err)
{
	int rc = groups & GDB_REGS_SYSTEM ? write_system(v, r, err) : 0;

	if (rc == 0 && (groups & GDB_REGS_FLOAT))
		rc = write_float(v, r, err);
	if (rc == 0 && (groups & GDB_REGS_GENERAL))
		*vcpu_regs_mut(v) = gdb_regs_general(v, r);
	return rc;
}
