/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Audit log in the battery-backed RAM of the real-time clock: a ring of bytes that survives a
 * crash. Records are written byte by byte through the clock's index and data ports.
 */
#ifndef NVLOG_H
#define NVLOG_H

#include <stddef.h>
#include <stdint.h>

/* watchdog_ticks: between two looks of the watchdog, 0 for none. */
void nvlog_init(uint64_t watchdog_ticks);
/* Append one record of at most NVLOG_RECORD_MAX bytes. Not from interrupt handlers. */
#define NVLOG_RECORD_MAX 16
void nvlog_write(const void *record, size_t len);
/* To be called on every timer tick: notices writes that hang. */
void nvlog_tick(void);
uint64_t nvlog_records(void);

#endif
