// SPDX-License-Identifier: GPL-3.0-or-later
/* exit-machine STATUS: end the virtual machine with this status, by its exit port. Where the port is
 * not there, restart: a kernel booted with panic=-1 would do the same. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <sys/reboot.h>
#include <unistd.h>

#define EXIT_PORT 0xf4

int main(int argc, char **argv)
{
	int status = argc > 1 ? atoi(argv[1]) : 0;

	sync();
	if (ioperm(EXIT_PORT, 1, 1) == 0)
		outb((unsigned char)status, EXIT_PORT);
	reboot(RB_AUTOBOOT);
	perror("exit-machine");
	return 1;
}
