// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/assist_internal.h"

#include "vmm/paging.h"

#include <asm/processor-flags.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define DR6_BS (1ull << 14)

const char *assist_name(enum assist_kind kind)
{
	static const char *const name[ASSIST_KINDS] = {
		[ASSIST_INT3] = "int3",
		[ASSIST_INT_N] = "int n",
		[ASSIST_CMPXCHG16B] = "cmpxchg16b",
		[ASSIST_CLAC_STAC] = "clac/stac",
		[ASSIST_X87] = "x87/mmx",
		[ASSIST_SSE] = "sse",
		[ASSIST_AVX] = "avx",
		[ASSIST_INTEGER] = "integer",
		[ASSIST_XSAVE] = "xsave/xrstor",
		[ASSIST_XCR] = "xgetbv/xsetbv",
		[ASSIST_DESCRIPTOR] = "lar/lsl/verr/verw",
		[ASSIST_UNDEFINED] = "undefined",
	};

	_Static_assert(ASSIST_KINDS <= VCPU_ASSISTS_MAX, "struct vcpu counts every kind");
	return (unsigned)kind < ASSIST_KINDS ? name[kind] : "unknown";
}

static void add_count(struct assist_counts *counts, const char *name, uint64_t count)
{
	if (!count)
		return;
	snprintf(counts->of[counts->len].name, ASSIST_NAME_MAX, "%s", name);
	counts->of[counts->len++].count = count;
}

void assist_count(const struct vcpu *v, struct assist_counts *counts)
{
	_Static_assert(ASSIST_KINDS < ASSIST_COUNTS_MAX, "room for SYSCALL too");
	*counts = (struct assist_counts){0};
	for (unsigned i = 0; i < ASSIST_KINDS; i++)
		add_count(counts, assist_name((enum assist_kind)i), v->assists[i]);
	add_count(counts, "syscall", v->syscalls_repaired);
}

int assist_raise(struct assist *a, uint8_t vector, uint32_t error)
{
	a->event = ASSIST_FAULT;
	a->vector = vector;
	a->error = error;
	return ASSIST_EVENT;
}

static bool is_long_mode(const struct assist *a)
{
	return (a->sregs.efer & EFER_LMA) && a->sregs.cs.l;
}

static unsigned cpl_of(const struct assist *a)
{
	return a->sregs.ss.dpl;
}

uint64_t *assist_gpr(struct assist *a, ZydisRegister reg)
{
	struct kvm_regs *r = &a->regs;
	uint64_t *const map[16] = {
		(uint64_t *)&r->rax, (uint64_t *)&r->rcx, (uint64_t *)&r->rdx, (uint64_t *)&r->rbx,
		(uint64_t *)&r->rsp, (uint64_t *)&r->rbp, (uint64_t *)&r->rsi, (uint64_t *)&r->rdi,
		(uint64_t *)&r->r8,  (uint64_t *)&r->r9,  (uint64_t *)&r->r10, (uint64_t *)&r->r11,
		(uint64_t *)&r->r12, (uint64_t *)&r->r13, (uint64_t *)&r->r14, (uint64_t *)&r->r15,
	};

	return map[ZydisRegisterGetId(reg) & 15];
}

/* A base or index register's value; 0 for none. */
static uint64_t address_part(struct assist *a, ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE)
		return 0;
	/* RIP-relative: to the next instruction. */
	if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_IP)
		return a->regs.rip + a->insn.length;
	return *assist_gpr(a, reg);
}

static const struct kvm_segment *segment_of(const struct assist *a, ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES:
		return &a->sregs.es;
	case ZYDIS_REGISTER_CS:
		return &a->sregs.cs;
	case ZYDIS_REGISTER_SS:
		return &a->sregs.ss;
	case ZYDIS_REGISTER_FS:
		return &a->sregs.fs;
	case ZYDIS_REGISTER_GS:
		return &a->sregs.gs;
	default:
		return &a->sregs.ds;
	}
}

