// SPDX-License-Identifier: GPL-2.0
/*
 * The module's parameters. They are C, since a parameter that can be changed through sysfs and refuses
 * what is out of range with EINVAL needs a kernel_param_ops. Rust reads them, once each time it needs
 * them.
 */
#include <linux/bottom_half.h>
#include <linux/cpu.h>
#include <linux/jiffies.h>
#include <linux/jump_label.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/rcupdate.h>
#include <linux/workqueue.h>
#include "../sys/arch/arch.h"

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

/*
 * Optimizations that can be switched on and off. The key of each (mxp_rcu_disabled and so on) is on while it
 * does not have its default; mxp_ablation is on while any of these keys is; and mxp_non_default is on while
 * any of these is, or batching is on, or later hooks may change routes. So the default costs one no-op
 * where the fast path asks.
 */
DEFINE_STATIC_KEY_FALSE(mxp_non_default);
DEFINE_STATIC_KEY_FALSE(mxp_ablation);

/* On while there is a namespace with later hooks that may change routes; counted for each IP version. */
DEFINE_STATIC_KEY_FALSE(mxp_later_hooks);

void mxp_count_later_hooks(bool there);
void mxp_count_later_hooks(bool there)
{
	if (there) {
		static_branch_inc(&mxp_later_hooks);
		static_branch_inc(&mxp_non_default);
	} else {
		static_branch_dec(&mxp_later_hooks);
		static_branch_dec(&mxp_non_default);
	}
}

