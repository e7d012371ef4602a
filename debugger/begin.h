/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Traces that begin with a snapshot: those of branches, which go on from somewhere in another recording, and snapshots
 * that were taken into a file, which are such a trace without events.
 */
#ifndef DEBUGGER_BEGIN_H
#define DEBUGGER_BEGIN_H

#include "replay/recorder.h"
#include "replay/replayer.h"
#include "snapshot/snapshot.h"

/* See replay_options. */
int begin_restore(struct machine *m, const struct replay_file *f, struct err *err);
/* Only add the snapshot to a tree. */
int begin_import(struct snapshots *t, const struct replay_file *f, struct snapshot **s, struct err *err);
/* A tree with the snapshot, attached to the machine, which is brought into its state. */
int begin_tree(struct snapshots **t, struct machine *m, const struct replay_file *f, struct snapshot **s,
	       struct err *err);

/* "ADDR=BYTES": write to the memory of a machine that has not run since it was restored. */
#define BEGIN_POKE_MAX 256u
int begin_poke(struct machine *m, const char *text, bool physical, struct err *err);
/* The head of a trace that begins with s. tm and image as for recorder_write_head. */
int begin_write_head(struct trace_writer *w, struct trace_machine *tm, const struct guest_image *image,
		     struct snapshots *t, const struct snapshot *s, struct err *err);

#endif
