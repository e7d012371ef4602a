/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A timer that makes a running vCPU come back (VCPU_KICK). It belongs to the thread that made it, which
 * must be the one that runs the vCPU.
 */
#ifndef VMM_KICK_H
#define VMM_KICK_H

#include "base/err.h"
#include "vmm/vcpu.h"

#include <time.h>

/* The signal it uses; its handler is installed for the process when the first timer is made. */
#define KICK_SIGNAL SIGUSR1

struct kick_timer {
	timer_t timer;
	bool made;
};

int kick_timer_create(struct kick_timer *k, struct vcpu *v, struct err *err);
void kick_timer_destroy(struct kick_timer *k);
/* First kick after first_ns, then every interval_ns (0: once). first_ns 0 disarms. */
void kick_timer_set(struct kick_timer *k, uint64_t first_ns, uint64_t interval_ns);

/* CPU time of this thread, ns: what the guest's progress is measured by, so that a busy host does
 * not age the guest. */
uint64_t host_cpu_ns(void);
/* CLOCK_MONOTONIC, ns. */
uint64_t host_ns(void);

/* Pin this thread to the CPU it is on: CPUID in user mode shows the number of the host's CPU on hosts
 * where it cannot be hidden. */
int host_pin_thread(struct err *err);
/* Pin it to the CPU of this number (cpuid_host_number) instead, if it may run there; else leave it where it is. */
void host_pin_thread_to(uint32_t number);

#endif
