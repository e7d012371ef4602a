/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a trace says: the machine it was recorded on, and the events. Encoding: docs/trace-format.md. Events are
 * delta-coded against the one before, so they are written and read in order by a codec that carries
 * the last values.
 */
#ifndef REPLAY_EVENT_H
#define REPLAY_EVENT_H

#include "base/buf.h"
#include "vmm/assist.h"
#include "vmm/machine.h"
#include "vmm/rewrite.h"
#include "vmm/user_code.h"
#include "vmm/witness.h"

enum clock_kind {
	CLOCK_STATE, /* places are found by registers and digests alone */
	CLOCK_EMUL,  /* KVM's insn_emulation statistic */
};

const char *clock_kind_name(enum clock_kind kind);

/* The TRACE_MACHINE frame. */
struct trace_machine {
	struct machine_config config;
	enum clock_kind clock;
	uint64_t quantum;      /* ns; for information */
	double time_rate;      /* vtime per host time at landmarks; for information */
	uint64_t kernel_size, initrd_size, disk_size;
	bool begun;            /* the machine begins with a snapshot, not with a loaded kernel */
	bool thin;             /* of the disk only the hash is in the trace */
	uint64_t disk_hash;    /* XXH3-64 of the image, if thin */
	char *cmdline;         /* owned */
	char *host_cpu;        /* cpuid_host_signature, owned */
	uint32_t cpu_number;   /* cpuid_host_number */
	char *host_kernel;     /* uname release, owned; for information */
	bool cpuid_hidden;     /* the guest's user code saw our CPUID, not the host's */
	bool entry_seen;       /* user code's way into the kernel was seen; for information */
};

#define CMDLINE_MAX 4096

void trace_machine_encode(const struct trace_machine *tm, struct buf *out);
/* -EBADMSG with the field named. Free with trace_machine_free also after failure. */
int trace_machine_decode(const uint8_t *data, size_t len, struct trace_machine *tm, struct err *err);
/* Content of the end frame, for information. */
struct trace_end {
	struct assist_counts assists; /* what the recording host's KVM was helped out with */
	struct assist_counts modules; /* instructions rewritten in modules, by kind */
	struct rewrite_note note[REWRITE_NOTES_MAX]; /* where the first of them were */
	unsigned notes;
	struct user_code_found user_code[USER_INSTRUCTIONS]; /* that a replay cannot repeat */
};

void trace_end_encode(const struct trace_end *end, struct buf *out);
int trace_end_decode(const uint8_t *data, size_t len, struct trace_end *end, struct err *err);
void trace_machine_free(struct trace_machine *tm);

/* When input reaches the guest. */
enum input_when {
	INPUT_AT_BOUNDARY, /* right after the boundary */
	INPUT_HALTED,      /* while halted, at `vtime` */
	INPUT_AT_LANDMARK, /* right after the landmark that is the event before */
};

enum event_type {
	EVENT_LANDMARK = 1, /* time passes at a place between boundaries */
	EVENT_DIGEST = 2,   /* what the machine must look like after this boundary */
	EVENT_INPUT = 3,    /* bytes arrive */
	EVENT_END = 4,
	EVENT_TIME = 5,     /* time passes right after the boundary */
};

#define REGS_COUNT 18 /* struct kvm_regs as 64-bit words, in its order */
#define REGS_RFLAGS 17
#define REGS_RIP 16

struct event {
	enum event_type type;
	uint64_t boundary; /* boundaries handled before it */
	union {
		struct {
			bool has_clock;
			uint64_t clock;   /* instructions counted since the boundary's exit */
			uint64_t advance; /* ns of vtime that pass here */
			uint16_t witness;     /* witness_hash of the memory operands here */
			uint32_t regs_hash;   /* of all registers, by event_regs_hash */
			struct kvm_regs regs; /* with a clock: RIP and RCX only, the others are 0 */
			uint8_t operands;     /* how many follow; with a clock 0 */
			uint64_t operand[WITNESS_MAX]; /* what witness_read gives */
			struct machine_digest digest; /* before time passes */
		} landmark;
		struct {
			struct kvm_regs regs;
			struct machine_digest digest;
		} digest;
		struct {
			uint64_t advance; /* ns of vtime */
		} time;
		struct {
			enum input_when when;
			uint64_t vtime; /* INPUT_HALTED only */
			uint8_t channel; /* enum input_channel */
			uint16_t len;    /* at least 1 */
			uint8_t bytes[INPUT_MAX];
		} input;
		struct {
			enum machine_end end;
			uint32_t code;
			bool at_landmark; /* at the landmark just before it, else after the boundary */
			bool has_digest;  /* not if the run was stopped where no landmark can be */
			uint64_t vtime;
			struct kvm_regs regs;
			struct machine_digest digest;
		} end;
	};
};

/* Values that the next event is coded against; zero at the start of a trace. */
struct event_codec {
	uint64_t boundary;
	struct kvm_regs regs;
};

void event_encode(struct event_codec *c, const struct event *e, struct buf *out);
/* 1: decoded; 0: the reader is at its end; -EBADMSG. */
int event_decode(struct event_codec *c, struct reader *in, struct event *e, struct err *err);

/* The registers as they are compared and logged: RF is not the guest's. */
struct kvm_regs event_regs(const struct vcpu *v);
uint32_t event_regs_hash(const struct kvm_regs *regs);
/* The registers are those of the landmark, as far as it tells. */
bool event_landmark_has_regs(const struct event *e, const struct kvm_regs *regs);
/* Name the first register that differs; false if none does. */
bool event_regs_differ(const struct kvm_regs *now, const struct kvm_regs *then, char *what, size_t size);
const char *event_reg_name(unsigned i);
const char *event_type_name(enum event_type type);
/* "the serial line", "the network card", "port 2". */
#define CHANNEL_NAME_MAX 20
void event_channel_name(unsigned channel, char name[CHANNEL_NAME_MAX]);

#endif
