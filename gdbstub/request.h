/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What gdb asks, taken apart: packet text goes in, a typed request comes out, and nothing behind
 * this header looks at packet text again. (GDB manual, "Packets", "General Query Packets", "vCont"
 * and those near it.)
 */
#ifndef GDBSTUB_REQUEST_H
#define GDBSTUB_REQUEST_H

#include "base/buf.h"
#include "base/err.h"
#include "gdbstub/target.h"

/* Actions of one vCont packet; there is one for each thread at most. */
#define GDB_ACTIONS_MAX 64

enum gdb_request_type {
	GDB_UNKNOWN, /* to be answered with an empty packet, by which gdb knows */
	GDB_EXTENDED_MODE,
	GDB_STOP_REASON,
	GDB_READ_REGISTERS,
	GDB_WRITE_REGISTERS, /* data */
	GDB_READ_REGISTER,   /* number */
	GDB_WRITE_REGISTER,  /* number, data */
	GDB_READ_MEMORY,     /* addr, len */
	GDB_READ_BINARY,     /* the same, to be answered in binary */
	GDB_WRITE_MEMORY,    /* addr, data */
	GDB_CRC_MEMORY,	     /* addr, len */
	GDB_SEARCH_MEMORY,   /* addr, len, data: what to look for */
	GDB_SET_POINT,	     /* point; its conditions are in data */
	GDB_CLEAR_POINT,     /* point */
	GDB_RESUME,	     /* resume */
	GDB_REVERSE_STEP,
	GDB_REVERSE_CONTINUE,
	GDB_RESUME_KINDS,
	GDB_SELECT_THREAD, /* thread, number: 'g' or 'c' */
	GDB_THREAD_ALIVE,  /* thread */
	GDB_CURRENT_THREAD,
	GDB_FIRST_THREADS,
	GDB_MORE_THREADS,
	GDB_THREAD_INFO, /* thread */
	GDB_FEATURES,	 /* data: what gdb supports */
	GDB_NO_ACKS,
	GDB_READ_OBJECT, /* object, addr: offset, len; data: annex */
	GDB_MONITOR,	 /* data: command line */
	GDB_ATTACHED,
	GDB_RESTART, /* data: arguments, separated by spaces; number: 1 if an answer is wanted */
	GDB_KILL,    /* number: 1 if an answer is wanted */
	GDB_DETACH,
	GDB_STEP_FLAGS_KNOWN,
	GDB_GET_STEP_FLAGS,
	GDB_SET_STEP_FLAGS, /* number */
	GDB_GET_PHYSICAL,
	GDB_SET_PHYSICAL, /* number */
};

enum gdb_object {
	GDB_OBJECT_FEATURES,
	GDB_OBJECT_MEMORY_MAP,
	GDB_OBJECT_THREADS,
	GDB_OBJECT_AUXV,
};

enum gdb_action_kind { GDB_CONTINUE, GDB_STEP, GDB_STEP_RANGE, GDB_STAY };

struct gdb_action {
	enum gdb_action_kind kind;
	int thread;	     /* or GDB_THREAD_ALL: those that no action before this one names */
	uint64_t start, end; /* GDB_STEP_RANGE: step while RIP is in [start, end) */
};

struct gdb_request {
	enum gdb_request_type type;
	uint64_t addr;
	uint64_t len;
	unsigned number;
	int thread;
	enum gdb_object object;
	struct gdb_point point;
	/* GDB_RESUME: a packet without threads (c, s) means the one selected by Hc. */
	struct gdb_action actions[GDB_ACTIONS_MAX];
	unsigned n_actions;
	bool selected; /* the actions are of a packet without threads */
	bool has_pc;   /* addr is where to go on */
	struct buf data;
};

/*
 * Parse a packet's payload into r, whose data buffer is reused; release it with buf_free(&r->data).
 * -EINVAL and a sentence if the packet is known but malformed.
 */
int gdb_request_parse(struct gdb_request *r, const uint8_t *payload, size_t len, struct err *err);

#endif
