// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * bzImage: the vmlinux that it packs is unpacked here and then loaded like any other, so that the
 * guest need not spend minutes on it where the host emulates kernel code. The program that the image
 * has for this is not run.
 *
 *   0x000  setup header at 0x1f1 (Documentation/arch/x86/boot.rst), real-mode code
 *   (setup_sects + 1) * 512        protected-mode code
 *   ... + payload_offset           packed ELF file, and behind it, if the kernel can be moved, the
 *                                  places that moving it would change; it is not moved here
 *   ... + payload_length - 4       size of what is packed; gzip's own trailer happens to be that,
 *                                  behind the other formats the build adds it
 *                                  (scripts/Makefile.lib, size_append)
 */
#include "vmm/load_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* Offsets in the file, by boot.rst. */
#define SETUP_SECTS 0x1f1
#define HEADER_MAGIC 0x202
#define HEADER_VERSION 0x206
#define PAYLOAD_OFFSET 0x248
#define PAYLOAD_LENGTH 0x24c
#define HEADER_END 0x250

#define MAGIC_HDRS 0x53726448u /* "HdrS" */
#define SETUP_SECTS_DEFAULT 4
#define SECTOR 512u
/* The first that says where the payload lies. */
#define VERSION_PAYLOAD 0x0208

#define SIZE_FIELD 4u
/* As for kernels that are not packed: docs/architecture.md, Limits. */
#define UNPACKED_MAX (1u << 30)

/* Linux packs with a dictionary of at most 128 MiB (scripts/xz_wrap.sh); liblzma needs a little more. */
#define XZ_MEMORY_MAX (192ull << 20)

/* The legacy frame of the lz4 tool: a magic number, then blocks of at most 8 MiB unpacked, each
 * behind its packed size (lz4_Frame_format.md, "Legacy frame"). */
#define LZ4_MAGIC_SIZE 4u
#define LZ4_BLOCK_MAX (8u << 20)

struct packed {
	const uint8_t *data;
	size_t size;
	uint8_t *out;
	size_t out_size;
};

static uint32_t read_le(const uint8_t *p, unsigned len)
{
	uint32_t v = 0;

	memcpy(&v, p, len);
	return v;
}

/* Each unpacks p->data into exactly p->out_size bytes, or returns false. */

static bool unpack_gzip(const struct packed *p)
{
	z_stream z = {
		.next_in = (Bytef *)(uintptr_t)p->data, /* only read, but zlib's field lacks the const */
		.avail_in = (uInt)p->size,
		.next_out = p->out,
		.avail_out = (uInt)p->out_size,
	};
	int ret;

	/* 16: a gzip header, not one of zlib's own. */
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return false;
	ret = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return ret == Z_STREAM_END && z.avail_out == 0;
}

static bool unpack_xz(const struct packed *p)
{
	uint64_t memory = XZ_MEMORY_MAX;
	size_t in = 0, out = 0;

	return lzma_stream_buffer_decode(&memory, 0, NULL, p->data, &in, p->size, p->out, &out,
					 p->out_size) == LZMA_OK &&
	       out == p->out_size;
}

static bool unpack_zstd(const struct packed *p)
{
	return ZSTD_decompress(p->out, p->out_size, p->data, p->size) == p->out_size;
}

static bool unpack_lz4(const struct packed *p)
{
	size_t in = LZ4_MAGIC_SIZE, out = 0;

	while (out < p->out_size) {
		size_t room = p->out_size - out;
		uint32_t block;
		int got;

		if (!load_range_ok(in, sizeof(block), p->size))
			return false;
		block = read_le(p->data + in, sizeof(block));
		in += sizeof(block);
		if (block > INT32_MAX || !load_range_ok(in, block, p->size))
			return false;
		got = LZ4_decompress_safe((const char *)p->data + in, (char *)p->out + out, (int)block,
					  (int)(room < LZ4_BLOCK_MAX ? room : LZ4_BLOCK_MAX));
		if (got <= 0)
			return false;
		in += block;
		out += (size_t)got;
	}
	return true;
}

