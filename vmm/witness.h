/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The memory that the code at a place is about to use: what tells two places with equal registers apart, and what
 * tells how far a loop has come that changes memory only.
 */
#ifndef VMM_WITNESS_H
#define VMM_WITNESS_H

#include "vmm/machine.h"

#define WITNESS_MAX 12

/* Memory operands, each once. */
struct witness {
	unsigned count;
	gva_t at[WITNESS_MAX];
	uint8_t size[WITNESS_MAX]; /* bytes, 1 to 8 */
};

/* Find the operands of the code at regs->rip, as that code is now, with these registers. */
void witness_find(struct machine *m, const struct kvm_regs *regs, struct witness *w);
/* Read them; what cannot be read is 0. */
void witness_read(struct machine *m, const struct witness *w, uint64_t value[WITNESS_MAX]);
/* Equal states have equal hashes. */
uint16_t witness_hash(const uint64_t *value, unsigned count);

#endif
