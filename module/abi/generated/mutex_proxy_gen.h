/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/mutex-proxy.yaml */
/* YNL-GEN kernel header */
/* To regenerate run: tools/net/ynl/ynl-regen.sh */

#ifndef _LINUX_MUTEX_PROXY_GEN_H
#define _LINUX_MUTEX_PROXY_GEN_H

#include <net/netlink.h>
#include <net/genetlink.h>

#include <uapi/linux/mutex_proxy.h>

/* Common nested types */
extern const struct nla_policy mutex_proxy_condition_nl_policy[MUTEX_PROXY_A_CONDITION_SET + 1];
extern const struct nla_policy mutex_proxy_connection_nl_policy[MUTEX_PROXY_A_CONNECTION_REMOTE_PORT + 1];
extern const struct nla_policy mutex_proxy_filter_nl_policy[MUTEX_PROXY_A_FILTER_DESTINATION_PORTS + 1];
extern const struct nla_policy mutex_proxy_group_nl_policy[MUTEX_PROXY_A_GROUP_LABEL + 1];
extern const struct nla_policy mutex_proxy_network_nl_policy[MUTEX_PROXY_A_NETWORK_PREFIX_LENGTH + 1];
extern const struct nla_policy mutex_proxy_ports_nl_policy[MUTEX_PROXY_A_PORTS_LAST + 1];
extern const struct nla_policy mutex_proxy_rule_nl_policy[MUTEX_PROXY_A_RULE_CONDITION + 1];
extern const struct nla_policy mutex_proxy_set_nl_policy[MUTEX_PROXY_A_SET_ELEMENTS + 1];
extern const struct nla_policy mutex_proxy_upstream_nl_policy[MUTEX_PROXY_A_UPSTREAM_WEIGHT + 1];

int mutex_proxy_nl_stage_doit(struct sk_buff *skb, struct genl_info *info);
int mutex_proxy_nl_commit_doit(struct sk_buff *skb, struct genl_info *info);
int mutex_proxy_nl_context_get_doit(struct sk_buff *skb,
				    struct genl_info *info);
int mutex_proxy_nl_context_get_dumpit(struct sk_buff *skb,
				      struct netlink_callback *cb);
int mutex_proxy_nl_context_del_doit(struct sk_buff *skb,
				    struct genl_info *info);
int mutex_proxy_nl_group_get_dumpit(struct sk_buff *skb,
				    struct netlink_callback *cb);
int mutex_proxy_nl_upstream_get_dumpit(struct sk_buff *skb,
				       struct netlink_callback *cb);
int mutex_proxy_nl_rule_get_dumpit(struct sk_buff *skb,
				   struct netlink_callback *cb);
int mutex_proxy_nl_statistics_get_doit(struct sk_buff *skb,
				       struct genl_info *info);
int mutex_proxy_nl_original_get_doit(struct sk_buff *skb,
				     struct genl_info *info);
int mutex_proxy_nl_set_get_dumpit(struct sk_buff *skb,
				  struct netlink_callback *cb);
int mutex_proxy_nl_flow_get_dumpit(struct sk_buff *skb,
				   struct netlink_callback *cb);
int mutex_proxy_nl_flow_del_doit(struct sk_buff *skb, struct genl_info *info);

enum {
	MUTEX_PROXY_NLGRP_EVENTS,
};

extern struct genl_family mutex_proxy_nl_family;

#endif /* _LINUX_MUTEX_PROXY_GEN_H */
