// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/kick.h"

#include "vmm/cpuid.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void on_kick(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (info->si_code == SI_TIMER && info->si_value.sival_ptr)
		vcpu_kick(info->si_value.sival_ptr);
}

int kick_timer_create(struct kick_timer *k, struct vcpu *v, struct err *err)
{
	struct sigaction sa = {.sa_sigaction = on_kick, .sa_flags = SA_SIGINFO};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK_SIGNAL};

	*k = (struct kick_timer){0};
	event.sigev_value.sival_ptr = v;
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (sigaction(KICK_SIGNAL, &sa, NULL) < 0 ||
	    timer_create(CLOCK_MONOTONIC, &event, &k->timer) < 0)
		return err_sys(err, errno, "cannot create the timer that interrupts the guest");
	k->made = true;
	return 0;
}

void kick_timer_destroy(struct kick_timer *k)
{
	if (k->made)
		timer_delete(k->timer);
	k->made = false;
}

void kick_timer_set(struct kick_timer *k, uint64_t first_ns, uint64_t interval_ns)
{
	struct itimerspec spec = {
		.it_value = {(time_t)(first_ns / NSEC_PER_SEC), (long)(first_ns % NSEC_PER_SEC)},
		.it_interval = {(time_t)(interval_ns / NSEC_PER_SEC), (long)(interval_ns % NSEC_PER_SEC)},
	};

	timer_settime(k->timer, 0, &spec, NULL);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

uint64_t host_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t host_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

void host_pin_thread_to(uint32_t number)
{
	cpu_set_t before, set;

	if (cpuid_host_number() == number || sched_getaffinity(0, sizeof(before), &before) < 0)
		return;
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set) == 0 && cpuid_host_number() == number)
			return;
	}
	sched_setaffinity(0, sizeof(before), &before);
}

int host_pin_thread(struct err *err)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	if (cpu < 0)
		return err_sys(err, errno, "cannot tell which CPU this thread is on");
	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return err_sys(err, errno, "cannot pin the guest's thread to a CPU");
	return 0;
}
