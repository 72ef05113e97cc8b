// SPDX-License-Identifier: GPL-2.0
/*
 * The Generic Netlink family: its operations are tables that the kernel's generator makes of abi/mutex_proxy.yaml. All of them end
 * in Rust, in netlink.rs.
 */
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/netlink.h>
#include <linux/notifier.h>
#include <linux/refcount.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>
#include <net/netlink.h>
#include <net/netns/generic.h>
#include <net/sock.h>
#include "netlink.h"
#include "version.h"
#include "../abi/generated/mutex_proxy_gen.h"
#include "../abi/generated/mutex_proxy_gen.c"

static const struct mxp_netlink_calls *calls;

struct mxp_net {
	/* One for the namespace itself. */
	refcount_t users;
	struct completion unused;
	/* What netlink.rs has of it. */
	void *of_net;
};

static unsigned int mxp_net_id;

static struct mxp_netlink_request describe(const struct genl_info *info, const struct sk_buff *sent)
{
	struct mxp_net *of = net_generic(genl_info_net(info), mxp_net_id);

	return (struct mxp_netlink_request) {
		.net = genl_info_net(info),
		.of_net = of->of_net,
		.sender = NETLINK_CB(sent).sk,
		.port = info->snd_portid,
		.command = info->genlhdr->cmd,
		.attributes = genlmsg_data(info->genlhdr),
		.length = genlmsg_len(info->genlhdr),
		.offset = SIZE_MAX,
	};
}

static void explain(struct netlink_ext_ack *extack, const struct mxp_netlink_request *request)
{
	if (!extack)
		return;
	if (request->message)
		extack->_msg = request->message;
	if (request->offset < request->length)
		extack->bad_attr = request->attributes + request->offset;
}

/* What a message may have of attributes, and is zero before. */
#define MXP_MESSAGE 2048

static size_t room(struct sk_buff *skb)
{
	size_t size = min_t(size_t, skb_tailroom(skb), MXP_MESSAGE);

	memset(skb_tail_pointer(skb), 0, size);
	return size;
}

static int request(struct sk_buff *sent, struct genl_info *info)
{
	struct mxp_netlink_request request = describe(info, sent);
	struct sk_buff *answer = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *header;
	size_t size;
	int err;

	if (!answer)
		return -ENOMEM;
	header = genlmsg_iput(answer, info);
	if (!header) {
		nlmsg_free(answer);
		return -EMSGSIZE;
	}
	size = room(answer);
	err = calls->request(&request, skb_tail_pointer(answer), &size);
	if (err || !size) {
		explain(info->extack, &request);
		nlmsg_free(answer);
		return err;
	}
	skb_put(answer, size);
	genlmsg_end(answer, header);
	return genlmsg_reply(answer, info);
}

static int dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	const struct genl_info *info = genl_info_dump(cb);
	struct mxp_netlink_request request = describe(info, cb->skb);
	u64 *position = (u64 *)cb->ctx;
	void *header;
	size_t size;
	int more;

	BUILD_BUG_ON(sizeof(cb->ctx) < 4 * sizeof(u64));
	for (;;) {
		header = genlmsg_put(skb, info->snd_portid, info->snd_seq, info->family,
				     NLM_F_MULTI, info->genlhdr->cmd);
		if (!header)
			return skb->len;
		size = room(skb);
		more = calls->dump(&request, position, skb_tail_pointer(skb), &size);
		/* At the end, too: it may have come too early. */
		if (more >= 0)
			cb->seq = request.generation;
		if (more <= 0)
			break;
		skb_put(skb, size);
		genl_dump_check_consistent(cb, header);
		genlmsg_end(skb, header);
	}
	genlmsg_cancel(skb, header);
	if (more < 0 && !skb->len) {
		explain(cb->extack, &request);
		return more;
	}
	return skb->len;
}

int mutex_proxy_nl_stage_doit(struct sk_buff *skb, struct genl_info *info)
{
	return request(skb, info);
}

int mutex_proxy_nl_commit_doit(struct sk_buff *skb, struct genl_info *info)
{
	return request(skb, info);
}

int mutex_proxy_nl_context_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	return request(skb, info);
}

int mutex_proxy_nl_context_del_doit(struct sk_buff *skb, struct genl_info *info)
{
	return request(skb, info);
}

int mutex_proxy_nl_statistics_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	return request(skb, info);
}

int mutex_proxy_nl_original_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	return request(skb, info);
}

int mutex_proxy_nl_flow_del_doit(struct sk_buff *skb, struct genl_info *info)
{
	return request(skb, info);
}

int mutex_proxy_nl_context_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb);
}

int mutex_proxy_nl_group_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb);
}

int mutex_proxy_nl_upstream_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb);
}

