/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Doubly linked lists through nodes embedded in the elements; a list is a node that is no element.
 */
#ifndef GUEST_LIST_H
#define GUEST_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
	struct list_node *next;
	struct list_node *prev;
};

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define list_for_each(node, list)                                                                  \
	for (struct list_node *node = (list)->next; node != (list); node = node->next)

static inline void list_init(struct list_node *list)
{
	list->next = list;
	list->prev = list;
}

static inline bool list_empty(const struct list_node *list)
{
	return list->next == list;
}

static inline void list_add_tail(struct list_node *list, struct list_node *node)
{
	node->next = list;
	node->prev = list->prev;
	list->prev->next = node;
	list->prev = node;
}

static inline void list_del(struct list_node *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
}

#endif
