// SPDX-License-Identifier: GPL-3.0-or-later
/* How the host reports a guest's writes: to pages that are not writable, and to pages it keeps a
 * log of. */
#include "vmm/probe_internal.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define STORED 0x1122334455667788ull
#define CR0_WP 0x10000ull

/* MOV [address], RBX: eight bytes long. */
static void put_store(struct snippet *s, uint64_t address)
{
	EMIT(s, 0x48, 0x89, 0x1c);
	snippet_put_imm32(s, 0x25, (uint32_t)address);
}

/* MOV RAX, [address]. */
static void put_load(struct snippet *s, uint64_t address)
{
	EMIT(s, 0x48, 0x8b, 0x04);
	snippet_put_imm32(s, 0x25, (uint32_t)address);
}

static uint64_t load(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/*
 * Run into a store of STORED to gpa (at rip, to host memory hva), which must not take effect. A
 * trap after which the guest cannot go on, or that has applied the store, is none.
 */
static enum write_trap run_into_store(struct probe_guest *g, uint64_t gpa, const uint8_t *hva,
				      uint64_t rip)
{
	struct kvm_run *run = g->run;
	struct kvm_regs regs;
	int exit = probe_run(g);
	uint64_t data;

	if (!probe_get_regs(g, &regs) || load(hva) != 0)
		return WRITE_TRAP_NONE;
	if (exit == -EFAULT)
		return regs.rip == rip ? WRITE_TRAP_EFAULT : WRITE_TRAP_NONE;
	if (exit != KVM_EXIT_MMIO)
		return WRITE_TRAP_NONE;
	memcpy(&data, run->mmio.data, sizeof(data));
	if (!run->mmio.is_write || run->mmio.phys_addr != gpa || run->mmio.len != sizeof(data) ||
	    data != STORED || !probe_run_done(g, &regs) || load(hva) != 0)
		return WRITE_TRAP_NONE;
	return WRITE_TRAP_MMIO;
}

void probe_ro_slot(struct probe_guest *g, struct host_caps *caps, unsigned cpl)
{
	const struct probe_start how = {.cpl = cpl, .rbx = STORED};
	struct snippet code = {0};

	put_store(&code, GUEST_RO + 8);
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how))
		return;
	memset(g->ro, 0, PAGE_SIZE);
	caps->ro_slot[cpl ? 1 : 0] =
		run_into_store(g, GUEST_RO + 8, g->ro + 8, cpl ? GUEST_CODE3 : GUEST_CODE0);
}

void probe_hole_load(struct probe_guest *g, struct host_caps *caps, unsigned cpl)
{
	const struct probe_start how = {.cpl = cpl};
	const uint64_t answer = STORED;
	struct kvm_run *run = g->run;
	struct snippet code = {0};
	struct kvm_regs regs;

	put_load(&code, GUEST_HOLE + 8);
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how) || probe_run(g) != KVM_EXIT_MMIO || run->mmio.is_write ||
	    run->mmio.phys_addr != GUEST_HOLE + 8 || run->mmio.len != sizeof(answer))
		return;
	memcpy(run->mmio.data, &answer, sizeof(answer));
	caps->hole_load[cpl ? 1 : 0] = probe_run_done(g, &regs) && regs.rax == answer;
}

/* The page is written to before it is protected, so that the guest has a writable mapping to lose.
 */
void probe_mprotect(struct probe_guest *g, struct host_caps *caps, unsigned cpl)
{
	const struct probe_start how = {.cpl = cpl, .rbx = STORED};
	enum write_trap trap = WRITE_TRAP_NONE;
	struct snippet code = {0};
	struct kvm_regs regs;
	uint8_t *page;

	put_store(&code, GUEST_DATA);
	snippet_put_done(&code);
	put_store(&code, GUEST_DATA + 8);
	snippet_put_done(&code);
	if (!probe_start(g, &code, &how) || !probe_run_done(g, &regs))
		return;
	page = g->ram + GUEST_DATA;
	if (mprotect(page, PAGE_SIZE, PROT_READ) < 0)
		return;
	trap = run_into_store(g, GUEST_DATA + 8, page + 8, (cpl ? GUEST_CODE3 : GUEST_CODE0) + 10);
	if (mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE) < 0) {
		g->broken = true;
		return;
	}
	/* The instruction is restarted and succeeds, now that it may. */
	if (trap == WRITE_TRAP_EFAULT && (!probe_run_done(g, &regs) || load(page + 8) != STORED))
		trap = WRITE_TRAP_NONE;
	caps->mprotect_store[cpl ? 1 : 0] = trap;
}

