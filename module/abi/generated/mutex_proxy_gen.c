// SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause)
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/mutex-proxy.yaml */
/* YNL-GEN kernel source */
/* To regenerate run: tools/net/ynl/ynl-regen.sh */

#include <net/netlink.h>
#include <net/genetlink.h>

#include "mutex_proxy_gen.h"

#include <uapi/linux/mutex_proxy.h>

/* Integer value ranges */
static const struct netlink_range_validation mutex_proxy_a_upstream_port_range = {
	.max	= 65535ULL,
};

static const struct netlink_range_validation mutex_proxy_a_ports_first_range = {
	.max	= 65535ULL,
};

static const struct netlink_range_validation mutex_proxy_a_ports_last_range = {
	.max	= 65535ULL,
};

static const struct netlink_range_validation mutex_proxy_a_connection_local_port_range = {
	.max	= 65535ULL,
};

static const struct netlink_range_validation mutex_proxy_a_connection_remote_port_range = {
	.max	= 65535ULL,
};

/* Common nested types */
const struct nla_policy mutex_proxy_condition_nl_policy[MUTEX_PROXY_A_CONDITION_SET + 1] = {
	[MUTEX_PROXY_A_CONDITION_FIELD] = NLA_POLICY_MAX(NLA_U32, 11),
	[MUTEX_PROXY_A_CONDITION_NOT] = { .type = NLA_FLAG, },
	[MUTEX_PROXY_A_CONDITION_MASK] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_CONDITION_FIRST] = { .type = NLA_UINT, },
	[MUTEX_PROXY_A_CONDITION_LAST] = { .type = NLA_UINT, },
	[MUTEX_PROXY_A_CONDITION_NAME] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_INTERFACE_MAX, },
	[MUTEX_PROXY_A_CONDITION_SET] = { .type = NLA_U32, },
};

const struct nla_policy mutex_proxy_connection_nl_policy[MUTEX_PROXY_A_CONNECTION_REMOTE_PORT + 1] = {
	[MUTEX_PROXY_A_CONNECTION_PROTOCOL] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_CONNECTION_LOCAL_ADDRESS] = NLA_POLICY_MAX_LEN(16),
	[MUTEX_PROXY_A_CONNECTION_LOCAL_PORT] = NLA_POLICY_FULL_RANGE(NLA_U32, &mutex_proxy_a_connection_local_port_range),
	[MUTEX_PROXY_A_CONNECTION_REMOTE_ADDRESS] = NLA_POLICY_MAX_LEN(16),
	[MUTEX_PROXY_A_CONNECTION_REMOTE_PORT] = NLA_POLICY_FULL_RANGE(NLA_U32, &mutex_proxy_a_connection_remote_port_range),
};

const struct nla_policy mutex_proxy_filter_nl_policy[MUTEX_PROXY_A_FILTER_DESTINATION_PORTS + 1] = {
	[MUTEX_PROXY_A_FILTER_IP_VERSION] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_FILTER_PROTOCOL] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_FILTER_SOURCE] = NLA_POLICY_NESTED(mutex_proxy_network_nl_policy),
	[MUTEX_PROXY_A_FILTER_DESTINATION] = NLA_POLICY_NESTED(mutex_proxy_network_nl_policy),
	[MUTEX_PROXY_A_FILTER_DESTINATION_PORTS] = NLA_POLICY_NESTED(mutex_proxy_ports_nl_policy),
};

const struct nla_policy mutex_proxy_group_nl_policy[MUTEX_PROXY_A_GROUP_LABEL + 1] = {
	[MUTEX_PROXY_A_GROUP_SELECTION] = NLA_POLICY_MAX(NLA_U32, 3),
	[MUTEX_PROXY_A_GROUP_UPSTREAM] = NLA_POLICY_NESTED(mutex_proxy_upstream_nl_policy),
	[MUTEX_PROXY_A_GROUP_LABEL] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_LABEL_MAX, },
};

const struct nla_policy mutex_proxy_network_nl_policy[MUTEX_PROXY_A_NETWORK_PREFIX_LENGTH + 1] = {
	[MUTEX_PROXY_A_NETWORK_ADDRESS] = NLA_POLICY_MAX_LEN(16),
	[MUTEX_PROXY_A_NETWORK_PREFIX_LENGTH] = NLA_POLICY_MAX(NLA_U32, 128),
};

const struct nla_policy mutex_proxy_ports_nl_policy[MUTEX_PROXY_A_PORTS_LAST + 1] = {
	[MUTEX_PROXY_A_PORTS_FIRST] = NLA_POLICY_FULL_RANGE(NLA_U32, &mutex_proxy_a_ports_first_range),
	[MUTEX_PROXY_A_PORTS_LAST] = NLA_POLICY_FULL_RANGE(NLA_U32, &mutex_proxy_a_ports_last_range),
};