int assist_address(struct assist *a, const ZydisDecodedOperand *op, size_t size, size_t alignment,
		   gva_t *gva)
{
	const struct kvm_segment *seg = segment_of(a, op->mem.segment);
	uint8_t vector = op->mem.segment == ZYDIS_REGISTER_SS ? VECTOR_SS : VECTOR_GP;
	uint64_t ea =
		address_part(a, op->mem.base) + address_part(a, op->mem.index) * op->mem.scale;

	if (op->mem.disp.has_displacement)
		ea += (uint64_t)op->mem.disp.value;
	if (a->insn.address_width < 64)
		ea &= (1ull << a->insn.address_width) - 1;
	if (is_long_mode(a)) {
		bool has_base = seg == &a->sregs.fs || seg == &a->sregs.gs;
		unsigned bits = a->sregs.cr4 & X86_CR4_LA57 ? 57 : 48;
		int64_t first, last;

		gva->v = ea + (has_base ? seg->base : 0);
		first = (int64_t)gva->v >> (bits - 1);
		last = (int64_t)(gva->v + size - 1) >> (bits - 1);
		if ((first != 0 && first != -1) || first != last)
			return assist_raise(a, vector, 0);
	} else {
		bool expands_down = (seg->type & 0xc) == 0x4;

		if (!expands_down && ea + size - 1 > seg->limit)
			return assist_raise(a, vector, 0);
		gva->v = (seg->base + ea) & 0xffffffff;
	}
	if (gva->v & (alignment - 1))
		return assist_raise(a, VECTOR_GP, 0);
	return 0;
}

/* The up to two pieces of RAM that an operand of at most a page lies in. */
struct span {
	gpa_t gpa[2];
	size_t len[2];
};

/* Kind of access that an operand makes. */
static unsigned operand_access(const struct assist *a, bool write)
{
	unsigned access = write ? PAGING_WRITE : 0;

	if (cpl_of(a) == 3)
		access |= PAGING_USER;
	else if ((a->sregs.cr4 & X86_CR4_SMAP) && !(a->regs.rflags & X86_EFLAGS_AC))
		access |= PAGING_NO_USER_PAGES;
	return access;
}

static int translate(struct assist *a, gva_t gva, size_t size, unsigned access, struct span *span)
{
	size_t room = (size_t)(PAGE_SIZE - (gva.v & ~PAGE_MASK));

	span->len[0] = size < room ? size : room;
	span->len[1] = size - span->len[0];
	for (unsigned i = 0; i < 2 && span->len[i]; i++) {
		uint64_t at = gva.v + (i ? span->len[0] : 0);
		uint32_t error;
		int ret;

		if (!is_long_mode(a))
			at &= 0xffffffff;
		ret = paging_access(a->v->mem, &a->sregs, GVA(at), access, &span->gpa[i], &error);
		if (ret == -EFAULT) {
			a->address = at;
			return assist_raise(a, VECTOR_PF, error);
		}
		if (ret || !memory_at(a->v->mem, span->gpa[i], span->len[i]))
			return err_set(a->err, EIO,
				       "the instruction at 0x%llx, which the host's KVM cannot "
				       "emulate, accesses 0x%" PRIx64
				       ", which is not RAM; run on a host with hardware "
				       "virtualization",
				       a->regs.rip, at);
	}
	return 0;
}

static int resolve(struct assist *a, const ZydisDecodedOperand *op, size_t size, size_t alignment,
		   bool write, struct span *span)
{
	gva_t gva;
	int ret = assist_address(a, op, size, alignment, &gva);

	return ret ? ret : translate(a, gva, size, operand_access(a, write), span);
}

static void read_span(const struct assist *a, const struct span *span, void *out)
{
	memory_read(a->v->mem, span->gpa[0], out, span->len[0]);
	if (span->len[1])
		memory_read(a->v->mem, span->gpa[1], (uint8_t *)out + span->len[0], span->len[1]);
}

int assist_load(struct assist *a, const ZydisDecodedOperand *op, void *out, size_t size,
		size_t alignment)
{
	struct span span;
	int ret = resolve(a, op, size, alignment, false, &span);

	if (ret)
		return ret;
	read_span(a, &span, out);
	for (unsigned i = 0; a->v->loaded && i < ARRAY_SIZE(span.len) && span.len[i]; i++)
		a->v->loaded(a->v->store_ctx, span.gpa[i], span.len[i]);
	return 0;
}

