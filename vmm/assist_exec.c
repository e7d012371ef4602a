// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Arithmetic and moves that touch only registers and memory (x87, MMX, SSE, AVX, BMI and the like), executed by the
 * host's CPU on a copy of the operands. So results, flags and exceptions are what a CPU makes of them, and no
 * instruction needs code of its own.
 *
 * The instruction is copied into a page of ours, with its memory operand, if any, made RIP-relative to a scratch
 * buffer. The code around it loads the guest's floating-point state, flags and all sixteen general registers before,
 * and stores them after. What the instruction raises comes as a signal; the handler goes on behind the instruction
 * with the number of the exception.
 */
#include "vmm/assist_internal.h"

#include <asm/processor-flags.h>
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define EFLAGS_ARITHMETIC 0x8d5u /* CF PF AF ZF SF OF */
#define EFLAGS_FIXED 0x202u	 /* bit 1 is always one; IF, as in any process */
#define CPUID_1_ECX_OSXSAVE (1u << 27)

/* Where a memory operand lies modulo a cache line decides about alignment faults: it is kept. */
#define LINE 64u
/* include/uapi/linux/signal.h of Linux, which excludes signal.h. */
#define STACK_AUTODISARM (1u << 31)
#define OPERAND_MAX 128u /* FNSAVE's 108 bytes are the most */
/* Room for a signal frame with AVX-512 state, and for sanitizers. */
#define STACK_SIZE 65536u

#define CODE_SIZE 4096

/* Follows the code page; the offsets of the first five are known to the code. */
struct exec_data {
	uint64_t gpr[16]; /* x86 numbering */
	uint64_t rflags;
	uint64_t components; /* of the XSAVE areas to load and store */
	uint64_t host_rsp;
	_Alignas(64) uint8_t host[sizeof(struct kvm_xsave)];
	_Alignas(64) uint8_t guest[sizeof(struct kvm_xsave)];
	_Alignas(64) uint8_t scratch[LINE + OPERAND_MAX];
	_Alignas(64) uint8_t stack[STACK_SIZE]; /* of the signal handler */
};

_Static_assert(offsetof(struct exec_data, rflags) == 128, "code");
_Static_assert(offsetof(struct exec_data, components) == 136, "code");
_Static_assert(offsetof(struct exec_data, host_rsp) == 144, "code");
_Static_assert(offsetof(struct exec_data, host) == 192, "code");
_Static_assert(offsetof(struct exec_data, guest) == 4288, "code");

struct assist_exec {
	uint8_t *code; /* the mapping; data lies CODE_SIZE behind */
	struct exec_data *data;
	volatile int vector; /* raised by the instruction; -1: none */
};

/* Copied to the code page; addresses its data relative to RIP, so that it runs anywhere. */
extern const uint8_t assist_exec_code[], assist_exec_slot[], assist_exec_after[], assist_exec_end[];

__asm__(".pushsection .rodata\n"
	".set exec_data, assist_exec_code + 4096\n"
	"assist_exec_code:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"mov %rsp, exec_data + 144(%rip)\n"
	"mov exec_data + 136(%rip), %eax; mov exec_data + 140(%rip), %edx\n"
	"xsave64 exec_data + 192(%rip)\n"
	"xrstor64 exec_data + 4288(%rip)\n"
	"pushq exec_data + 128(%rip); popfq\n"
	"mov exec_data(%rip), %rax; mov exec_data + 8(%rip), %rcx; mov exec_data + 16(%rip), %rdx\n"
	"mov exec_data + 24(%rip), %rbx; mov exec_data + 32(%rip), %rsp; mov exec_data + 40(%rip), %rbp\n"
	"mov exec_data + 48(%rip), %rsi; mov exec_data + 56(%rip), %rdi\n"
	".irp n, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"mov exec_data + 8 * \\n(%rip), %r\\n\n"
	".endr\n"
	"assist_exec_slot:\n"
	".fill 15, 1, 0x90\n"
	"assist_exec_after:\n"
	"mov %rax, exec_data(%rip); mov %rcx, exec_data + 8(%rip); mov %rdx, exec_data + 16(%rip)\n"
	"mov %rbx, exec_data + 24(%rip); mov %rsp, exec_data + 32(%rip); mov %rbp, exec_data + 40(%rip)\n"
	"mov %rsi, exec_data + 48(%rip); mov %rdi, exec_data + 56(%rip)\n"
	".irp n, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"mov %r\\n, exec_data + 8 * \\n(%rip)\n"
	".endr\n"
	"mov exec_data + 144(%rip), %rsp\n"
	"pushfq; popq exec_data + 128(%rip)\n"
	"mov exec_data + 136(%rip), %eax; mov exec_data + 140(%rip), %edx\n"
	"xsave64 exec_data + 4288(%rip)\n"
	"xrstor64 exec_data + 192(%rip)\n"
	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"ret\n"
	"assist_exec_end:\n"
	".popsection\n");

