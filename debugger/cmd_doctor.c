// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/cmd_doctor.h"
#include "debugger/options.h"
#include "vmm/caps.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STATUS_NOT_USABLE 1

enum field_kind {
	FIELD_TEXT,
	FIELD_NUMBER,
	FIELD_BOOL,
	FIELD_LEVELS, /* bool[2]: at CPL0 and CPL3 */
	FIELD_INT3,   /* enum int3_exit[2] */
	FIELD_TRAP,   /* enum write_trap[2] */
	FIELD_FLUSH,  /* enum table_flush */
	FIELD_GAPS,
	FIELD_NS
};

/* One line of the table and one member of the JSON object, in this order. */
struct field {
	const char *name;
	size_t offset;
	enum field_kind kind;
	const char *what;
	const char *good; /* what it means if it is there (at both levels), or always */
	const char *bad;  /* if not */
};

#define FIELD(name, kind, what, good, bad)                                                         \
	{                                                                                          \
#name, offsetof(struct host_caps, name), kind, what, good, bad                     \
	}

static const struct field fields[] = {
	FIELD(kernel, FIELD_TEXT, "host kernel", "", ""),
	FIELD(cpu, FIELD_TEXT, "host CPU", "", ""),
	FIELD(kvm_api, FIELD_NUMBER, "KVM API version", "", ""),
	FIELD(has_stats_fd, FIELD_BOOL, "vCPU statistics", "KVM's own counts can be read",
	      "KVM's own counts cannot be read"),
	FIELD(emul_clock, FIELD_BOOL, "instruction clock, kernel",
	      "insn_emulation counts kernel instructions exactly",
	      "insn_emulation is no count of instructions"),
	FIELD(emul_clock_cpl3, FIELD_BOOL, "instruction clock, user",
	      "it counts user instructions too", "user instructions are not counted"),
	FIELD(ns_count, FIELD_NS, "  least time for a count", "", ""),
	FIELD(pmu, FIELD_BOOL, "branch counter (PMU)", "guest branches can be counted",
	      "no performance counter for the guest"),
	FIELD(step, FIELD_LEVELS, "single-step", "code can be walked by instruction",
	      "where not, a step does not come out"),
	FIELD(hw_breakpoint, FIELD_LEVELS, "hardware exec breakpoint", "four at a time, any code",
	      "where not, it does not stop"),
	FIELD(hw_breakpoint_rehits, FIELD_BOOL, "  hits again when resumed",
	      "taken away for one step after a hit", "RF is set: it does not"),
	FIELD(int3, FIELD_INT3, "INT3 comes out as", "a planted byte can be a breakpoint",
	      "it goes to the guest"),
	FIELD(hlt_breakpoint, FIELD_BOOL, "planted HLT comes out", "a breakpoint for kernel code",
	      "no breakpoint of last resort"),
	FIELD(data_breakpoint, FIELD_BOOL, "data breakpoint", "DR0-3 see stores",
	      "DR0-3 see no stores; page protection does"),
	FIELD(step_leaks_tf, FIELD_BOOL, "PUSHF shows a step",
	      "TF is taken out of the pushed flags", "the guest cannot see that it is stepped"),
	FIELD(window_exact, FIELD_BOOL, "interrupt window exact",
	      "opens at the first possible instruction", "opens late: not to be used"),
	FIELD(cpuid_honoured, FIELD_LEVELS, "CPUID obeys KVM_SET_CPUID2",
	      "the guest sees only our CPU", "the guest sees the host's CPU where not"),
	FIELD(rdtsc_traps, FIELD_BOOL, "user RDTSC can be trapped", "CR4.TSD works",
	      "CR4.TSD has no effect"),
	FIELD(syscall_works, FIELD_BOOL, "SYSCALL enters the kernel", "user programs run natively",
	      "it stays in user mode and faults: repaired"),
	FIELD(tr_set_free, FIELD_BOOL, "TR must be set as free", "or user code's I/O bitmap is ignored",
	      "the TSS's I/O bitmap works as it is"),
	FIELD(msr_filter, FIELD_BOOL, "MSR filter", "the guest's MSRs are answered by us",
	      "the guest reads the host's MSRs"),
	FIELD(sync_regs, FIELD_BOOL, "registers in kvm_run", "no ioctl for registers",
	      "indispensable, missing"),
	FIELD(in_sync_eax_lost, FIELD_BOOL, "RAX beats the data of IN", "the answer goes into both",
	      "the data of IN wins"),
	FIELD(ro_slot, FIELD_TRAP, "store to read-only slot", "watched stores come with their data",
	      "watched stores are missed"),
	FIELD(mprotect_store, FIELD_TRAP, "store to mprotect'ed RAM", "stops before the store",
	      "the store is not noticed"),
	FIELD(hole_load, FIELD_LEVELS, "load where there is no slot", "watched loads come out and are answered",
	      "where not, watched loads are missed"),
	FIELD(dirty_log, FIELD_BOOL, "dirty log", "exactly the written pages",
	      "indispensable, missing"),
	FIELD(table_flush, FIELD_FLUSH, "replaced page tables seen by",
	      "what a restored snapshot needs", "not seen: no snapshots"),
	FIELD(dirty_ring, FIELD_BOOL, "dirty ring", "works", "the log is used"),
	FIELD(gaps, FIELD_GAPS, "kernel code not emulated", "", ""),
	FIELD(ns_exit, FIELD_NS, "cost of an exit", "", ""),
	FIELD(ns_ioctl, FIELD_NS, "cost of a vCPU ioctl", "", ""),
	FIELD(ns_step, FIELD_NS, "cost of a single step", "", ""),
	FIELD(ns_instruction_cpl0, FIELD_NS, "cost of a kernel instruction", "", ""),
};

