/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The registers of a virtual CPU as gdb wants to see them. */
#ifndef DEBUGGER_GDB_REGS_H
#define DEBUGGER_GDB_REGS_H

#include "gdbstub/regs.h"
#include "vmm/vcpu.h"

/* groups: GDB_REGS_*, which parts of r to fill in. Nothing may be half done (vcpu_complete). */
int gdb_regs_read(const struct vcpu *v, unsigned groups, struct gdb_registers *r, struct err *err);
/* The general ones of r as KVM has them. */
struct kvm_regs gdb_regs_general(const struct vcpu *v, const struct gdb_registers *r);
/* r holds all of groups. -ENOTSUP: segment registers cannot be changed, since what they load is in tables of the guest. */
int gdb_regs_write(struct vcpu *v, unsigned groups, const struct gdb_registers *r, struct err *err);

#endif