#define SLOT_SIZE 15u

static size_t slot_offset(void)
{
	return (size_t)(assist_exec_slot - assist_exec_code);
}

/* -EOPNOTSUPP without a message where the host has no XSAVE. */
static int exec_create(struct assist_exec **out, struct err *err)
{
	const size_t size = CODE_SIZE + sizeof(struct exec_data);
	unsigned eax, ebx, ecx = 0, edx;
	struct assist_exec *x;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & CPUID_1_ECX_OSXSAVE))
		return -EOPNOTSUPP;
	x = calloc(1, sizeof(*x));
	if (!x)
		return err_set(err, ENOMEM, "out of memory");
	x->code = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (x->code == MAP_FAILED) {
		free(x);
		return err_sys(err, errno, "no memory to execute instructions in");
	}
	x->data = (struct exec_data *)(x->code + CODE_SIZE);
	memcpy(x->code, assist_exec_code, (size_t)(assist_exec_end - assist_exec_code));
	*out = x;
	return 0;
}

void assist_exec_destroy(struct assist_exec *x)
{
	if (!x)
		return;
	munmap(x->code, CODE_SIZE + sizeof(struct exec_data));
	free(x);
}

/* What this thread executes: a signal handler is given nothing else to find it by. */
static _Thread_local struct assist_exec *executing;

static void on_exception(int sig, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	struct assist_exec *x = executing;

	(void)info;
	if (!x || (uint8_t *)regs[REG_RIP] != x->code + slot_offset()) {
		/* Not ours: let it come again and end the process, as it would have. */
		signal(sig, SIG_DFL);
		return;
	}
	x->vector = (int)regs[REG_TRAPNO];
	regs[REG_RIP] = (greg_t)(x->code + (assist_exec_after - assist_exec_code));
}

/* Run the code. Signals from outside wait, because RSP is the guest's meanwhile. */
static int exec_run(struct assist_exec *x, struct err *err)
{
	static const int raised[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};
	struct sigaction action = {.sa_sigaction = on_exception, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct sigaction saved[ARRAY_SIZE(raised)];
	/* Autodisarm: the kernel then takes this stack whatever RSP is. */
	stack_t stack = {.ss_sp = x->data->stack, .ss_size = STACK_SIZE, .ss_flags = (int)STACK_AUTODISARM};
	stack_t saved_stack;
	sigset_t all, before;
	void (*code)(void);
	int ret = 0;

	memcpy(&code, &x->code, sizeof(code));
	sigfillset(&all);
	for (size_t i = 0; i < ARRAY_SIZE(raised); i++)
		sigdelset(&all, raised[i]);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	if (sigaltstack(&stack, &saved_stack) < 0) {
		ret = err_sys(err, errno, "cannot set up a signal stack");
		goto out;
	}
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(raised); i++)
		sigaction(raised[i], &action, &saved[i]);
	x->vector = -1;
	executing = x;
	code();
	executing = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(raised); i++)
		sigaction(raised[i], &saved[i], NULL);
	sigaltstack(&saved_stack, NULL);
out:
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ret;
}

/* --- Which instructions ------------------------------------------------------------------------- */

static bool is_vector(ZydisRegisterClass class)
{
	return class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM ||
	       class == ZYDIS_REGCLASS_ZMM || class == ZYDIS_REGCLASS_MASK;
}

