// SPDX-License-Identifier: GPL-3.0-or-later
#include "session.h"

#include "guest.h"
#include "list.h"

struct session {
	struct list_node node;
	uint32_t peer;
	uint16_t port;
	uint16_t flags;
	uint64_t opened; /* tick */
	uint64_t packets;
};

static struct list_node sessions;

void session_init(void)
{
	list_init(&sessions);
}

void session_open(uint32_t peer, uint16_t port)
{
	struct session *s = kzalloc(sizeof(*s));

	if (!s)
		panic("session: out of memory");
	s->peer = peer;
	s->port = port;
	s->opened = timer_ticks;
	list_add_tail(&sessions, &s->node);
}

/* From the youngest to the oldest: every node must be what its predecessor points to. */
static void session_check(void)
{
	for (struct list_node *node = sessions.prev; node != &sessions; node = node->prev)
		if (node->prev->next != node)
			panic("list corruption: node %p next is %p, expected %p\n"
			      "corrupted field at %p",
			      (void *)node->prev, (void *)node->prev->next, (void *)node,
			      (void *)&node->prev->next);
}

size_t session_sweep(uint64_t opened_before)
{
	struct list_node *node;
	size_t closed = 0;

	session_check();
	for (node = sessions.next; node != &sessions;) {
		struct session *s = container_of(node, struct session, node);

		node = node->next;
		if (s->opened >= opened_before)
			break;
		list_del(&s->node);
		kfree(s);
		closed++;
	}
	return closed;
}
