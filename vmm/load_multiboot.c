// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Multiboot 1 (specification 0.6.96) and Multiboot 2 (specification 2.0). Both enter in 32-bit
 * protected mode without paging and differ in the header and in the form of the information.
 */
#include "vmm/load_internal.h"

#include "base/buf.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define LOADER_NAME "hindsight"
#define MODULE_NAME "initrd"

/* Multiboot 1, section 3.1: the header. */
#define MB1_SEARCH 8192u
#define MB1_MAGIC 0x1badb002u
#define MB1_HEADER_SIZE 12u
#define MB1_ADDRESSES_SIZE 32u
#define MB1_FLAG_ALIGN (1u << 0)
#define MB1_FLAG_MEMORY (1u << 1)
#define MB1_FLAG_ADDRESSES (1u << 16)
#define MB1_FLAGS_REQUIRED 0xffffu

/* Section 3.2 and 3.3: at entry. */
#define MB1_ENTRY_MAGIC 0x2badb002u
#define MB1_INFO_MEMORY (1u << 0)
#define MB1_INFO_CMDLINE (1u << 2)
#define MB1_INFO_MODULES (1u << 3)
#define MB1_INFO_MAP (1u << 6)
#define MB1_INFO_LOADER (1u << 9)
/* What lies behind the structure, within LOW_INFO_SIZE. */
#define MB1_MODULE (LOW_INFO + 0x80u)
#define MB1_LOADER (LOW_INFO + 0xa0u)
#define MB1_MODULE_NAME (LOW_INFO + 0xc0u)
#define MB1_MAP (LOW_INFO + 0x100u)

/* Multiboot 2, section 3.1: the header. */
#define MB2_SEARCH 32768u
#define MB2_MAGIC 0xe85250d6u
#define MB2_HEADER_SIZE 16u
#define MB2_TAG_HEADER_SIZE 8u
#define MB2_ARCH_I386 0u
#define MB2_TAG_OPTIONAL 1u

enum mb2_header_tag {
	MB2_TAG_END,
	MB2_TAG_REQUEST,
	MB2_TAG_ADDRESS,
	MB2_TAG_ENTRY,
	MB2_TAG_CONSOLE,
	MB2_TAG_FRAMEBUFFER,
	MB2_TAG_MODULE_ALIGN,
	MB2_TAG_RELOCATABLE = 10
};

/* Console flags: the kernel cannot run without a console that the loader describes. */
#define MB2_CONSOLE_REQUIRED 1u

/* Section 3.6: the information. */
#define MB2_ENTRY_MAGIC 0x36d76289u
#define MB2_MAP_ENTRY_SIZE 24u

enum mb2_info_tag {
	MB2_INFO_END,
	MB2_INFO_CMDLINE,
	MB2_INFO_LOADER,
	MB2_INFO_MODULE,
	MB2_INFO_MEMORY,
	MB2_INFO_MAP = 6,
	MB2_INFO_LAST_KNOWN = 21
};

struct mb1_info {
	uint32_t flags;
	uint32_t mem_lower;
	uint32_t mem_upper;
	uint32_t boot_device;
	uint32_t cmdline;
	uint32_t mods_count;
	uint32_t mods_addr;
	uint32_t syms[4];
	uint32_t mmap_length;
	uint32_t mmap_addr;
	uint32_t drives_length;
	uint32_t drives_addr;
	uint32_t config_table;
	uint32_t boot_loader_name;
	uint32_t apm_table;
	uint32_t vbe[4];
};

struct mb1_module {
	uint32_t start;
	uint32_t end;
	uint32_t string;
	uint32_t reserved;
};

struct mb1_map_entry {
	uint32_t size; /* of the rest */
	uint64_t start;
	uint64_t len;
	uint32_t type;
} __attribute__((packed));

/* The a.out kludge: where in memory the file's bytes go. All physical. */
struct addresses {
	bool present;
	uint64_t header_addr;
	uint64_t load_addr;
	uint64_t load_end_addr; /* 0: to the end of the file */
	uint64_t bss_end_addr;	/* 0: no bss */
	bool has_entry;
	uint64_t entry_addr;
};

static uint32_t read_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