#define CHOICE(name, key, value, high, description)				\
	DEFINE_STATIC_KEY_FALSE(mxp_##key);					\
	unsigned int mxp_##name = (value);					\
	static int name##_set(const char *text, const struct kernel_param *kp)	\
	{									\
		bool was = mxp_##name != (value);				\
		int err = param_set_uint_minmax(text, kp, 0, (high));		\
		bool is = mxp_##name != (value);				\
										\
		if (err || is == was)						\
			return err;						\
		if (is) {							\
			static_branch_enable(&mxp_##key);			\
			static_branch_inc(&mxp_ablation);			\
			static_branch_inc(&mxp_non_default);			\
		} else {							\
			static_branch_disable(&mxp_##key);			\
			static_branch_dec(&mxp_ablation);			\
			static_branch_dec(&mxp_non_default);			\
		}								\
		return 0;							\
	}									\
	static const struct kernel_param_ops name##_ops = {			\
		.set = name##_set,						\
		.get = param_get_uint,						\
	};									\
	module_param_cb(name, &name##_ops, &mxp_##name, 0644);			\
	MODULE_PARM_DESC(name, description " (0 to " #high ", default " #value ")")

#define SWITCH(name, key, value, description) CHOICE(name, key, value, 1, description)

SWITCH(perf_enable_rcu, rcu_disabled, 1,
       "Look flows up under RCU; off: under the lock of those who change the table");
SWITCH(perf_enable_zero_copy, zero_copy_disabled, 1,
       "Make no more than the headers writable; off: copy the whole packet first");
SWITCH(perf_enable_route_cache, route_cache_disabled, 1,
       "Cache the route of a flow's packets with the flow; off: look it up for each");
SWITCH(perf_enable_percpu, percpu_disabled, 1,
       "Count packets and flows on each CPU by itself; off: on counters that all CPUs share");

CHOICE(perf_cache_size, flow_cache_enabled, 0, 65536,
       "Flows that each CPU remembers, for each IP version in a network namespace; 0 for no cache");
PARAMETER(perf_enable_pool, 1, 0, 1, 0644,
	  "Keep memory of flows for those to come; off: kmalloc() and kfree()");
PARAMETER(perf_enable_rule_index, 1, 0, 1, 0644,
	  "Find the rule of a new connection by an index; off: ask one after the other");

/*
 * Whether hooks are timed. Not one of the switches above, which move packets into a slower copy of
 * the code.
 */
DEFINE_STATIC_KEY_FALSE(mxp_profiling_enabled);
static unsigned int perf_enable_profiling;

static int perf_enable_profiling_set(const char *text, const struct kernel_param *kp)
{
	unsigned int old = perf_enable_profiling;
	int err = param_set_uint_minmax(text, kp, 0, 1);

	if (err)
		return err;
	if (perf_enable_profiling && !mxp_can_time()) {
		perf_enable_profiling = old;
		return -EOPNOTSUPP;
	}
	if (perf_enable_profiling)
		static_branch_enable(&mxp_profiling_enabled);
	else
		static_branch_disable(&mxp_profiling_enabled);
	return 0;
}

static const struct kernel_param_ops perf_enable_profiling_ops = {
	.set = perf_enable_profiling_set,
	.get = param_get_uint,
};
module_param_cb(perf_enable_profiling, &perf_enable_profiling_ops, &perf_enable_profiling, 0644);
MODULE_PARM_DESC(perf_enable_profiling, "Time every packet in the hooks (0 to 1, default 0)");

/*
 * Off by default. It is switched off in two steps: once the parameter is zero, packets do not wait any more,
 * but flush those that do; and only when none waits the key is switched off. Else packets that see the key
 * off would overtake those that wait.
 */
DEFINE_STATIC_KEY_FALSE(mxp_batching_active);
unsigned int mxp_perf_enable_batching;

/* Runs all softirqs that this CPU still has to run. */
static long run_softirqs(void *unused)
{
	local_bh_disable();
	local_bh_enable();
	return 0;
}

static int perf_enable_batching_set(const char *text, const struct kernel_param *kp)
{
	unsigned int old = mxp_perf_enable_batching;
	int err = param_set_uint_minmax(text, kp, 0, 1);
	unsigned int cpu;

	if (err || mxp_perf_enable_batching == old)
		return err;
	if (mxp_perf_enable_batching) {
		static_branch_enable(&mxp_batching_active);
		static_branch_inc(&mxp_non_default);
		return 0;
	}
	/* Wait for hooks that may not have seen the new value. */
	synchronize_rcu();
	cpus_read_lock();
	for_each_online_cpu(cpu)
		work_on_cpu(cpu, run_softirqs, NULL);
	cpus_read_unlock();
	static_branch_dec(&mxp_non_default);
	static_branch_disable(&mxp_batching_active);
	return 0;
}

static const struct kernel_param_ops perf_enable_batching_ops = {
	.set = perf_enable_batching_set,
	.get = param_get_uint,
};
module_param_cb(perf_enable_batching, &perf_enable_batching_ops, &mxp_perf_enable_batching, 0644);
MODULE_PARM_DESC(perf_enable_batching,
		 "Packets of a softirq round wait for each other, to be looked up together (0 to 1, default 0)");

PARAMETER(perf_batch_size, 32, 1, 64, 0644,
	  "Packets that are looked up together at the most");
PARAMETER(perf_batch_timeout, 50, 1, 1000, 0644,
	  "Microseconds that a packet may wait for others");

/*
 * RFC 5382, requirement 5: established connections at least two hours and four minutes, others
 * four minutes. Five days are connection tracking's default. Idle times are known up to 2^31 ticks, 24 days at
 * 1000 Hz: longer ones, and the longest gc_interval beyond, would count as none.
 */
#define TIMEOUT(name, value, high, description)					\
	static_assert(((high) + 3600ULL) * HZ < 1ULL << 31);			\
	PARAMETER(name, value, 1, high, 0644, description)

TIMEOUT(tcp_syn_timeout, 240, 86400,
	  "Seconds until a TCP connection that was not answered is forgotten");
TIMEOUT(tcp_established_timeout, 432000, 2073600,
	  "Seconds until an idle TCP connection is forgotten");
TIMEOUT(tcp_fin_timeout, 240, 86400,
	  "Seconds until an idle TCP connection is forgotten that one side has closed");
TIMEOUT(tcp_close_timeout, 240, 86400,
	  "Seconds until a TCP connection is forgotten that both sides have closed, or that was reset");
/* RFC 4787, requirement 5: two minutes, but for well-known ports. */
TIMEOUT(udp_timeout, 180, 86400,
	  "Seconds until an idle UDP flow is forgotten that lasted for more than two seconds");
TIMEOUT(udp_transient_timeout, 120, 86400,
	  "Seconds until another idle UDP flow is forgotten");
TIMEOUT(udp_unreplied_timeout, 30, 86400,
	  "Seconds until another idle UDP flow is forgotten that goes to a port below 1024");
PARAMETER(gc_interval, 30, 1, 3600, 0644,
	  "Seconds in which the whole table is searched for idle flows once");
PARAMETER(max_flows, 65536, 1, 1048576, 0644,
	  "Flows of each IP version in a network namespace");
PARAMETER(upstream_retry, 30, 1, 86400, 0644,
	  "Seconds after which an upstream that failed is tried again");
PARAMETER(hash_buckets, 1024, 16, 1048576, 0444,
	  "Buckets that a flow table begins with, rounded up to a power of two; it grows with its flows");
PARAMETER(hash_seed, 0, 0, 4294967295, 0444,
	  "Seed of the flow table's hash; 0 draws one at random for each namespace");

/*
 * The hooks' priorities: after connection tracking's defragmentation, and before connection tracking, which
 * must see the packets of both directions translated and marked untracked. Else it would keep entries of
 * which it sees one direction only.
 */
#define PRIORITY(name, value, low, high, description)				\
	int mxp_##name = (value);						\
	static int name##_set(const char *text, const struct kernel_param *kp)	\
	{									\
		int new;							\
		int err = kstrtoint(text, 0, &new);				\
										\
		static_assert((low) == NF_IP_PRI_CONNTRACK_DEFRAG + 1);		\
		static_assert((high) == NF_IP_PRI_CONNTRACK - 1);		\
		static_assert((low) == NF_IP6_PRI_CONNTRACK_DEFRAG + 1);	\
		static_assert((high) == NF_IP6_PRI_CONNTRACK - 1);		\
		if (err)							\
			return err;						\
		if (new < (low) || new > (high))				\
			return -EINVAL;						\
		mxp_##name = new;						\
		return 0;							\
	}									\
	static const struct kernel_param_ops name##_ops = {			\
		.set = name##_set,						\
		.get = param_get_int,						\
	};									\
	module_param_cb(name, &name##_ops, &mxp_##name, 0444);			\
	MODULE_PARM_DESC(name, description " (" #low " to " #high ", default " #value ")")

PRIORITY(pre_routing_priority, -250, -399, -201,
	 "Priority of the hooks for packets that come in");
PRIORITY(local_out_priority, -250, -399, -201,
	 "Priority of the hooks for packets of the machine's own");