int assist_load_system(struct assist *a, gva_t gva, void *out, size_t size)
{
	struct span span;
	int ret = translate(a, gva, size, 0, &span);

	if (!ret)
		read_span(a, &span, out);
	return ret;
}

int assist_check_store(struct assist *a, const ZydisDecodedOperand *op, size_t size,
		       size_t alignment)
{
	struct span span;

	return resolve(a, op, size, alignment, true, &span);
}

static int put(struct assist *a, gpa_t gpa, const void *data, size_t len)
{
	struct vcpu *v = a->v;

	return v->store ? v->store(v->store_ctx, gpa, data, len, a->err)
			: memory_write(v->mem, gpa, data, len);
}

int assist_store(struct assist *a, const ZydisDecodedOperand *op, const void *data, size_t size,
		 size_t alignment)
{
	struct span span;
	int ret = resolve(a, op, size, alignment, true, &span);

	if (!ret)
		ret = put(a, span.gpa[0], data, span.len[0]);
	if (!ret && span.len[1])
		ret = put(a, span.gpa[1], (const uint8_t *)data + span.len[0], span.len[1]);
	return ret;
}

int assist_get_fpu(struct assist *a)
{
	static const uint8_t initial_x87[XSAVE_MXCSR] = {0x7f, 0x03}; /* FCW after FNINIT */
	const struct xsave_layout *layout = &a->v->layout;
	uint8_t *x = a->fpu;
	uint64_t present;

	if (ioctl(a->v->fd, KVM_GET_XSAVE, x) < 0)
		return err_sys(a->err, errno, "cannot read the floating-point state");
	/* The bytes of a component in its initial state need not be those of that state. */
	memcpy(&present, x + XSAVE_HEADER, sizeof(present));
	if (!(present & XFEATURE_X87)) {
		memcpy(x, initial_x87, sizeof(initial_x87));
		memset(x + XSAVE_ST, 0, XSAVE_XMM - XSAVE_ST);
	}
	if (!(present & XFEATURE_SSE))
		memset(x + XSAVE_XMM, 0, XSAVE_XMM_SIZE);
	for (unsigned i = 2; i < XSAVE_COMPONENTS; i++)
		if (!(present >> i & 1))
			memset(x + layout->offset[i], 0, layout->size[i]);
	return 0;
}

int assist_set_fpu(struct assist *a)
{
	uint64_t present;

	/* Else KVM puts the initial state in the place of what was set. */
	memcpy(&present, a->fpu + XSAVE_HEADER, sizeof(present));
	present |= XFEATURE_X87 | XFEATURE_SSE;
	memcpy(a->fpu + XSAVE_HEADER, &present, sizeof(present));
	if (ioctl(a->v->fd, KVM_SET_XSAVE, a->fpu) < 0)
		return err_sys(a->err, errno, "cannot set the floating-point state");
	return 0;
}

/*
 * INT3 and INT n, as an interrupt that is being delivered: KVM then builds the frame without
 * looking at RFLAGS.IF, and at CPL0 no gate is too privileged. Not marked as software-made, and #BP
 * not as the exception it is, because KVM leaves both out of KVM_GET_VCPU_EVENTS: a snapshot taken
 * now would lose them.
 */
static int run_int(struct assist *a)
{
	if (cpl_of(a))
		return -EOPNOTSUPP;
	a->event = ASSIST_INTERRUPT;
	a->vector = VECTOR_BP;
	if (a->insn.mnemonic == ZYDIS_MNEMONIC_INT)
		a->vector = (uint8_t)a->op[0].imm.value.u;
	return ASSIST_EVENT;
}

struct assist_row {
	ZydisMnemonic mnemonic;
	enum assist_kind kind;
	int (*run)(struct assist *a);
};

