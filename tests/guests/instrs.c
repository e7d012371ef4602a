// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * The instructions that hindsight rewrites: RDTSC, RDTSCP, CPUID, RDRAND and RDSEED, the latter two
 * with every register in every width. Checks what the manual promises: results, flags, and that
 * nothing else changes.
 */
#include "test.h"

#define TICK_HZ 1000
#define MSR_TSC_AUX 0xc0000103
#define TSC_AUX 0x1234567

#define CF 0x001UL
/* CF, PF, AF, ZF, SF, OF */
#define STATUS_FLAGS 0x8d5UL
#define RSP 4

/* x86 numbering: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15. */
struct registers {
	uint64_t r[16];
};

struct registers regs_before, regs_after;
uint64_t flags_before, flags_after;
void (*run_target)(void);
void run_one(void);
uint64_t saved_rsp;

struct stub {
	void (*code)(void);
	uint8_t reg, width, seed, reserved[5];
};

extern const struct stub stubs[], stubs_end[];
extern char stub_rdtsc[], stub_rdtscp[], stub_cpuid[];

/*
 * run_one: load all registers (RSP too, so interrupts must be off) and the flags, jump to the stub,
 * which comes back to run_done by a jump: there is no stack meanwhile.
 */
__asm__(".macro each_register op\n"
	"	\\op rax, 0\n"
	"	\\op rcx, 1\n"
	"	\\op rdx, 2\n"
	"	\\op rbx, 3\n"
	"	\\op rsp, 4\n"
	"	\\op rbp, 5\n"
	"	\\op rsi, 6\n"
	"	\\op rdi, 7\n"
	".irp n, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	\\op r\\n, \\n\n"
	".endr\n"
	".endm\n"
	".macro load_register name, n\n"
	"	movq regs_before + 8 * \\n(%rip), %\\name\n"
	".endm\n"
	".macro store_register name, n\n"
	"	movq %\\name, regs_after + 8 * \\n(%rip)\n"
	".endm\n"
	".text\n"
	".globl run_one\n"
	".type run_one, @function\n"
	"run_one:\n"
	"	pushq %rbx\n"
	"	pushq %rbp\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, saved_rsp(%rip)\n"
	"	pushq flags_before(%rip)\n"
	"	popfq\n"
	"	each_register load_register\n"
	"	jmp *run_target(%rip)\n"
	".size run_one, . - run_one\n"
	".type run_done, @function\n"
	"run_done:\n"
	"	each_register store_register\n"
	"	movq saved_rsp(%rip), %rsp\n"
	"	pushfq\n"
	"	popq flags_after(%rip)\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbp\n"
	"	popq %rbx\n"
	"	ret\n"
	".size run_done, . - run_done\n");

