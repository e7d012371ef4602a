/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Rewriting of Linux modules, before their first instruction runs. Every module passes through an
 * exported function of the kernel (the notifier chain that announces it) when its text is complete,
 * executable and not yet run, not even by its parameters. One instruction at that function's start is
 * replaced by an IN from REWRITE_PORT_HOOK when the kernel is loaded, in the way of vmm/rewrite.h: an
 * ordinary boundary on every host, in recording and replay. There the machine looks through the area of
 * modules, rewrites what it finds, and does what the replaced instruction did.
 *
 * This needs no symbol table, debug information or help of the guest, and what is rewritten depends in nothing on
 * how the kernel describes its modules: what the page tables say is executable is decoded. Only a module's name,
 * for information, is taken from what is announced.
 */
#ifndef VMM_MODULES_H
#define VMM_MODULES_H

#include "base/err.h"
#include "vmm/loader.h"
#include "vmm/memory.h"
#include "vmm/rewrite.h"

#define MODULES_HOOKS_MAX 2

/* include/linux/module.h: struct module begins with a state, a list_head and the name; so since 2.6. */
#define MODULES_LIST_OFFSET 8u
#define MODULES_NAME_OFFSET 24u
#define MODULES_NAME_LEN REWRITE_MODULE_NAME

struct modules_hook {
	gva_t gva;   /* of the replaced instruction */
	uint8_t len;
	/* What it did: copy register from to register to, or clear register to. */
	bool clears;
	uint8_t from, to;
	uint8_t subject; /* register with the argument that is a module, if one is announced */
};

struct modules {
	struct modules_hook hook[MODULES_HOOKS_MAX];
	unsigned hooks; /* 0: the kernel takes no modules, or none was found */
};

/*
 * Put the hooks into a kernel that has just been loaded: image is its vmlinux, entry->text says where it
 * lies. Anything but Linux, or a Linux without modules, is left alone. Adds to sites.
 */
int modules_hook_kernel(struct modules *modules, struct memory *mem, const struct guest_image *image,
			const struct guest_entry *entry, struct rewrite_sites *sites, struct err *err);

/* The hook whose IN ends at rip, or NULL. */
const struct modules_hook *modules_find_hook(const struct modules *modules, uint64_t rip);

/* The name of the module that is announced as coming where the hook's IN has been executed, or "". */
void modules_read_name(const struct modules_hook *hook, const struct memory *mem, const struct kvm_sregs *sregs,
		       const struct kvm_regs *regs, char name[MODULES_NAME_LEN]);

/* Rewrite what is executable in the area of modules; what is new there belongs to the module of this name. */
int modules_rewrite(struct memory *mem, const struct kvm_sregs *sregs, const char *name,
		    struct rewrite_sites *sites, struct err *err);

#endif