bool load_multiboot1_claims(const struct guest_image *image, uint64_t *header)
{
	uint64_t size = image->kernel_size < MB1_SEARCH ? image->kernel_size : MB1_SEARCH;

	for (uint64_t at = 0; load_range_ok(at, MB1_HEADER_SIZE, size); at += 4) {
		const uint8_t *p = image->kernel + at;

		if (read_u32(p) == MB1_MAGIC &&
		    read_u32(p) + read_u32(p + 4) + read_u32(p + 8) == 0) {
			*header = at;
			return true;
		}
	}
	return false;
}

bool load_multiboot2_claims(const struct guest_image *image, uint64_t *header)
{
	uint64_t size = image->kernel_size < MB2_SEARCH ? image->kernel_size : MB2_SEARCH;

	for (uint64_t at = 0; load_range_ok(at, MB2_HEADER_SIZE, size); at += 8) {
		const uint8_t *p = image->kernel + at;

		if (read_u32(p) == MB2_MAGIC &&
		    read_u32(p) + read_u32(p + 4) + read_u32(p + 8) + read_u32(p + 12) == 0) {
			*header = at;
			return true;
		}
	}
	return false;
}

/* Load by the header's address fields; `header` is the header's offset in the file. */
static int load_by_addresses(struct load *l, const struct addresses *a, uint64_t header,
			     struct err *err)
{
	uint64_t offset, file_size, mem_size;
	int ret;

	if (a->load_addr > a->header_addr || a->header_addr - a->load_addr > header)
		return err_set(err, ENOEXEC,
			       "the Multiboot field load_addr 0x%" PRIx64
			       " does not fit header_addr 0x%" PRIx64
			       " with the header at 0x%" PRIx64 " of the file",
			       a->load_addr, a->header_addr, header);
	offset = header - (a->header_addr - a->load_addr);
	if (a->load_end_addr == 0)
		file_size = l->image->kernel_size - offset;
	else if (a->load_end_addr > a->load_addr)
		file_size = a->load_end_addr - a->load_addr;
	else
		return err_set(err, ENOEXEC,
			       "the Multiboot field load_end_addr 0x%" PRIx64
			       " is not above load_addr 0x%" PRIx64,
			       a->load_end_addr, a->load_addr);
	if (!load_range_ok(offset, file_size, l->image->kernel_size))
		return err_set(err, ENOEXEC,
			       "the Multiboot field load_end_addr 0x%" PRIx64
			       " leads beyond the file's end at 0x%zx",
			       a->load_end_addr, l->image->kernel_size);
	mem_size = file_size;
	if (a->bss_end_addr != 0) {
		if (a->bss_end_addr < a->load_addr + file_size)
			return err_set(err, ENOEXEC,
				       "the Multiboot field bss_end_addr 0x%" PRIx64
				       " is below the end of the data at 0x%" PRIx64,
				       a->bss_end_addr, a->load_addr + file_size);
		mem_size = a->bss_end_addr - a->load_addr;
	}
	if (!load_range_ok(a->load_addr, mem_size, HIGH_RAM_START))
		return err_set(err, ENOEXEC,
			       "the Multiboot field load_addr 0x%" PRIx64 " with 0x%" PRIx64
			       " bytes ends above 4 GiB",
			       a->load_addr, mem_size);
	ret = load_copy(l, a->load_addr, l->image->kernel + offset, file_size, mem_size,
			"the Multiboot kernel", err);
	if (ret)
		return ret;
	return load_add_text(l, a->load_addr, a->load_addr, file_size, "", err);
}

/* Load by address fields if the header has them, else as ELF; set the entry point. */
static int load_kernel(struct load *l, const struct elf_view *elf, const struct addresses *a,
		       uint64_t header, struct err *err)
{
	int ret;

	if (a->present && !a->has_entry)
		return err_set(err, ENOEXEC,
			       "the Multiboot header has load addresses but no entry address");
	if (a->present)
		ret = load_by_addresses(l, a, header, err);
	else if (elf)
		ret = elf_load(l, elf, HIGH_RAM_START, err);
	else
		ret = err_set(
			err, ENOEXEC,
			"the Multiboot kernel is no ELF file and its header has no addresses");
	if (ret)
		return ret;
	if (!a->has_entry)
		return elf_entry(l, elf, false, err);
	for (size_t i = 0; i < l->segments; i++) {
		if (a->entry_addr >= l->segment[i].start && a->entry_addr < l->segment[i].end) {
			l->entry->regs.rip = a->entry_addr;
			return 0;
		}
	}
	return err_set(err, ENOEXEC,
		       "the Multiboot field entry_addr 0x%" PRIx64 " lies outside of the kernel",
		       a->entry_addr);
}

