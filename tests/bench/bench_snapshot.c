// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * What snapshots and branches cost, as ratios within one run of this program: taking and restoring
 * against memcpy of the same pages and a fixed allowance, a branch against fork() and a VM with
 * nothing in it. The sides of a ratio alternate. RAM is full of data that is not zeros, so that
 * nothing is cheap because it is empty.
 */
#include "tests/bench/bench_loop.h"
#include "tests/bench/figure.h"

#include "snapshot/snapshot.h"
#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPS 41
#define REPS_QUICK 9
#define BRANCHES 100
#define STORE_SIZE (4ull << 30)
/* What a take or restore may cost besides 3 times the copying. */
#define ALLOWANCE_NS 150000.0
#define COPY_FACTOR 3.0
/* Where the guest writes: above its code and tables, in each page of so many. */
#define WRITE_GPA 0x200000u
#define PAGE_STEP 3
#define PATTERNS 61
#define BRANCH_KIB 307 /* 0.3 MiB */

#define SIZES 3
#define TABLES_MAX 16

struct cost {
	double cpu, wall; /* ns */
};

struct bench {
	unsigned reps;
	unsigned over;
};

struct guest {
	struct machine *m;
	struct snapshots *t;
	uint8_t *copy;
	uint32_t pages;
};

/* CPU time of this thread and of the children that it has waited for, because a busy host stretches
 * wall time. */
static struct cost cost_now(void)
{
	struct rusage r;

	getrusage(RUSAGE_CHILDREN, &r);
	return (struct cost){
		.cpu = (double)host_cpu_ns() +
		       1e9 * (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
		       1e3 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec),
		.wall = (double)host_ns(),
	};
}

static struct cost cost_since(struct cost then)
{
	struct cost now = cost_now();

	return (struct cost){.cpu = now.cpu - then.cpu, .wall = now.wall - then.wall};
}

/*
 *	again:	mov edi, WRITE_GPA
 *		mov ecx, pages
 *	next:	mov [rdi], rbx; mov [rdi+8], rcx
 *		add rdi, step
 *		dec ecx; jnz next
 *		inc rbx
 *		out 0x80, al
 *		jmp again
 */
static size_t writing_guest(uint8_t elf[PORT_GUEST_ELF_MAX], uint32_t pages)
{
	uint8_t code[] = {0xbf, 0,    0,    0,	  0,	0xb9, 0,    0,	  0,	0,    0x48, 0x89,
			  0x1f, 0x48, 0x89, 0x4f, 0x08, 0x48, 0x81, 0xc7, 0,	0,    0,    0,
			  0xff, 0xc9, 0x75, 0xee, 0x48, 0xff, 0xc3, 0xe6, 0x80, 0xeb, 0xdd};
	const uint32_t base = WRITE_GPA, step = PAGE_STEP * (uint32_t)PAGE_SIZE;

	memcpy(code + 1, &base, sizeof(base));
	memcpy(code + 6, &pages, sizeof(pages));
	memcpy(code + 20, &step, sizeof(step));
	return code_guest_elf(elf, code, sizeof(code));
}

static int plan(void *ctx, struct machine *m, struct vcpu_request *req, struct err *err)
{
	(void)ctx;
	(void)m;
	(void)req;
	(void)err;
	return 0;
}

static int stopped(void *ctx, struct machine *m, enum vcpu_stop stop, struct err *err)
{
	(void)ctx;
	(void)m;
	(void)stop;
	(void)err;
	return 0;
}

static int boundary(void *ctx, struct machine *m, struct err *err)
{
	(void)ctx;
	(void)err;
	m->pause = true;
	return 0;
}

static int halted(void *ctx, struct machine *m, uint64_t deadline, struct err *err)
{
	(void)ctx;
	(void)m;
	(void)deadline;
	(void)err;
	return 0;
}

static const struct nondet_ops ops = {
	.plan = plan, .stopped = stopped, .boundary = boundary, .halted = halted};

static void fill(struct memory *mem)
{
	uint8_t page[PAGE_SIZE];

	for (uint64_t n = WRITE_GPA >> PAGE_SHIFT; n < memory_pages(mem); n++) {
		memset(page, (int)(1 + n % PATTERNS), sizeof(page));
		memory_page_put(mem, n, page);
	}
}

