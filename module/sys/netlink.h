/* SPDX-License-Identifier: GPL-2.0 */
/* What netlink.c and netlink.rs know of each other. */
#ifndef MXP_NETLINK_H
#define MXP_NETLINK_H

#include <linux/types.h>

struct net;
struct sock;

/* A request, or a part of a dump. */
struct mxp_netlink_request {
	struct net *net;
	/* What netlink.rs has of the namespace. */
	void *of_net;
	/* The socket that sent it, and its address: unique in the namespace among sockets that are open. */
	struct sock *sender;
	u32 port;
	u32 command;
	const void *attributes;
	size_t length;

	/* Of a refusal: a sentence, or NULL; bytes from the first attribute to the one that is wrong, or SIZE_MAX. */
	const char *message;
	size_t offset;
	/* Of a dump: changes when what is dumped does. */
	u32 generation;
};

/*
 * What netlink.c calls: may sleep. Attributes are written to `room`, which is zero; `size` is how much there is, and then how
 * much is written.
 */
struct mxp_netlink_calls {
	void *target;
	int (*request)(struct mxp_netlink_request *request, void *room, size_t *size);
	/* One message: 1. At the end: 0. -EMSGSIZE: more room is needed. `position` is of four numbers, zero at first. */
	int (*dump)(struct mxp_netlink_request *request, u64 *position, void *room,
		    size_t *size);
	/* The namespace begins: what netlink.rs has of it. An error is an ERR_PTR(). */
	void *(*enter)(void *target, struct net *net);
	/* A socket with this address was closed. */
	void (*released)(void *of_net, u32 port);
	/* The namespace ends; no socket is in it. Must not wait for readers of files. */
	void (*leave)(void *of_net);
	/* Nothing in the namespace calls anything any more: frees what netlink.rs has of it. */
	void (*end)(void *of_net);
};

/* One at a time; `calls` stays until mxp_netlink_unregister() has returned. */
int mxp_netlink_register(const struct mxp_netlink_calls *calls);
void mxp_netlink_unregister(void);

/* Whether somebody in the namespace listens to events, and telling them of one; may sleep. */
bool mxp_netlink_is_heard(struct net *net);
void mxp_netlink_tell(struct net *net, u8 command, const void *attributes, size_t length);

/* As long as one is held, the end of the namespace waits; only for one that has a request, or is held already. */
void mxp_net_hold(struct net *net);
void mxp_net_release(struct net *net);

void mxp_sock_hold(struct sock *sk);
void mxp_sock_put(struct sock *sk);
bool mxp_sock_is_closed(const struct sock *sk);

bool mxp_module_get(void);
void mxp_module_put(void);

#endif