/* Writes to these pages of the logged slot (bit set), and nothing else. */
static bool write_pages(struct probe_guest *g, unsigned cpl, uint64_t pages)
{
	const struct probe_start how = {.cpl = cpl, .rbx = STORED};
	struct snippet code = {0};
	struct kvm_regs regs;

	for (uint64_t i = 0; i < GUEST_LOGGED_PAGES; i++) {
		if (pages & (1u << i))
			put_store(&code, GUEST_LOGGED + i * PAGE_SIZE);
	}
	snippet_put_done(&code);
	return probe_start(g, &code, &how) && probe_run_done(g, &regs);
}

/* What was written since the last call. */
static bool log_says(struct probe_guest *g, uint64_t pages)
{
	uint64_t bitmap[(GUEST_LOGGED_PAGES + 63) / 64] = {0};
	struct kvm_dirty_log log = {.slot = GUEST_LOGGED_SLOT, .dirty_bitmap = bitmap};

	return ioctl(g->vm, KVM_GET_DIRTY_LOG, &log) == 0 && bitmap[0] == pages;
}

void probe_dirty_log(struct probe_guest *g, struct host_caps *caps)
{
	/* Pages 1 and 5, then one from user mode, then nothing, then one that was written before.
	 */
	caps->dirty_log = write_pages(g, 0, 0) && log_says(g, 0) && write_pages(g, 0, 0x22) &&
			  log_says(g, 0x22) && write_pages(g, 3, 0x04) && log_says(g, 0x04) &&
			  log_says(g, 0) && write_pages(g, 0, 0x02) && log_says(g, 0x02);
}

/* Snippets are shorter than a page. */
#define OTHER_DATA (GUEST_CODE0 + (uint32_t)PAGE_SIZE)

static bool flush_tables(struct probe_guest *g, enum table_flush how)
{
	struct kvm_userspace_memory_region slot = {
		.slot = GUEST_LOGGED_SLOT + 1,
		.guest_phys_addr = 2 * GUEST_LOGGED,
		.memory_size = PAGE_SIZE,
		.userspace_addr = (uintptr_t)g->ro,
	};
	struct kvm_sregs sregs;

	if (how == TABLES_BY_SLOT) {
		if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
			return false;
		slot.memory_size = 0;
		return ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &slot) == 0;
	}
	if (ioctl(g->vcpu, KVM_GET_SREGS, &sregs) < 0)
		return false;
	sregs.cr0 ^= CR0_WP;
	if (ioctl(g->vcpu, KVM_SET_SREGS, &sregs) < 0)
		return false;
	sregs.cr0 ^= CR0_WP;
	return ioctl(g->vcpu, KVM_SET_SREGS, &sregs) == 0;
}

/* At CPL3, where the CPU and not an emulator walks the tables on every host: load, let the entry point
 * to another page, load again. */
static bool flush_works(struct probe_guest *g, enum table_flush how)
{
	const struct probe_start start = {.cpl = 3};
	uint8_t *entry = g->ram + GUEST_PT + GUEST_DATA / PAGE_SIZE * 8;
	struct snippet code = {0};
	struct kvm_regs regs;
	uint64_t old, other;
	bool works;

	for (int i = 0; i < 2; i++) {
		put_load(&code, GUEST_DATA);
		snippet_put_done(&code);
	}
	if (!probe_start(g, &code, &start))
		return false;
	memcpy(g->ram + GUEST_DATA, &(uint64_t){STORED}, 8);
	memcpy(g->ram + OTHER_DATA, &(uint64_t){~STORED}, 8);
	if (!probe_run_done(g, &regs) || regs.rax != STORED)
		return false;
	old = load(entry);
	other = old - GUEST_DATA + OTHER_DATA;
	memcpy(entry, &other, sizeof(other));
	works = flush_tables(g, how) && probe_run_done(g, &regs) && regs.rax == ~STORED;
	memcpy(entry, &old, sizeof(old));
	/* What KVM has made of the tables is not what they say any more. */
	g->broken = true;
	return works;
}

void probe_table_flush(struct probe_guest *g, struct host_caps *caps)
{
	caps->table_flush = flush_works(g, TABLES_BY_SREGS)  ? TABLES_BY_SREGS
			    : flush_works(g, TABLES_BY_SLOT) ? TABLES_BY_SLOT
							     : TABLES_STALE;
}

void probe_dirty_ring(int kvm_fd, struct host_caps *caps)
{
	const struct kvm_dirty_gfn *ring;
	struct probe_guest g;

	if (probe_guest_open(&g, kvm_fd, true, NULL) < 0)
		return;
	ring = mmap(NULL, g.dirty_ring_size, PROT_READ, MAP_SHARED, g.vcpu,
		    (off_t)(KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_SIZE));
	if (ring == MAP_FAILED)
		goto out;
	caps->dirty_ring = write_pages(&g, 0, 0x20) && !g.broken &&
			   (ring[0].flags & KVM_DIRTY_GFN_F_DIRTY) &&
			   ring[0].slot == GUEST_LOGGED_SLOT && ring[0].offset == 5;
	munmap((void *)(uintptr_t)ring, g.dirty_ring_size);
out:
	probe_guest_close(&g);
}