/* "Upper memory" ends at the first hole above 1 MiB. Both in KiB. */
static uint32_t mem_lower(void)
{
	return LOW_RAM_END >> 10;
}

static uint32_t mem_upper(const struct load *l)
{
	return (uint32_t)((load_low_ram_end(l) - LOW_END) >> 10);
}

static int enter(struct load *l, uint32_t magic, struct err *err)
{
	l->entry->regs.rax = magic;
	l->entry->regs.rbx = LOW_INFO;
	return load_enter_protected(l, LOW_TSS, err);
}

static int mb1_write_map(struct load *l, struct mb1_info *info, struct err *err)
{
	struct load_map_entry map[LOAD_MAP_MAX];
	struct mb1_map_entry out[LOAD_MAP_MAX] = {0};
	size_t n = load_memory_map(l, map);

	for (size_t i = 0; i < n; i++)
		out[i] = (struct mb1_map_entry){
			.size = sizeof(out[i]) - sizeof(out[i].size),
			.start = map[i].start,
			.len = map[i].size,
			.type = map[i].type,
		};
	info->mmap_addr = MB1_MAP;
	info->mmap_length = (uint32_t)(n * sizeof(out[0]));
	return load_low_write(l, MB1_MAP, out, n * sizeof(out[0]), err);
}

static int mb1_write_info(struct load *l, uint64_t initrd, struct err *err)
{
	struct mb1_info info = {
		.flags = MB1_INFO_MEMORY | MB1_INFO_CMDLINE | MB1_INFO_MODULES | MB1_INFO_MAP |
			 MB1_INFO_LOADER,
		.mem_lower = mem_lower(),
		.mem_upper = mem_upper(l),
		.cmdline = LOW_CMDLINE,
		.mods_addr = MB1_MODULE,
		.boot_loader_name = MB1_LOADER,
	};
	int ret = mb1_write_map(l, &info, err);

	if (!ret && l->image->initrd_size > 0) {
		struct mb1_module module = {
			.start = (uint32_t)initrd,
			.end = (uint32_t)(initrd + l->image->initrd_size),
			.string = MB1_MODULE_NAME,
		};

		info.mods_count = 1;
		ret = load_low_write(l, MB1_MODULE, &module, sizeof(module), err);
		if (!ret)
			ret = load_low_write(l, MB1_MODULE_NAME, MODULE_NAME, sizeof(MODULE_NAME),
					     err);
	}
	if (!ret)
		ret = load_low_write(l, MB1_LOADER, LOADER_NAME, sizeof(LOADER_NAME), err);
	if (!ret)
		ret = load_low_write(l, LOW_INFO, &info, sizeof(info), err);
	return ret;
}

int load_multiboot1(struct load *l, const struct elf_view *elf, uint64_t header, struct err *err)
{
	const uint8_t *p = l->image->kernel + header;
	uint32_t flags = read_u32(p + 4);
	uint32_t unknown = flags & MB1_FLAGS_REQUIRED & ~(MB1_FLAG_ALIGN | MB1_FLAG_MEMORY);
	struct addresses a = {0};
	uint64_t initrd = 0;
	int ret;

	if (unknown)
		return err_set(
			err, ENOTSUP,
			"the Multiboot header requires the features 0x%x in its flags, which "
			"this machine does not have (0x4 is a video mode)",
			unknown);
	if (flags & MB1_FLAG_ADDRESSES) {
		if (!load_range_ok(header, MB1_ADDRESSES_SIZE, l->image->kernel_size))
			return err_set(err, ENOEXEC,
				       "the Multiboot header's address fields are cut off");
		a = (struct addresses){
			.present = true,
			.header_addr = read_u32(p + 12),
			.load_addr = read_u32(p + 16),
			.load_end_addr = read_u32(p + 20),
			.bss_end_addr = read_u32(p + 24),
			.has_entry = true,
			.entry_addr = read_u32(p + 28),
		};
	}
	ret = load_kernel(l, elf, &a, header, err);
	if (!ret && l->image->initrd_size > 0)
		ret = load_initrd_low(l, HIGH_RAM_START, &initrd, err);
	if (!ret)
		ret = load_cmdline(l, LOW_CMDLINE_SIZE, err);
	if (!ret)
		ret = mb1_write_info(l, initrd, err);
	if (!ret)
		ret = enter(l, MB1_ENTRY_MAGIC, err);
	return ret;
}

