/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Snapshots of a machine: a tree of frozen states. Taking one costs what was written since the last
 * take or restore, restoring one what differs between the machine as it is and the snapshot,
 * whichever that is; the size of the guest does not matter. Equal pages are kept once over the whole
 * tree, zeros not at all.
 *
 *	snapshots_create, snapshots_attach(machine)
 *	snapshot_take -> a child of the snapshot that the machine came from
 *	snapshot_restore(any of them), snapshot_branch, snapshot_delete
 *	snapshots_detach (before machine_destroy), snapshots_destroy
 *
 * What is behind machine_save is in a snapshot, and what the caller adds as `data`: his own place
 * in the run. Whatever fails leaves the tree as it was.
 */
#ifndef SNAPSHOT_SNAPSHOT_H
#define SNAPSHOT_SNAPSHOT_H

#include "snapshot/map.h"
#include "vmm/machine.h"

#include <sys/types.h>

#define SNAPSHOT_LABEL_MAX 255
#define SNAPSHOT_DATA_MAX (16u << 20)
#define SNAPSHOT_STATE_MAX (64u << 20)

/* Names a snapshot also in files and other processes: random. */
struct snapshot_uid {
	uint64_t v[2];
};

/* Read only for all but snapshot/. */
struct snapshot {
	uint64_t number; /* 1 for the first of its tree, never used again */
	struct snapshot_uid uid;
	struct snapshot *parent;  /* NULL: a root */
	char *label;		  /* "" if none */
	uint64_t boundary, vtime; /* of the machine */
	uint64_t changed;	  /* pages that were written since the parent */
	uint8_t *data;		  /* the caller's */
	size_t data_len;

	/* Private. */
	struct page_map map;
	uint8_t *state;
	size_t state_len;
	struct snapshot *prev, *next; /* by number */
};

struct snapshots;

/* memory: bytes for all of it; what is over goes compressed into a file in spill_dir (kept, not
 * copied). */
int snapshots_create(struct snapshots **t, uint64_t memory, const char *spill_dir, struct err *err);
/* With all snapshots. */
void snapshots_destroy(struct snapshots *t);

/*
 * The machine to take from and restore to: one at a time, made with digests (machine_create). It
 * must have the RAM size of the snapshots that there are. It stands at none of them, so what is
 * taken first becomes a root and costs all pages that were ever written. -ENOTSUP: this host cannot
 * restore.
 */
int snapshots_attach(struct snapshots *t, struct machine *m, struct err *err);
/* Before the machine is destroyed. */
void snapshots_detach(struct snapshots *t);

/* From now on tell of each page that was written since the machine was last equal to a snapshot, while another one is taken;
 * also of those that came out as they were. */
void snapshots_tell_written(struct snapshots *t, void (*written)(void *ctx, uint64_t page), void *ctx);

struct snapshot_note {
	const char *label; /* up to SNAPSHOT_LABEL_MAX bytes; NULL: none */
	const void *data;  /* copied */
	size_t data_len;   /* up to SNAPSHOT_DATA_MAX */
};

/* Freeze the machine as it stands, between two calls of machine_run. note may be NULL. -EBUSY: see
 * machine_save. */
int snapshot_take(struct snapshots *t, const struct snapshot_note *note, struct snapshot **s,
		  struct err *err);
/*
 * Bring the machine into the state of the snapshot. When it fails the machine must not be run, but
 * another restore can be tried. Not part of the state, and so the caller's to mend: the readings of
 * instruction clocks (they only ever grow), the counters, and what was printed.
 */
int snapshot_restore(struct snapshots *t, struct snapshot *s, struct err *err);
/* Children become the parent's. */
void snapshot_delete(struct snapshots *t, struct snapshot *s);
/* Have another parent, taken before it; NULL: be a root. What it holds is its own and stays. */
void snapshot_set_parent(struct snapshot *s, struct snapshot *parent);
int snapshot_set_label(struct snapshots *t, struct snapshot *s, const char *label, struct err *err);

/*
 * fork() a process whose machine is a VM of its own: at the state of the snapshot, or (NULL) as
 * this one stands. Returns in both: *child is the process, in the child 0. What either does later
 * the other does not see. The child has the whole tree; it has no timers (a recorder or replayer
 * must be made anew), and shares open files with its parent. 0 in the parent means that the child
 * is ready to run.
 */
int snapshot_branch(struct snapshots *t, struct snapshot *s, pid_t *child, struct err *err);

/* The snapshot that the machine was last equal to; NULL: none. */
struct snapshot *snapshots_at(const struct snapshots *t);
/* The first one (s NULL) or the next, by number; NULL after the last. */
struct snapshot *snapshots_next(const struct snapshots *t, const struct snapshot *s);
struct snapshot *snapshots_find(const struct snapshots *t, uint64_t number);
struct snapshot *snapshots_find_uid(const struct snapshots *t, const struct snapshot_uid *uid);

/* Called for each page that differs, with both contents (valid until it returns); anything but 0
 * ends it. */
typedef int snapshot_page_fn(void *ctx, gpa_t gpa, const uint8_t *a, const uint8_t *b,
			     struct err *err);
/* b NULL: the machine as it is. */
int snapshot_diff(struct snapshots *t, struct snapshot *a, struct snapshot *b, snapshot_page_fn *fn,
		  void *ctx, struct err *err);

struct snapshots_figures {
	uint64_t snapshots;
	struct page_store_figures store;
	/* Of the last take or restore. */
	uint64_t pages; /* copied */
};

void snapshots_figures(const struct snapshots *t, struct snapshots_figures *f);

/*
 * Files, see docs/snapshot-format.md. The file appears under its name only when all of it is on the
 * disk. last: the snapshot to export; with `chain` all its ancestors too; NULL: all there are. base
 * (may be NULL): one that the reader has with all its ancestors; they are left out, and what
 * descends from them is written as what differs. about: the caller's description of the machine
 * (may be NULL).
 */
struct snapshot_export {
	const struct snapshot *last;
	bool chain;
	const struct snapshot *base;
	const void *about;
	size_t about_len; /* up to SNAPSHOT_DATA_MAX */
};

int snapshots_export(struct snapshots *t, const char *path, const struct snapshot_export *what,
		     struct err *err);
/* The same bytes, from where fd stands. */
int snapshots_export_to(struct snapshots *t, int fd, const struct snapshot_export *what,
			struct err *err);
/*
 * Add the snapshots of a file; one that is there already (by uid) is not added again. *last: the
 * last of the file. check_about sees the description before anything is added, and may refuse it;
 * may be NULL. -EBADMSG: damaged, the sentence names the first damaged page or field.
 */
int snapshots_import(struct snapshots *t, const char *path,
		     int (*check_about)(void *ctx, const void *about, size_t len, struct err *err),
		     void *ctx, struct snapshot **last, struct err *err);
/* The same for all of a regular file that is open; name: what sentences call it. *s: the snapshot that
 * has this number in the file, from 1; 0: the last. */
int snapshots_import_from(struct snapshots *t, int fd, const char *name,
			  int (*check_about)(void *ctx, const void *about, size_t len,
					     struct err *err),
			  void *ctx, uint64_t number, struct snapshot **s, struct err *err);

#endif
