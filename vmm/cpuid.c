// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Bit numbers are from the Intel SDM, volume 2A, CPUID (table 3-8 ff.), and for 0x8000_xxxx from
 * the AMD APM, volume 3, appendix E. The table shows little on purpose: what a kernel does not see
 * it does not execute, and a KVM that emulates kernel code lacks XSAVE, AVX, SMAP and more.
 */
#include "vmm/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define BIT(n) (1u << (n))

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* One bit of the guest's CPU. */
struct cpuid_feature {
	uint32_t leaf;
	uint8_t reg; /* enum cpuid_register */
	uint8_t bit;
	bool answered; /* rewritten, or its meaning is ours: the host need not have it */
	const char *name;
};

static const struct cpuid_feature features[] = {
	{1, CPUID_ECX, 0, false, "SSE3"},
	{1, CPUID_ECX, 13, false, "CMPXCHG16B"},
	{1, CPUID_ECX, 30, true, "RDRAND"},
	{1, CPUID_EDX, 0, false, "FPU"},
	{1, CPUID_EDX, 2, false, "DE"},
	{1, CPUID_EDX, 3, false, "PSE"},
	{1, CPUID_EDX, 4, true, "TSC"},
	{1, CPUID_EDX, 5, false, "MSR"},
	{1, CPUID_EDX, 6, false, "PAE"},
	{1, CPUID_EDX, 8, false, "CMPXCHG8B"},
	{1, CPUID_EDX, 13, false, "PGE"},
	{1, CPUID_EDX, 15, false, "CMOV"},
	{1, CPUID_EDX, 16, false, "PAT"},
	{1, CPUID_EDX, 17, false, "PSE36"},
	{1, CPUID_EDX, 19, false, "CLFLUSH"},
	{1, CPUID_EDX, 23, false, "MMX"},
	{1, CPUID_EDX, 24, false, "FXSR"},
	{1, CPUID_EDX, 25, false, "SSE"},
	{1, CPUID_EDX, 26, false, "SSE2"},
	{7, CPUID_EBX, 9, false, "ERMS"},
	{7, CPUID_EBX, 18, true, "RDSEED"},
	{0x80000001, CPUID_ECX, 0, false, "LAHF in 64-bit mode"},
	{0x80000001, CPUID_EDX, 11, false, "SYSCALL"},
	{0x80000001, CPUID_EDX, 20, false, "NX"},
	{0x80000001, CPUID_EDX, 27, true, "RDTSCP"},
	{0x80000001, CPUID_EDX, 29, false, "long mode"},
	{0x80000007, CPUID_EDX, 8, true, "invariant TSC"},
};

/*
 * Every leaf from 8 on is zero up to the last, so that this last one is zero too: some CPUs, and
 * KVM for vendors it does not know as AMD-like, answer a leaf out of range with the last basic
 * leaf.
 */
#define BASIC_MAX 0xdu
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

void cpuid_answer(uint32_t leaf, uint32_t subleaf, uint64_t cr4, uint32_t out[4])
{
	/* The CPU has no XSAVE, hence CR4.OSXSAVE cannot be set and is not shown either. */
	(void)cr4;
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
		break;
	case 7:
		if (subleaf)
			return;
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
		if (features[i].leaf == leaf)
			out[features[i].reg] |= BIT(features[i].bit);
}

int cpuid_set(int vcpu_fd, struct err *err)
{
	/* Leaves whose answer depends on ECX. */
	static const uint32_t indexed[] = {4, 7, 0xb, 0xd};
	const uint32_t basic = BASIC_MAX + 1;
	const uint32_t count = basic + (EXTENDED_MAX - EXTENDED_FIRST + 1);
	struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + count * sizeof(table->entries[0]));
	int ret = 0;

	if (!table)
		return err_set(err, ENOMEM, "no memory for the guest's CPUID table");
	table->nent = count;
	for (uint32_t i = 0; i < count; i++) {
		struct kvm_cpuid_entry2 *e = &table->entries[i];
		uint32_t out[4];

		e->function = i < basic ? i : EXTENDED_FIRST + (i - basic);
		for (size_t k = 0; k < ARRAY_SIZE(indexed); k++)
			if (e->function == indexed[k])
				e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		cpuid_answer(e->function, 0, 0, out);
		e->eax = out[CPUID_EAX];
		e->ebx = out[CPUID_EBX];
		e->ecx = out[CPUID_ECX];
		e->edx = out[CPUID_EDX];
	}
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

/* As the instruction answers here; zeros out of range. */
static void cpuid_host(uint32_t leaf, uint32_t out[4])
{
	memset(out, 0, 4 * sizeof(out[0]));
	if ((uint32_t)__get_cpuid_max(leaf & EXTENDED_FIRST, NULL) < leaf)
		return;
	__cpuid_count(leaf, 0, out[CPUID_EAX], out[CPUID_EBX], out[CPUID_ECX], out[CPUID_EDX]);
}

static bool cpuid_host_has(const struct cpuid_feature *f)
{
	uint32_t out[4];

	cpuid_host(f->leaf, out);
	return out[f->reg] & BIT(f->bit);
}

int cpuid_check_host(int kvm_fd, struct err *err)
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

		if (f->answered || cpuid_kvm_has(table, f) || cpuid_host_has(f))
			continue;
		ret = err_set(err, ENOTSUP,
			      "this host's CPU lacks %s (CPUID leaf 0x%x), which every guest is "
			      "shown; use another host",
			      f->name, f->leaf);
		goto out;
	}
out:
	free(table);
	return ret;
}

void cpuid_host_signature(char *out, size_t size)
{
	uint32_t id[4], leaf1[4], leaf7[4], ext[4];
	char name[13] = "";

	cpuid_host(0, id);
	memcpy(name, &id[CPUID_EBX], 4);
	memcpy(name + 4, &id[CPUID_EDX], 4);
	memcpy(name + 8, &id[CPUID_ECX], 4);
	cpuid_host(1, leaf1);
	cpuid_host(7, leaf7);
	cpuid_host(0x80000001, ext);

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
		 eax & 0xf, leaf1[CPUID_ECX] & ~BIT(27), leaf1[CPUID_EDX], leaf7[CPUID_EBX],
		 leaf7[CPUID_ECX], leaf7[CPUID_EDX], ext[CPUID_ECX], ext[CPUID_EDX]);
}