/* What is no plain arithmetic: that is executed by the host's CPU (assist_exec.c). */
static const struct assist_row rows[] = {
	{ZYDIS_MNEMONIC_INT3, ASSIST_INT3, run_int},
	{ZYDIS_MNEMONIC_INT, ASSIST_INT_N, run_int},
	{ZYDIS_MNEMONIC_CLAC, ASSIST_CLAC_STAC, assist_clac_stac},
	{ZYDIS_MNEMONIC_STAC, ASSIST_CLAC_STAC, assist_clac_stac},
	{ZYDIS_MNEMONIC_XSAVE, ASSIST_XSAVE, assist_xsave},
	{ZYDIS_MNEMONIC_XSAVE64, ASSIST_XSAVE, assist_xsave},
	{ZYDIS_MNEMONIC_XRSTOR, ASSIST_XSAVE, assist_xrstor},
	{ZYDIS_MNEMONIC_XRSTOR64, ASSIST_XSAVE, assist_xrstor},
	{ZYDIS_MNEMONIC_XGETBV, ASSIST_XCR, assist_xgetbv},
	{ZYDIS_MNEMONIC_XSETBV, ASSIST_XCR, assist_xsetbv},
	{ZYDIS_MNEMONIC_LAR, ASSIST_DESCRIPTOR, assist_descriptor},
	{ZYDIS_MNEMONIC_LSL, ASSIST_DESCRIPTOR, assist_descriptor},
	{ZYDIS_MNEMONIC_VERR, ASSIST_DESCRIPTOR, assist_descriptor},
	{ZYDIS_MNEMONIC_VERW, ASSIST_DESCRIPTOR, assist_descriptor},
	/* Not in the guest's CPUID; UD1 is a compiler's trap. */
	{ZYDIS_MNEMONIC_UD1, ASSIST_UNDEFINED, assist_undefined},
	{ZYDIS_MNEMONIC_INVPCID, ASSIST_UNDEFINED, assist_undefined},
	{ZYDIS_MNEMONIC_RDPKRU, ASSIST_UNDEFINED, assist_undefined},
	{ZYDIS_MNEMONIC_WRPKRU, ASSIST_UNDEFINED, assist_undefined},
	{ZYDIS_MNEMONIC_XSAVES, ASSIST_UNDEFINED, assist_undefined},
	{ZYDIS_MNEMONIC_XSAVES64, ASSIST_UNDEFINED, assist_undefined},
	{ZYDIS_MNEMONIC_XRSTORS, ASSIST_UNDEFINED, assist_undefined},
	{ZYDIS_MNEMONIC_XRSTORS64, ASSIST_UNDEFINED, assist_undefined},
};

/* Read as much of the instruction as is mapped, and decode it. */
static int fetch(struct assist *a, size_t *len)
{
	ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LEGACY_16;
	ZydisStackWidth stack = ZYDIS_STACK_WIDTH_16;
	uint64_t at = a->regs.rip;
	ZydisDecoder decoder;

	if (is_long_mode(a)) {
		mode = ZYDIS_MACHINE_MODE_LONG_64;
		stack = ZYDIS_STACK_WIDTH_64;
	} else {
		at = (a->sregs.cs.base + at) & 0xffffffff;
		if (a->sregs.cs.db) {
			mode = ZYDIS_MACHINE_MODE_LEGACY_32;
			stack = ZYDIS_STACK_WIDTH_32;
		}
	}
	for (*len = sizeof(a->bytes); *len; --*len)
		if (!paging_read(a->v->mem, &a->sregs, GVA(at), a->bytes, *len))
			break;
	if (!*len)
		return err_set(a->err, EFAULT, "cannot read the instruction at 0x%llx",
			       a->regs.rip);
	ZydisDecoderInit(&decoder, mode, stack);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, a->bytes, *len, &a->insn, a->op)))
		return -EOPNOTSUPP;
	*len = a->insn.length;
	return 0;
}

static int unknown(const struct assist *a, size_t len, bool decoded)
{
	char text[96] = "?", bytes[3 * sizeof(a->bytes) + 1] = "";
	ZydisFormatter formatter;

	for (size_t i = 0; i < len; i++)
		snprintf(bytes + 3 * i, 4, i + 1 < len ? "%02x " : "%02x", a->bytes[i]);
	if (!decoded)
		return err_set(a->err, EOPNOTSUPP,
			       "the host's KVM cannot emulate the instruction at 0x%llx, and its "
			       "bytes (%s) are not known; run on a host with hardware "
			       "virtualization, or report it",
			       a->regs.rip, bytes);
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&formatter, &a->insn, a->op, a->insn.operand_count_visible,
					text, sizeof(text), a->regs.rip, NULL);
	return err_set(a->err, EOPNOTSUPP,
		       "the host's KVM cannot emulate `%s` (%s) at 0x%llx; run on a host with "
		       "hardware virtualization, or report it",
		       text, bytes, a->regs.rip);
}