static const char *int3_name(enum int3_exit e)
{
	return e == INT3_DEBUG ? "debug" : e == INT3_EMULATION ? "emulation" : "lost";
}

static const char *trap_name(enum write_trap t)
{
	return t == WRITE_TRAP_MMIO ? "mmio" : t == WRITE_TRAP_EFAULT ? "efault" : "none";
}

/* --- What follows from the capabilities --- */

enum strategy_key {
	KEY_CLOCK,
	KEY_BREAK,
	KEY_IRQ,
	KEY_IRQ_USER,
	KEY_CPUID,
	KEY_CPUID_USER,
	KEY_SYSCALL,
	KEY_WRITES,
	KEY_READS,
	KEYS
};

struct strategy {
	const char *key;   /* JSON */
	const char *value; /* JSON */
	const char *title;
	const char *text;
};

static struct strategy breakpoint_strategy(const struct host_caps *c)
{
	enum bp_mechanism how = caps_breakpoint(c);
	struct strategy s = {"breakpoint", bp_mechanism_name(how), "breakpoints", NULL};

	switch (how) {
	case BP_HW:
		s.text = "hardware breakpoint registers, nothing planted in memory";
		break;
	case BP_INT3:
		s.text = "INT3 planted while the guest runs";
		break;
	case BP_HLT:
		s.text = "HLT planted while the guest runs (kernel code only)";
		break;
	case BP_NONE:
		s.text = "none: no way to stop at an address";
		break;
	}
	return s;
}

static bool stores_watchable(const struct host_caps *c)
{
	return c->ro_slot[0] == WRITE_TRAP_MMIO && c->ro_slot[1] == WRITE_TRAP_MMIO;
}

/* Of SYSCALL: the repair needs a hardware breakpoint at the guest's page fault entry. */
static struct strategy syscall_strategy(const struct host_caps *c)
{
	if (c->syscall_works)
		return (struct strategy){"syscall", "native", "SYSCALL", "by the CPU"};
	if (c->hw_breakpoint[0])
		return (struct strategy){
			"syscall", "repair", "SYSCALL",
			"the fault it ends in is caught by a breakpoint at the guest's #PF "
			"entry and undone"};
	return (struct strategy){"syscall", "none", "SYSCALL",
				 "does not work and cannot be repaired"};
}

