/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Files of Linux modules (.ko), which are relocatable: where the guest has such a module, and the file as
 * if it had been linked for that place, so that debugger/symbols.h can read it like a kernel.
 */
#ifndef DEBUGGER_MODULE_H
#define DEBUGGER_MODULE_H

#include "base/err.h"
#include "base/types.h"
#include "debugger/symbols.h"
#include "vmm/memory.h"

#include <linux/kvm.h>

/* True if the file is a relocatable ELF file for x86-64. */
bool module_is_relocatable(const uint8_t *file, size_t size);

/*
 * Address of the module's text in the guest whose memory this is: the kernel's list of modules is walked,
 * which takes its symbol "modules". -ENOENT if it is not loaded, or if that cannot be told because the
 * module has no exit function.
 */
int module_find(const uint8_t *file, size_t size, const struct memory *mem, const struct kvm_sregs *sregs,
		const struct symbols *kernel, gva_t *text, struct err *err);

/*
 * A copy of the file, of equal size, with its code sections at their addresses behind `text` and its
 * debug information relocated accordingly; free it. Other sections have no address. -EINVAL with the name
 * of what is damaged.
 */
int module_link(const uint8_t *file, size_t size, gva_t text, uint8_t **linked, struct err *err);

#endif
