/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The guest's CPU, fixed by this program: never the host's. Same answers whether CPUID is a
 * rewritten instruction or KVM_SET_CPUID2 is honoured.
 */
#ifndef VMM_CPUID_H
#define VMM_CPUID_H

#include "base/err.h"
#include "base/types.h"

#include <linux/kvm.h>

/* What CPUID with these inputs answers; out is EAX, EBX, ECX, EDX. cr4 decides OSXSAVE. */
void cpuid_answer(uint32_t leaf, uint32_t subleaf, uint64_t cr4, uint32_t out[4]);
/* Give the same table to KVM. */
int cpuid_set(int vcpu_fd, struct err *err);
/* 0 if this host's CPU has every feature the table shows; else the first missing one in err. */
int cpuid_check_host(int kvm_fd, struct err *err);
/* Text that identifies the host's CPU features (family, feature words); for the trace. */
void cpuid_host_signature(char *out, size_t size);

#endif
