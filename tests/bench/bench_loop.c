// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/bench/bench_loop.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define CODE_GPA 0x100000u
#define EXIT_PORT 0xf4

#define RAM_SIZE (2u << 20)
#define PML4_GPA 0x1000u
#define PDPT_GPA 0x2000u
#define PD_GPA 0x3000u
/* Page table entries: present, writable; PD entries map 2 MiB (SDM 3A 4.5). */
#define PTE_TABLE 0x3u
#define PTE_LARGE 0x83u
#define CR0_PE_PG 0x80000001u
#define CR4_PAE 0x20u
#define EFER_LME_LMA 0x500u
/* As every KVM tender sets it: needed by some Intel hosts only. */
#define TSS_ADDR 0xfffbd000ul

static const uint8_t code_template[] = {
	0x31, 0xc0,			   /* xor eax, eax */
	0xba, 0xd8,	 0x03, 0x00, 0x00, /* mov edx, 0x3d8: a CGA register; there is no CGA */
	0xb9, 0x00,	 0x00, 0x00, 0x00, /* mov ecx, outs */
	0xee,				   /* again: out dx, al */
	0xff, 0xc9,			   /* dec ecx */
	0x75, 0xfb,			   /* jnz again */
	0xe6, EXIT_PORT,		   /* out EXIT_PORT, al */
	0xf4,				   /* hlt */
};

#define CODE_OUTS 8 /* where in it the number goes */

static void put_code(uint8_t *to, uint32_t outs)
{
	memcpy(to, code_template, sizeof(code_template));
	memcpy(to + CODE_OUTS, &outs, sizeof(outs));
}

size_t code_guest_elf(uint8_t elf[PORT_GUEST_ELF_MAX], const uint8_t *code, size_t len)
{
	const Elf64_Ehdr ehdr = {
		.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			    EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = CODE_GPA,
		.e_phoff = sizeof(ehdr),
		.e_ehsize = sizeof(ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 1,
	};
	const Elf64_Phdr phdr = {
		.p_type = PT_LOAD,
		.p_flags = PF_R | PF_X,
		.p_offset = sizeof(ehdr) + sizeof(phdr),
		.p_vaddr = CODE_GPA,
		.p_paddr = CODE_GPA,
		.p_filesz = len,
		.p_memsz = len,
		.p_align = 1,
	};

	if (len > PORT_GUEST_ELF_MAX - phdr.p_offset)
		abort();
	memcpy(elf, &ehdr, sizeof(ehdr));
	memcpy(elf + sizeof(ehdr), &phdr, sizeof(phdr));
	memcpy(elf + phdr.p_offset, code, len);
	return phdr.p_offset + len;
}

size_t port_guest_elf(uint8_t elf[PORT_GUEST_ELF_MAX], uint32_t outs)
{
	uint8_t code[sizeof(code_template)];

	put_code(code, outs);
	return code_guest_elf(elf, code, sizeof(code));
}

struct bare_vm {
	int kvm_fd, vm_fd, vcpu_fd;
	uint8_t *ram;
	struct kvm_run *run;
	size_t run_size;
};

static void put_page_tables(uint8_t *ram)
{
	const uint64_t pml4 = PDPT_GPA | PTE_TABLE, pdpt = PD_GPA | PTE_TABLE, pd = PTE_LARGE;

	memcpy(ram + PML4_GPA, &pml4, sizeof(pml4));
	memcpy(ram + PDPT_GPA, &pdpt, sizeof(pdpt));
	memcpy(ram + PD_GPA, &pd, sizeof(pd));
}

static int enter_long_mode(int vcpu_fd)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
		return -1;
	sregs.cr0 = CR0_PE_PG;
	sregs.cr3 = PML4_GPA;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME_LMA;
	sregs.cs = (struct kvm_segment){.limit = 0xffffffff,
					.selector = 8,
					.type = 11,
					.present = 1,
					.s = 1,
					.l = 1,
					.g = 1};
	sregs.ss = (struct kvm_segment){.limit = 0xffffffff,
					.selector = 16,
					.type = 3,
					.present = 1,
					.s = 1,
					.db = 1,
					.g = 1};
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
		return -1;
	return ioctl(vcpu_fd, KVM_SET_REGS, &regs);
}

int bare_vm_create(struct bare_vm **out, uint32_t outs, struct err *err)
{
	struct kvm_userspace_memory_region region = {.memory_size = RAM_SIZE};
	struct bare_vm *vm = calloc(1, sizeof(*vm));
	int size, rc;

	if (!vm)
		return err_set(err, ENOMEM, "out of memory");
	vm->vm_fd = vm->vcpu_fd = -1;
	vm->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vm->run = MAP_FAILED;
	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0 || vm->ram == MAP_FAILED)
		goto fail;
	vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->vm_fd < 0)
		goto fail;
	(void)ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDR);
	put_page_tables(vm->ram);
	put_code(vm->ram + CODE_GPA, outs);
	region.userspace_addr = (uintptr_t)vm->ram;
	if (ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		goto fail;
	vm->vcpu_fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, 0);
	size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm->vcpu_fd < 0 || size < (int)sizeof(*vm->run))
		goto fail;
	vm->run_size = (size_t)size;
	vm->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu_fd, 0);
	if (vm->run == MAP_FAILED || enter_long_mode(vm->vcpu_fd) < 0)
		goto fail;
	*out = vm;
	return 0;
fail:
	rc = err_sys(err, errno, "cannot make the VM that shows the bare cost of exits");
	bare_vm_destroy(vm);
	return rc;
}

void bare_vm_destroy(struct bare_vm *vm)
{
	if (!vm)
		return;
	if (vm->run != MAP_FAILED)
		munmap(vm->run, vm->run_size);
	if (vm->vcpu_fd >= 0)
		close(vm->vcpu_fd);
	if (vm->vm_fd >= 0)
		close(vm->vm_fd);
	if (vm->ram != MAP_FAILED)
		munmap(vm->ram, RAM_SIZE);
	if (vm->kvm_fd >= 0)
		close(vm->kvm_fd);
	free(vm);
}

int bare_vm_run(struct bare_vm *vm, uint64_t *exits, struct err *err)
{
	*exits = 0;
	do {
		if (ioctl(vm->vcpu_fd, KVM_RUN, 0) < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(err, errno, "KVM cannot run the VM of bare exits");
		}
		if (vm->run->exit_reason != KVM_EXIT_IO)
			return err_set(err, EIO,
				       "the VM of bare exits came back with exit reason %u",
				       vm->run->exit_reason);
		++*exits;
	} while (vm->run->io.port != EXIT_PORT);
	return 0;
}
