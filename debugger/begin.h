/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Traces that begin with a snapshot: those of branches, which go on from somewhere in another recording, and snapshot
 * files, which are such traces without events. What they begin with may be several snapshots, a tree: the machine begins
 * with the last one, unless another is asked for.
 */
#ifndef DEBUGGER_BEGIN_H
#define DEBUGGER_BEGIN_H

#include "replay/recorder.h"
#include "replay/replayer.h"
#include "snapshot/snapshot.h"

/* See replay_options. */
int begin_restore(struct machine *m, const struct replay_file *f, struct err *err);

/*
 * A snapshot file as a user names it: FILE, or FILE@N for the N-th of its snapshots (*number; else 0), if no file has
 * that whole name. disk: see replay_file_attach_disk. -EINVAL: it begins with no snapshot.
 */
int begin_open(struct replay_file **f, const char *name, const char *disk, uint64_t *number, struct err *err);
/* The frame behind the snapshots is whole: a snapshot file, unlike a recording, is never just cut off there. After an
 * import, which names what is damaged better. */
int begin_check_rest(struct replay_file *f, struct err *err);
/* Only add the snapshots to a tree, and check the rest; *s is the one with that number, or the last (0). */
int begin_import(struct snapshots *t, struct replay_file *f, uint64_t number, struct snapshot **s, struct err *err);
/* A tree with the snapshots, attached to the machine, which is brought into the state of that one. */
int begin_tree(struct snapshots **t, struct machine *m, const struct replay_file *f, uint64_t number,
	       struct snapshot **s, struct err *err);

/* "ADDR=BYTES": write to the memory of a machine that has not run since it was restored. */
#define BEGIN_POKE_MAX 256u
int begin_poke(struct machine *m, const char *text, bool physical, struct err *err);
/* The head of a trace that begins with what is exported. tm and image as for recorder_write_head. */
int begin_write_head(struct trace_writer *w, struct trace_machine *tm, const struct guest_image *image,
		     struct snapshots *t, const struct snapshot_export *what, struct err *err);
/* A snapshot file, of `bytes`, which appears whole or not at all. */
int begin_write_file(const char *path, struct trace_machine *tm, const struct guest_image *image, struct snapshots *t,
		     const struct snapshot_export *what, uint64_t *bytes, struct err *err);

#endif