const struct nla_policy mutex_proxy_rule_nl_policy[MUTEX_PROXY_A_RULE_CONDITION + 1] = {
	[MUTEX_PROXY_A_RULE_IP_VERSION] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_RULE_PROTOCOL] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_RULE_DIRECTIONS] = NLA_POLICY_MASK(NLA_U32, 0x3),
	[MUTEX_PROXY_A_RULE_SOURCE] = NLA_POLICY_NESTED(mutex_proxy_network_nl_policy),
	[MUTEX_PROXY_A_RULE_DESTINATION] = NLA_POLICY_NESTED(mutex_proxy_network_nl_policy),
	[MUTEX_PROXY_A_RULE_DESTINATION_PORTS] = NLA_POLICY_NESTED(mutex_proxy_ports_nl_policy),
	[MUTEX_PROXY_A_RULE_INTERFACE] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_INTERFACE_MAX, },
	[MUTEX_PROXY_A_RULE_ACTION] = NLA_POLICY_MAX(NLA_U32, 3),
	[MUTEX_PROXY_A_RULE_GROUP] = NLA_POLICY_MAX(NLA_U32, 255),
	[MUTEX_PROXY_A_RULE_LABEL] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_LABEL_MAX, },
	[MUTEX_PROXY_A_RULE_CONDITION] = NLA_POLICY_NESTED(mutex_proxy_condition_nl_policy),
};

const struct nla_policy mutex_proxy_set_nl_policy[MUTEX_PROXY_A_SET_ELEMENTS + 1] = {
	[MUTEX_PROXY_A_SET_NUMBER] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_SET_LABEL] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_LABEL_MAX, },
	[MUTEX_PROXY_A_SET_KIND] = NLA_POLICY_MAX(NLA_U32, 2),
	[MUTEX_PROXY_A_SET_IPV4] = { .type = NLA_BINARY, },
	[MUTEX_PROXY_A_SET_IPV6] = { .type = NLA_BINARY, },
	[MUTEX_PROXY_A_SET_NUMBERS] = { .type = NLA_BINARY, },
	[MUTEX_PROXY_A_SET_NAMES] = { .type = NLA_BINARY, },
	[MUTEX_PROXY_A_SET_ELEMENTS] = { .type = NLA_U32, },
};

const struct nla_policy mutex_proxy_upstream_nl_policy[MUTEX_PROXY_A_UPSTREAM_WEIGHT + 1] = {
	[MUTEX_PROXY_A_UPSTREAM_ADDRESS] = NLA_POLICY_MAX_LEN(16),
	[MUTEX_PROXY_A_UPSTREAM_PORT] = NLA_POLICY_FULL_RANGE(NLA_U32, &mutex_proxy_a_upstream_port_range),
	[MUTEX_PROXY_A_UPSTREAM_PRIORITY] = NLA_POLICY_MAX(NLA_U32, 255),
	[MUTEX_PROXY_A_UPSTREAM_WEIGHT] = NLA_POLICY_RANGE(NLA_U32, 1, 255),
};

/* MUTEX_PROXY_CMD_STAGE - do */
static const struct nla_policy mutex_proxy_stage_nl_policy[MUTEX_PROXY_A_PROXY_SET + 1] = {
	[MUTEX_PROXY_A_PROXY_BEGIN] = { .type = NLA_FLAG, },
	[MUTEX_PROXY_A_PROXY_GROUP] = NLA_POLICY_NESTED(mutex_proxy_group_nl_policy),
	[MUTEX_PROXY_A_PROXY_RULE] = NLA_POLICY_NESTED(mutex_proxy_rule_nl_policy),
	[MUTEX_PROXY_A_PROXY_SET] = NLA_POLICY_NESTED(mutex_proxy_set_nl_policy),
};

/* MUTEX_PROXY_CMD_COMMIT - do */
static const struct nla_policy mutex_proxy_commit_nl_policy[MUTEX_PROXY_A_PROXY_GENERATION + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
	[MUTEX_PROXY_A_PROXY_GENERATION] = { .type = NLA_U32, },
	[MUTEX_PROXY_A_PROXY_DRY_RUN] = { .type = NLA_FLAG, },
};

/* MUTEX_PROXY_CMD_CONTEXT_GET - do */
static const struct nla_policy mutex_proxy_context_get_nl_policy[MUTEX_PROXY_A_PROXY_CONTEXT + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
};

/* MUTEX_PROXY_CMD_CONTEXT_DEL - do */
static const struct nla_policy mutex_proxy_context_del_nl_policy[MUTEX_PROXY_A_PROXY_CONTEXT + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
};

/* MUTEX_PROXY_CMD_GROUP_GET - dump */
static const struct nla_policy mutex_proxy_group_get_nl_policy[MUTEX_PROXY_A_PROXY_CONTEXT + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
};

/* MUTEX_PROXY_CMD_UPSTREAM_GET - dump */
static const struct nla_policy mutex_proxy_upstream_get_nl_policy[MUTEX_PROXY_A_PROXY_CONTEXT + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
};

