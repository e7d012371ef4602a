// SPDX-License-Identifier: GPL-3.0-or-later
/* timing: dependent */
/*
 * Two tasks, switched by the timer interrupt, work on the same memory without a lock: what it holds
 * in the end depends on every place where one of them was interrupted. Each also computes something
 * of its own, which must come out as if it had been alone.
 */
#include "test.h"

#define TICK_HZ 1000
#define STACK_BYTES 4096
#define TASKS 2
#define CELLS 4

struct task {
	struct trap_frame frame;
	volatile uint64_t own, steps;
	uint64_t start, id;
	uint8_t stack[STACK_BYTES] __attribute__((aligned(16)));
};

static struct task task[TASKS];
static struct trap_frame main_frame;
static struct task *current;
static struct span span;
static volatile bool done;
static volatile uint64_t cell[CELLS];

static void task_run(struct task *t)
{
	for (;;) {
		uint64_t own = lcg(t->own);
		uint64_t i = own >> 62;
		uint64_t a = cell[i], b = cell[(i + 1) % CELLS];

		/* Who is interrupted up to the next line overwrites what the other has done. */
		a = a * 5 + (b >> 7) + t->id;
		b = (b ^ a << 3) + (own >> 33);
		cell[i] = a;
		cell[(i + 1) % CELLS] = b;
		t->own = own;
		t->steps++;
	}
}

static void task_init(struct task *t, uint64_t id)
{
	t->id = id;
	t->own = t->start = 0x1234567 * (id + 1);
	t->frame.rip = (uint64_t)task_run;
	t->frame.rdi = (uint64_t)t;
	t->frame.cs = SEL_KERNEL_CODE;
	t->frame.ss = SEL_KERNEL_DATA;
	t->frame.rflags = 0x202;
	/* As if called: a return address would lie here. */
	t->frame.rsp = (uint64_t)(t->stack + STACK_BYTES - 8);
}

static void switch_task(struct trap_frame *frame)
{
	timer_ticks++;
	outb(PIC_MASTER, PIC_EOI);
	if (done)
		return;
	if (current) {
		current->frame = *frame;
		current = current == &task[0] ? &task[1] : &task[0];
	} else {
		main_frame = *frame;
		current = &task[0];
	}
	done = span_is_over(&span);
	*frame = done ? main_frame : current->frame;
}

void guest_main(void)
{
	uint64_t sum = 0;
	bool ok = true;

	for (uint64_t i = 0; i < TASKS; i++)
		task_init(&task[i], i);
	span = span_begin(120, 500);
	timer_start(TICK_HZ);
	trap_set_handler(IRQ_BASE, switch_task);
	while (!done)
		cpu_halt();
	irq_disable();
	for (unsigned i = 0; i < CELLS; i++)
		sum = fold(sum, cell[i]);
	for (unsigned i = 0; i < TASKS; i++) {
		uint64_t expected = lcg_jump(task[i].start, task[i].steps);

		/* The last switch may have come between the two stores. */
		ok &= task[i].own == expected || task[i].own == lcg(expected);
	}
	kprintf("tasks: %s, %lu + %lu steps in %lu ticks, cells %016lx\n", ok ? "ok" : "CORRUPTED",
		task[0].steps, task[1].steps, timer_ticks, sum);
	guest_exit(!ok);
}
