/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The machine: one VM, its vCPUs, RAM and devices, its virtual time, and the run loop that turns exits into
 * boundaries. Whatever is not a function of the guest's own progress is asked of struct nondet_ops;
 * the machine does not know whether a recorder or a replayer answers.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "base/err.h"
#include "vmm/caps.h"
#include "vmm/dev/devices.h"
#include "vmm/dev/virtio_devices.h"
#include "vmm/loader.h"
#include "vmm/kick.h"
#include "vmm/memory.h"
#include "vmm/modules.h"
#include "vmm/rewrite.h"
#include "vmm/vcpu.h"

#define MACHINE_VCPUS 1
#define MACHINE_DEVICES 12
#define MACHINE_PORT_RANGES 24

/* All that decides what the guest sees, besides its files. Kept in the trace. */
struct machine_config {
	uint64_t mem_size;  /* bytes */
	uint64_t seed;      /* of RDRAND and RDSEED, of the entropy device, of the network card's address */
	int64_t epoch;      /* date of the RTC at vtime 0, seconds since 1970 UTC */
	uint64_t xfeatures; /* see cpuid.h; MACHINE_XFEATURES_OF_HOST: what fits this host, set by machine_create */
	/* Devices that are there only if asked for. */
	bool disk;          /* with the image of struct guest_image */
	bool rng;
	bool net;
	uint8_t ports;      /* of the virtio console; 0: no such device */
};

#define MACHINE_XFEATURES_OF_HOST UINT64_MAX

/* Where input enters the machine. Port n of the console is INPUT_PORT plus n; the size of its window comes as
 * WINDOW_SIZE bytes, columns and rows of 16 bits each, little-endian. */
enum input_channel {
	INPUT_SERIAL,
	INPUT_NET,
	INPUT_PORT,
	INPUT_WINDOW = INPUT_PORT + VIRTIO_CONSOLE_PORTS,
	INPUT_CHANNELS
};

#define WINDOW_SIZE 4

/* Bytes that enter at one time at most, by whatever channel. */
#define INPUT_MAX VIRTIO_NET_FRAME_MAX

enum machine_end {
	END_NONE,
	END_EXIT,         /* exit port; code is the value written */
	END_RESET,        /* reset through the i8042 or a reset port */
	END_TRIPLE_FAULT,
	END_HALTED,       /* HLT with nothing left to wake it */
	END_LIMIT,        /* --max-seconds */
	END_UNTIL,        /* --until matched */
	END_INTERRUPTED,  /* the user stopped it */
	END_OF_TRACE,     /* replay: the recorder did not get to write an end */
	END_COUNT
};

/* A place in a run: after `boundary` boundaries and `steps` instructions more. */
struct position {
	uint64_t boundary;
	uint64_t steps;
};

/* Below 0 if a comes before b, above if behind. */
static inline int position_order(struct position a, struct position b)
{
	if (a.boundary != b.boundary)
		return a.boundary < b.boundary ? -1 : 1;
	return a.steps < b.steps ? -1 : a.steps > b.steps;
}

struct machine;

/*
 * Where every nondeterministic matter goes. Each hook may end the run with machine_end. A negative
 * return stops machine_run with that error.
 */
struct nondet_ops {
	/* Before each entry while no interrupt waits: may ask for a step or a breakpoint. */
	int (*plan)(void *ctx, struct machine *m, struct vcpu_request *req, struct err *err);
	/* The vCPU stopped between boundaries. May call machine_land. */
	int (*stopped)(void *ctx, struct machine *m, enum vcpu_stop stop, struct err *err);
	/* m->boundary boundaries have been handled, the last of them just now (or none: the start).
	 * May deliver input. */
	int (*boundary)(void *ctx, struct machine *m, struct err *err);
	/* The guest has halted and vtime would jump to `deadline` (TIME_NEVER: nothing would wake it). May
	 * deliver input, after moving vtime to any point before the deadline. 1: the run is to pause (m->pause) in the
	 * halt, where the next machine_run goes on. */
	int (*halted)(void *ctx, struct machine *m, uint64_t deadline, struct err *err);
	/* A store of the guest to watched memory, or with m->dma of a device, already applied. May be
	 * NULL. */
	int (*watched)(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t old,
		       uint64_t now, struct err *err);
	/* A load of the guest from memory whose loads are watched. May be NULL. */
	int (*loaded)(void *ctx, struct machine *m, gpa_t gpa, unsigned len, uint64_t value, struct err *err);
};