static void choose(const struct host_caps *c, struct strategy s[KEYS])
{
	s[KEY_CLOCK] = caps_has_clock(c)
			       ? (struct strategy){"clock", "emul", "clock",
						   "emul: KVM's count of emulated instructions"}
			       : (struct strategy){"clock", "state", "clock",
						   "state: places are found again by registers and "
						   "a digest of memory"};
	s[KEY_BREAK] = breakpoint_strategy(c);
	s[KEY_IRQ] = caps_use_window(c) ? (struct strategy){"interrupts", "window", "interrupts",
							    "KVM's interrupt window finds IF=1"}
					: (struct strategy){"interrupts", "step", "interrupts",
							    "single steps find IF=1"};
	/* Recording never stops user code, since not every host finds such a place again. */
	s[KEY_IRQ_USER] =
		c->syscall_works
			? (struct strategy){"interrupts_user", "kernel", "interrupts, user",
					    "delivered when the guest is found in its kernel, or at "
					    "the next boundary"}
			: (struct strategy){"interrupts_user", "entry", "interrupts, user",
					    "delivered at the next entry into the kernel: system "
					    "calls and page faults are seen"};
	s[KEY_CPUID] = (struct strategy){"cpuid_kernel", "rewrite", "CPUID, kernel",
					 "rewritten to IN when loaded, answered from our table"};
	s[KEY_CPUID_USER] =
		c->cpuid_honoured[1]
			? (struct strategy){"cpuid_user", "table", "CPUID, user",
					    "KVM_SET_CPUID2, with the same table"}
			: (struct strategy){"cpuid_user", "host", "CPUID, user",
					    "answered by the host's CPU; the thread is pinned"};
	s[KEY_SYSCALL] = syscall_strategy(c);
	s[KEY_WRITES] =
		stores_watchable(c)
			? (struct strategy){"writes", "ro_slot", "watched writes",
					    "read-only slot: each store comes out with its data"}
			: (struct strategy){"writes", "none", "watched writes",
					    "none: stores to a read-only slot do not come out"};
	s[KEY_READS] = c->hole_load[0] && c->hole_load[1]
			       ? (struct strategy){"reads", "no_slot", "watched reads",
						   "no slot: each load comes out and is answered"}
			       : (struct strategy){"reads", "none", "watched reads",
						   "none: loads where there is no slot do not come out"};
}

#define LIMITS_MAX 20

struct limits {
	unsigned n;
	char text[LIMITS_MAX][320];
};

__attribute__((format(printf, 2, 3))) static void limit(struct limits *l, const char *fmt, ...)
{
	va_list ap;

	if (l->n == LIMITS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(l->text[l->n++], sizeof(l->text[0]), fmt, ap);
	va_end(ap);
}

static void list_gaps(uint32_t gaps, const char *none, char *out, size_t size)
{
	size_t n = 0;

	snprintf(out, size, "%s", none);
	for (unsigned i = 0; i < GAP_COUNT && n < size; i++) {
		if (gaps & (1u << i))
			n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "",
					      emulation_gap_name((enum emulation_gap)i));
	}
}

/* Above this, kernel code is surely not run by the CPU: no CPU is that slow. */
#define EMULATED_NS 50

static void limits_of_cpu(const struct host_caps *c, struct limits *l)
{
	char gaps[200];

	if (c->rdtsc_traps)
		limit(l, "RDTSC in user mode reads the host's clock unless the guest's kernel "
			 "forbids it "
			 "(CR4.TSD): runs whose user code uses it may diverge (digests detect it)");
	else
		limit(l, "RDTSC in user mode reads the host's clock and cannot be trapped: runs "
			 "whose user "
			 "code uses it may diverge (digests detect it)");
	if (!c->cpuid_honoured[1])
		limit(l, "CPUID in user mode shows the host's CPU: a recording replays only on the "
			 "same "
			 "kind of CPU");
	if (!c->cpuid_honoured[0])
		limit(l,
		      "CPUID in kernel code that is loaded or generated at run time (modules, JIT) "
		      "shows the host's CPU");
	if (!c->msr_filter)
		limit(l, "RDMSR of the TSC and of other MSRs shows the host's values");
	if (!c->syscall_works)
		limit(l, "SYSCALL does not enter the kernel by itself%s",
		      c->hw_breakpoint[0]
			      ? ": the repair makes system calls and page faults slow"
			      : ", and without hardware breakpoints it cannot be repaired: "
				"64-bit user programs do not run");
	if (c->gaps) {
		list_gaps(c->gaps, "", gaps, sizeof(gaps));
		limit(l,
		      "KVM does not emulate all of the kernel's instructions (%s): these are "
		      "completed by hindsight, at some cost; one that is not ends the run and is named",
		      gaps);
	}
	if (c->ns_instruction_cpl0 >= EMULATED_NS)
		limit(l,
		      "kernel code is emulated, %.1f million instructions a second: use a small "
		      "kernel "
		      "and a small, uncompressed initrd",
		      1000.0 / c->ns_instruction_cpl0);
}

