// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/syscall_repair.h"

#include "vmm/paging.h"
#include "vmm/step.h"

#include <errno.h>
#include <sys/ioctl.h>

#define RFLAGS_IF (1u << 9)
#define EFER_SCE 1u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
/* Page-fault error code: user mode, instruction fetch (SDM 3A 4.7). */
#define PF_USER_FETCH 0x14u

void syscall_repair_update(struct vcpu *v)
{
	const struct kvm_sregs *sregs = &v->run->s.regs.sregs;

	v->syscall_repair =
		(sregs->efer & EFER_SCE) && step_handler(v, sregs, PF_VECTOR, &v->pf_entry);
}

static int read_syscall_msrs(struct vcpu *v, uint64_t *star, uint64_t *lstar, struct err *err)
{
	struct {
		uint32_t nmsrs, pad; /* struct kvm_msrs without its flexible array */
		struct kvm_msr_entry entry[2];
	} msrs = {.nmsrs = 2, .entry = {{.index = MSR_STAR}, {.index = MSR_LSTAR}}};

	if (ioctl(v->fd, KVM_GET_MSRS, &msrs) != 2)
		return err_sys(err, errno, "cannot read the SYSCALL registers");
	*star = msrs.entry[0].data;
	*lstar = msrs.entry[1].data;
	return 0;
}

int syscall_repair_is_halfway(struct vcpu *v, bool *halfway, struct err *err)
{
	uint64_t star = 0, lstar = 0;
	int rc;

	*halfway = v->syscall_repair && !v->event_queued && v->sregs_synced &&
		   v->run->s.regs.sregs.ss.dpl == 3 && !(vcpu_regs(v)->rflags & RFLAGS_IF);
	if (!*halfway)
		return 0;
	rc = read_syscall_msrs(v, &star, &lstar, err);
	*halfway = rc == 0 && vcpu_regs(v)->rip == lstar;
	return rc;
}

int syscall_repair_try(struct vcpu *v, bool *from_user, bool *repaired, struct err *err)
{
	struct step_fault fault;
	uint64_t star = 0, lstar = 0;
	struct kvm_sregs sregs;
	uint16_t cs;
	int rc;

	*from_user = *repaired = false;
	rc = vcpu_get_sregs(v, &sregs, err);
	if (rc < 0)
		return rc;
	if (paging_read(v->mem, &sregs, GVA(vcpu_regs(v)->rsp), &fault, sizeof(fault)) < 0)
		return 0;
	*from_user = (fault.cs & 3) == 3;
	if ((fault.error & PF_USER_FETCH) != PF_USER_FETCH || !*from_user || (fault.rflags & RFLAGS_IF))
		return 0;
	rc = read_syscall_msrs(v, &star, &lstar, err);
	if (rc < 0 || fault.rip != lstar)
		return rc;
	cs = (uint16_t)((star >> 32) & 0xfffc);
	sregs.cs = (struct kvm_segment){.limit = 0xffffffff,
					.selector = cs,
					.type = 11,
					.present = 1,
					.s = 1,
					.l = 1,
					.g = 1};
	sregs.ss = (struct kvm_segment){.limit = 0xffffffff,
					.selector = (uint16_t)(cs + 8),
					.type = 3,
					.present = 1,
					.s = 1,
					.db = 1,
					.g = 1};
	rc = vcpu_set_sregs(v, &sregs, err);
	if (rc < 0)
		return rc;
	step_take_back(v, &fault);
	v->syscalls_repaired++;
	*repaired = true;
	return 0;
}