/* MUTEX_PROXY_CMD_RULE_GET - dump */
static const struct nla_policy mutex_proxy_rule_get_nl_policy[MUTEX_PROXY_A_PROXY_CONTEXT + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
};

/* MUTEX_PROXY_CMD_ORIGINAL_GET - do */
static const struct nla_policy mutex_proxy_original_get_nl_policy[MUTEX_PROXY_A_PROXY_CONNECTION + 1] = {
	[MUTEX_PROXY_A_PROXY_CONNECTION] = NLA_POLICY_NESTED(mutex_proxy_connection_nl_policy),
};

/* MUTEX_PROXY_CMD_SET_GET - dump */
static const struct nla_policy mutex_proxy_set_get_nl_policy[MUTEX_PROXY_A_PROXY_CONTEXT + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
};

/* MUTEX_PROXY_CMD_FLOW_GET - dump */
static const struct nla_policy mutex_proxy_flow_get_nl_policy[MUTEX_PROXY_A_PROXY_FILTER + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
	[MUTEX_PROXY_A_PROXY_FILTER] = NLA_POLICY_NESTED(mutex_proxy_filter_nl_policy),
};

/* MUTEX_PROXY_CMD_FLOW_DEL - do */
static const struct nla_policy mutex_proxy_flow_del_nl_policy[MUTEX_PROXY_A_PROXY_FILTER + 1] = {
	[MUTEX_PROXY_A_PROXY_CONTEXT] = { .type = NLA_NUL_STRING, .len = MUTEX_PROXY_NAME_MAX, },
	[MUTEX_PROXY_A_PROXY_FILTER] = NLA_POLICY_NESTED(mutex_proxy_filter_nl_policy),
};

/* Ops table for mutex_proxy */
static const struct genl_split_ops mutex_proxy_nl_ops[] = {
	{
		.cmd		= MUTEX_PROXY_CMD_STAGE,
		.doit		= mutex_proxy_nl_stage_doit,
		.policy		= mutex_proxy_stage_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_SET,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_COMMIT,
		.doit		= mutex_proxy_nl_commit_doit,
		.policy		= mutex_proxy_commit_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_GENERATION,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_CONTEXT_GET,
		.doit		= mutex_proxy_nl_context_get_doit,
		.policy		= mutex_proxy_context_get_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_CONTEXT,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd	= MUTEX_PROXY_CMD_CONTEXT_GET,
		.dumpit	= mutex_proxy_nl_context_get_dumpit,
		.flags	= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_CONTEXT_DEL,
		.doit		= mutex_proxy_nl_context_del_doit,
		.policy		= mutex_proxy_context_del_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_CONTEXT,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_GROUP_GET,
		.dumpit		= mutex_proxy_nl_group_get_dumpit,
		.policy		= mutex_proxy_group_get_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_CONTEXT,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_UPSTREAM_GET,
		.dumpit		= mutex_proxy_nl_upstream_get_dumpit,
		.policy		= mutex_proxy_upstream_get_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_CONTEXT,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_RULE_GET,
		.dumpit		= mutex_proxy_nl_rule_get_dumpit,
		.policy		= mutex_proxy_rule_get_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_CONTEXT,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd	= MUTEX_PROXY_CMD_STATISTICS_GET,
		.doit	= mutex_proxy_nl_statistics_get_doit,
		.flags	= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_ORIGINAL_GET,
		.doit		= mutex_proxy_nl_original_get_doit,
		.policy		= mutex_proxy_original_get_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_CONNECTION,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_SET_GET,
		.dumpit		= mutex_proxy_nl_set_get_dumpit,
		.policy		= mutex_proxy_set_get_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_CONTEXT,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_FLOW_GET,
		.dumpit		= mutex_proxy_nl_flow_get_dumpit,
		.policy		= mutex_proxy_flow_get_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_FILTER,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DUMP,
	},
	{
		.cmd		= MUTEX_PROXY_CMD_FLOW_DEL,
		.doit		= mutex_proxy_nl_flow_del_doit,
		.policy		= mutex_proxy_flow_del_nl_policy,
		.maxattr	= MUTEX_PROXY_A_PROXY_FILTER,
		.flags		= GENL_UNS_ADMIN_PERM | GENL_CMD_CAP_DO,
	},
};

static const struct genl_multicast_group mutex_proxy_nl_mcgrps[] = {
	[MUTEX_PROXY_NLGRP_EVENTS] = { "events", },
};

struct genl_family mutex_proxy_nl_family __ro_after_init = {
	.name		= MUTEX_PROXY_FAMILY_NAME,
	.version	= MUTEX_PROXY_FAMILY_VERSION,
	.netnsok	= true,
	.parallel_ops	= true,
	.module		= THIS_MODULE,
	.split_ops	= mutex_proxy_nl_ops,
	.n_split_ops	= ARRAY_SIZE(mutex_proxy_nl_ops),
	.mcgrps		= mutex_proxy_nl_mcgrps,
	.n_mcgrps	= ARRAY_SIZE(mutex_proxy_nl_mcgrps),
};
