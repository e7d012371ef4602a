/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One of the statistics that KVM keeps of a VM or a vCPU (Documentation/virt/kvm/api.rst,
 * KVM_GET_STATS_FD). */
#ifndef VMM_STAT_H
#define VMM_STAT_H

#include "base/types.h"

struct kvm_stat {
	int fd; /* -1: this kernel has no such statistic */
	uint64_t offset;
};

/* of: file of the VM or vCPU. Statistics are found by name: their places differ between kernels. */
struct kvm_stat kvm_stat_open(int of, const char *name);
void kvm_stat_close(struct kvm_stat *s);
bool kvm_stat_read(const struct kvm_stat *s, uint64_t *value);

#endif
