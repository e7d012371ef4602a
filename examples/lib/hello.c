// SPDX-License-Identifier: GPL-3.0-or-later
/* The smallest guest: says how it was started. Built once for each boot protocol. */
#include "guest.h"

void guest_main(void)
{
	kprintf("hello, loaded by %s: %lu KiB of RAM, command line \"%s\"\n", guest_loader(),
		guest_ram_bytes() / 1024, guest_cmdline());
	guest_exit(42);
}