struct device {
	const struct dev_ops *ops;
	void *state;
};

struct port_range {
	struct pio_range range;
	const struct device *device;
};

struct mapped_range {
	struct mmio_range range;
	const struct device *device;
};

struct machine {
	struct machine_config config;
	struct host_caps caps;
	int kvm_fd, vm_fd;
	struct memory *mem;
	struct vcpu vcpu[MACHINE_VCPUS];
	struct guest_entry entry; /* how the guest was entered; text is freed */
	struct rewrite_sites sites;
	struct modules modules;

	/* Devices. */
	struct dev_env env;
	struct pic pic;
	struct pit pit;
	struct uart uart;
	struct rtc rtc;
	struct i8042 i8042;
	struct debugport debugport;
	struct virtio_blk blk;
	struct virtio_rng rng;
	struct virtio_console console;
	struct virtio_net net;
	struct device device[MACHINE_DEVICES];
	unsigned devices;
	struct port_range ports[MACHINE_PORT_RANGES];
	unsigned port_ranges;
	struct mapped_range mapped[VIRTIO_SLOTS];
	unsigned mapped_ranges;
	uint64_t deadline; /* vtime of the next device event that can raise an enabled line */

	/* State that the guest can see or that sums up its history. */
	uint64_t vtime;      /* ns */
	uint64_t boundary;   /* boundaries handled so far */
	uint64_t io_history; /* running hash over all boundaries: kind, address, data */
	uint64_t entropy;    /* state of the seeded generator behind RDRAND and RDSEED */
	uint64_t dev_entropy; /* ... and of the devices' own, so that neither depends on the other's use */
	uint64_t tsc_offset;
	uint64_t tsc_aux;
	bool halted;         /* stands at a HLT */

	enum machine_end end;
	uint32_t end_code;
	bool between; /* the last stop was between boundaries */
	bool started; /* nondet_ops.boundary has been called for boundary 0 */
	bool pause; /* machine_run returns before the next entry; the caller clears it */
	const struct device *accessed; /* by the guest at this boundary; else NULL */
	struct kick_timer watch_timer; /* see watched.h; made where it is needed */
	gva_t *guard;                  /* see watched.h: room for BREAKPOINTS_MAX, from the first watch on */
	bool watched_again;            /* see watched.h: the next instruction faults, onto a stack that is watched */
	bool dma;                      /* nondet_ops.watched is told of a device's write */
	int watched_rc;                /* what it (or `loaded`) returned then, if that was an error ... */
	struct err watched_err;        /* ... and why: devices and assists cannot fail, machine_run can */

	uint64_t faults_forgotten; /* vcpu.faults when KVM last forgot the guest's page tables */

	/* Counters for the user, no part of the state. */
	uint64_t rewritten_executed;
	uint64_t modules_announced;
	uint64_t irqs_delivered;
	uint64_t irq_steps; /* single steps made to find the place where an interrupt fits */

	const struct nondet_ops *nondet;
	void *nondet_ctx;
	/* Receives the guest's serial and debug output; may be NULL. */
	void (*output)(void *ctx, enum dev_stream stream, uint8_t byte);
	void *output_ctx;
	/* Receives the frames that the guest sends; may be NULL. */
	void (*transmit)(void *ctx, const uint8_t *frame, size_t len);
	void *transmit_ctx;
};

/* Make the machine, load the image and enter the first state. digests: memory_digest or snapshots will be used. */
int machine_create(struct machine **m, const struct machine_config *config,
		   const struct guest_image *image, bool digests, struct err *err);