static void limits_of_debugging(const struct host_caps *c, struct limits *l)
{
	bool user_break = c->hw_breakpoint[1] || c->int3[1] != INT3_LOST;

	limit(l,
	      "user code that runs on without entering the kernel is interrupted only at its next "
	      "kernel entry%s: an endless loop in user mode gets no timer interrupt",
	      user_break ? ""
			 : " (there is no breakpoint in user mode to find another place again)");
	if (!c->step[1])
		limit(l, "user code cannot be single-stepped");
	if (!user_break)
		limit(l, "breakpoints in user code do not stop");
	if (!c->data_breakpoint)
		limit(l, "hardware data breakpoints never fire: watching goes by page protection, "
			 "and a "
			 "guest that sets DR0-3 for itself sees nothing");
	if (caps_breakpoint(c) == BP_INT3 || caps_breakpoint(c) == BP_HLT)
		limit(l, "breakpoints are bytes planted while the guest runs: a guest that reads "
			 "its own "
			 "code at that moment sees them");
	if (!stores_watchable(c))
		limit(l, "last-write and watchpoints miss stores%s",
		      c->ro_slot[0] == WRITE_TRAP_MMIO ? " of user code" : "");
	if (!c->hole_load[0] || !c->hole_load[1])
		limit(l, "gdb's rwatch and awatch miss loads%s", c->hole_load[0] ? " of user code" : "");
}

/* --- For people --- */

static const void *field_at(const struct host_caps *c, const struct field *f)
{
	return (const char *)c + f->offset;
}

/* The value in words, and whether it is good. */
static bool describe(const struct host_caps *c, const struct field *f, char *out, size_t size)
{
	const void *p = field_at(c, f);
	const enum int3_exit *int3 = p;
	const enum write_trap *trap = p;
	const enum table_flush *flush = p;
	const uint32_t *number = p;
	const bool *flag = p;

	switch (f->kind) {
	case FIELD_TEXT:
		snprintf(out, size, "%s", (const char *)p);
		return true;
	case FIELD_NUMBER:
		snprintf(out, size, "%d", *(const int *)p);
		return true;
	case FIELD_BOOL:
		snprintf(out, size, "%s", *flag ? "yes" : "no");
		return *flag;
	case FIELD_LEVELS:
		snprintf(out, size, "%s",
			 flag[0]   ? flag[1] ? "yes" : "kernel only"
			 : flag[1] ? "user only"
				   : "no");
		return flag[0] && flag[1];
	case FIELD_INT3:
		snprintf(out, size, "%s / %s", int3_name(int3[0]), int3_name(int3[1]));
		return int3[0] != INT3_LOST;
	case FIELD_TRAP:
		snprintf(out, size, "%s / %s", trap_name(trap[0]), trap_name(trap[1]));
		return trap[0] != WRITE_TRAP_NONE && trap[1] != WRITE_TRAP_NONE;
	case FIELD_FLUSH:
		snprintf(out, size, "%s", table_flush_name(*flush));
		return *flush != TABLES_STALE;
	case FIELD_GAPS:
		list_gaps(*number, "none seen", out, size);
		return true;
	case FIELD_NS:
		break;
	}
	if (*number >= 10000)
		snprintf(out, size, "%.0f us", *number / 1000.0);
	else if (*number >= 1000)
		snprintf(out, size, "%.1f us", *number / 1000.0);
	else
		snprintf(out, size, *number == 1 ? "1 ns or less" : "%u ns", *number);
	return true;
}

static void print_table(const struct host_caps *c)
{
	printf("%-30s %-22s %s\n", "what", "here (kernel / user)", "meaning");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const struct field *f = &fields[i];
		char value[200];
		bool good = describe(c, f, value, sizeof(value));
		const char *meaning = good ? f->good : f->bad;

		if (*meaning)
			printf("%-30s %-22s %s\n", f->what, value, meaning);
		else
			printf("%-30s %s\n", f->what, value);
	}
}

static void print_human(const struct host_caps *c, int rc, const char *reason)
{
	struct strategy s[KEYS];
	struct limits l = {0};

	/* Without KVM there is nothing to show but the reason. */
	if (c->kvm_api) {
		print_table(c);
		printf("\nStrategy\n");
		choose(c, s);
		for (int i = 0; i < KEYS; i++)
			printf("  %-15s %s\n", s[i].title, s[i].text);
		limits_of_cpu(c, &l);
		limits_of_debugging(c, &l);
		printf("\nWill not work here\n");
		for (unsigned i = 0; i < l.n; i++)
			printf("  - %s\n", l.text[i]);
		printf("\n");
	}
	if (rc == 0)
		printf("This host is usable.\n");
	else
		printf("This host is not usable: %s\n", reason);
}

