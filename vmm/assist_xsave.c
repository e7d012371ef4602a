// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * XSAVE, XRSTOR, XGETBV and XSETBV at CPL0, on the vCPU's own XSAVE image. Only the standard format: the guest's CPU
 * has neither XSAVEOPT nor XSAVEC nor XSAVES.
 *
 * XSTATE_BV as stored says exactly which components differ from their initial state. A CPU may also set it for those
 * that do not, which would make it a matter of chance. FIP, FDP and FOP are stored as 0 unless an exception is
 * pending, as AMD's CPUs do (APM 2, 11.4.4.3).
 */
#include "vmm/assist_internal.h"

#include <asm/processor-flags.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define AREA_ALIGNMENT 64u
#define LEGACY_SIZE 512u
#define HEADER_SIZE 64u
#define XSAVE_MIN (LEGACY_SIZE + HEADER_SIZE)
#define XSAVE_MXCSR_MASK 28u
#define MXCSR_MASK_DEFAULT 0xffbfu /* where a CPU says 0 (SDM 1, 11.6.6) */
#define FSW_ES 0x80u /* an unmasked exception is pending */

/* Bits that MXCSR has on this CPU; KVM's image may not say. */
static uint32_t host_mxcsr_mask(void)
{
	_Alignas(16) uint8_t area[LEGACY_SIZE];
	uint32_t mask;

	__asm__ volatile("fxsave64 %0" : "=m"(area));
	memcpy(&mask, area + XSAVE_MXCSR_MASK, sizeof(mask));
	return mask ? mask : MXCSR_MASK_DEFAULT;
}

/* A run of bytes of the area that belongs to one component. */
struct part {
	uint64_t component;
	uint32_t offset, size;
};

/* x87 lies on both sides of MXCSR and its mask (SDM 1, 13.4.1), which belong to SSE and AVX. */
static const struct part legacy_parts[] = {
	{XFEATURE_X87, 0, 24},
	{XFEATURE_SSE | XFEATURE_AVX, XSAVE_MXCSR, 8},
	{XFEATURE_X87, 32, 128},
	{XFEATURE_SSE, XSAVE_XMM, XSAVE_XMM_SIZE},
};

static struct part extended_part(const struct assist *a, unsigned n)
{
	const struct xsave_layout *layout = &a->v->layout;

	return (struct part){1ull << n, layout->offset[n], layout->size[n]};
}

/* XCR0, and the part of it that EDX:EAX ask for. */
static int begin(struct assist *a, uint64_t *xcr0, uint64_t *wanted)
{
	int ret;

	if (!(a->sregs.cr4 & X86_CR4_OSXSAVE))
		return assist_raise(a, VECTOR_UD, 0);
	if (a->sregs.cr0 & X86_CR0_TS)
		return assist_raise(a, VECTOR_NM, 0);
	ret = vcpu_get_xcr0(a->v, xcr0, a->err);
	*wanted = *xcr0 & ((uint32_t)a->regs.rax | a->regs.rdx << 32);
	return ret;
}

/* Bytes of the area up to the last of these components. */
static size_t area_size(const struct assist *a, uint64_t components)
{
	size_t size = XSAVE_MIN;

	for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
		struct part p = extended_part(a, i);

		if ((components & p.component) && p.offset + p.size > size)
			size = p.offset + p.size;
	}
	return size;
}

/* The memory operand from this offset on. */
static ZydisDecodedOperand displaced(const struct assist *a, uint32_t offset)
{
	ZydisDecodedOperand op = a->op[0];

	op.mem.disp.has_displacement = ZYAN_TRUE;
	op.mem.disp.value += offset;
	return op;
}

static int store_part(struct assist *a, const struct part *p)
{
	const ZydisDecodedOperand op = displaced(a, p->offset);

	return assist_store(a, &op, a->fpu + p->offset, p->size, 1);
}

static bool has_bytes(const uint8_t *p, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (p[i])
			return true;
	return false;
}

