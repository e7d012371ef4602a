/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The registers of a virtual CPU as gdb wants to see them. */
#ifndef DEBUGGER_GDB_REGS_H
#define DEBUGGER_GDB_REGS_H

#include "gdbstub/regs.h"
#include "vmm/vcpu.h"

/* groups: GDB_REGS_*, which parts of r to fill in. Nothing may be half done (vcpu_complete). */
int gdb_regs_read(const struct vcpu *v, unsigned groups, struct gdb_registers *r, struct err *err);

#endif
