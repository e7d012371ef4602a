/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The network behind the guest's card while it is recorded: libslirp's user-mode NAT. The guest is 10.0.2.15 (by
 * DHCP), the gateway and this host 10.0.2.2, the name server 10.0.2.3. Outgoing connections only. In a
 * replay nobody is there: frames come from the log, and what the guest sends is dropped.
 */
#ifndef DEBUGGER_NET_USER_H
#define DEBUGGER_NET_USER_H

#include "replay/input.h"

struct net_user;

int net_user_create(struct net_user **n, struct err *err);
void net_user_destroy(struct net_user *n);
/* The frames for the guest; valid as long as n. */
struct input_source net_user_source(struct net_user *n);
/* A frame from the guest. Suits machine.transmit; ctx is the struct net_user. */
void net_user_transmit(void *ctx, const uint8_t *frame, size_t len);

#endif