/* The instruction after STI or MOV SS is done: interrupts are no longer held off. */
static int end_shadow(struct assist *a)
{
	const struct kvm_run *run = a->v->run;
	struct kvm_vcpu_events events;

	if (!run->if_flag || run->ready_for_interrupt_injection)
		return 0;
	if (ioctl(a->v->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return err_sys(a->err, errno, "cannot read pending events");
	if (!events.interrupt.shadow)
		return 0;
	events.interrupt.shadow = 0;
	events.flags = KVM_VCPUEVENT_VALID_SHADOW;
	if (ioctl(a->v->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
		return err_sys(a->err, errno, "cannot end the interrupt shadow");
	return 0;
}

static int inject_interrupt(struct assist *a)
{
	struct kvm_vcpu_events events;

	if (ioctl(a->v->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
		return err_sys(a->err, errno, "cannot read pending events");
	events.interrupt.injected = 1;
	events.interrupt.nr = a->vector;
	events.interrupt.soft = 0;
	events.flags = 0;
	if (ioctl(a->v->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
		return err_sys(a->err, errno, "cannot inject software interrupt %u", a->vector);
	a->v->event_queued = true;
	a->v->event_vector = a->vector;
	return 0;
}

/* Bits of the vectors that push an error code, outside of real mode (SDM 3A, table 6-1). */
static bool has_error_code(const struct assist *a)
{
	const uint32_t vectors = 1u << VECTOR_SS | 1u << VECTOR_GP | 1u << VECTOR_PF;

	return (a->sregs.cr0 & X86_CR0_PE) && (vectors >> a->vector & 1);
}

/* The guest's own single step: #DB after the instruction (a step of ours is not in RFLAGS here). */
static int single_step_trap(struct assist *a)
{
	struct kvm_debugregs debug;

	if (ioctl(a->v->fd, KVM_GET_DEBUGREGS, &debug) < 0)
		return err_sys(a->err, errno, "cannot read the debug registers");
	debug.dr6 |= DR6_BS;
	debug.flags = 0;
	if (ioctl(a->v->fd, KVM_SET_DEBUGREGS, &debug) < 0)
		return err_sys(a->err, errno, "cannot set the debug registers");
	return vcpu_inject_exception(a->v, VECTOR_DB, false, 0, a->err);
}

static int finish(struct assist *a, bool event)
{
	bool stepping = a->regs.rflags & X86_EFLAGS_TF;
	int ret;

	if (event && a->event == ASSIST_FAULT) {
		if (a->vector == VECTOR_PF) {
			a->sregs.cr2 = a->address;
			ret = vcpu_set_sregs(a->v, &a->sregs, a->err);
			if (ret)
				return ret;
		}
		return vcpu_inject_exception(a->v, a->vector, has_error_code(a), a->error, a->err);
	}
	a->regs.rip += a->insn.length;
	if (!is_long_mode(a))
		a->regs.rip &= 0xffffffff;
	a->regs.rflags &= ~(uint64_t)X86_EFLAGS_RF;
	*vcpu_regs_mut(a->v) = a->regs;
	ret = end_shadow(a);
	if (ret)
		return ret;
	if (event)
		return inject_interrupt(a);
	return stepping ? single_step_trap(a) : 0;
}

int assist_execute(struct vcpu *v, struct err *err)
{
	struct assist a = {.v = v, .regs = *vcpu_regs(v), .err = err};
	const struct assist_row *row = NULL;
	enum assist_kind kind;
	size_t len = 0;
	int ret = vcpu_get_sregs(v, &a.sregs, err);

	if (ret)
		return ret;
	ret = fetch(&a, &len);
	if (ret)
		return ret == -EOPNOTSUPP ? unknown(&a, len, false) : ret;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].mnemonic == a.insn.mnemonic)
			row = &rows[i];
	if (row) {
		kind = row->kind;
		ret = row->run(&a);
	} else {
		ret = assist_exec(&a, &kind);
	}
	if (ret == -EOPNOTSUPP)
		return unknown(&a, len, true);
	if (ret < 0)
		return ret;
	v->assists[kind]++;
	return finish(&a, ret == ASSIST_EVENT);
}
