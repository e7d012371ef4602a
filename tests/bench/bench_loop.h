/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A guest of OUT instructions and little else, as an ELF64 file for hindsight and in a VM of its
 * own with the smallest loop around KVM_RUN that works: what its exits cost on this host, whoever
 * makes them.
 */
#ifndef TESTS_BENCH_BENCH_LOOP_H
#define TESTS_BENCH_BENCH_LOOP_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Room for the guest's ELF file. */
#define PORT_GUEST_ELF_MAX 512

/* Write the ELF file of a guest that makes `outs` OUTs (at least 1) to a port where nothing is and
 * then one to the exit port; returns its size. */
size_t port_guest_elf(uint8_t elf[PORT_GUEST_ELF_MAX], uint32_t outs);

/* The ELF file of a guest that consists of these bytes, entered at the first. */
size_t code_guest_elf(uint8_t elf[PORT_GUEST_ELF_MAX], const uint8_t *code, size_t len);

struct bare_vm;

/* A VM with the same code, entered like the ELF file: long mode, CPL0, identity map. */
int bare_vm_create(struct bare_vm **vm, uint32_t outs, struct err *err);
void bare_vm_destroy(struct bare_vm *vm);
/* Run to the OUT to the exit port, ignoring the others. exits: how many came, that one included. */
int bare_vm_run(struct bare_vm *vm, uint64_t *exits, struct err *err);

#endif
