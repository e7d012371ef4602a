// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Heap: every run of pages holds objects of one power-of-two class, so an object needs no header
 * and kfree finds the class from the address. Free objects are linked through their first word.
 */
#include "guest.h"

#define ARENA_PAGES 256
#define CLASS_MIN 4 /* 16 bytes */
#define CLASS_MAX 16

struct free_object {
	struct free_object *next;
};

struct heap_class {
	struct free_object *free;
	char *fresh; /* never handed out yet, in the newest run */
	char *fresh_end;
};

static char arena[ARENA_PAGES * PAGE_SIZE] __attribute__((aligned(4096)));
static uint8_t page_class[ARENA_PAGES];
static size_t arena_used;
static struct heap_class heap[CLASS_MAX + 1];

static bool class_grow(struct heap_class *c, unsigned shift)
{
	size_t bytes = 1UL << shift < PAGE_SIZE ? PAGE_SIZE : 1UL << shift;

	if (arena_used + bytes > sizeof(arena))
		return false;
	page_class[arena_used / PAGE_SIZE] = (uint8_t)shift;
	c->fresh = arena + arena_used;
	c->fresh_end = c->fresh + bytes;
	arena_used += bytes;
	return true;
}

void *kmalloc(size_t size)
{
	unsigned shift = CLASS_MIN;
	struct heap_class *c;
	void *object = NULL;
	uint64_t flags;

	while (shift <= CLASS_MAX && 1UL << shift < size)
		shift++;
	if (shift > CLASS_MAX)
		return NULL;
	c = &heap[shift];
	flags = irq_save();
	if (c->free) {
		object = c->free;
		c->free = c->free->next;
	} else if (c->fresh < c->fresh_end || class_grow(c, shift)) {
		object = c->fresh;
		c->fresh += 1UL << shift;
	}
	irq_restore(flags);
	return object;
}

void *kzalloc(size_t size)
{
	void *object = kmalloc(size);

	return object ? memset(object, 0, size) : NULL;
}

void kfree(void *ptr)
{
	struct free_object *object = ptr;
	struct heap_class *c;
	uint64_t flags;

	if (!ptr)
		return;
	c = &heap[page_class[(size_t)((char *)ptr - arena) / PAGE_SIZE]];
	flags = irq_save();
	object->next = c->free;
	c->free = object;
	irq_restore(flags);
}