static int write_pages(struct guest *g, struct err *err)
{
	g->m->pause = false;
	return machine_run(g->m, err);
}

static int open_guest(struct guest *g, uint64_t mem_size, uint32_t pages, struct err *err)
{
	const struct machine_config config = {.mem_size = mem_size};
	uint8_t elf[PORT_GUEST_ELF_MAX];
	struct guest_image image = {
		.kernel = elf, .kernel_size = writing_guest(elf, pages), .cmdline = ""};
	int rc = machine_create(&g->m, &config, &image, true, err);

	if (rc < 0)
		return rc;
	g->m->nondet = &ops;
	g->pages = pages;
	g->copy = malloc(pages * PAGE_SIZE);
	if (!g->copy)
		return err_set(err, ENOMEM, "out of memory");
	memset(g->copy, 1, pages * PAGE_SIZE);
	fill(g->m->mem);
	rc = snapshots_create(&g->t, STORE_SIZE, "/tmp", err);
	if (rc == 0)
		rc = snapshots_attach(g->t, g->m, err);
	/* Once for boundary 0, once for the first pages. */
	if (rc == 0)
		rc = write_pages(g, err);
	if (rc == 0)
		rc = write_pages(g, err);
	return rc;
}

static void close_guest(struct guest *g)
{
	snapshots_destroy(g->t);
	machine_destroy(g->m);
	free(g->copy);
	g->t = NULL;
	g->m = NULL;
	g->copy = NULL;
}

static uint64_t page_number(uint32_t i)
{
	return (WRITE_GPA >> PAGE_SHIFT) + (uint64_t)i * PAGE_STEP;
}

static struct cost copy_out(struct guest *g)
{
	struct cost start = cost_now();

	for (uint32_t i = 0; i < g->pages; i++)
		memcpy(g->copy + i * PAGE_SIZE, memory_page(g->m->mem, page_number(i)), PAGE_SIZE);
	return cost_since(start);
}

static struct cost copy_in(struct guest *g)
{
	struct cost start = cost_now();

	for (uint32_t i = 0; i < g->pages; i++)
		memcpy((uint8_t *)(uintptr_t)memory_page(g->m->mem, page_number(i)),
		       g->copy + i * PAGE_SIZE, PAGE_SIZE);
	return cost_since(start);
}

/* One side of the table: a take or a restore. */
struct costs {
	struct samples cpu, wall;   /* over what is allowed */
	struct samples us, copy_us; /* CPU time */
};

static void costs_add(struct costs *c, struct cost cost, struct cost copy)
{
	samples_add(&c->cpu, cost.cpu / (COPY_FACTOR * copy.cpu + ALLOWANCE_NS));
	samples_add(&c->wall, cost.wall / (COPY_FACTOR * copy.wall + ALLOWANCE_NS));
	samples_add(&c->us, cost.cpu / 1e3);
	samples_add(&c->copy_us, copy.cpu / 1e3);
}

/* One round: the guest writes, its pages are copied; it writes again, a snapshot is taken; and so
 * on. */
static int measure_round(struct guest *g, struct costs *take, struct costs *restore,
			 struct err *err)
{
	struct snapshots_figures f;
	struct snapshot *s;
	struct cost copy, start;
	int rc = write_pages(g, err);

	if (rc < 0)
		return rc;
	copy = copy_out(g);
	rc = write_pages(g, err);
	start = cost_now();
	if (rc == 0)
		rc = snapshot_take(g->t, NULL, &s, err);
	if (rc < 0)
		return rc;
	costs_add(take, cost_since(start), copy);
	rc = write_pages(g, err);
	if (rc < 0)
		return rc;
	copy = copy_in(g);
	rc = write_pages(g, err);
	start = cost_now();
	if (rc == 0)
		rc = snapshot_restore(g->t, s, err);
	if (rc < 0)
		return rc;
	costs_add(restore, cost_since(start), copy);
	snapshots_figures(g->t, &f);
	/* The CPU may write to page tables besides. */
	if (f.pages < g->pages || f.pages > g->pages + TABLES_MAX)
		return err_set(err, EIO, "%u pages were to be copied, %" PRIu64 " were", g->pages,
			       f.pages);
	snapshot_delete(g->t, s);
	return 0;
}

