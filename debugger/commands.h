/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The subcommands: argv[0] is the command's name; the return value is the exit status. */
#ifndef DEBUGGER_COMMANDS_H
#define DEBUGGER_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_record(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_index(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_last_write(int argc, char **argv);
int cmd_first_write(int argc, char **argv);
int cmd_gdb(int argc, char **argv);

#endif
