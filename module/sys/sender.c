// SPDX-License-Identifier: GPL-2.0
/*
 * Who sends a packet of the machine's own, and what a sender is told whose packet is blocked. The proxy only.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/netfilter.h>
#include <linux/pid.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/uidgid.h>
#include <net/dst_metadata.h>
#include <net/inet_sock.h>
#include <net/netfilter/ipv4/nf_reject.h>
#include <net/netfilter/ipv6/nf_reject.h>
#include <net/sock.h>
#include "kernel.h"

/*
 * The socket, unless it is a small one (a handshake's, or what is left of a connection), which begins no connection, or of another
 * namespace.
 */
static struct sock *sender(const struct nf_hook_state *state)
{
	struct sock *sk = state->sk;

	return sk && sk_fullsock(sk) && net_eq(sock_net(sk), state->net) ? sk : NULL;
}

/* As the user namespace of the network namespace numbers it; less than zero if nobody knows. */
s64 mxp_sender_user(const struct nf_hook_state *state)
{
	struct sock *sk = sender(state);
	kuid_t uid;

	if (!sk)
		return -1;
	uid = READ_ONCE(sk->sk_uid);
	/* There numbers are what they are. */
	if (state->net->user_ns == &init_user_ns)
		return __kuid_val(uid);
	return from_kuid_munged(state->net->user_ns, uid);
}

/* As xt_owner has it: until sock_orphan(), which takes the lock, a socket has its file. */
s64 mxp_sender_group(const struct nf_hook_state *state)
{
	struct sock *sk = sender(state);
	s64 group = -1;

	if (!sk)
		return -1;
	read_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_socket && sk->sk_socket->file)
		group = from_kgid_munged(state->net->user_ns, sk->sk_socket->file->f_cred->fsgid);
	read_unlock_bh(&sk->sk_callback_lock);
	return group;
}

/*
 * The number of the socket's control group, or of its ancestor at a level, of which zero is the root; zero if there is none. A socket
 * keeps its group (cgroup_sk_alloc()), and that its ancestors.
 */
u64 mxp_sender_control_group(const struct nf_hook_state *state, int level)
{
#ifdef CONFIG_SOCK_CGROUP_DATA
	struct sock *sk = sender(state);
	struct cgroup *group = sk ? sock_cgroup_ptr(&sk->sk_cgrp_data) : NULL;

	group = group ? cgroup_ancestor(group, level) : NULL;
	return group ? cgroup_id(group) : 0;
#else
	return 0;
#endif
}

/* The process that sends, if one does: not an interrupt, nor the kernel itself. */
const struct task_struct *mxp_sender_process(const struct nf_hook_state *state)
{
	if (state->hook != NF_INET_LOCAL_OUT || !in_task() || (current->flags & PF_KTHREAD))
		return NULL;
	return READ_ONCE(current->group_leader);
}

/*
 * The one that it descends from; null of the first. Under RCU, by which tasks are freed, and what of a parent is read is either that or
 * what is in its place when it has ended: who inherits its children.
 */
const struct task_struct *mxp_process_parent(const struct task_struct *task)
{
	const struct task_struct *parent = rcu_dereference(task->real_parent);

	parent = READ_ONCE(parent->group_leader);
	return parent == task ? NULL : parent;
}

/* The inode number of its pidfd; zero if it has ended. */
u64 mxp_process_number(const struct task_struct *task)
{
	const struct pid *pid = READ_ONCE(task->signal->pids[PIDTYPE_TGID]);

	return pid ? READ_ONCE(pid->ino) : 0;
}

/* Its name, or while that changes a mixture of both. */
void mxp_process_name(const struct task_struct *task, u8 *name)
{
	unsigned int at;
	bool ended = false;

	BUILD_BUG_ON(TASK_COMM_LEN != 16);
	for (at = 0; at < TASK_COMM_LEN; at++) {
		u8 byte = ended ? 0 : READ_ONCE(task->comm[at]);

		ended |= !byte;
		name[at] = byte;
	}
	name[TASK_COMM_LEN - 1] = 0;
}

void mxp_reject(struct sk_buff *skb, const struct nf_hook_state *state, u8 protocol)
{
	bool is_tcp = protocol == IPPROTO_TCP;

	/* What a tunnel has attached is no route: 7.2 would take it for one. */
	if (skb_dst(skb) && !skb_valid_dst(skb))
		skb_dst_drop(skb);

	if (state->pf == NFPROTO_IPV4) {
		if (is_tcp)
			nf_send_reset(state->net, state->sk, skb, state->hook);
		else
			nf_send_unreach(skb, ICMP_PORT_UNREACH, state->hook);
	} else {
		if (is_tcp)
			nf_send_reset6(state->net, state->sk, skb, state->hook);
		else
			nf_send_unreach6(state->net, skb, ICMPV6_PORT_UNREACH, state->hook);
	}
}
