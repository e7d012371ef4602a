/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Packets of the gdb remote protocol as bytes on a wire: $payload#checksum, escapes, run lengths,
 * acks and the interrupt byte. No I/O here. (GDB manual, appendix "GDB Remote Serial Protocol",
 * Overview.)
 */
#ifndef GDBSTUB_PACKET_H
#define GDBSTUB_PACKET_H

#include "base/buf.h"
#include "base/err.h"

/* Longest payload either way, told to gdb as PacketSize: 64 KiB of memory in hex, and room for a
 * header. */
#define GDB_PACKET_MAX 0x20100u
/* What a peer may send ahead, without waiting for answers, before it is dropped. */
#define GDB_QUEUE_MAX (4 * GDB_PACKET_MAX)

/* --- From the peer -------------------------------------------------------------------------- */

enum gdb_item { GDB_ITEM_NONE, GDB_ITEM_PACKET, GDB_ITEM_BREAK };

/*
 * Takes bytes as they arrive, in pieces of any size, and queues packets and interrupt bytes in
 * their order. Zero-initialise (with acks set as wanted); free with gdb_decoder_free. Memory stays
 * below 2 * (GDB_QUEUE_MAX + GDB_PACKET_MAX) whatever comes.
 */
struct gdb_decoder {
	bool acks; /* answer each packet with + or - */
	enum { GDB_BETWEEN, GDB_BODY, GDB_ESCAPE, GDB_SUM_HIGH, GDB_SUM_LOW } state;
	uint8_t sum, sum_sent;
	bool bad_digit; /* in sum_sent */
	struct buf body;
	struct buf queue; /* items: kind (u8), length (u32), bytes */
	size_t queue_pos;
	size_t noise; /* bytes that mean nothing, since the last packet */
	bool spoken;  /* there was a packet: the peer knows the protocol */
	bool resend;  /* the peer sent '-'; the owner clears it */
};

void gdb_decoder_free(struct gdb_decoder *d);
/*
 * Take n bytes; acks to send are appended to out. Fails for good (-EPROTO, -EMSGSIZE, -ENOMEM) if
 * the peer does not speak the protocol, or sends a longer packet or more of them than it may.
 */
int gdb_decoder_feed(struct gdb_decoder *d, const uint8_t *data, size_t n, struct buf *out,
		     struct err *err);
/* Take the next item off the queue. For a packet, *payload (unescaped) is valid until the next
 * call. */
enum gdb_item gdb_decoder_next(struct gdb_decoder *d, const uint8_t **payload, size_t *len);
/* An interrupt byte is queued, at whatever place: take it off. */
bool gdb_decoder_take_break(struct gdb_decoder *d);
/* A packet is queued. */
bool gdb_decoder_has_packet(const struct gdb_decoder *d);

/* --- To the peer ---------------------------------------------------------------------------- */

/* Payloads are built with these only, so that they never hold a byte with a meaning of its own.
 * Text is cut at 1,023 bytes a call. */
void gdb_put_text(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct buf *b, const void *data, size_t n);
/* Binary data, escaped: at most two bytes each. */
void gdb_put_binary(struct buf *b, const void *data, size_t n);

/* Append "$payload#sum", runs shortened. */
void gdb_frame(struct buf *out, const void *payload, size_t n);

#endif