void machine_destroy(struct machine *m);
/* Give the machine a VM of its own again, in a process that fork() has made, where KVM refuses the parent's. In
 * the parent memory_sync_dirty must have come before. The vCPU's state is not carried over: machine_restore must
 * follow. After a failure only machine_destroy is allowed. */
int machine_reopen(struct machine *m, struct err *err);

/* Run until m->end or m->pause is set; may then be called again unless it ended. */
int machine_run(struct machine *m, struct err *err);

/* End the run here; the first reason wins. */
void machine_end(struct machine *m, enum machine_end end, uint32_t code);
const char *machine_end_name(enum machine_end end);
/* It came from outside: the guest could have gone on. */
bool machine_end_is_imposed(enum machine_end end);

/* Let vtime pass outside a boundary: at a landmark, where `advance` ns are due. */
void machine_land(struct machine *m, uint64_t advance);
/* Move vtime on by `advance` ns and let the devices see it. */
void machine_pass_time(struct machine *m, uint64_t advance);

/* To be left before the next entry; in the middle of an instruction, when that is done. */
static inline bool machine_paused(const struct machine *m)
{
	return m->pause && !m->vcpu[0].exit_stashed;
}

/* An interrupt waits for the CPU to accept it: no place for a landmark. */
static inline bool machine_interrupt_waits(const struct machine *m)
{
	return pic_pending(&m->pic);
}

/* xorshift64* (Vigna 2016): the guest's randomness needs to be repeatable, not secret. */
uint64_t machine_next_entropy(uint64_t *state);

/* devices.c */
int devices_init(struct machine *m, const struct guest_image *image, struct err *err);
void devices_destroy(struct machine *m);
const struct device *devices_find_port(const struct machine *m, uint16_t port);
/* The device that answers at all of [gpa, gpa+len), and the offset of gpa in its range; else NULL. */
const struct device *devices_find_mapped(const struct machine *m, gpa_t gpa, unsigned len,
					 uint64_t *offset);
/* Let every device see the new vtime and find the next deadline. */
void devices_tick(struct machine *m);
void devices_update_deadline(struct machine *m);
/* How many bytes the channel can take now; changes nothing. Of a network frame, the longest that fits. */
size_t devices_room(const struct machine *m, unsigned channel);
/* Bytes arrive: 1 to devices_room of them, for the network one frame. */
void devices_receive(struct machine *m, unsigned channel, const uint8_t *bytes, size_t n);
/* What a Linux kernel's command line must say of the machine's devices, parameters separated by spaces. */
#define DEVICES_PARAMETERS_MAX (VIRTIO_SLOTS * VIRTIO_PARAMETER_MAX)
void devices_parameters(const struct machine_config *config, char out[DEVICES_PARAMETERS_MAX]);

/* state.c */
struct machine_digest {
	uint64_t state;  /* vCPU, devices, vtime, history */
	uint64_t memory;
};

/* Completes a pending access first. */
int machine_digest(struct machine *m, struct machine_digest *digest, struct err *err);
/* Visit everything but memory. */
int machine_walk(struct machine *m, struct walker *w, struct err *err);
/*
 * Everything but memory and the counters, such that after machine_restore the machine runs on bit for bit. Only
 * between calls of machine_run. -EBUSY: the guest is half-way through an instruction whose first part cannot
 * be repeated (an access outside RAM in several parts); one boundary later it is not. The first eight bytes are
 * the layout, equal for all machines that can restore each other's state.
 */
int machine_save(struct machine *m, struct buf *out, struct err *err);
/* Memory must have been replaced before, and before that vcpu_abandon must have ended what would still write to
 * it. Fails with -EINVAL if the bytes are no such state; the machine must then
 * not be run before another restore. */
int machine_restore(struct machine *m, const void *state, size_t len, struct err *err);
/* RAM has been written past the vCPU, page tables perhaps: let KVM not go by the old ones. */
int machine_forget_tables(struct machine *m, struct err *err);

#endif
