// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * leases: hands out leases on a resource and runs jobs for their holders. It has a real bug, of a kind
 * that is found by nobody who looks where it crashes; examples/linux/README.md tells how to find it.
 *
 * A lease ends when its holder gives it back or, if nothing is heard of it, by expiry. A timer keeps the
 * latest lease fresh. With the parameter "rounds" the module exercises itself from a thread of its own.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

#define TICK_JIFFIES 2
#define EXPIRY_JIFFIES 16
#define LEASES_MAX 4
#define JOBS_MAX 12

struct lease {
	u64 client;
	unsigned long renewed; /* jiffies */
	struct list_head node;
	u64 quota[4];
};

struct job {
	u64 client;
	struct list_head node;
	u64 result[5];
};

static unsigned int rounds;
module_param(rounds, uint, 0);
MODULE_PARM_DESC(rounds, "exercise the module this many times (0)");

static DEFINE_SPINLOCK(lock);
static LIST_HEAD(leases);
static LIST_HEAD(jobs);
static struct lease *latest;
static unsigned int lease_count, job_count;
static u64 clients, jobs_done;
static struct timer_list tick;
static struct task_struct *thread;
static DECLARE_COMPLETION(exercised);

/* The holder of the latest lease is at work for sure. */
static void leases_tick(struct timer_list *t)
{
	spin_lock(&lock);
	if (latest)
		latest->renewed = jiffies;
	spin_unlock(&lock);
	mod_timer(t, jiffies + TICK_JIFFIES);
}

static void lease_take(void)
{
	struct lease *lease = kzalloc(sizeof(*lease), GFP_KERNEL);

	if (!lease)
		return;
	lease->client = ++clients;
	spin_lock_bh(&lock);
	lease->renewed = jiffies;
	list_add_tail(&lease->node, &leases);
	latest = lease;
	lease_count++;
	spin_unlock_bh(&lock);
}

static void lease_give_back(void)
{
	struct lease *lease;

	spin_lock_bh(&lock);
	lease = list_first_entry_or_null(&leases, struct lease, node);
	if (lease) {
		list_del(&lease->node);
		if (lease == latest)
			latest = NULL;
		lease_count--;
	}
	spin_unlock_bh(&lock);
	kfree(lease);
}

/* All that have not been renewed for a while. */
static void leases_expire(unsigned long before)
{
	struct lease *lease, *next;

	spin_lock_bh(&lock);
	list_for_each_entry_safe(lease, next, &leases, node) {
		if (time_after(lease->renewed, before))
			continue;
		list_del(&lease->node);
		lease_count--;
		kfree(lease);
	}
	spin_unlock_bh(&lock);
}

static void job_submit(void)
{
	struct job *job = kzalloc(sizeof(*job), GFP_KERNEL);

	if (!job)
		return;
	job->client = clients;
	list_add_tail(&job->node, &jobs);
	job_count++;
}

static void jobs_finish(void)
{
	struct job *job, *next;

	list_for_each_entry_safe(job, next, &jobs, node) {
		list_del(&job->node);
		job_count--;
		jobs_done++;
		kfree(job);
	}
}

static void leases_round(void)
{
	switch (get_random_u32() % 8) {
	case 0:
	case 1:
		if (lease_count < LEASES_MAX)
			lease_take();
		break;
	case 2:
		lease_give_back();
		break;
	case 3:
		leases_expire(jiffies - EXPIRY_JIFFIES);
		break;
	case 4:
		/* The resource is wanted elsewhere: nobody may keep it. */
		if (get_random_u32() % 4 == 0)
			leases_expire(jiffies);
		break;
	default:
		if (job_count < JOBS_MAX)
			job_submit();
		else
			jobs_finish();
	}
}

static int leases_exercise(void *unused)
{
	for (unsigned int i = 0; i < rounds; i++) {
		leases_round();
		if (get_random_u32() % 8 == 0)
			msleep(get_random_u32() % 10);
	}
	jobs_finish();
	pr_info("leases: %llu clients, %llu jobs done\n", clients, jobs_done);
	kthread_complete_and_exit(&exercised, 0);
}

static int __init leases_init(void)
{
	timer_setup(&tick, leases_tick, 0);
	mod_timer(&tick, jiffies + TICK_JIFFIES);
	if (!rounds)
		return 0;
	thread = kthread_run(leases_exercise, NULL, "leases");
	if (!IS_ERR(thread))
		return 0;
	del_timer_sync(&tick);
	return PTR_ERR(thread);
}

static void __exit leases_exit(void)
{
	if (thread)
		wait_for_completion(&exercised);
	del_timer_sync(&tick);
	jobs_finish();
	leases_expire(jiffies);
}

module_init(leases_init);
module_exit(leases_exit);
MODULE_DESCRIPTION("leases on a resource; examples/linux of hindsight");
MODULE_LICENSE("GPL");