/* One stub for each instruction, register and width; \\bytes in front for redundant prefixes. */
__asm__(".macro stub insn, name, n, width, seed, bytes:vararg\n"
	"	.type stub_\\@, @function\n"
	"stub_\\@:\n"
	".ifnb \\bytes\n"
	"	.byte \\bytes\n"
	".else\n"
	"	\\insn %\\name\n"
	".endif\n"
	"	jmp run_done\n"
	".size stub_\\@, . - stub_\\@\n"
	".pushsection .rodata.stubs, \"a\"\n"
	"	.quad stub_\\@\n"
	"	.byte \\n, \\width, \\seed, 0, 0, 0, 0, 0\n"
	".popsection\n"
	".endm\n"
	".macro stub_pair name, n, width\n"
	"	stub rdrand, \\name, \\n, \\width, 0\n"
	"	stub rdseed, \\name, \\n, \\width, 1\n"
	".endm\n"
	".pushsection .rodata.stubs, \"a\"\n"
	".balign 8\n"
	".globl stubs, stubs_end\n"
	"stubs:\n"
	".popsection\n"
	".text\n"
	"	stub_pair ax, 0, 2\n"
	"	stub_pair cx, 1, 2\n"
	"	stub_pair dx, 2, 2\n"
	"	stub_pair bx, 3, 2\n"
	"	stub_pair sp, 4, 2\n"
	"	stub_pair bp, 5, 2\n"
	"	stub_pair si, 6, 2\n"
	"	stub_pair di, 7, 2\n"
	"	stub_pair eax, 0, 4\n"
	"	stub_pair ecx, 1, 4\n"
	"	stub_pair edx, 2, 4\n"
	"	stub_pair ebx, 3, 4\n"
	"	stub_pair esp, 4, 4\n"
	"	stub_pair ebp, 5, 4\n"
	"	stub_pair esi, 6, 4\n"
	"	stub_pair edi, 7, 4\n"
	"	stub_pair rax, 0, 8\n"
	"	stub_pair rcx, 1, 8\n"
	"	stub_pair rdx, 2, 8\n"
	"	stub_pair rbx, 3, 8\n"
	"	stub_pair rsp, 4, 8\n"
	"	stub_pair rbp, 5, 8\n"
	"	stub_pair rsi, 6, 8\n"
	"	stub_pair rdi, 7, 8\n"
	".irp n, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	stub_pair r\\n\\()w, \\n, 2\n"
	"	stub_pair r\\n\\()d, \\n, 4\n"
	"	stub_pair r\\n, \\n, 8\n"
	".endr\n"
	/* REX.W beats an operand-size prefix; an empty REX; a segment override. */
	"	stub rdrand, none, 6, 8, 0, 0x66, 0x48, 0x0f, 0xc7, 0xf6\n"
	"	stub rdseed, none, 9, 8, 1, 0x66, 0x49, 0x0f, 0xc7, 0xf9\n"
	"	stub rdrand, none, 3, 4, 0, 0x40, 0x0f, 0xc7, 0xf3\n"
	"	stub rdseed, none, 2, 4, 1, 0x3e, 0x0f, 0xc7, 0xfa\n"
	".pushsection .rodata.stubs, \"a\"\n"
	"stubs_end:\n"
	".popsection\n"
	".globl stub_rdtsc, stub_rdtscp, stub_cpuid\n"
	".type stub_rdtsc, @function\n"
	"stub_rdtsc:\n"
	"	rdtsc\n"
	"	jmp run_done\n"
	".size stub_rdtsc, . - stub_rdtsc\n"
	".type stub_rdtscp, @function\n"
	"stub_rdtscp:\n"
	"	rdtscp\n"
	"	jmp run_done\n"
	".size stub_rdtscp, . - stub_rdtscp\n"
	".type stub_cpuid, @function\n"
	"stub_cpuid:\n"
	"	cpuid\n"
	"	jmp run_done\n"
	".size stub_cpuid, . - stub_cpuid\n");

static uint64_t sum, errors, zeros;

static void complain(const char *what, unsigned n)
{
	if (errors++ < 10)
		kprintf("instrs: %s, register %u: before %016lx, after %016lx, flags %lx, %lx\n",
			what, n, regs_before.r[n], regs_after.r[n], flags_before, flags_after);
}

static void expect(bool holds, const char *what, unsigned n)
{
	if (!holds)
		complain(what, n);
}

/* Run a stub with interrupts off and the registers of regs_before. */
static void run(void *code, uint64_t status_flags)
{
	uint64_t flags = irq_save();

	flags_before = 0x2 | status_flags;
	run_target = code;
	run_one();
	irq_restore(flags);
}

static void fill(uint64_t seed)
{
	for (unsigned i = 0; i < 16; i++)
		regs_before.r[i] = seed = lcg(seed) | 0x8000000080000000;
	/* Landmarks may lie in here: keep the stack pointer one. */
	regs_before.r[RSP] = (uint64_t)&regs_before;
}

static void expect_unchanged(uint32_t except, const char *what)
{
	for (unsigned i = 0; i < 16; i++)
		expect((except >> i & 1) || regs_after.r[i] == regs_before.r[i], what, i);
}

static void check_random(const struct stub *stub, uint64_t seed)
{
	unsigned n = stub->reg;
	uint64_t value, mask = stub->width == 2 ? 0xffff : stub->width == 4 ? 0xffffffff : ~0UL;
	unsigned tries = 0;

	fill(seed);
	do
		run((void *)stub->code, seed & 1 ? STATUS_FLAGS : 0);
	while (!(flags_after & CF) && ++tries < 100);
	expect(flags_after & CF, "no random number", n);
	expect((flags_after & STATUS_FLAGS) == CF, "status flags left set", n);
	value = regs_after.r[n];
	if (stub->width == 2)
		expect((value ^ regs_before.r[n]) >> 16 == 0, "upper part changed", n);
	else
		expect((value & ~mask) == 0, "upper half not cleared", n);
	zeros += (value & mask) == 0;
	sum = fold(sum, value & mask);
	expect_unchanged(1u << n, stub->seed ? "RDSEED changes another register"
					     : "RDRAND changes another register");
}