/* What an instruction works on, by its operands. */
struct exec_form {
	bool x87, mmx, vector, avx, avx512;
	const ZydisDecodedOperand *memory; /* NULL: none */
};

/* Extensions that have nothing but arithmetic and moves. Each instruction's operands are looked at besides. */
static bool is_known_extension(const ZydisDecodedInstruction *insn)
{
	switch (insn->meta.isa_ext) {
	case ZYDIS_ISA_EXT_LONGMODE:
		return insn->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
	case ZYDIS_ISA_EXT_SSE:
		/* FXSAVE and FXRSTOR have other formats in 32-bit code; every KVM emulates them. */
		return insn->meta.isa_set != ZYDIS_ISA_SET_FXSAVE &&
		       insn->meta.isa_set != ZYDIS_ISA_SET_FXSAVE64;
	case ZYDIS_ISA_EXT_ADOX_ADCX:
	case ZYDIS_ISA_EXT_AES:
	case ZYDIS_ISA_EXT_AVX:
	case ZYDIS_ISA_EXT_AVX2:
	case ZYDIS_ISA_EXT_AVX512EVEX:
	case ZYDIS_ISA_EXT_AVX512VEX:
	case ZYDIS_ISA_EXT_AVXAES:
	case ZYDIS_ISA_EXT_AVX_VNNI:
	case ZYDIS_ISA_EXT_BMI1:
	case ZYDIS_ISA_EXT_BMI2:
	case ZYDIS_ISA_EXT_F16C:
	case ZYDIS_ISA_EXT_FMA:
	case ZYDIS_ISA_EXT_GFNI:
	case ZYDIS_ISA_EXT_LZCNT:
	case ZYDIS_ISA_EXT_MMX:
	case ZYDIS_ISA_EXT_MOVBE:
	case ZYDIS_ISA_EXT_PCLMULQDQ:
	case ZYDIS_ISA_EXT_SHA:
	case ZYDIS_ISA_EXT_SSE2:
	case ZYDIS_ISA_EXT_SSE3:
	case ZYDIS_ISA_EXT_SSE4:
	case ZYDIS_ISA_EXT_SSSE3:
	case ZYDIS_ISA_EXT_VAES:
	case ZYDIS_ISA_EXT_VPCLMULQDQ:
	case ZYDIS_ISA_EXT_X87:
		return insn->meta.category != ZYDIS_CATEGORY_PREFETCH;
	default:
		return false;
	}
}

static bool is_x87(ZydisRegister reg)
{
	return ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_X87 || reg == ZYDIS_REGISTER_X87CONTROL ||
	       reg == ZYDIS_REGISTER_X87STATUS || reg == ZYDIS_REGISTER_X87TAG;
}

static bool look_at_register(const ZydisDecodedOperand *op, struct exec_form *form)
{
	ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);

	form->vector |= is_vector(class) || op->reg.value == ZYDIS_REGISTER_MXCSR;
	form->mmx |= class == ZYDIS_REGCLASS_MMX;
	form->x87 |= is_x87(op->reg.value);
	form->avx512 |= class == ZYDIS_REGCLASS_MASK;
	switch (class) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
	case ZYDIS_REGCLASS_MMX:
	case ZYDIS_REGCLASS_FLAGS:
		return true;
	default:
		return is_vector(class) || op->reg.value == ZYDIS_REGISTER_MXCSR || is_x87(op->reg.value);
	}
}

/* Memory must be named in full by ModRM, and all of it must be touched: no scatter, no masked-out lanes. */
static bool look_at_memory(const struct assist *a, const ZydisDecodedOperand *op,
			   struct exec_form *form)
{
	ZydisMnemonic m = a->insn.mnemonic;

	if (form->memory || op->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT ||
	    op->mem.type != ZYDIS_MEMOP_TYPE_MEM || !a->insn.raw.modrm.offset || !op->size ||
	    op->size / 8 > OPERAND_MAX)
		return false;
	if (m == ZYDIS_MNEMONIC_VMASKMOVPS || m == ZYDIS_MNEMONIC_VMASKMOVPD ||
	    m == ZYDIS_MNEMONIC_VPMASKMOVD || m == ZYDIS_MNEMONIC_VPMASKMOVQ ||
	    a->insn.avx.mask.reg > ZYDIS_REGISTER_K0)
		return false;
	form->memory = op;
	return true;
}

