// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * bzImage: a vmlinux packed in each of the four ways, by the libraries' own packers and laid out as
 * the kernel's build does it (arch/x86/boot/compressed/Makefile), loads as if it had never been packed;
 * every wrong length is refused by name. tests/small_linux.sh does the same with real kernels.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/loader_image.h"

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#define PACKED_MAX 8192
#define SETUP_SECTS 1
#define PAYLOAD_OFFSET 0x30 /* behind the unpacker's first code */
#define PAYLOAD_AT ((SETUP_SECTS + 1) * 512 + PAYLOAD_OFFSET)

enum packing { GZIP, XZ, ZSTD, LZ4, PACKINGS };

static const char banner[] =
	"\0Linux version 6.1.0-test (me@here) (gcc 12.2.0) #1 SMP Sat Nov 22\n";

/* A small vmlinux with what the build puts behind it if the kernel can be moved. */
static struct buf vmlinux(void)
{
	static const uint32_t relocations[] = {0, 0, 0x81000004, 0x81000010};
	struct plan p = {
		.entry = 0x1000000,
		.part = {{0xffffffff81000000, 0x1000000, code, sizeof(code), 0, 0, PF_R | PF_X},
			 {0xffffffff81800000, 0x1800000, banner, sizeof(banner), 0x100000, 0, PF_R}},
		.parts = 2,
	};
	struct buf b = build(&p);

	buf_put(&b, relocations, sizeof(relocations));
	return b;
}

static size_t pack_gzip(const struct buf *in, uint8_t *out)
{
	z_stream z = {.next_in = in->data,
		      .avail_in = (uInt)in->len,
		      .next_out = out,
		      .avail_out = PACKED_MAX};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return PACKED_MAX - z.avail_out;
}

/* As scripts/xz_wrap.sh: --x86 --lzma2 --check=crc32, but for the size of the dictionary, which the
 * unpacker allocates. */
