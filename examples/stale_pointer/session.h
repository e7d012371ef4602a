/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Table of open sessions, oldest first. */
#ifndef SESSION_H
#define SESSION_H

#include <stddef.h>
#include <stdint.h>

void session_init(void);
void session_open(uint32_t peer, uint16_t port);
/* Check the table and close every session opened before the given tick; how many were closed. */
size_t session_sweep(uint64_t opened_before);

#endif
