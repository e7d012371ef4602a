// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A Linux module that executes what hindsight must rewrite in modules, from its parameter's handler on,
 * which runs before the module's init function. It prints what it got; tests/small_linux.sh looks whether that
 * is what only hindsight answers.
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/linkage.h>
#include <linux/module.h>

static u64 read_tsc(void)
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

static void vendor(char name[13])
{
	u32 a = 0, *word = (u32 *)name;

	asm volatile("cpuid" : "+a"(a), "=b"(word[0]), "=d"(word[1]), "=c"(word[2]));
	name[12] = 0;
}

static u64 random(void)
{
	u64 value;

	asm volatile("rdrand %0" : "=r"(value) : : "cc");
	return value;
}

/* "rdtsc" with its two bytes in two pages. */
asm(".pushsection .text\n"
    ".balign 4096\n"
    ".skip 4095, 0x90\n"
    ".type crossing, @function\n"
    "crossing: rdtsc\n"
    "shl $32, %rdx\n"
    "or %rdx, %rax\n"
    ASM_RET
    ".size crossing, . - crossing\n"
    ".popsection\n");
u64 crossing(void);

static int set_early(const char *text, const struct kernel_param *param)
{
	char name[13];

	vendor(name);
	pr_info("clocks: parameter: vendor %s\n", name);
	return 0;
}

static const struct kernel_param_ops early_ops = {.set = set_early};
module_param_cb(early, &early_ops, NULL, 0);

static int __init clocks_init(void)
{
	u64 before = read_tsc(), after = read_tsc(), across = crossing();

	pr_info("clocks: init: tsc step %llu, then %llu, random %016llx\n", after - before,
		across - after, random());
	return 0;
}

static void __exit clocks_exit(void)
{
	pr_info("clocks: exit: random %016llx\n", random());
}

module_init(clocks_init);
module_exit(clocks_exit);
MODULE_DESCRIPTION("instructions whose results are not the guest's own");
MODULE_LICENSE("GPL");