static size_t pack_xz(const struct buf *in, uint8_t *out)
{
	lzma_options_lzma options;
	lzma_filter filters[] = {{LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
	size_t len = 0;

	assert_false(lzma_lzma_preset(&options, 0));
	assert_int_equal(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, in->data, in->len, out,
						   &len, PACKED_MAX),
			 LZMA_OK);
	return len;
}

static size_t pack_lz4(const struct buf *in, uint8_t *out)
{
	static const uint32_t magic = 0x184c2102;
	uint32_t size;
	int len = LZ4_compress_default((const char *)in->data, (char *)out + 8, (int)in->len, PACKED_MAX - 8);

	assert_true(len > 0);
	size = (uint32_t)len;
	memcpy(out, &magic, 4);
	memcpy(out + 4, &size, 4);
	return (size_t)len + 8;
}

static void put_at(struct buf *b, size_t at, uint64_t v, unsigned len)
{
	memcpy(b->data + at, &v, len);
}

/* The whole image. */
static struct buf bzimage(enum packing packing)
{
	struct buf kernel = vmlinux(), b = {0}, exact = {0};
	uint8_t packed[PACKED_MAX];
	size_t len = 0;

	switch (packing) {
	case GZIP:
		len = pack_gzip(&kernel, packed);
		break;
	case XZ:
		len = pack_xz(&kernel, packed);
		break;
	case ZSTD:
		len = ZSTD_compress(packed, PACKED_MAX, kernel.data, kernel.len, 19);
		break;
	default:
		len = pack_lz4(&kernel, packed);
	}
	assert_in_range(len, 1, PACKED_MAX);
	pad_to(&b, PAYLOAD_AT);
	buf_put(&b, packed, len);
	if (packing != GZIP) {
		buf_put_u32(&b, (uint32_t)kernel.len);
		len += 4;
	}
	/* What follows the payload in a real image: the unpacker's data. */
	buf_put(&b, data, sizeof(data));
	put_at(&b, 0x1f1, SETUP_SECTS, 1);
	put_at(&b, 0x1fe, 0xaa55, 2);
	put_at(&b, 0x202, 0x53726448, 4);
	put_at(&b, 0x206, 0x020f, 2);
	put_at(&b, 0x248, PAYLOAD_OFFSET, 4);
	put_at(&b, 0x24c, len, 4);
	exact.data = malloc(b.len);
	assert_non_null(exact.data);
	memcpy(exact.data, b.data, b.len);
	exact.len = exact.cap = b.len;
	buf_free(&b);
	buf_free(&kernel);
	return exact;
}

static void each_packing_loads_as_its_vmlinux(void **state)
{
	struct buf plain = vmlinux();
	struct run want = load(&plain);

	(void)state;
	assert_loaded(&want, GUEST_LINUX);
	for (enum packing i = 0; i < PACKINGS; i++) {
		struct buf file = bzimage(i);
		struct run r = load(&file);

		assert_loaded(&r, GUEST_LINUX);
		assert_memory_equal(&r.entry.regs, &want.entry.regs, sizeof(r.entry.regs));
		assert_memory_equal(&r.entry.sregs, &want.entry.sregs, sizeof(r.entry.sregs));
		assert_memory_equal(memory_at(r.mem, GPA(0), RAM), memory_at(want.mem, GPA(0), RAM), RAM);
		done(&r, &file);
	}
	done(&want, &plain);
}

/* The kernel is the exact bytes that were packed, relocations and all. */
static void unpacked_bytes(void **state)
{
	(void)state;
	for (enum packing i = 0; i < PACKINGS; i++) {
		struct buf file = bzimage(i), want = vmlinux();
		struct guest_image image = {.kernel = file.data, .kernel_size = file.len, .cmdline = ""};
		uint8_t *unpacked;

		assert_int_equal(loader_unpack(&image, &unpacked, NULL), 0);
		assert_ptr_equal(image.kernel, unpacked);
		assert_int_equal(image.kernel_size, want.len);
		assert_memory_equal(unpacked, want.data, want.len);
		free(unpacked);
		buf_free(&file);
		buf_free(&want);
	}
}

static void is_linux(void **state)
{
	struct buf file = bzimage(XZ), plain = vmlinux();
	struct guest_image packed = {.kernel = file.data, .kernel_size = file.len};
	struct guest_image elf = {.kernel = plain.data, .kernel_size = plain.len};
	struct guest_image other = {.kernel = code, .kernel_size = sizeof(code)};

	(void)state;
	assert_true(loader_is_linux(&packed));
	assert_true(loader_is_linux(&elf));
	assert_false(loader_is_linux(&other));
	buf_free(&file);
	buf_free(&plain);
}

static void refusals(void **state)
{
	static const struct {
		const char *words;
		size_t offset; /* in the file; from PAYLOAD_AT + packed size on: in the size field */
		uint64_t value;
		unsigned len;
	} patches[] = {
		{"boot protocol 2.07", 0x206, 0x0207, 2},
		{"payload_offset is 0xffffffff", 0x248, 0xffffffff, 4},
		{"payload_length 0xffffffff", 0x24c, 0xffffffff, 4},
		{"payload_offset", 0x1f1, 200, 1},
		{"no vmlinux", 0x24c, 0, 4},
		{"no vmlinux", 0x24c, 9, 4},
		{"begins with 42 5a 68 39", PAYLOAD_AT, 0x39685a42, 4},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(patches); i++) {
		struct buf file = bzimage(ZSTD);

		put_at(&file, patches[i].offset, patches[i].value, patches[i].len);
		assert_refused(file, patches[i].words);
	}
	for (enum packing i = 0; i < PACKINGS; i++) {
		static const uint32_t sizes[] = {0, 1, 0x7fffffff, 0xffffffff};
		uint32_t length;

		/* The size at the end: none, too little, too much for us. */
		for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
			struct buf file = bzimage(i);

			memcpy(&length, file.data + 0x24c, 4);
			put_at(&file, PAYLOAD_AT + length - 4, sizes[k], 4);
			assert_refused(file, sizes[k] == 1 ? "damaged" : "1 GiB is the most");
		}
		/* Packed data that end early. */
		for (uint32_t cut = 5; cut < 40; cut += 5) {
			struct buf file = bzimage(i), whole = vmlinux();

			memcpy(&length, file.data + 0x24c, 4);
			put_at(&file, 0x24c, length - cut, 4);
			put_at(&file, PAYLOAD_AT + length - cut - 4, whole.len, 4);
			assert_refused(file, "damaged");
			buf_free(&whole);
		}
	}
}

