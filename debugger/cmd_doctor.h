/* SPDX-License-Identifier: GPL-3.0-or-later */
/* hindsight doctor: what this host can do, what the machine makes of it, and what it cannot have.
 */
#ifndef DEBUGGER_CMD_DOCTOR_H
#define DEBUGGER_CMD_DOCTOR_H

/* argv[0] is "doctor". Returns the exit status: 0 usable, 1 not usable, 125 bad usage. */
int cmd_doctor(int argc, char **argv);

#endif