static bool find_form(const struct assist *a, struct exec_form *form)
{
	ZydisInstructionEncoding encoding = a->insn.encoding;

	*form = (struct exec_form){
		.x87 = a->insn.meta.isa_ext == ZYDIS_ISA_EXT_X87,
		.mmx = a->insn.meta.isa_ext == ZYDIS_ISA_EXT_MMX,
		.avx512 = encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX,
	};
	if (!is_known_extension(&a->insn))
		return false;
	for (unsigned i = 0; i < a->insn.operand_count; i++) {
		const ZydisDecodedOperand *op = &a->op[i];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY ? !look_at_memory(a, op, form)
		    : op->type == ZYDIS_OPERAND_TYPE_REGISTER
			    ? !look_at_register(op, form)
			    : op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
			return false;
	}
	/* Conversions from memory to a general register name no vector register, but MXCSR rules them. */
	if (a->insn.meta.category == ZYDIS_CATEGORY_CONVERT)
		form->vector = true;
	form->avx = encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
		    a->insn.meta.isa_ext != ZYDIS_ISA_EXT_BMI1 &&
		    a->insn.meta.isa_ext != ZYDIS_ISA_EXT_BMI2;
	return true;
}

/* May the instruction be executed at all (SDM 3A 2.5, and 1, 13.3 and 14.8; SDM 2A, 2.4 ff. for VEX)? */
static int check_control(struct assist *a, const struct exec_form *form)
{
	const uint64_t cr0 = a->sregs.cr0;
	uint64_t xcr0, needed = form->avx512 ? XFEATURE_AVX512 | XFEATURE_AVX : XFEATURE_AVX;
	int ret;

	if (a->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
	    (!(cr0 & X86_CR0_PE) || (a->regs.rflags & X86_EFLAGS_VM)))
		return assist_raise(a, VECTOR_UD, 0);
	if (a->insn.mnemonic == ZYDIS_MNEMONIC_FWAIT)
		return (cr0 & X86_CR0_TS) && (cr0 & X86_CR0_MP) ? assist_raise(a, VECTOR_NM, 0) : 0;
	if (form->x87)
		return cr0 & (X86_CR0_TS | X86_CR0_EM) ? assist_raise(a, VECTOR_NM, 0) : 0;
	if (form->avx || form->avx512) {
		if (!(a->sregs.cr4 & X86_CR4_OSXSAVE))
			return assist_raise(a, VECTOR_UD, 0);
		ret = vcpu_get_xcr0(a->v, &xcr0, a->err);
		if (ret)
			return ret;
		if ((xcr0 & needed) != needed)
			return assist_raise(a, VECTOR_UD, 0);
	} else if (form->vector || form->mmx) {
		if ((cr0 & X86_CR0_EM) || (form->vector && !(a->sregs.cr4 & X86_CR4_OSFXSR)))
			return assist_raise(a, VECTOR_UD, 0);
	} else {
		return 0;
	}
	return cr0 & X86_CR0_TS ? assist_raise(a, VECTOR_NM, 0) : 0;
}

/* --- The copy of the instruction ---------------------------------------------------------------- */

/* Segments and the address size are in the address already. */
static bool is_address_prefix(uint8_t byte)
{
	return byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x64 ||
	       byte == 0x65 || byte == 0x67;
}

