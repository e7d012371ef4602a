/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the loaders share: a checked view of an ELF file, the list of what has been put into RAM,
 * and the two ways into the guest (64-bit with paging, 32-bit without).
 *
 * Low memory, the same for every kind of guest. Nothing of the kernel may lie in 0x90000-0xfffff;
 * every other address of RAM is the kernel's.
 *
 *   0x90000  PML4      \
 *   0x91000  PDPT       | identity map of the first 4 GiB, 2 MiB pages (64-bit entry only)
 *   0x92000  4 PDs     /
 *   0x96000  GDT; the TSS is at 0x96100
 *   0x97000  boot_params, hvm_start_info or Multiboot information, up to 8 KiB
 *   0x99000  command line, zero-terminated, up to 4 KiB
 *   0x9a000  stack, 16 KiB (GUEST_ELF64 only)
 *   0x9e000  stack top; unused from here
 *   0x9fc00  reserved up to 1 MiB (EBDA, video, BIOS: nothing is there, but kernels expect the
 * hole)
 */
#ifndef VMM_LOAD_INTERNAL_H
#define VMM_LOAD_INTERNAL_H

#include "vmm/loader.h"

#include <elf.h>

#define LOW_START 0x90000u
#define LOW_PML4 0x90000u
#define LOW_PDPT 0x91000u
#define LOW_PD 0x92000u
#define LOW_GDT 0x96000u
#define LOW_TSS 0x96100u
#define LOW_INFO 0x97000u
#define LOW_INFO_SIZE 0x2000u
#define LOW_CMDLINE 0x99000u
#define LOW_CMDLINE_SIZE 0x1000u
#define LOW_STACK_TOP 0x9e000u
#define LOW_RAM_END 0x9fc00u
#define LOW_END 0x100000u

#define HIGH_RAM_START (4ull << 30)

/* Far more than any kernel has; bounds the pairwise overlap check. */
#define LOAD_SEGMENTS_MAX 64

/* One run of memory taken by the kernel or a module. */
struct load_segment {
	uint64_t start;
	uint64_t end;
};

struct load {
	struct memory *mem;
	const struct guest_image *image;
	struct guest_entry *entry;
	struct load_segment segment[LOAD_SEGMENTS_MAX + 1]; /* the last one is the initrd's */
	size_t segments;
};

/* Header fields and tables checked to lie in the file; values widened to 64 bits. */
struct elf_view {
	const uint8_t *data;
	uint64_t size;
	bool is64;
	uint64_t entry;
	uint64_t phoff;
	uint64_t phnum;
	uint64_t shoff;
	uint64_t shnum;
	uint64_t shstrndx;
};

/* Entry of a physical memory map: e820, Multiboot and PVH use the same type numbers. */
struct load_map_entry {
	uint64_t start;
	uint64_t size;
	uint32_t type;
};

#define LOAD_MAP_RAM 1
#define LOAD_MAP_RESERVED 2
#define LOAD_MAP_MAX 4

static inline bool load_range_ok(uint64_t offset, uint64_t len, uint64_t size)
{
	return offset <= size && len <= size - offset;
}

/* load.c */

/* End of RAM below MEMORY_LOW_MAX. */
uint64_t load_low_ram_end(const struct load *l);
/* Fill map with the memory map of the machine; returns the number of entries. */
size_t load_memory_map(const struct load *l, struct load_map_entry map[LOAD_MAP_MAX]);
/* Take [start, start+size) for the kernel: it must be RAM, outside of the low structures and of
 * everything taken before. `what` names it in errors. */
int load_claim(struct load *l, uint64_t start, uint64_t size, const char *what, struct err *err);
/* Claim [start, start+mem_size) and put the file's bytes at its start; the rest stays zero. */
int load_copy(struct load *l, uint64_t start, const void *bytes, uint64_t file_size,
	      uint64_t mem_size, const char *what, struct err *err);
/* Put the initrd, page-aligned, at the highest place that ends at or below limit. */
int load_initrd_high(struct load *l, uint64_t limit, uint64_t *start, struct err *err);
/* Put the initrd, page-aligned, at the lowest place above 1 MiB and the kernel, below limit. */
int load_initrd_low(struct load *l, uint64_t limit, uint64_t *start, struct err *err);
/* Write the command line, which with its zero may take `max` bytes, to LOW_CMDLINE. */
int load_cmdline(struct load *l, uint64_t max, struct err *err);
/* Write to the low structures; they are always RAM. */
int load_low_write(struct load *l, uint64_t gpa, const void *data, uint64_t len, struct err *err);
/* Add a range of executable bytes; name may be any length. */
int load_add_text(struct load *l, uint64_t gva, uint64_t gpa, uint64_t size, const char *name,
		  struct err *err);

/* Long mode at CPL0: page tables, GDT with code and data at the given selectors, TSS after them. */
int load_enter_long(struct load *l, uint16_t code, uint16_t data, uint64_t cr4, uint64_t efer,
		    struct err *err);
/* Protected mode without paging, flat segments: code 0x08, data 0x10, 32-bit TSS. */
int load_enter_protected(struct load *l, uint64_t tss_base, struct err *err);

/* load_elf.c */

/* True if the file begins as an ELF file does. */
bool elf_magic(const struct guest_image *image);
/* Check the ELF header: class, machine, tables within the file. */
int elf_open(const struct guest_image *image, struct elf_view *elf, struct err *err);
/* i < phnum, i < shnum. */
Elf64_Phdr elf_phdr(const struct elf_view *elf, uint64_t i);
Elf64_Shdr elf_shdr(const struct elf_view *elf, uint64_t i);
/* Name of a section, or "" if it cannot be had. */
const char *elf_section_name(const struct elf_view *elf, const Elf64_Shdr *s);
/* The first note of this name and type in a PT_NOTE segment; desc may be NULL. */
bool elf_find_note(const struct elf_view *elf, const char *name, uint32_t type,
		   const uint8_t **desc, uint32_t *desc_size);
/* Load the PT_LOAD segments and note the text ranges. Addresses at or above limit are refused. */
int elf_load(struct load *l, const struct elf_view *elf, uint64_t limit, struct err *err);
/* Set RIP to the physical address of e_entry, which may be virtual or physical; physical_first says
 * which reading is tried first. It must lie in a loaded segment, below 4 GiB. */
int elf_entry(struct load *l, const struct elf_view *elf, bool physical_first, struct err *err);

int load_elf64(struct load *l, const struct elf_view *elf, struct err *err);
bool load_pvh_claims(const struct elf_view *elf);
int load_pvh(struct load *l, const struct elf_view *elf, struct err *err);

/* load_linux.c */

bool load_linux_claims(const struct elf_view *elf);
int load_linux(struct load *l, const struct elf_view *elf, struct err *err);
/* Command line, boot_params with the initrd that lies there, and the state of the 64-bit boot protocol but for RIP. */
int load_enter_linux(struct load *l, uint64_t initrd, struct err *err);
/* load_boot64.c */
int load_boot64(struct load *l, struct err *err);

/* load_bzimage.c */

/* The file is a packed Linux image. */
bool load_is_bzimage(const struct guest_image *image);

/* load_multiboot.c */

/* Offset of the header, if there is one. */
bool load_multiboot1_claims(const struct guest_image *image, uint64_t *header);
bool load_multiboot2_claims(const struct guest_image *image, uint64_t *header);
/* elf: NULL if the file is no ELF file. */
int load_multiboot1(struct load *l, const struct elf_view *elf, uint64_t header, struct err *err);
int load_multiboot2(struct load *l, const struct elf_view *elf, uint64_t header, struct err *err);

#endif
