/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The state walker. Every component describes its state once, in one function that visits each
 * field by name; the walker's operation decides whether the visit saves, restores, compares or
 * digests it. Save and restore therefore cannot drift apart, and a comparison can name what differs.
 */
#ifndef VMM_WALK_H
#define VMM_WALK_H

#include "base/buf.h"

#include <xxhash.h>

enum walk_op {
	WALK_SAVE,    /* append each field to `out` */
	WALK_RESTORE, /* take each field from `in` */
	WALK_COMPARE, /* compare each field with `in`, keep the first difference */
	WALK_DIGEST,  /* feed each field to `hash` */
};

#define WALK_NAME_MAX 96
#define WALK_SHOWN_MAX 16

struct walker {
	enum walk_op op;
	/* Of SAVE and RESTORE: with all that the host itself keeps, so that the machine runs on as if nothing had
	 * been; not in the form that compares equal on every host. */
	bool exact;
	/* Hash of the names and sizes of the fields visited by SAVE and RESTORE: what was saved can be restored
	 * only where this is the same. */
	uint64_t layout;
	struct buf out;
	struct reader in;
	XXH3_state_t *hash;
	char prefix[32]; /* component being visited: "pic", "vcpu0" */
	bool differs;
	char diff[WALK_NAME_MAX];             /* first differing field: "pic.master.imr" */
	uint64_t diff_offset;                 /* byte in the field */
	uint8_t diff_now[WALK_SHOWN_MAX];     /* bytes here, from diff_offset */
	uint8_t diff_then[WALK_SHOWN_MAX];    /* bytes in `in` */
	size_t diff_len;                      /* how many of them are valid */
};

int walker_init_save(struct walker *w);
void walker_init_restore(struct walker *w, const void *data, size_t len);
void walker_init_compare(struct walker *w, const void *data, size_t len);
int walker_init_digest(struct walker *w);
void walker_fini(struct walker *w);
uint64_t walker_digest(const struct walker *w);
/* True if a read or an allocation failed; what was restored is then not to be used. */
bool walker_failed(const struct walker *w);

/* WALK_RESTORE met a value that no machine can have: what was restored is not to be used. */
void walk_refuse(struct walker *w);

/* Fields that follow belong to this component. */
void walk_component(struct walker *w, const char *name);
void walk_bytes(struct walker *w, const char *name, void *p, size_t n);
void walk_bool(struct walker *w, const char *name, bool *v);
void walk_u8(struct walker *w, const char *name, uint8_t *v);
void walk_u16(struct walker *w, const char *name, uint16_t *v);
void walk_u32(struct walker *w, const char *name, uint32_t *v);
void walk_u64(struct walker *w, const char *name, uint64_t *v);

#endif