static bool is_x87_initial(const uint8_t *image)
{
	static const uint8_t initial[XSAVE_MXCSR] = {0x7f, 0x03}; /* FCW after FNINIT */

	return memcmp(image, initial, sizeof(initial)) == 0 && !has_bytes(image + 32, 128);
}

/* Components of the image, which is spelled out, that differ from their initial state. */
static uint64_t in_use(const struct assist *a, uint64_t components)
{
	const uint8_t *image = a->fpu;
	uint64_t used = 0;

	if (!is_x87_initial(image))
		used |= XFEATURE_X87;
	if (has_bytes(image + XSAVE_XMM, XSAVE_XMM_SIZE))
		used |= XFEATURE_SSE;
	for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
		struct part p = extended_part(a, i);

		if ((components & p.component) && has_bytes(image + p.offset, p.size))
			used |= p.component;
	}
	return used & components;
}

/* Bytes 8 to 23 as the format wants them: 64-bit pointers, or 32-bit ones with selectors, which are 0 (SDM 1, 8.1.8).
 */
static void put_pointers(const struct assist *a, uint8_t *image)
{
	if (!(image[XSAVE_FSW] & FSW_ES))
		memset(image + XSAVE_FOP, 0, XSAVE_MXCSR - XSAVE_FOP);
	if (a->insn.mnemonic == ZYDIS_MNEMONIC_XSAVE64 || a->insn.mnemonic == ZYDIS_MNEMONIC_XRSTOR64)
		return;
	memset(image + XSAVE_FIP + 4, 0, 4);
	memset(image + XSAVE_FDP + 4, 0, 4);
}

int assist_xsave(struct assist *a)
{
	uint8_t *image = a->fpu;
	const struct part header = {0, XSAVE_HEADER, sizeof(uint64_t)};
	const uint32_t mask = host_mxcsr_mask();
	uint64_t xcr0, wanted, present;
	ZydisDecodedOperand op;
	int ret = begin(a, &xcr0, &wanted);

	if (!ret)
		ret = assist_check_store(a, &a->op[0], area_size(a, wanted), AREA_ALIGNMENT);
	if (ret)
		return ret;
	op = displaced(a, XSAVE_HEADER);
	ret = assist_load(a, &op, &present, sizeof(present), 1);
	if (!ret)
		ret = assist_get_fpu(a);
	if (ret)
		return ret;
	put_pointers(a, image);
	memcpy(image + XSAVE_MXCSR_MASK, &mask, sizeof(mask));
	for (size_t i = 0; i < ARRAY_SIZE(legacy_parts) && !ret; i++)
		if (wanted & legacy_parts[i].component)
			ret = store_part(a, &legacy_parts[i]);
	for (unsigned i = 2; i < XSAVE_COMPONENTS && !ret; i++) {
		struct part p = extended_part(a, i);

		if (wanted & p.component)
			ret = store_part(a, &p);
	}
	if (ret)
		return ret;
	present = (present & ~wanted) | in_use(a, wanted);
	memcpy(image + XSAVE_HEADER, &present, sizeof(present));
	return store_part(a, &header);
}

/* One part from the area, or its initial state. */
static void restore_part(uint8_t *image, const uint8_t *area, const struct part *p, uint64_t present)
{
	if (present & p->component)
		memcpy(image + p->offset, area + p->offset, p->size);
	else
		memset(image + p->offset, 0, p->size);
}

/* #GP unless the header is one of the standard format, and MXCSR one that this CPU has. */
static int check_area(struct assist *a, const uint8_t *area, uint64_t xcr0, uint64_t wanted)
{
	uint64_t present;
	uint32_t mxcsr;

	memcpy(&present, area + XSAVE_HEADER, sizeof(present));
	memcpy(&mxcsr, area + XSAVE_MXCSR, sizeof(mxcsr));
	if ((present & ~xcr0) || has_bytes(area + XSAVE_HEADER + 8, 16) ||
	    ((wanted & (XFEATURE_SSE | XFEATURE_AVX)) && (mxcsr & ~host_mxcsr_mask())))
		return assist_raise(a, VECTOR_GP, 0);
	return 0;
}