static uint64_t check_tsc(bool with_aux, uint64_t seed)
{
	uint32_t except = 1 << 0 | 1 << 2 | (with_aux ? 1 << 1 : 0);

	fill(seed);
	run(with_aux ? stub_rdtscp : stub_rdtsc, seed & 1 ? STATUS_FLAGS : 0);
	expect_unchanged(except, "RDTSC changes another register");
	expect(regs_after.r[0] >> 32 == 0, "upper half not cleared", 0);
	expect(regs_after.r[2] >> 32 == 0, "upper half not cleared", 2);
	if (with_aux)
		expect(regs_after.r[1] == TSC_AUX, "TSC_AUX", 1);
	expect((flags_after ^ flags_before) % 0x1000 == 0, "RDTSC changes flags", 0);
	return regs_after.r[2] << 32 | regs_after.r[0];
}

static void check_cpuid(uint32_t leaf, uint32_t subleaf)
{
	uint64_t first = 0, again = 0;

	for (unsigned k = 0; k < 2; k++) {
		fill(leaf * 3 + subleaf);
		/* Only the lower halves count. */
		regs_before.r[0] = leaf | (uint64_t)k << 63;
		regs_before.r[1] = subleaf | (uint64_t)k << 62;
		run(stub_cpuid, k ? STATUS_FLAGS : 0);
		expect_unchanged(0xf, "CPUID changes another register");
		for (unsigned i = 0; i < 4; i++) {
			expect(regs_after.r[i] >> 32 == 0, "upper half not cleared", i);
			again = fold(again, regs_after.r[i]);
		}
		expect((flags_after ^ flags_before) % 0x1000 == 0, "CPUID changes flags", 0);
		if (k == 0)
			first = again;
		again = k == 0 ? 0 : again;
	}
	expect(first == again, "CPUID answers differ", 0);
	sum = fold(sum, first);
}

static void check_all_cpuid(void)
{
	for (uint32_t leaf = 0; leaf <= 0x10; leaf++)
		check_cpuid(leaf, 0);
	for (uint32_t leaf = 0x80000000; leaf <= 0x80000009; leaf++)
		check_cpuid(leaf, 0);
	for (uint32_t sub = 1; sub < 4; sub++) {
		check_cpuid(4, sub);
		check_cpuid(7, sub);
		check_cpuid(0xb, sub);
		check_cpuid(0xd, sub);
	}
	check_cpuid(0x40000000, 0);
	check_cpuid(0xffffffff, 0);
}

/* RDTSC as compilers emit it, in a loop that is interrupted. */
static void check_time(uint64_t n)
{
	uint64_t last = rdtsc();

	for (uint64_t i = 0; i < n; i++) {
		uint64_t now = i % 16 == 15 ? check_tsc(i & 16, i) : rdtsc();

		expect(now >= last, "time runs backwards", 0);
		sum = fold(sum, now);
		last = now;
	}
}

void guest_main(void)
{
	uint64_t n = cmdline_get_u64("n", 1);

	wrmsr(MSR_TSC_AUX, TSC_AUX);
	expect(rdmsr(MSR_TSC_AUX) == TSC_AUX, "TSC_AUX as an MSR", 0);
	timer_start(TICK_HZ);
	irq_enable();
	for (uint64_t i = 0; i < n; i++) {
		for (const struct stub *s = stubs; s < stubs_end; s++)
			check_random(s, i + (uint64_t)(s - stubs));
		check_all_cpuid();
		check_time(400);
	}
	irq_disable();
	/* 16-bit numbers may be 0 now and then; all of them surely not. */
	expect(zeros < 4, "random numbers are zero", 0);
	kprintf("instrs: %s, %lu stubs, %lu ticks, sum %016lx\n", errors ? "WRONG" : "ok",
		(uint64_t)(stubs_end - stubs), timer_ticks, sum);
	guest_exit(errors != 0);
}