/* ModRM, SIB and displacement become [RIP + distance]. Returns the length, 0 if it would be too long. */
static size_t make_relative(const struct assist *a, int64_t scratch_from_slot, uint8_t *out)
{
	const ZydisDecodedInstruction *insn = &a->insn;
	size_t tail = (size_t)insn->raw.modrm.offset + 1 + (insn->raw.sib.offset ? 1 : 0) +
		      insn->raw.disp.size / 8;
	uint8_t copy[2 * ZYDIS_MAX_INSTRUCTION_LENGTH];
	size_t len = 0, at;
	int32_t distance;

	for (size_t i = 0; i < insn->raw.modrm.offset; i++)
		if (i >= insn->raw.prefix_count || !is_address_prefix(a->bytes[i]))
			copy[len++] = a->bytes[i];
	copy[len++] = (uint8_t)(insn->raw.modrm.reg << 3 | 5);
	at = len;
	len += sizeof(distance);
	while (tail < insn->length)
		copy[len++] = a->bytes[tail++];
	if (len > SLOT_SIZE)
		return 0;
	distance = (int32_t)(scratch_from_slot - (int64_t)len);
	memcpy(copy + at, &distance, sizeof(distance));
	memcpy(out, copy, len);
	return len;
}

/* The copy runs as 64-bit code: it must mean there what it meant where it came from. */
static bool means_the_same(const struct assist *a, const uint8_t *copy, size_t len)
{
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction insn;
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, copy, len, &insn, op)) ||
	    insn.length != len || insn.mnemonic != a->insn.mnemonic ||
	    insn.operand_count_visible != a->insn.operand_count_visible)
		return false;
	for (unsigned i = 0; i < insn.operand_count_visible; i++) {
		const ZydisDecodedOperand *old = &a->op[i];

		if (op[i].type != old->type || op[i].size != old->size)
			return false;
		if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && op[i].reg.value != old->reg.value)
			return false;
	}
	return true;
}

static int put_instruction(struct assist *a, struct assist_exec *x, const struct exec_form *form,
			   const uint8_t *scratch)
{
	uint8_t copy[SLOT_SIZE];
	uint8_t *slot = x->code + slot_offset();
	size_t len = a->insn.length;

	if (form->memory)
		len = make_relative(a, scratch - slot, copy);
	else
		memcpy(copy, a->bytes, len);
	if (!len || !means_the_same(a, copy, len))
		return -EOPNOTSUPP;
	/* Never writable and executable at a time, which hardened hosts refuse. */
	if (mprotect(x->code, CODE_SIZE, PROT_READ | PROT_WRITE) < 0)
		return err_sys(a->err, errno, "cannot prepare an instruction for execution");
	memset(slot, 0x90, SLOT_SIZE);
	memcpy(slot, copy, len);
	if (mprotect(x->code, CODE_SIZE, PROT_READ | PROT_EXEC) < 0)
		return err_sys(a->err, errno, "cannot make a page executable, which is needed for `%s`",
			       ZydisMnemonicGetString(a->insn.mnemonic));
	return 0;
}

/* --- Execution ---------------------------------------------------------------------------------- */

/* Where the CPU has noted our copy as the last x87 instruction, the guest's is meant (SDM 1, 8.1.8). */
static void fix_x87_pointers(const struct assist *a, const struct assist_exec *x, gva_t operand)
{
	uint64_t fip;

	memcpy(&fip, x->data->guest + XSAVE_FIP, sizeof(fip));
	if (fip != (uintptr_t)x->code + slot_offset())
		return;
	memcpy(x->data->guest + XSAVE_FIP, &a->regs.rip, sizeof(fip));
	memcpy(x->data->guest + XSAVE_FDP, &operand.v, sizeof(operand.v));
}

/* The operand's copy; an access that faults leaves its event in the assist and is returned. */
static int load_operand(struct assist *a, const ZydisDecodedOperand *op, uint8_t *scratch)
{
	size_t size = op->size / 8;
	int ret = 0;

	memset(scratch, 0, size);
	/* What cannot be written faults as a write, whether read before or not. */
	if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		ret = assist_check_store(a, op, size, 1);
	/* A store is not made if it raises an x87 exception for later: keep what is there. */
	if (!ret)
		ret = assist_load(a, op, scratch, size, 1);
	return ret;
}

