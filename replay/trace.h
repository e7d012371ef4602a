/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The trace file: a header, then append-only frames. docs/trace-format.md describes it byte by byte.
 *
 *   file   = header frame*, checkpoints last
 *   header = "HINDSIGHT TRACE\n" u32 version u32 zero u64 checksum of the 24 bytes before
 *   frame  = u32 magic, u16 type, u16 flags, u32 stored size, u32 raw size, u64 sequence,
 *            u64 checksum of the 24 bytes before and the stored bytes; then the stored bytes
 *
 * A crash or a full disk costs at most the last frame. What is damaged in the middle is refused.
 */
#ifndef REPLAY_TRACE_H
#define REPLAY_TRACE_H

#include "base/buf.h"
#include "base/err.h"

#define TRACE_VERSION 8
#define TRACE_HEADER_SIZE 32
#define TRACE_FRAME_SIZE 32
/* No frame holds more than this before compression, so a reader needs no more at once. */
#define TRACE_FRAME_RAW_MAX (1u << 20)
/* Largest kernel, initrd or disk image that a trace may carry. */
#define TRACE_FILE_MAX (1ull << 30)
/*
 * The snapshot file in a trace, in bytes: it is put together on disk, and since frames compress, the size of the trace
 * says nothing of it. Room for some dozens of snapshots that have no page in common, and so for hundreds of one run.
 */
static inline uint64_t trace_snapshots_max(uint64_t mem_size)
{
	return 64 * (mem_size + (16ull << 20));
}

enum trace_frame {
	TRACE_MACHINE = 1, /* struct trace_machine */
	TRACE_FILE = 2,    /* u8 which file, u64 total size, then up to 1 MiB less 9 bytes of it */
	TRACE_EVENTS = 3,  /* events, see replay/event.h */
	TRACE_END = 4,     /* nothing follows but checkpoints */
	TRACE_CHECKPOINTS = 5, /* a piece of a snapshot file; behind all else */
	TRACE_BEGIN = 6,       /* a piece of a snapshot file: where the machine begins */
};

/* First byte of a TRACE_FILE frame. */
enum { TRACE_FILE_KERNEL = 1, TRACE_FILE_INITRD = 2, TRACE_FILE_DISK = 3 };
#define TRACE_FILES 3

/* A place between two frames. */
struct trace_place {
	uint64_t offset, sequence;
	bool ended; /* the end mark lies before it */
};

struct trace_writer;

/* Create FILE anew. An existing trace is replaced only when the new one is begun. */
int trace_writer_create(struct trace_writer **w, const char *path, struct err *err);
/* Go on behind what a file open for writing holds: `at`, its end. Takes over fd, also when it fails. */
int trace_writer_continue(struct trace_writer **w, int fd, struct trace_place at, struct err *err);
/* Write one frame to the file. After a failure the writer refuses everything, and what was written
 * before stays a valid trace. */
int trace_writer_frame(struct trace_writer *w, enum trace_frame type, const void *data, size_t len,
		       struct err *err);
/* All that the file holds, in as many frames as it takes. */
int trace_writer_file(struct trace_writer *w, enum trace_frame type, int fd, struct err *err);
/* Bytes written so far. */
uint64_t trace_writer_size(const struct trace_writer *w);
/* Close; 0 or the error of the last write-back. Frees w in any case. */
int trace_writer_close(struct trace_writer *w, struct err *err);

struct trace_reader;

int trace_reader_open(struct trace_reader **r, const char *path, struct err *err);
void trace_reader_close(struct trace_reader *r);
/*
 * The next frame: 1 and its content (valid until the next call), 0 at the end of what is whole, or where the
 * checkpoints begin, -EBADMSG with a sentence for damage before the end. After 0, trace_reader_truncated tells whether
 * bytes of an unfinished frame follow or the end mark is missing.
 */
int trace_reader_next(struct trace_reader *r, enum trace_frame *type, const uint8_t **data,
		      size_t *len, struct err *err);
/* Of a frame that does not check, as many bytes as can be had (valid until the next call): for a content that has
 * checksums of its own and tells better what is damaged. */
size_t trace_reader_salvage(struct trace_reader *r, const uint8_t **data);
bool trace_reader_truncated(const struct trace_reader *r);
uint64_t trace_reader_offset(const struct trace_reader *r);
struct trace_place trace_reader_tell(const struct trace_reader *r);
/* Read on from a place that trace_reader_tell gave for this file; -EBADMSG if it cannot be one. */
int trace_reader_seek(struct trace_reader *r, struct trace_place at, struct err *err);
/* Bytes in the frames of this type that come next, as their heads have it; no frame gives more. The place stays. */
uint64_t trace_reader_measure(struct trace_reader *r, enum trace_frame type);
/* Pass over all that comes before the checkpoints, without looking at more than where frames begin: 1, or 0 if there
 * are none; then the place is the end of what is whole. */
int trace_reader_find_checkpoints(struct trace_reader *r, struct err *err);
/* There: the next piece, as trace_reader_next; 0 at the end of the file. */
int trace_reader_next_checkpoints(struct trace_reader *r, const uint8_t **data, size_t *len, struct err *err);

#endif