/* --- For programs --- */

static void json_text(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			printf("\\u%04x", (unsigned char)*s);
		else
			putchar(*s);
	}
	putchar('"');
}

static const char *json_bool(bool b)
{
	return b ? "true" : "false";
}

static void json_gaps(uint32_t gaps)
{
	const char *comma = "";

	putchar('[');
	for (unsigned i = 0; i < GAP_COUNT; i++) {
		if (!(gaps & (1u << i)))
			continue;
		fputs(comma, stdout);
		json_text(emulation_gap_name((enum emulation_gap)i));
		comma = ", ";
	}
	putchar(']');
}

static void json_field(const struct host_caps *c, const struct field *f)
{
	const void *p = field_at(c, f);
	const enum int3_exit *int3 = p;
	const enum write_trap *trap = p;
	const enum table_flush *flush = p;
	const bool *flag = p;

	printf("  \"%s\": ", f->name);
	switch (f->kind) {
	case FIELD_TEXT:
		json_text(p);
		break;
	case FIELD_NUMBER:
		printf("%d", *(const int *)p);
		break;
	case FIELD_BOOL:
		fputs(json_bool(*flag), stdout);
		break;
	case FIELD_LEVELS:
		printf("[%s, %s]", json_bool(flag[0]), json_bool(flag[1]));
		break;
	case FIELD_INT3:
		printf("[\"%s\", \"%s\"]", int3_name(int3[0]), int3_name(int3[1]));
		break;
	case FIELD_TRAP:
		printf("[\"%s\", \"%s\"]", trap_name(trap[0]), trap_name(trap[1]));
		break;
	case FIELD_FLUSH:
		printf("\"%s\"", table_flush_name(*flush));
		break;
	case FIELD_GAPS:
		json_gaps(*(const uint32_t *)p);
		break;
	case FIELD_NS:
		printf("%u", *(const uint32_t *)p);
		break;
	}
	printf(",\n");
}

static void print_json(const struct host_caps *c, int rc, const char *reason)
{
	struct strategy s[KEYS];
	struct limits l = {0};

	printf("{\n");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		json_field(c, &fields[i]);
	choose(c, s);
	printf("  \"strategy\": {");
	for (int i = 0; c->kvm_api && i < KEYS; i++)
		printf("%s\n    \"%s\": \"%s\"", i ? "," : "", s[i].key, s[i].value);
	printf("\n  },\n  \"limits\": [");
	if (c->kvm_api) {
		limits_of_cpu(c, &l);
		limits_of_debugging(c, &l);
	}
	for (unsigned i = 0; i < l.n; i++) {
		printf("%s\n    ", i ? "," : "");
		json_text(l.text[i]);
	}
	printf("\n  ],\n  \"usable\": %s,\n  \"reason\": ", json_bool(rc == 0));
	json_text(reason);
	printf("\n}\n");
}

static void usage(FILE *out)
{
	fprintf(out, "usage: hindsight doctor [--json]\n\n"
		     "Runs tiny guests to find out what this host's KVM can do, and says what "
		     "follows from "
		     "it. Takes\nunder a second.\n\n"
		     "  --json   one JSON object: the capabilities, \"strategy\", \"limits\", "
		     "\"usable\" and "
		     "\"reason\"\n"
		     "  --help   this\n\n"
		     "Exit status: 0 hindsight works here, 1 it does not.\n");
}

int cmd_doctor(int argc, char **argv)
{
	struct err err = {0};
	struct host_caps caps;
	bool json = false;
	int rc;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			usage(stdout);
			return STATUS_OK;
		}
		if (strcmp(argv[i], "--json") == 0) {
			json = true;
			continue;
		}
		fprintf(stderr, "hindsight doctor: unknown argument \"%s\"\n", argv[i]);
		usage(stderr);
		return STATUS_FAILED;
	}
	rc = host_probe(&caps, true, &err);
	if (json)
		print_json(&caps, rc, rc < 0 ? err.text : "");
	else
		print_human(&caps, rc, err.text);
	return rc == 0 ? STATUS_OK : STATUS_NOT_USABLE;
}