static void header_cut_off(void **state)
{
	(void)state;
	for (size_t len = 0x206; len < 0x250; len++) {
		struct buf file = bzimage(GZIP);

		file.len = len;
		assert_refused(file, "within its setup header");
	}
}

/* A program that only looks like a bzImage to boot loaders. */
static struct buf program(void)
{
	struct buf file = bzimage(GZIP);
	const size_t more = 0x800;

	/* Still exact, so that reading beyond it shows. */
	file.data = realloc(file.data, file.len + more);
	assert_non_null(file.data);
	memset(file.data + file.len, 0x90, more);
	file.len = file.cap = file.len + more;
	put_at(&file, 0x206, 0x020c, 2);
	put_at(&file, 0x22c, 0x7fffffff, 4); /* initrd_addr_max */
	put_at(&file, 0x236, 1, 2);	     /* xloadflags: XLF_KERNEL_64 */
	put_at(&file, 0x248, 0, 8);	     /* payload_offset, payload_length */
	put_at(&file, 0x258, 0x200000, 8);   /* pref_address */
	put_at(&file, 0x260, 0x10000, 4);    /* init_size */
	return file;
}

static void program_is_entered_where_its_header_says(void **state)
{
	const size_t start = (SETUP_SECTS + 1) * 512;
	struct buf file = program();
	struct guest_image image = {.kernel = file.data, .kernel_size = file.len};
	struct run r = load(&file);

	(void)state;
	assert_false(loader_is_linux(&image));
	assert_true(loader_is_boot64(&image));
	assert_loaded(&r, GUEST_BOOT64);
	assert_int_equal(r.entry.regs.rip, 0x200200);
	assert_int_equal(r.entry.sregs.cs.l, 1);
	assert_int_equal(r.entry.text_len, 1);
	assert_int_equal(r.entry.text[0].size, file.len - start);
	for (size_t i = start; i < file.len; i++)
		assert_int_equal(peek(&r, 0x200000 + i - start, 1), file.data[i]);
	/* boot_params: its header's magic number, and the command line (zero-page.rst). */
	assert_int_equal(peek(&r, r.entry.regs.rsi + 0x202, 4), 0x53726448);
	assert_int_equal(peek(&r, peek(&r, r.entry.regs.rsi + 0x228, 4), 4), 0x746f6f72); /* "root" */
	done(&r, &file);
}

static void program_refusals(void **state)
{
	struct buf file = program();

	(void)state;
	put_at(&file, 0x260, 0x100, 4);
	assert_refused(file, "init_size is 0x100");
	file = program();
	put_at(&file, 0x1f1, 255, 1);
	assert_refused(file, "setup_sects is 255");
	file = program();
	put_at(&file, 0x258, 0x90000, 8);
	assert_refused(file, "the program at 0x90000");
	file = program();
	put_at(&file, 0x258, UINT64_MAX - 0x800, 8);
	assert_refused(file, "does not lie in the guest's RAM");
	/* Without a 64-bit entry there is no way in. */
	file = program();
	put_at(&file, 0x236, 0, 2);
	assert_refused(file, "no vmlinux");
	survive(program(), 0x2468ac);
}

/* Whatever is damaged, nothing reads or writes out of bounds. */
static void damaged_images(void **state)
{
	(void)state;
	for (enum packing i = 0; i < PACKINGS; i++)
		survive(bzimage(i), 0x13579b + i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_packing_loads_as_its_vmlinux),
		cmocka_unit_test(unpacked_bytes),
		cmocka_unit_test(is_linux),
		cmocka_unit_test(refusals),
		cmocka_unit_test(header_cut_off),
		cmocka_unit_test(program_is_entered_where_its_header_says),
		cmocka_unit_test(program_refusals),
		cmocka_unit_test(damaged_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
