/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The guest's CPU, fixed by this program but for one thing: its vector registers. Same answers
 * whether CPUID is a rewritten instruction or KVM_SET_CPUID2 is honoured.
 *
 * The guest's kernel is shown SSE2, and no XSAVE, wherever its user code sees the same. Where that
 * sees the host's CPU, it will use AVX and AVX-512 if the host has them, so the kernel is shown
 * them too and saves them. xfeatures says which: the bits that the guest's XCR0 can have, 0 for a
 * CPU without XSAVE. It is chosen when a machine is recorded and kept in the trace.
 */
#ifndef VMM_CPUID_H
#define VMM_CPUID_H

#include "base/err.h"
#include "base/types.h"
#include "vmm/caps.h"

#include <linux/kvm.h>

/* State components in XCR0 (SDM 1, 13.1). */
#define XFEATURE_X87 0x1ull
#define XFEATURE_SSE 0x2ull
#define XFEATURE_AVX 0x4ull
#define XFEATURE_AVX512 0xe0ull /* opmask, ZMM_Hi256, Hi16_ZMM */

/* For a new recording on this host: 0, or X87, SSE and AVX, or these and AVX512. */
uint64_t cpuid_choose_xfeatures(const struct host_caps *caps);
/* Is it one of the values above? */
bool cpuid_is_xfeatures(uint64_t xfeatures);
/* Where component n (from 2 on: AVX; AVX-512 on hosts that have it) lies in an XSAVE area. False: no such component. */
bool cpuid_component(unsigned n, uint32_t *offset, uint32_t *size);

/* The same for every component: AVX, and what xfeatures has besides; size 0: none. Kept by each vCPU, since CPUID
 * costs a virtualized host 10 us and more. */
#define XSAVE_COMPONENTS 8

struct xsave_layout {
	uint32_t offset[XSAVE_COMPONENTS], size[XSAVE_COMPONENTS];
};

void cpuid_layout(uint64_t xfeatures, struct xsave_layout *layout);

/* What CPUID with these inputs answers; out is EAX, EBX, ECX, EDX. cr4 decides OSXSAVE, xcr0
 * how large an XSAVE area is now. */
void cpuid_answer(uint64_t xfeatures, uint32_t leaf, uint32_t subleaf, uint64_t cr4, uint64_t xcr0,
		  uint32_t out[4]);
/* Give the same table to KVM, which adds what depends on CR4 and XCR0. */
int cpuid_set(int vcpu_fd, uint64_t xfeatures, struct err *err);
/* 0 if this host's CPU has every feature the table shows; else the first missing one in err. */
int cpuid_check_host(int kvm_fd, uint64_t xfeatures, struct err *err);
/* Text that identifies the host's CPU features (family, feature words); for the trace. */
void cpuid_host_signature(char *out, size_t size);
/* The number by which the CPU that this thread is on shows itself: its (x2)APIC id. */
uint32_t cpuid_host_number(void);

#endif
