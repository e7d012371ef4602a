// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Bit numbers are from the Intel SDM, volume 2A, CPUID (table 3-8 ff.), and for 0x8000_xxxx from
 * the AMD APM, volume 3, appendix E. The table shows little on purpose: what a kernel does not see
 * it does not execute, and a KVM that emulates kernel code lacks SMAP, INVPCID and more.
 */
#include "vmm/cpuid.h"

#include <asm/processor-flags.h>
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define BIT(n) (1u << (n))
#define CPUID_1_ECX_OSXSAVE 27

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* One bit of the guest's CPU. */
struct cpuid_feature {
	uint32_t leaf;
	uint8_t reg; /* enum cpuid_register */
	uint8_t bit;
	bool answered; /* rewritten, or its meaning is ours: the host need not have it */
	const char *name;
	uint64_t with; /* shown only if xfeatures has these bits */
};

static const struct cpuid_feature features[] = {
	{1, CPUID_ECX, 0, false, "SSE3", 0},
	{1, CPUID_ECX, 13, false, "CMPXCHG16B", 0},
	{1, CPUID_ECX, 30, true, "RDRAND", 0},
	{1, CPUID_EDX, 0, false, "FPU", 0},
	{1, CPUID_EDX, 2, false, "DE", 0},
	{1, CPUID_EDX, 3, false, "PSE", 0},
	{1, CPUID_EDX, 4, true, "TSC", 0},
	{1, CPUID_EDX, 5, false, "MSR", 0},
	{1, CPUID_EDX, 6, false, "PAE", 0},
	{1, CPUID_EDX, 8, false, "CMPXCHG8B", 0},
	{1, CPUID_EDX, 13, false, "PGE", 0},
	{1, CPUID_EDX, 15, false, "CMOV", 0},
	{1, CPUID_EDX, 16, false, "PAT", 0},
	{1, CPUID_EDX, 17, false, "PSE36", 0},
	{1, CPUID_EDX, 19, false, "CLFLUSH", 0},
	{1, CPUID_EDX, 23, false, "MMX", 0},
	{1, CPUID_EDX, 24, false, "FXSR", 0},
	{1, CPUID_EDX, 25, false, "SSE", 0},
	{1, CPUID_EDX, 26, false, "SSE2", 0},
	{7, CPUID_EBX, 9, false, "ERMS", 0},
	{7, CPUID_EBX, 18, true, "RDSEED", 0},
	{0x80000001, CPUID_ECX, 0, false, "LAHF in 64-bit mode", 0},
	{0x80000001, CPUID_EDX, 11, false, "SYSCALL", 0},
	{0x80000001, CPUID_EDX, 20, false, "NX", 0},
	{0x80000001, CPUID_EDX, 27, true, "RDTSCP", 0},
	{0x80000001, CPUID_EDX, 29, false, "long mode", 0},
	{0x80000007, CPUID_EDX, 8, true, "invariant TSC", 0},
	{1, CPUID_ECX, 26, false, "XSAVE", XFEATURE_AVX},
	{1, CPUID_ECX, 28, false, "AVX", XFEATURE_AVX},
	{7, CPUID_EBX, 5, false, "AVX2", XFEATURE_AVX},
	{7, CPUID_EBX, 16, false, "AVX-512", XFEATURE_AVX512},
};

/*
 * The last leaf is zero: some CPUs, and KVM for vendors it does not know as AMD-like, answer a leaf
 * out of range with the last basic leaf.
 */
#define BASIC_MAX 0xeu
#define EXTENDED_FIRST 0x80000000u
#define EXTENDED_MAX 0x80000008u

/* Family 6, model 15, stepping 1: what a kernel without a table for the vendor takes in its stride.
 */
#define SIGNATURE 0x6f1u
/* CLFLUSH line in 8-byte units in EBX 15:8, one logical CPU in 23:16, APIC id 0 in 31:24. */
#define LEAF1_EBX (8u << 8 | 1u << 16)
/* 40 physical and 48 virtual address bits. */
#define ADDRESS_BITS (40u | 48u << 8)

