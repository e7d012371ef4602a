/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The snapshot file; docs/snapshot-format.md describes it byte by byte.
 *
 *   file    = header record*
 *   header  = "HINDSIGHT SNAPS\n" u32 version u32 zero u64 checksum of the 24 bytes before
 *   record  = u32 magic, u16 type, u16 flags, u32 stored size, u32 raw size, u64 sequence,
 *             u64 subject, u64 checksum of the stored bytes, u64 checksum of the 40 bytes before;
 *             then the stored bytes
 *
 * A page's address is in the head, which has a checksum of its own, so that a damaged page can be
 * named.
 */
#ifndef SNAPSHOT_FORMAT_H
#define SNAPSHOT_FORMAT_H

#include "base/types.h"

#define SNAPSHOT_MAGIC "HINDSIGHT SNAPS\n"
#define SNAPSHOT_VERSION 1
#define SNAPSHOT_HEADER_SIZE 32
#define RECORD_MAGIC 0x4e534e48u /* "HNSN" */
#define RECORD_HEAD_SIZE 48
#define RECORD_HEAD_CHECKED 40
#define RECORD_ZSTD 1u

enum record_type {
	RECORD_MACHINE = 1, /* what the snapshots are of; the first record */
	RECORD_NODE = 2,    /* a snapshot begins */
	RECORD_BYTES = 3,   /* a piece of what the record before announces: description, data, state */
	RECORD_PAGE = 4,    /* a page that is in no record before; subject: its address */
	RECORD_SAME = 5,    /* pages with the content of records before, or zeros */
	RECORD_END = 6,	    /* nothing follows */
};

/* No record but a page holds more. */
#define RECORD_RAW_MAX (64u << 10)
#define RECORD_PIECE_MAX RECORD_RAW_MAX
/* One entry of RECORD_SAME: u64 page number, u64 which page record, from 1; 0: zeros. */
#define SAME_ENTRY_SIZE 16
#define SAME_ENTRIES_MAX (RECORD_RAW_MAX / SAME_ENTRY_SIZE)

/* Names are compared one by one. */
#define SNAPSHOT_NODES_MAX 16384u
/* Parent of a node: 0 none, else the number of its record, from 1, or this: in no record of the
 * file. */
#define NODE_PARENT_OUTSIDE UINT64_MAX

#endif