int assist_xrstor(struct assist *a)
{
	static const uint8_t initial_fcw[2] = {0x7f, 0x03};
	uint8_t area[sizeof(struct kvm_xsave)];
	uint8_t *image = a->fpu;
	uint64_t xcr0, wanted, present, had;
	int ret = begin(a, &xcr0, &wanted);

	if (!ret)
		ret = assist_load(a, &a->op[0], area, area_size(a, wanted), AREA_ALIGNMENT);
	if (!ret)
		ret = assist_get_fpu(a);
	if (!ret)
		ret = check_area(a, area, xcr0, wanted);
	if (ret)
		return ret;
	memcpy(&present, area + XSAVE_HEADER, sizeof(present));
	for (size_t i = 0; i < ARRAY_SIZE(legacy_parts); i++) {
		const struct part *p = &legacy_parts[i];

		if (p->offset == XSAVE_MXCSR && (wanted & p->component))
			memcpy(image + XSAVE_MXCSR, area + XSAVE_MXCSR, sizeof(uint32_t));
		else if (wanted & p->component)
			restore_part(image, area, p, present);
	}
	if (wanted & XFEATURE_X87) {
		if (!(present & XFEATURE_X87))
			memcpy(image, initial_fcw, sizeof(initial_fcw));
		put_pointers(a, image);
	}
	memcpy(&had, image + XSAVE_HEADER, sizeof(had));
	for (unsigned i = 2; i < XSAVE_COMPONENTS; i++) {
		struct part p = extended_part(a, i);

		if (wanted & p.component)
			restore_part(image, area, &p, present);
	}
	had = (had & ~wanted) | (present & wanted);
	memcpy(image + XSAVE_HEADER, &had, sizeof(had));
	return assist_set_fpu(a);
}

int assist_xgetbv(struct assist *a)
{
	uint64_t xcr0;
	int ret;

	if (!(a->sregs.cr4 & X86_CR4_OSXSAVE))
		return assist_raise(a, VECTOR_UD, 0);
	/* XCR1, what is in use, comes with XSAVEC and XSAVES only. */
	if ((uint32_t)a->regs.rcx)
		return assist_raise(a, VECTOR_GP, 0);
	ret = vcpu_get_xcr0(a->v, &xcr0, a->err);
	if (ret)
		return ret;
	a->regs.rax = (uint32_t)xcr0;
	a->regs.rdx = xcr0 >> 32;
	return 0;
}

/* The values that XCR0 can take (SDM 3A 2.6). */
static bool is_valid_xcr0(uint64_t value, uint64_t xfeatures)
{
	uint64_t avx512 = value & XFEATURE_AVX512;

	if ((value & ~xfeatures) || !(value & XFEATURE_X87))
		return false;
	if ((value & XFEATURE_AVX) && !(value & XFEATURE_SSE))
		return false;
	return !avx512 || (avx512 == XFEATURE_AVX512 && (value & XFEATURE_AVX));
}

int assist_xsetbv(struct assist *a)
{
	uint64_t value = (uint32_t)a->regs.rax | a->regs.rdx << 32;
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = value}};

	if (!(a->sregs.cr4 & X86_CR4_OSXSAVE))
		return assist_raise(a, VECTOR_UD, 0);
	if (a->sregs.ss.dpl || (uint32_t)a->regs.rcx || !is_valid_xcr0(value, a->v->xfeatures))
		return assist_raise(a, VECTOR_GP, 0);
	if (ioctl(a->v->fd, KVM_SET_XCRS, &xcrs) < 0)
		return err_sys(a->err, errno, "cannot set XCR0 to 0x%llx",
			       (unsigned long long)value);
	return 0;
}