static const char vendor[12] = "HindsightVMM";
static const char brand[48] = "Hindsight virtual CPU";

/* Leaf 0xd: XCR0's components and where they lie. Subleaf 1 is zero: no XSAVEOPT, XSAVEC or XSAVES. */
#define LEAF_XSAVE 0xdu
/* AVX state lies behind legacy region and header on every CPU; all else is asked of the host's. */
#define AVX_OFFSET 576u
#define AVX_SIZE 256u

static const uint64_t with_avx = XFEATURE_X87 | XFEATURE_SSE | XFEATURE_AVX;

bool cpuid_is_xfeatures(uint64_t xfeatures)
{
	return xfeatures == 0 || xfeatures == with_avx || xfeatures == (with_avx | XFEATURE_AVX512);
}

/* As the instruction answers here; zeros out of range. */
static void cpuid_host(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	memset(out, 0, 4 * sizeof(out[0]));
	if ((uint32_t)__get_cpuid_max(leaf & EXTENDED_FIRST, NULL) < leaf)
		return;
	__cpuid_count(leaf, subleaf, out[CPUID_EAX], out[CPUID_EBX], out[CPUID_ECX],
		      out[CPUID_EDX]);
}

bool cpuid_component(unsigned n, uint32_t *offset, uint32_t *size)
{
	uint32_t out[4] = {AVX_SIZE, AVX_OFFSET};

	if (n < 2 || n >= XSAVE_COMPONENTS || !((with_avx | XFEATURE_AVX512) >> n & 1))
		return false;
	if (n > 2)
		cpuid_host(LEAF_XSAVE, n, out);
	*size = out[CPUID_EAX];
	*offset = out[CPUID_EBX];
	return *size && *offset + *size <= sizeof(struct kvm_xsave);
}

void cpuid_layout(uint64_t xfeatures, struct xsave_layout *layout)
{
	*layout = (struct xsave_layout){0};
	for (unsigned n = 2; n < XSAVE_COMPONENTS; n++)
		if (((xfeatures | XFEATURE_AVX) >> n & 1) &&
		    !cpuid_component(n, &layout->offset[n], &layout->size[n]))
			layout->size[n] = 0;
}

/* Size of an area with these components. */
static uint32_t area_size(uint64_t components)
{
	uint32_t size = AVX_OFFSET, at, n;

	for (unsigned i = 2; i < XSAVE_COMPONENTS; i++)
		if ((components >> i & 1) && cpuid_component(i, &at, &n) && at + n > size)
			size = at + n;
	return size;
}

static void answer_xsave(uint64_t xfeatures, uint32_t subleaf, uint64_t xcr0, uint32_t out[4])
{
	if (!xfeatures)
		return;
	if (subleaf == 0) {
		out[CPUID_EAX] = (uint32_t)xfeatures;
		out[CPUID_EBX] = area_size(xcr0);
		out[CPUID_ECX] = area_size(xfeatures);
	} else if (subleaf < XSAVE_COMPONENTS && (xfeatures >> subleaf & 1)) {
		if (!cpuid_component(subleaf, &out[CPUID_EBX], &out[CPUID_EAX]))
			out[CPUID_EAX] = out[CPUID_EBX] = 0;
	}
}

void cpuid_answer(uint64_t xfeatures, uint32_t leaf, uint32_t subleaf, uint64_t cr4, uint64_t xcr0,
		  uint32_t out[4])
{
	memset(out, 0, 4 * sizeof(out[0]));
	switch (leaf) {
	case 0:
		out[CPUID_EAX] = BASIC_MAX;
		memcpy(&out[CPUID_EBX], vendor, 4);
		memcpy(&out[CPUID_EDX], vendor + 4, 4);
		memcpy(&out[CPUID_ECX], vendor + 8, 4);
		break;
	case 1:
		out[CPUID_EAX] = SIGNATURE;
		out[CPUID_EBX] = LEAF1_EBX;
		if (cr4 & X86_CR4_OSXSAVE)
			out[CPUID_ECX] |= BIT(CPUID_1_ECX_OSXSAVE);
		break;
	case 7:
		if (subleaf)
			return;
		break;
	case LEAF_XSAVE:
		answer_xsave(xfeatures, subleaf, xcr0, out);
		break;
	case EXTENDED_FIRST:
		out[CPUID_EAX] = EXTENDED_MAX;
		break;
	case 0x80000002:
	case 0x80000003:
	case 0x80000004:
		memcpy(out, brand + 16 * (leaf - 0x80000002), 16);
		break;
	case EXTENDED_MAX:
		out[CPUID_EAX] = ADDRESS_BITS;
		break;
	}
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].leaf == leaf && (xfeatures & features[i].with) == features[i].with)
			out[features[i].reg] |= BIT(features[i].bit);
}

