// SPDX-License-Identifier: GPL-2.0
/*
 * The module's parameters. They are C because a parameter that can be changed through sysfs needs
 * a kernel_param_ops, and refuses what is out of range with EINVAL; Rust reads them, once each time
 * it needs them.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>

#define PARAMETER(name, value, low, high, mode, description)			\
	unsigned int mxp_##name = (value);					\
	static int name##_set(const char *text, const struct kernel_param *kp)	\
	{									\
		return param_set_uint_minmax(text, kp, (low), (high));		\
	}									\
	static const struct kernel_param_ops name##_ops = {			\
		.set = name##_set,						\
		.get = param_get_uint,						\
	};									\
	module_param_cb(name, &name##_ops, &mxp_##name, mode);			\
	MODULE_PARM_DESC(name, description " (" #low " to " #high ", default " #value ")")

PARAMETER(tcp_syn_timeout, 120, 1, 86400, 0644,
	  "Seconds until a TCP connection that was not answered is forgotten");
PARAMETER(tcp_established_timeout, 7200, 1, 2592000, 0644,
	  "Seconds until an idle TCP connection is forgotten");
PARAMETER(tcp_close_timeout, 120, 1, 86400, 0644,
	  "Seconds until a closing TCP connection is forgotten");
PARAMETER(udp_timeout, 180, 1, 86400, 0644,
	  "Seconds until an idle UDP flow is forgotten");
PARAMETER(gc_interval, 30, 1, 3600, 0644,
	  "Seconds in which the whole table is searched for idle flows once");
PARAMETER(max_flows, 65536, 1, 1048576, 0644,
	  "Flows in a network namespace");
PARAMETER(hash_buckets, 16384, 16, 1048576, 0444,
	  "Chains of the flow table, rounded up to a power of two");
PARAMETER(hash_seed, 0, 0, 4294967295, 0444,
	  "Seed of the flow table's hash; 0 draws one at random for each namespace");