static int mb2_check_request(const uint8_t *tag, uint32_t size, struct err *err)
{
	/* A kind of information that we know but this machine has nothing to say about is left
	 * out; only an unknown kind is an error (section 3.1.4). */
	for (uint32_t at = MB2_TAG_HEADER_SIZE; size - at >= 4; at += 4) {
		uint32_t type = read_u32(tag + at);

		if (type > MB2_INFO_LAST_KNOWN)
			return err_set(err, ENOTSUP,
				       "the Multiboot 2 header requires information of type %u, "
				       "which is unknown",
				       type);
	}
	return 0;
}

static int mb2_check_size(unsigned type, uint32_t size, uint32_t want, struct err *err)
{
	if (size >= want)
		return 0;
	return err_set(err, ENOEXEC, "the Multiboot 2 header tag of type %u has size %u, below %u",
		       type, size, want);
}

static int mb2_parse_tag(const uint8_t *tag, unsigned type, bool optional, uint32_t size,
			 struct addresses *a, struct err *err)
{
	int ret = 0;

	switch (type) {
	case MB2_TAG_REQUEST:
		return optional ? 0 : mb2_check_request(tag, size, err);
	case MB2_TAG_ADDRESS:
		ret = mb2_check_size(type, size, 24, err);
		if (ret)
			return ret;
		a->present = true;
		a->header_addr = read_u32(tag + 8);
		a->load_addr = read_u32(tag + 12);
		a->load_end_addr = read_u32(tag + 16);
		a->bss_end_addr = read_u32(tag + 20);
		return 0;
	case MB2_TAG_ENTRY:
		ret = mb2_check_size(type, size, 12, err);
		if (ret)
			return ret;
		a->has_entry = true;
		a->entry_addr = read_u32(tag + 8);
		return 0;
	case MB2_TAG_CONSOLE:
		ret = mb2_check_size(type, size, 12, err);
		if (ret)
			return ret;
		if (optional || !(read_u32(tag + 8) & MB2_CONSOLE_REQUIRED))
			return 0;
		break;
	case MB2_TAG_MODULE_ALIGN: /* always done */
	case MB2_TAG_RELOCATABLE:  /* permits another place, does not ask for it */
		return 0;
	default:
		if (optional)
			return 0;
	}
	return err_set(err, ENOTSUP,
		       "the Multiboot 2 header requires the feature of tag type %u, which this "
		       "machine does not have%s",
		       type, type == MB2_TAG_FRAMEBUFFER ? " (a framebuffer)" : "");
}

static int mb2_parse_header(const struct guest_image *image, uint64_t header, struct addresses *a,
			    struct err *err)
{
	const uint8_t *p = image->kernel + header;
	uint32_t arch = read_u32(p + 4);
	uint64_t len = read_u32(p + 8);
	uint64_t at = MB2_HEADER_SIZE;