static void put_entry(struct kvm_cpuid2 *table, uint64_t xfeatures, uint32_t leaf, uint32_t subleaf,
		      bool indexed)
{
	struct kvm_cpuid_entry2 *e = &table->entries[table->nent++];
	uint32_t out[4];

	cpuid_answer(xfeatures, leaf, subleaf, 0, XFEATURE_X87, out);
	e->function = leaf;
	e->index = subleaf;
	e->flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
	e->eax = out[CPUID_EAX];
	e->ebx = out[CPUID_EBX];
	e->ecx = out[CPUID_ECX];
	e->edx = out[CPUID_EDX];
}

int cpuid_set(int vcpu_fd, uint64_t xfeatures, struct err *err)
{
	/* Leaves whose answer depends on ECX. */
	static const uint32_t indexed[] = {4, 7, 0xb, LEAF_XSAVE};
	const uint32_t basic = BASIC_MAX + 1;
	const uint32_t count = basic + (EXTENDED_MAX - EXTENDED_FIRST + 1);
	struct kvm_cpuid2 *table =
		calloc(1, sizeof(*table) + (count + XSAVE_COMPONENTS) * sizeof(table->entries[0]));
	int ret = 0;

	if (!table)
		return err_set(err, ENOMEM, "no memory for the guest's CPUID table");
	for (uint32_t i = 0; i < count; i++) {
		uint32_t leaf = i < basic ? i : EXTENDED_FIRST + (i - basic);
		bool by_index = false;

		for (size_t k = 0; k < ARRAY_SIZE(indexed); k++)
			by_index |= leaf == indexed[k];
		put_entry(table, xfeatures, leaf, 0, by_index);
	}
	for (uint32_t n = 1; n < XSAVE_COMPONENTS; n++)
		put_entry(table, xfeatures, LEAF_XSAVE, n, true);
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, table) < 0)
		ret = err_sys(err, errno, "KVM refuses the guest's CPUID table");
	free(table);
	return ret;
}

static bool cpuid_kvm_has(const struct kvm_cpuid2 *table, const struct cpuid_feature *f)
{
	for (uint32_t i = 0; i < table->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &table->entries[i];
		const uint32_t word[4] = {e->eax, e->ebx, e->ecx, e->edx};

		if (e->function == f->leaf && e->index == 0)
			return word[f->reg] & BIT(f->bit);
	}
	return false;
}

static bool cpuid_host_has(const struct cpuid_feature *f)
{
	uint32_t out[4];

	cpuid_host(f->leaf, 0, out);
	return out[f->reg] & BIT(f->bit);
}

static uint64_t host_xcr0(void)
{
	uint32_t out[4], low, high;

	cpuid_host(1, 0, out);
	if (!(out[CPUID_ECX] & BIT(CPUID_1_ECX_OSXSAVE)))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

uint64_t cpuid_choose_xfeatures(const struct host_caps *caps)
{
	uint64_t xcr0 = host_xcr0(), chosen = with_avx | XFEATURE_AVX512;

	if (caps->cpuid_honoured[1] || (xcr0 & with_avx) != with_avx)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].with && !cpuid_host_has(&features[i]))
			chosen &= ~features[i].with;
	if ((xcr0 & XFEATURE_AVX512) != XFEATURE_AVX512)
		chosen &= ~XFEATURE_AVX512;
	return chosen & XFEATURE_AVX ? chosen | with_avx : 0;
}

