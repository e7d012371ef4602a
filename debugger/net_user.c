// SPDX-License-Identifier: GPL-3.0-or-later
#include "debugger/net_user.h"

#include "vmm/kick.h"

#include <errno.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>

/* Frames that wait for the guest; those that come when it is full are lost, as in any network. */
#define QUEUE_FRAMES 256
#define FDS_MAX 64
/* Addresses as QEMU's user network has them, which guests' images know. */
#define NET 0x0a000200u
#define NET_MASK 0xffffff00u
#define GATEWAY (NET + 2)
#define NAME_SERVER (NET + 3)
#define DHCP_START (NET + 15)
#define MTU 1500

struct frame {
	size_t len;
	uint8_t bytes[VIRTIO_NET_FRAME_MAX];
};

/* One of libslirp's timers. */
struct timer {
	SlirpTimerCb fire;
	void *ctx;
	int64_t due_ms; /* INT64_MAX: not set */
	struct timer *next;
};

/* The descriptors that libslirp looks at in one round. */
struct round {
	struct pollfd *fds;
	unsigned n, max;
};

struct net_user {
	Slirp *slirp;
	struct timer *timers;
	struct frame queue[QUEUE_FRAMES];
	unsigned head, len;
};

/* --- What libslirp calls -------------------------------------------------------------------------- */

static ssize_t on_frame(const void *buf, size_t len, void *opaque)
{
	struct net_user *n = opaque;
	struct frame *f = &n->queue[(n->head + n->len) % QUEUE_FRAMES];

	if (n->len < QUEUE_FRAMES && len <= sizeof(f->bytes)) {
		memcpy(f->bytes, buf, len);
		f->len = len;
		n->len++;
	}
	return (ssize_t)len;
}

static void on_guest_error(const char *msg, void *opaque)
{
	/* The guest's own network code will notice. */
	(void)msg;
	(void)opaque;
}

static int64_t on_clock(void *opaque)
{
	(void)opaque;
	return (int64_t)host_ns();
}

static void *on_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct net_user *n = opaque;
	struct timer *t = malloc(sizeof(*t));

	if (t) {
		*t = (struct timer){cb, cb_opaque, INT64_MAX, n->timers};
		n->timers = t;
	}
	return t;
}

static void on_timer_free(void *timer, void *opaque)
{
	struct net_user *n = opaque;

	for (struct timer **p = &n->timers; *p; p = &(*p)->next) {
		if (*p == timer) {
			*p = (*p)->next;
			break;
		}
	}
	free(timer);
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	(void)opaque;
	if (timer)
		((struct timer *)timer)->due_ms = expire_ms;
}

/* Descriptors are asked for before each poll, so there is nothing to keep. */
static void on_poll_fd(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void on_notify(void *opaque)
{
	(void)opaque;
}

static const SlirpCb callbacks = {
	.send_packet = on_frame,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_new = on_timer_new,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_poll_fd,
	.unregister_poll_fd = on_poll_fd,
	.notify = on_notify,
};

static int on_add_poll(int fd, int events, void *opaque)
{
	struct round *r = opaque;
	int want = (events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
		   (events & SLIRP_POLL_PRI ? POLLPRI : 0);

	if (r->n == r->max)
		return -1;
	r->fds[r->n] = (struct pollfd){.fd = fd, .events = (short)want};
	return (int)r->n++;
}

static int on_get_revents(int index, void *opaque)
{
	const struct round *r = opaque;
	short got = index >= 0 && (unsigned)index < r->n ? r->fds[index].revents : 0;

	return (got & POLLIN ? SLIRP_POLL_IN : 0) | (got & POLLOUT ? SLIRP_POLL_OUT : 0) |
	       (got & POLLPRI ? SLIRP_POLL_PRI : 0) | (got & POLLERR ? SLIRP_POLL_ERR : 0) |
	       (got & POLLHUP ? SLIRP_POLL_HUP : 0);
}

/* --- The source ------------------------------------------------------------------------------------ */

static int64_t now_ms(void)
{
	return (int64_t)(host_ns() / NSEC_PER_MSEC);
}

/* Let libslirp do what is due, without waiting. */
static void run(struct net_user *n)
{
	struct pollfd fds[FDS_MAX];
	struct round round = {.fds = fds, .max = FDS_MAX};
	int64_t now = now_ms();
	uint32_t timeout_ms = 0;
	int rc;

	slirp_pollfds_fill(n->slirp, &timeout_ms, on_add_poll, &round);
	rc = poll(fds, round.n, 0);
	slirp_pollfds_poll(n->slirp, rc < 0, on_get_revents, &round);
	for (struct timer *t = n->timers; t;) {
		if (t->due_ms > now) {
			t = t->next;
			continue;
		}
		t->due_ms = INT64_MAX;
		t->fire(t->ctx);
		t = n->timers; /* it may have changed the list */
	}
}

static bool source_ready(void *ctx)
{
	struct net_user *n = ctx;

	if (!n->len)
		run(n);
	return n->len > 0;
}

static int source_take(void *ctx, uint8_t *out, size_t room, struct err *err)
{
	struct net_user *n = ctx;

	(void)err;
	while (source_ready(n)) {
		const struct frame *f = &n->queue[n->head];

		n->head = (n->head + 1) % QUEUE_FRAMES;
		n->len--;
		if (f->len > room)
			continue;
		memcpy(out, f->bytes, f->len);
		return (int)f->len;
	}
	return 0;
}

static unsigned source_watch(void *ctx, struct pollfd *fds, unsigned max, int *timeout_ms)
{
	struct net_user *n = ctx;
	struct round round = {.fds = fds, .max = max};
	uint32_t timeout = (uint32_t)*timeout_ms;
	int64_t now = now_ms();

	slirp_pollfds_fill(n->slirp, &timeout, on_add_poll, &round);
	for (const struct timer *t = n->timers; t; t = t->next) {
		if (t->due_ms <= now)
			timeout = 0;
		else if (t->due_ms - now < timeout)
			timeout = (uint32_t)(t->due_ms - now);
	}
	*timeout_ms = (int)timeout;
	return round.n;
}

struct input_source net_user_source(struct net_user *n)
{
	return (struct input_source){.channel = INPUT_NET,
				     .ctx = n,
				     .ready = source_ready,
				     .take = source_take,
				     .watch = source_watch};
}

void net_user_transmit(void *ctx, const uint8_t *frame, size_t len)
{
	struct net_user *n = ctx;

	slirp_input(n->slirp, frame, (int)len);
}

int net_user_create(struct net_user **out, struct err *err)
{
	struct net_user *n = calloc(1, sizeof(*n));
	SlirpConfig config = {
		.version = 1,
		.in_enabled = true,
		.vnetwork.s_addr = htonl(NET),
		.vnetmask.s_addr = htonl(NET_MASK),
		.vhost.s_addr = htonl(GATEWAY),
		.vdhcp_start.s_addr = htonl(DHCP_START),
		.vnameserver.s_addr = htonl(NAME_SERVER),
		.if_mtu = MTU,
		.if_mru = MTU,
	};

	if (!n)
		return err_set(err, ENOMEM, "out of memory");
	n->slirp = slirp_new(&config, &callbacks, n);
	if (!n->slirp) {
		free(n);
		return err_set(err, EIO, "cannot start the user-mode network (libslirp %s)",
			       slirp_version_string());
	}
	*out = n;
	return 0;
}

void net_user_destroy(struct net_user *n)
{
	if (!n)
		return;
	slirp_cleanup(n->slirp);
	while (n->timers)
		on_timer_free(n->timers, n);
	free(n);
}
