/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * IRETQ and SYSRET to user mode, made in user space. For hosts where a step into user mode does not stop
 * before the first user instruction, and where the interrupt window opens there sooner or later
 * as the host's scheduler wills: an interrupt that waits for IF=1 would come at another place in each
 * run. Used by vcpu.c only.
 */
#ifndef VMM_USER_RETURN_H
#define VMM_USER_RETURN_H

#include "vmm/vcpu.h"

/*
 * The instruction at RIP returns to user mode: do what it does (SDM 2A, IRET; 2B, SYSRET), accessed bits
 * of the descriptors included. Data segments stay as they are, though IRET should empty those that user
 * code may not have: the hosts concerned do not, and made here or by KVM must come to the same. made:
 * false if it is none that is known here or would fault; nothing has been changed then but accessed
 * bits, which the CPU sets in the same case.
 */
int vcpu_return_to_user(struct vcpu *v, bool *made, struct err *err);

#endif
