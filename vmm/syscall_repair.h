/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * SYSCALL on hosts where it sets RIP, RCX, R11 and RFLAGS but stays at CPL3, so that the fetch at
 * LSTAR faults (caps.syscall_works is false). A breakpoint at the guest's #PF handler catches the
 * fault, its frame is taken back, and the guest enters LSTAR at CPL0. What the frame overwrote
 * below the kernel's stack stays overwritten. Used by vcpu.c only.
 */
#ifndef VMM_SYSCALL_REPAIR_H
#define VMM_SYSCALL_REPAIR_H

#include "vmm/vcpu.h"

/* Follow the guest's EFER.SCE and IDT[14], which may change between any two exits. Needs
 * synchronised registers. */
void syscall_repair_update(struct vcpu *v);
/*
 * After a kick: whether it came between a SYSCALL and the page fault of its fetch at LSTAR. Whoever
 * looked at the registers there would take it for the kernel's entry.
 */
int syscall_repair_is_halfway(struct vcpu *v, bool *halfway, struct err *err);
/*
 * At the guest's #PF handler: whether the fault came from user code, and if it is that of a
 * SYSCALL, repair it. A jump of user code to LSTAR has IF set and stays a fault.
 */
int syscall_repair_try(struct vcpu *v, bool *from_user, bool *repaired, struct err *err);

#endif
