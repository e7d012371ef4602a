// SPDX-License-Identifier: GPL-3.0-or-later
#include "vmm/walk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int walker_init_save(struct walker *w)
{
	*w = (struct walker){.op = WALK_SAVE};
	return 0;
}

void walker_init_restore(struct walker *w, const void *data, size_t len)
{
	*w = (struct walker){.op = WALK_RESTORE, .in = reader_init(data, len)};
}

void walker_init_compare(struct walker *w, const void *data, size_t len)
{
	*w = (struct walker){.op = WALK_COMPARE, .in = reader_init(data, len)};
}

int walker_init_digest(struct walker *w)
{
	*w = (struct walker){.op = WALK_DIGEST, .hash = XXH3_createState()};
	if (!w->hash)
		return -ENOMEM;
	XXH3_64bits_reset(w->hash);
	return 0;
}

void walker_fini(struct walker *w)
{
	buf_free(&w->out);
	XXH3_freeState(w->hash);
	w->hash = NULL;
}

uint64_t walker_digest(const struct walker *w)
{
	return XXH3_64bits_digest(w->hash);
}

bool walker_failed(const struct walker *w)
{
	return w->out.failed || w->in.failed;
}

void walk_refuse(struct walker *w)
{
	w->in.failed = true;
}

void walk_component(struct walker *w, const char *name)
{
	snprintf(w->prefix, sizeof(w->prefix), "%s", name);
}

static void note_difference(struct walker *w, const char *name, const uint8_t *now,
			    const uint8_t *then, size_t n)
{
	size_t at = 0;

	if (w->differs)
		return;
	while (at < n && now[at] == then[at])
		at++;
	w->differs = true;
	snprintf(w->diff, sizeof(w->diff), "%s.%s", w->prefix, name);
	w->diff_offset = at;
	w->diff_len = n - at < WALK_SHOWN_MAX ? n - at : WALK_SHOWN_MAX;
	memcpy(w->diff_now, now + at, w->diff_len);
	memcpy(w->diff_then, then + at, w->diff_len);
}

static void note_layout(struct walker *w, const char *name, size_t n)
{
	w->layout = XXH3_64bits_withSeed(name, strlen(name), w->layout ^ n);
}

void walk_bytes(struct walker *w, const char *name, void *p, size_t n)
{
	const uint8_t *then;

	switch (w->op) {
	case WALK_SAVE:
		note_layout(w, name, n);
		buf_put(&w->out, p, n);
		break;
	case WALK_RESTORE:
		note_layout(w, name, n);
		reader_get(&w->in, p, n);
		break;
	case WALK_COMPARE:
		then = reader_take(&w->in, n);
		if (then && memcmp(then, p, n) != 0)
			note_difference(w, name, p, then, n);
		break;
	case WALK_DIGEST:
		XXH3_64bits_update(w->hash, p, n);
		break;
	}
}

void walk_bool(struct walker *w, const char *name, bool *v)
{
	uint8_t byte = *v;

	walk_u8(w, name, &byte);
	*v = byte != 0;
}

void walk_u8(struct walker *w, const char *name, uint8_t *v)
{
	walk_bytes(w, name, v, sizeof(*v));
}

/* x86 hosts only: the fields are little endian as they lie in memory. */
void walk_u16(struct walker *w, const char *name, uint16_t *v)
{
	walk_bytes(w, name, v, sizeof(*v));
}

void walk_u32(struct walker *w, const char *name, uint32_t *v)
{
	walk_bytes(w, name, v, sizeof(*v));
}

void walk_u64(struct walker *w, const char *name, uint64_t *v)
{
	walk_bytes(w, name, v, sizeof(*v));
}