int mutex_proxy_nl_rule_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb);
}

int mutex_proxy_nl_set_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb);
}

int mutex_proxy_nl_flow_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb);
}

/* The generator leaves out who may join. */
static const struct genl_multicast_group groups[] = {
	[MUTEX_PROXY_NLGRP_EVENTS] = {
		.name = MUTEX_PROXY_MCGRP_EVENTS,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
};

bool mxp_netlink_is_heard(struct net *net)
{
	return genl_has_listeners(&mutex_proxy_nl_family, net, MUTEX_PROXY_NLGRP_EVENTS) > 0;
}

/* Who has no room for it is told of that by ENOBUFS, and without memory nobody hears of it. */
void mxp_netlink_tell(struct net *net, u8 command, const void *attributes, size_t length)
{
	struct sk_buff *skb = genlmsg_new(length, GFP_KERNEL);
	void *header;

	if (!skb)
		return;
	header = genlmsg_put(skb, 0, 0, &mutex_proxy_nl_family, 0, command);
	if (!header) {
		nlmsg_free(skb);
		return;
	}
	/* There is room: it was asked for. */
	skb_put_data(skb, attributes, length);
	genlmsg_end(skb, header);
	genlmsg_multicast_netns(&mutex_proxy_nl_family, net, skb, 0, MUTEX_PROXY_NLGRP_EVENTS,
				GFP_KERNEL);
}

/* netlink_release() calls this in the task that closes the last descriptor, after it has marked the socket as dead. */
static int released(struct notifier_block *block, unsigned long event, void *data)
{
	const struct netlink_notify *socket = data;

	if (event == NETLINK_URELEASE && socket->protocol == NETLINK_GENERIC) {
		struct mxp_net *of = net_generic(socket->net, mxp_net_id);

		calls->released(of->of_net, socket->portid);
	}
	return NOTIFY_DONE;
}

static struct notifier_block notifier = {
	.notifier_call = released,
};

static int __net_init enter(struct net *net)
{
	struct mxp_net *of = net_generic(net, mxp_net_id);

	refcount_set(&of->users, 1);
	init_completion(&of->unused);
	of->of_net = calls->enter(calls->target, net);
	return PTR_ERR_OR_ZERO(of->of_net);
}

static void __net_exit leave(struct net *net)
{
	struct mxp_net *of = net_generic(net, mxp_net_id);

	calls->leave(of->of_net);
	mxp_net_release(net);
	wait_for_completion(&of->unused);
}

static void __net_exit end(struct net *net)
{
	struct mxp_net *of = net_generic(net, mxp_net_id);

	calls->end(of->of_net);
}

/*
 * `pre_exit`: devices, routes and netfilter are still there. `exit`: proc_net_ns_exit() comes later, since it was registered
 * earlier.
 */
static struct pernet_operations namespaces = {
	.init = enter,
	.pre_exit = leave,
	.exit = end,
	.id = &mxp_net_id,
	.size = sizeof(struct mxp_net),
};

void mxp_net_hold(struct net *net)
{
	struct mxp_net *of = net_generic(net, mxp_net_id);

	refcount_inc(&of->users);
}

void mxp_net_release(struct net *net)
{
	struct mxp_net *of = net_generic(net, mxp_net_id);

	if (refcount_dec_and_test(&of->users))
		complete(&of->unused);
}

int mxp_netlink_register(const struct mxp_netlink_calls *those)
{
	int err;

	calls = those;
	mutex_proxy_nl_family.mcgrps = groups;
	BUILD_BUG_ON(ARRAY_SIZE(groups) != ARRAY_SIZE(mutex_proxy_nl_mcgrps));
	err = register_pernet_subsys(&namespaces);
	if (err)
		return err;
	err = netlink_register_notifier(&notifier);
	if (err)
		goto leave_namespaces;
	err = genl_register_family(&mutex_proxy_nl_family);
	if (err)
		goto unnotify;
	return 0;
unnotify:
	netlink_unregister_notifier(&notifier);
leave_namespaces:
	unregister_pernet_subsys(&namespaces);
	return err;
}

void mxp_netlink_unregister(void)
{
	genl_unregister_family(&mutex_proxy_nl_family);
	netlink_unregister_notifier(&notifier);
	unregister_pernet_subsys(&namespaces);
}

void mxp_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

void mxp_sock_put(struct sock *sk)
{
	sock_put(sk);
}

bool mxp_sock_is_closed(const struct sock *sk)
{
	return sock_flag(sk, SOCK_DEAD);
}

bool mxp_module_get(void)
{
	return try_module_get(THIS_MODULE);
}

void mxp_module_put(void)
{
	module_put(THIS_MODULE);
}