static void print_costs(struct bench *b, const char *what, uint32_t pages, uint64_t mib,
			struct costs *c)
{
	char name[64];

	snprintf(name, sizeof(name), "%s, %u pages of %" PRIu64 " MiB", what, pages, mib);
	b->over += figure_print(name, 1, &c->cpu, &c->wall);
	printf("    %.0f us, copying %.0f us\n", median(&c->us), median(&c->copy_us));
}

static double spread(struct costs c[SIZES])
{
	double min = median(&c[0].us), max = min;

	for (size_t i = 1; i < SIZES; i++) {
		double us = median(&c[i].us);

		min = us < min ? us : min;
		max = us > max ? us : max;
	}
	return max / min;
}

/* The sizes take turns, since the host may be half as fast a few seconds later. */
static int measure_sizes(struct bench *b, struct guest g[SIZES], struct costs take[SIZES],
			 struct costs restore[SIZES], struct err *err)
{
	for (unsigned i = 0; i < b->reps; i++)
		for (size_t k = 0; k < SIZES; k++) {
			int rc = measure_round(&g[k], &take[k], &restore[k], err);

			if (rc < 0)
				return rc;
		}
	return 0;
}

static int figure_sizes(struct bench *b, uint32_t pages, struct err *err)
{
	static const uint64_t mib[SIZES] = {64, 256, 1024};
	struct costs take[SIZES] = {0}, restore[SIZES] = {0};
	struct samples of_take = {0}, of_restore = {0};
	struct guest g[SIZES] = {0};
	struct snapshot *root;
	int rc = 0;

	for (size_t k = 0; k < SIZES && rc == 0; k++) {
		rc = open_guest(&g[k], mib[k] << 20, pages, err);
		if (rc == 0)
			rc = snapshot_take(g[k].t, NULL, &root, err);
	}
	if (rc == 0)
		rc = measure_sizes(b, g, take, restore, err);
	for (size_t k = 0; k < SIZES; k++)
		close_guest(&g[k]);
	if (rc < 0)
		return rc;
	for (size_t k = 0; k < SIZES; k++) {
		print_costs(b, "take / allowed", pages, mib[k], &take[k]);
		print_costs(b, "restore / allowed", pages, mib[k], &restore[k]);
	}
	samples_add(&of_take, spread(take));
	samples_add(&of_restore, spread(restore));
	b->over += figure_print("take, dearest / cheapest size", 1.3, &of_take, NULL);
	b->over += figure_print("restore, dearest / cheapest size", 1.3, &of_restore, NULL);
	return 0;
}

/* --- Branches -------------------------------------------------------------------------------- */

/* What any branch must do: a process, a VM, a vCPU. */
static int bare_branch(struct cost *cost, struct err *err)
{
	struct cost start = cost_now();
	char byte = 0;
	int fd[2], status;
	pid_t child;

	if (pipe(fd) < 0)
		return err_sys(err, errno, "pipe");
	child = fork();
	if (child < 0)
		return err_sys(err, errno, "fork");
	if (child == 0) {
		int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
		int vm = ioctl(kvm, KVM_CREATE_VM, 0);
		int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);

		_exit(vcpu < 0 || write(fd[1], &byte, 1) != 1);
	}
	if (read(fd[0], &byte, 1) != 1)
		return err_set(err, EIO, "no bare VM");
	cost->wall = cost_since(start).wall;
	close(fd[0]);
	close(fd[1]);
	waitpid(child, &status, 0);
	cost->cpu = cost_since(start).cpu;
	return status ? err_set(err, EIO, "no bare VM") : 0;
}

/* A line "Name:   N kB" of a file in /proc. */
static uint64_t kib_in(const char *path, const char *name)
{
	char line[256];
	uint64_t kib = 0;
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0)
			kib = strtoull(line + strlen(name), NULL, 10);
	if (f)
		fclose(f);
	return kib;
}

/* Memory that only this process has: pages and page tables. */
static double own_kib(pid_t pid)
{
	char path[64];
	uint64_t kib;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	kib = kib_in(path, "Private_Dirty:") + kib_in(path, "Private_Clean:");
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	return (double)(kib + kib_in(path, "VmPTE:"));
}