	if (arch != MB2_ARCH_I386)
		return err_set(err, ENOEXEC,
			       "the Multiboot 2 field architecture is %u, not 0 (i386)", arch);
	if (!load_range_ok(header, len, image->kernel_size) || header + len > MB2_SEARCH)
		return err_set(err, ENOEXEC,
			       "the Multiboot 2 field header_length is %" PRIu64
			       ", beyond the file or its first 32 KiB",
			       len);
	while (load_range_ok(at, MB2_TAG_HEADER_SIZE, len)) {
		unsigned type = read_u32(p + at) & 0xffff;
		bool optional = read_u32(p + at) >> 16 & MB2_TAG_OPTIONAL;
		uint32_t size = read_u32(p + at + 4);
		int ret;

		if (size < MB2_TAG_HEADER_SIZE || !load_range_ok(at, size, len))
			return err_set(err, ENOEXEC,
				       "the Multiboot 2 header tag of type %u has size %u, which "
				       "does not fit the header",
				       type, size);
		if (type == MB2_TAG_END)
			return 0;
		ret = mb2_parse_tag(p + at, type, optional, size, a, err);
		if (ret)
			return ret;
		at = (at + size + 7) & ~7ull;
	}
	return err_set(err, ENOEXEC, "the Multiboot 2 header has no end tag");
}

/* Tags are aligned to 8 bytes; their size does not count the padding. */
static void mb2_put_tag(struct buf *b, enum mb2_info_tag type, size_t payload)
{
	while (b->len % 8)
		buf_put_u8(b, 0);
	buf_put_u32(b, type);
	buf_put_u32(b, (uint32_t)(MB2_TAG_HEADER_SIZE + payload));
}

static void mb2_put_string(struct buf *b, enum mb2_info_tag type, const char *s)
{
	mb2_put_tag(b, type, strlen(s) + 1);
	buf_put(b, s, strlen(s) + 1);
}

static void mb2_put_map(struct buf *b, const struct load *l)
{
	struct load_map_entry map[LOAD_MAP_MAX];
	size_t n = load_memory_map(l, map);

	mb2_put_tag(b, MB2_INFO_MAP, 8 + n * MB2_MAP_ENTRY_SIZE);
	buf_put_u32(b, MB2_MAP_ENTRY_SIZE);
	buf_put_u32(b, 0); /* version */
	for (size_t i = 0; i < n; i++) {
		buf_put_u64(b, map[i].start);
		buf_put_u64(b, map[i].size);
		buf_put_u32(b, map[i].type);
		buf_put_u32(b, 0);
	}
}

static int mb2_write_info(struct load *l, uint64_t initrd, struct err *err)
{
	struct buf b = {0};
	uint32_t total;
	int ret;

	buf_put_u64(&b, 0); /* total_size and reserved */
	mb2_put_string(&b, MB2_INFO_CMDLINE, l->image->cmdline);
	mb2_put_string(&b, MB2_INFO_LOADER, LOADER_NAME);
	if (l->image->initrd_size > 0) {
		mb2_put_tag(&b, MB2_INFO_MODULE, 8 + sizeof(MODULE_NAME));
		buf_put_u32(&b, (uint32_t)initrd);
		buf_put_u32(&b, (uint32_t)(initrd + l->image->initrd_size));
		buf_put(&b, MODULE_NAME, sizeof(MODULE_NAME));
	}
	mb2_put_tag(&b, MB2_INFO_MEMORY, 8);
	buf_put_u32(&b, mem_lower());
	buf_put_u32(&b, mem_upper(l));
	mb2_put_map(&b, l);
	mb2_put_tag(&b, MB2_INFO_END, 0);
	if (b.failed || b.len > LOW_INFO_SIZE) {
		ret = err_set(err, ENOMEM, "out of memory for the Multiboot 2 information");
	} else {
		total = (uint32_t)b.len;
		memcpy(b.data, &total, sizeof(total));
		ret = load_low_write(l, LOW_INFO, b.data, b.len, err);
	}
	buf_free(&b);
	return ret;
}

int load_multiboot2(struct load *l, const struct elf_view *elf, uint64_t header, struct err *err)
{
	struct addresses a = {0};
	uint64_t initrd = 0;
	int ret = mb2_parse_header(l->image, header, &a, err);

	if (!ret)
		ret = load_kernel(l, elf, &a, header, err);
	if (!ret && l->image->initrd_size > 0)
		ret = load_initrd_low(l, HIGH_RAM_START, &initrd, err);
	/* The information holds the command line; the copy is written to check its length. */
	if (!ret)
		ret = load_cmdline(l, LOW_CMDLINE_SIZE, err);
	if (!ret)
		ret = mb2_write_info(l, initrd, err);
	if (!ret)
		ret = enter(l, MB2_ENTRY_MAGIC, err);
	return ret;
}