static const struct format {
	const char *name;
	uint8_t magic[6];
	uint8_t magic_len;
	bool own_size; /* the size at the end is part of the format */
	bool (*unpack)(const struct packed *p);
} formats[] = {
	{"gzip", {0x1f, 0x8b}, 2, true, unpack_gzip},
	{"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, false, unpack_xz},
	{"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, false, unpack_zstd},
	{"lz4", {0x02, 0x21, 0x4c, 0x18}, LZ4_MAGIC_SIZE, false, unpack_lz4},
};

bool load_is_bzimage(const struct guest_image *image)
{
	return load_range_ok(HEADER_MAGIC, 4, image->kernel_size) &&
	       read_le(image->kernel + HEADER_MAGIC, 4) == MAGIC_HDRS;
}

static int find_payload(const struct guest_image *image, struct packed *p, struct err *err)
{
	const uint8_t *k = image->kernel;
	uint32_t version, sectors, offset, length;
	uint64_t start;

	if (image->kernel_size < HEADER_END)
		return err_set(err, ENOEXEC, "the bzImage ends within its setup header (%zu bytes)",
			       image->kernel_size);
	version = read_le(k + HEADER_VERSION, 2);
	if (version < VERSION_PAYLOAD)
		return err_set(err, ENOEXEC,
			       "the bzImage has boot protocol %u.%02u, which does not tell where its "
			       "vmlinux lies: give the vmlinux of the kernel's build",
			       version >> 8, version & 0xff);
	sectors = k[SETUP_SECTS] ? k[SETUP_SECTS] : SETUP_SECTS_DEFAULT;
	offset = read_le(k + PAYLOAD_OFFSET, 4);
	length = read_le(k + PAYLOAD_LENGTH, 4);
	start = (uint64_t)(sectors + 1) * SECTOR + offset;
	if (!load_range_ok(start, length, image->kernel_size))
		return err_set(err, ENOEXEC,
			       "the bzImage field payload_offset is 0x%x with payload_length 0x%x, "
			       "beyond the file's end at 0x%zx",
			       offset, length, image->kernel_size);
	if (length < sizeof(formats[0].magic) + SIZE_FIELD)
		return err_set(err, ENOEXEC, "the bzImage field payload_length is %u: no vmlinux",
			       length);
	*p = (struct packed){.data = k + start, .size = length};
	p->out_size = read_le(p->data + length - SIZE_FIELD, SIZE_FIELD);
	return 0;
}

static const struct format *find_format(const struct packed *p)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (memcmp(p->data, formats[i].magic, formats[i].magic_len) == 0)
			return &formats[i];
	}
	return NULL;
}

int loader_unpack(struct guest_image *image, uint8_t **unpacked, struct err *err)
{
	const struct format *format;
	struct packed p;
	int ret;

	*unpacked = NULL;
	if (!load_is_bzimage(image) || loader_is_boot64(image))
		return 0;
	ret = find_payload(image, &p, err);
	if (ret)
		return ret;
	format = find_format(&p);
	if (!format)
		return err_set(err, ENOTSUP,
			       "the vmlinux in the bzImage is packed in a way that is not known here "
			       "(it begins with %02x %02x %02x %02x); gzip, xz, zstd and lz4 are",
			       p.data[0], p.data[1], p.data[2], p.data[3]);
	if (p.out_size == 0 || p.out_size > UNPACKED_MAX)
		return err_set(err, EFBIG,
			       "the vmlinux in the bzImage says to unpack to %zu bytes; 1 GiB is the most",
			       p.out_size);
	if (!format->own_size)
		p.size -= SIZE_FIELD;
	p.out = malloc(p.out_size);
	if (!p.out)
		return err_set(err, ENOMEM, "out of memory for a vmlinux of %zu bytes", p.out_size);
	if (!format->unpack(&p)) {
		free(p.out);
		return err_set(err, ENOEXEC,
			       "the vmlinux in the bzImage is damaged: its %s data do not unpack to %zu bytes",
			       format->name, p.out_size);
	}
	*unpacked = p.out;
	image->kernel = p.out;
	image->kernel_size = p.out_size;
	return 0;
}