/* In the child: run to the next boundary, which writes all pages, say so, and stay alive. */
_Noreturn static void live(struct guest *g, int out)
{
	struct err err;
	char byte = write_pages(g, &err) < 0;

	if (write(out, &byte, 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static int figure_alive(struct bench *b, struct guest *g, struct err *err)
{
	struct samples kib = {0}, all = {0};
	pid_t child[BRANCHES];
	unsigned n = 0;
	int fd[2], rc = 0;
	uint64_t before = kib_in("/proc/meminfo", "MemAvailable:"), after;
	double written = (double)g->pages * PAGE_SIZE / 1024;

	if (pipe(fd) < 0)
		return err_sys(err, errno, "pipe");
	while (rc == 0 && n < BRANCHES) {
		rc = snapshot_branch(g->t, NULL, &child[n], err);
		if (rc == 0 && child[n] == 0)
			live(g, fd[1]);
		n += rc == 0;
	}
	for (unsigned i = 0; i < n; i++) {
		char byte = 1;

		if (read(fd[0], &byte, 1) != 1 || byte)
			rc = err_set(err, EIO, "a branch did not run");
	}
	after = kib_in("/proc/meminfo", "MemAvailable:");
	for (unsigned i = 0; i < n; i++)
		samples_add(&kib, own_kib(child[i]) - written);
	for (unsigned i = 0; i < n; i++) {
		kill(child[i], SIGKILL);
		waitpid(child[i], NULL, 0);
	}
	if (rc < 0)
		return rc;
	samples_add(&all, ((double)before - (double)after) / BRANCHES - written);
	b->over += figure_print("KiB of a branch, 100 alive, ran", BRANCH_KIB, &kib, NULL);
	figure_print("the same, by the host's free memory", NO_BOUND, &all, NULL);
	return 0;
}

static int figure_branch(struct bench *b, struct err *err)
{
	struct samples cpu = {0}, wall = {0}, bare_us = {0}, branch_us = {0};
	struct guest g = {0};
	struct snapshot *s;
	int rc = open_guest(&g, 64ull << 20, 256, err);

	if (rc == 0)
		rc = snapshot_take(g.t, NULL, &s, err);
	for (unsigned i = 0; i < b->reps && rc == 0; i++) {
		struct cost bare = {0}, branch, start;
		pid_t child;

		rc = bare_branch(&bare, err);
		start = cost_now();
		if (rc == 0)
			rc = snapshot_branch(g.t, s, &child, err);
		if (rc < 0)
			break;
		if (child == 0)
			_exit(0);
		branch.wall = cost_since(start).wall;
		waitpid(child, NULL, 0);
		branch.cpu = cost_since(start).cpu;
		samples_add(&cpu, branch.cpu / bare.cpu);
		samples_add(&wall, branch.wall / bare.wall);
		samples_add(&bare_us, bare.cpu / 1e3);
		samples_add(&branch_us, branch.cpu / 1e3);
	}
	if (rc == 0) {
		b->over += figure_print("branch / fork and bare VM, 64 MiB", 2, &cpu, &wall);
		printf("    branch %.0f us, fork and bare VM %.0f us, of CPU time, with their "
		       "ends\n",
		       median(&branch_us), median(&bare_us));
		rc = figure_alive(b, &g, err);
	}
	close_guest(&g);
	return rc;
}

int main(int argc, char **argv)
{
	struct bench b = {.reps = argc > 1 && strcmp(argv[1], "-q") == 0 ? REPS_QUICK : REPS};
	struct err err = {0};
	int rc = host_pin_thread(&err);

	printf("snapshots; %u repetitions; allowed: %.0f times memcpy of the same pages and %.0f "
	       "us\n",
	       b.reps, COPY_FACTOR, ALLOWANCE_NS / 1e3);
	figure_print_header();
	/* Branches first: they inherit what else the process has ever used. */
	if (rc == 0)
		rc = figure_branch(&b, &err);
	if (rc == 0)
		rc = figure_sizes(&b, 256, &err);
	if (rc == 0)
		rc = figure_sizes(&b, 4096, &err);
	if (rc < 0) {
		fprintf(stderr, "bench: %s\n", err.text);
		return 1;
	}
	printf("%u over their bounds\n", b.over);
	return 0;
}