static int raise_vector(struct assist *a, int vector)
{
	switch (vector) {
	case VECTOR_XM:
		if (!(a->sregs.cr4 & X86_CR4_OSXMMEXCPT))
			vector = VECTOR_UD;
		break;
	case VECTOR_MF:
		/* The CPU would wait for an interrupt by FERR#, which goes nowhere on this machine. */
		if (!(a->sregs.cr0 & X86_CR0_NE))
			return -EOPNOTSUPP;
		break;
	case VECTOR_UD:
	case VECTOR_GP:
		break;
	default:
		return err_set(a->err, EIO, "the host's CPU raised exception %d for the instruction at 0x%llx",
			       vector, a->regs.rip);
	}
	return assist_raise(a, (uint8_t)vector, 0);
}

/* Load, execute, and take back what the CPU leaves, also where it raises an exception. commit: false to learn only
 * what it raises. */
static int execute(struct assist *a, struct assist_exec *x, const struct exec_form *form,
		   gva_t operand, bool commit)
{
	struct exec_data *data = x->data;
	bool fpu = form->x87 || form->mmx || form->vector || form->avx;
	int ret;

	data->components = 0;
	if (fpu) {
		ret = assist_get_fpu(a);
		if (ret)
			return ret;
		memcpy(data->guest, a->fpu, sizeof(a->fpu));
		data->components = XFEATURE_X87 | XFEATURE_SSE | a->v->xfeatures;
	}
	for (unsigned i = 0; i < 16; i++)
		data->gpr[i] = *assist_gpr(a, (ZydisRegister)(ZYDIS_REGISTER_RAX + i));
	data->rflags = EFLAGS_FIXED | (a->regs.rflags & EFLAGS_ARITHMETIC);
	ret = exec_run(x, a->err);
	if (ret || !commit)
		return ret;
	if (form->x87)
		fix_x87_pointers(a, x, operand);
	if (fpu && memcmp(a->fpu, data->guest, sizeof(a->fpu)) != 0) {
		memcpy(a->fpu, data->guest, sizeof(a->fpu));
		ret = assist_set_fpu(a);
	}
	if (ret || x->vector >= 0)
		return ret;
	for (unsigned i = 0; i < 16; i++)
		*assist_gpr(a, (ZydisRegister)(ZYDIS_REGISTER_RAX + i)) = data->gpr[i];
	a->regs.rflags = (a->regs.rflags & ~(uint64_t)EFLAGS_ARITHMETIC) |
			 (data->rflags & EFLAGS_ARITHMETIC);
	return 0;
}

static enum assist_kind kind_of(const struct assist *a, const struct exec_form *form)
{
	if (a->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B)
		return ASSIST_CMPXCHG16B;
	if (form->x87 || form->mmx)
		return ASSIST_X87;
	if (form->avx || form->avx512)
		return ASSIST_AVX;
	return form->vector ? ASSIST_SSE : ASSIST_INTEGER;
}

int assist_exec(struct assist *a, enum assist_kind *kind)
{
	struct exec_form form;
	struct assist_exec *x;
	gva_t operand = {0};
	uint8_t *scratch;
	int fault = 0, ret;

	if (!find_form(a, &form))
		return -EOPNOTSUPP;
	*kind = kind_of(a, &form);
	ret = check_control(a, &form);
	if (!ret && form.memory)
		ret = assist_address(a, form.memory, form.memory->size / 8, 1, &operand);
	if (!ret && !a->v->exec)
		ret = exec_create(&a->v->exec, a->err);
	if (ret)
		return ret;
	x = a->v->exec;
	scratch = x->data->scratch + operand.v % LINE;
	ret = put_instruction(a, x, &form, scratch);
	if (ret)
		return ret;
	if (form.memory)
		fault = load_operand(a, form.memory, scratch);
	if (fault < 0)
		return fault;
	ret = execute(a, x, &form, operand, !fault);
	if (ret)
		return ret;
	/* Alignment is checked before the page tables, and before both what is pending and whether the CPU has the
	 * instruction. */
	if (fault && x->vector != VECTOR_GP && x->vector != VECTOR_MF && x->vector != VECTOR_UD)
		return fault;
	if (x->vector >= 0)
		return raise_vector(a, x->vector);
	if (form.memory && (form.memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return assist_store(a, form.memory, scratch, form.memory->size / 8, 1);
	return 0;
}