/* Can KVM give a guest this much vector state, and carry it over exits? */
static bool kvm_has_xfeatures(const struct kvm_cpuid2 *table, uint64_t xfeatures)
{
	for (uint32_t i = 0; i < table->nent; i++)
		if (table->entries[i].function == LEAF_XSAVE && table->entries[i].index == 0)
			return (table->entries[i].eax & xfeatures) == xfeatures;
	return xfeatures == 0;
}

int cpuid_check_host(int kvm_fd, uint64_t xfeatures, struct err *err)
{
	/* More than KVM has ever reported (KVM_MAX_CPUID_ENTRIES in
	 * arch/x86/include/asm/kvm_host.h). */
	const uint32_t count = 256;
	struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + count * sizeof(table->entries[0]));
	int ret = 0;

	if (!table)
		return err_set(err, ENOMEM, "no memory for the host's CPUID table");
	table->nent = count;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, table) < 0) {
		ret = err_sys(err, errno, "KVM does not tell which CPU features it supports");
		goto out;
	}
	/*
	 * Missing means: neither KVM offers it nor has the CPU it. Either is enough, because a KVM
	 * that ignores KVM_SET_CPUID2 also understates what it lets guests use, and one may emulate
	 * a feature that the CPU lacks.
	 */
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct cpuid_feature *f = &features[i];

		if (f->answered || (xfeatures & f->with) != f->with || cpuid_kvm_has(table, f) || cpuid_host_has(f))
			continue;
		ret = err_set(err, ENOTSUP,
			      "this host's CPU lacks %s (CPUID leaf 0x%x), which %s; use another host",
			      f->name, f->leaf,
			      f->with ? "the guest was shown where it was recorded"
				      : "every guest is shown");
		goto out;
	}
	if (!kvm_has_xfeatures(table, xfeatures))
		ret = err_set(err, ENOTSUP,
			      "this host's KVM lacks vector registers (XCR0 0x%llx) that the guest was "
			      "shown where it was recorded; use another host",
			      (unsigned long long)xfeatures);
out:
	free(table);
	return ret;
}

uint32_t cpuid_host_number(void)
{
	uint32_t max[4], out[4];

	/* SDM volume 2A, CPUID: leaf 0xB has it with 32 bits, leaf 1 with 8. */
	cpuid_host(0, 0, max);
	if (max[CPUID_EAX] >= 0xb) {
		cpuid_host(0xb, 0, out);
		if (out[CPUID_EBX])
			return out[CPUID_EDX];
	}
	cpuid_host(1, 0, out);
	return out[CPUID_EBX] >> 24;
}

void cpuid_host_signature(char *out, size_t size)
{
	uint32_t id[4], leaf1[4], leaf7[4], ext[4];
	char name[13] = "";

	cpuid_host(0, 0, id);
	memcpy(name, &id[CPUID_EBX], 4);
	memcpy(name + 4, &id[CPUID_EDX], 4);
	memcpy(name + 8, &id[CPUID_ECX], 4);
	cpuid_host(1, 0, leaf1);
	cpuid_host(7, 0, leaf7);
	cpuid_host(0x80000001, 0, ext);

	/* SDM volume 2A, CPUID, figure 3-6: how extended family and model join in. */
	uint32_t eax = leaf1[CPUID_EAX];
	uint32_t family = eax >> 8 & 0xf;
	uint32_t model = eax >> 4 & 0xf;

	if (family == 6 || family == 15)
		model |= (eax >> 16 & 0xf) << 4;
	if (family == 15)
		family += eax >> 20 & 0xff;
	/* OSXSAVE tells what the host's kernel does, not what its CPU is. */
	snprintf(out, size, "%s-%u-%u-%u:%08x-%08x-%08x-%08x-%08x-%08x-%08x", name, family, model,
		 eax & 0xf, leaf1[CPUID_ECX] & ~BIT(CPUID_1_ECX_OSXSAVE), leaf1[CPUID_EDX], leaf7[CPUID_EBX],
		 leaf7[CPUID_ECX], leaf7[CPUID_EDX], ext[CPUID_ECX], ext[CPUID_EDX]);
}
