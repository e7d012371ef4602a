// SPDX-License-Identifier: GPL-3.0-or-later
/* First C code: reads what the loader left, in the format of the protocol the guest was built for.
 */
#include "guest.h"

#define CMDLINE_MAX 512

extern uint64_t boot_info;
extern uint64_t boot_ram_bytes;
extern uint32_t boot_loader;
void guest_boot(void) __attribute__((noreturn));

/* The loader's copy may lie anywhere in RAM, so take our own before anything is allocated. */
static char cmdline[CMDLINE_MAX];

/* hvm_start_info and its memory map, Xen's include/public/arch-x86/hvm/start_info.h. */
struct pvh_info {
	uint32_t magic, version, flags, modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct pvh_range {
	uint64_t addr, size;
	uint32_t type, reserved;
};

struct multiboot1_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

struct multiboot2_tag {
	uint32_t type, size;
};

static void read_pvh(const struct pvh_info *info)
{
	const struct pvh_range *range = (const struct pvh_range *)info->memmap;

	if (info->magic != 0x336ec578)
		panic("PVH: wrong magic %x", info->magic);
	for (uint32_t i = 0; info->version >= 1 && i < info->memmap_entries; i++)
		if (range[i].type == 1 && range[i].addr + range[i].size > boot_ram_bytes)
			boot_ram_bytes = range[i].addr + range[i].size;
	boot_info = info->cmdline;
}

static void read_multiboot1(const struct multiboot1_info *info)
{
	if (info->flags & 1)
		boot_ram_bytes = (uint64_t)(info->mem_upper + 1024) * 1024;
	boot_info = info->flags & 4 ? info->cmdline : 0;
}

static void read_multiboot2(uint64_t addr)
{
	uint64_t end = addr + *(const uint32_t *)addr;

	boot_info = 0;
	for (addr += 8; addr < end;) {
		const struct multiboot2_tag *tag = (const struct multiboot2_tag *)addr;

		if (tag->type == 0)
			break;
		if (tag->type == 1)
			boot_info = addr + sizeof(*tag);
		if (tag->type == 4)
			boot_ram_bytes = (((const uint32_t *)addr)[3] + 1024UL) * 1024;
		addr += (tag->size + 7UL) & ~7UL;
	}
}

void guest_boot(void)
{
	serial_init();
	cpu_init();
	if (boot_loader == LOADER_PVH)
		read_pvh((const struct pvh_info *)boot_info);
	else if (boot_loader == LOADER_MULTIBOOT1)
		read_multiboot1((const struct multiboot1_info *)boot_info);
	else if (boot_loader == LOADER_MULTIBOOT2)
		read_multiboot2(boot_info);
	if (boot_info)
		for (size_t i = 0; i < CMDLINE_MAX - 1 && ((char *)boot_info)[i]; i++)
			cmdline[i] = ((char *)boot_info)[i];
	guest_main();
	guest_exit(0);
}

const char *guest_loader(void)
{
	static const char *const name[] = {"elf64", "pvh", "multiboot1", "multiboot2"};

	return name[boot_loader & 3];
}

uint64_t guest_ram_bytes(void)
{
	return boot_ram_bytes;
}

const char *guest_cmdline(void)
{
	return cmdline;
}

static uint64_t parse_u64(const char *s)
{
	uint64_t v = 0, base = 10;

	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	for (;; s++) {
		char c = *s;

		if (c >= '0' && c <= '9')
			v = v * base + (uint64_t)(c - '0');
		else if (base == 16 && c >= 'a' && c <= 'f')
			v = v * base + (uint64_t)(c - 'a') + 10;
		else
			return v;
	}
}

uint64_t cmdline_get_u64(const char *name, uint64_t absent)
{
	size_t len = strlen(name);
	const char *word = cmdline;

	while (*word) {
		if (memcmp(word, name, len) == 0 && word[len] == '=')
			return parse_u64(word + len + 1);
		while (*word && *word != ' ')
			word++;
		while (*word == ' ')
			word++;
	}
	return absent;
}
