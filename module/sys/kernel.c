// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, as functions that Rust can call. No logic here.
 */
#include <linux/delay.h>
#include <linux/inetdevice.h>
#include <linux/kernel_stat.h>
#include <linux/moduleparam.h>
#include <linux/netdevice.h>
#include <linux/nsproxy.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ipv6_frag.h>
#include <net/l3mdev.h>
#include "kernel.h"
#include "version.h"

void mxp_spin_init(struct mxp_spinlock *lock, enum mxp_rank rank)
{
	static struct lock_class_key keys[MXP_RANKS];

	spin_lock_init(&lock->lock);
	lockdep_set_class(&lock->lock, &keys[rank]);
}

/* Keeps softirqs off, which they mostly are already. */
unsigned int mxp_spin_lock(struct mxp_spinlock *lock)
{
	unsigned int how = 0;

	if (!softirq_count()) {
		local_bh_disable();
		how = MXP_SOFTIRQS_WERE_ON;
	}
	if (spin_trylock(&lock->lock))
		return how;
	spin_lock(&lock->lock);
	return how | MXP_WAITED;
}

void mxp_spin_unlock(struct mxp_spinlock *lock, unsigned int how)
{
	spin_unlock(&lock->lock);
	if (how & MXP_SOFTIRQS_WERE_ON)
		local_bh_enable();
}

void mxp_cond_resched(void)
{
	cond_resched();
}

#ifdef CONFIG_FAULT_INJECTION
/* Milliseconds for each window. For tests: not in sysfs, and not described as a parameter. */
static unsigned int debug_windows[MXP_WINDOWS];
module_param_array(debug_windows, uint, NULL, 0);
#endif

void mxp_window(enum mxp_window window)
{
#ifdef CONFIG_FAULT_INJECTION
	if (debug_windows[window])
		msleep(debug_windows[window]);
#endif
}

/* A copy of all of the packet, in memory of its own and in one piece. */
bool mxp_skb_copy(struct sk_buff *skb)
{
	return !skb_linearize(skb) && !pskb_expand_head(skb, 0, 0, GFP_ATOMIC);
}

void mxp_rcu_read_lock(void)
{
	rcu_read_lock();
}

void mxp_rcu_read_unlock(void)
{
	rcu_read_unlock();
}

/* Zeroed. `charged`: to the control group of the task. May sleep. */
void *mxp_alloc_percpu(size_t size, size_t align, bool charged)
{
	gfp_t gfp = charged ? GFP_KERNEL_ACCOUNT : GFP_KERNEL;

	return (__force void *)__alloc_percpu_gfp(size, align, gfp);
}

unsigned int mxp_cpus(void)
{
	return nr_cpu_ids;
}

bool mxp_cpu_possible(unsigned int cpu)
{
	return cpu_possible(cpu);
}

void *mxp_per_cpu_ptr(void *base, unsigned int cpu)
{
	return per_cpu_ptr((void __percpu *)base, cpu);
}

void *mxp_this_cpu_ptr(void *base)
{
	return raw_cpu_ptr((void __percpu *)base);
}

void mxp_free_percpu(void *base)
{
	free_percpu((void __percpu *)base);
}

struct kmem_cache *mxp_cache_create(const char *name, unsigned int size, unsigned int align)
{
	return kmem_cache_create(name, size, align, 0, NULL);
}

/*
 * All of them or none; if none, `objects` may point to freed memory. The kernel tells how many (6.12)
 * or whether (7.3).
 */
bool mxp_cache_alloc(struct kmem_cache *cache, size_t count, void **objects)
{
	return kmem_cache_alloc_bulk(cache, GFP_ATOMIC | __GFP_NOWARN, count, objects);
}

void *mxp_kmalloc(size_t size)
{
	return kmalloc(size, GFP_ATOMIC | __GFP_NOWARN);
}

unsigned int mxp_nodes(void)
{
	return nr_node_ids;
}

/* The node from which memory comes that this CPU asks for. */
unsigned int mxp_this_node(void)
{
	return numa_mem_id();
}

unsigned int mxp_node_of(const void *memory)
{
	return page_to_nid(virt_to_page(memory));
}

void mxp_work_init(struct mxp_work *work, void (*function)(struct work_struct *))
{
	INIT_DELAYED_WORK(&work->work, function);
}

void mxp_work_queue(struct mxp_work *work, unsigned long delay)
{
	schedule_delayed_work(&work->work, delay);
}

void mxp_rcu_work_init(struct mxp_rcu_work *work, void (*function)(struct work_struct *))
{
	INIT_RCU_WORK(&work->work, function);
}

void mxp_rcu_work_queue(struct mxp_rcu_work *work)
{
#if MXP_HAS_DFL_WQ
	queue_rcu_work(system_dfl_wq, &work->work);
#else
	queue_rcu_work(system_unbound_wq, &work->work);
#endif
}

struct net *mxp_current_net(void)
{
	return current->nsproxy->net_ns;
}

struct net *mxp_get_net(struct net *net)
{
	return get_net(net);
}

void mxp_put_net(struct net *net)
{
	put_net(net);
}

bool mxp_net_admin(struct net *net)
{
	return ns_capable(net->user_ns, CAP_NET_ADMIN);
}

struct proc_dir_entry *mxp_proc_net_mkdir(struct net *net, const char *name)
{
	return proc_net_mkdir(net, name, net->proc_net);
}

unsigned long mxp_copy_from_user(void *to, const void __user *from, unsigned long size)
{
	return copy_from_user(to, from, size);
}

unsigned long mxp_copy_to_user(void __user *to, const void *from, unsigned long size)
{
	return copy_to_user(to, from, size);
}

/* The way of a packet of the machine's own. */
int mxp_route_output_v4(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	__be32 saddr = ip_hdr(skb)->saddr;
	unsigned int type = RTN_LOCAL;

	/*
	 * If not told, ip_route_me_harder() looks the source up, only to see whether it is a unicast
	 * address: that would be another look-up.
	 */
	if (ipv4_is_zeronet(saddr) || ipv4_is_multicast(saddr) || ipv4_is_lbcast(saddr))
		type = RTN_UNSPEC;
	return ip_route_me_harder(net, sk, skb, type);
}

/* The way of a packet that came in, by addresses that may not be those in its header. */
int mxp_route_input_v4(struct sk_buff *skb, __be32 daddr, __be32 saddr)
{
	int err;

	skb_dst_drop(skb);
#if MXP_ROUTE_INPUT_TAKES_DSCP
	err = ip_route_input_noref(skb, daddr, saddr, ip4h_dscp(ip_hdr(skb)), skb->dev) ?
		-EHOSTUNREACH : 0;
#else
	err = ip_route_input_noref(skb, daddr, saddr, ip_hdr(skb)->tos, skb->dev);
#endif
	/* Who sent it does not know where it goes, and must not be told of a better way there. */
	IPCB(skb)->flags &= ~IPSKB_DOREDIRECT;
	return err;
}

/* Older kernels do not export what finds it: the packet goes on without, and they find it. */
int mxp_route_input_v6(struct sk_buff *skb)
{
	skb_dst_drop(skb);
#if MXP_ROUTE_INPUT_V6_IS_EXPORTED
	ip6_route_input(skb);
#endif
	return 0;
}

/*
 * Our address on the device through which a packet came in, if it would go out there again on its
 * way to daddr; zero if not.
 */
__be32 mxp_source_back_v4(struct sk_buff *skb, __be32 daddr, __be32 saddr)
{
	const struct rtable *rt;

	if (mxp_route_input_v4(skb, daddr, saddr))
		return 0;
	rt = skb_rtable(skb);
	if (rt->rt_type != RTN_UNICAST || rt->dst.dev != skb->dev)
		return 0;
	return inet_select_addr(skb->dev, rt_nexthop(rt, daddr), RT_SCOPE_UNIVERSE);
}

/* The same; false for zero. Not by ip6_route_input(), which older kernels do not export. */
bool mxp_source_back_v6(const struct sk_buff *skb, const struct in6_addr *daddr,
			const struct in6_addr *saddr, struct in6_addr *ours)
{
	struct net *net = dev_net(skb->dev);
	struct flowi6 fl6 = {
		.flowi6_iif = skb->dev->ifindex,
		.flowi6_mark = skb->mark,
		.daddr = *daddr,
		.saddr = *saddr,
	};
	struct dst_entry *dst = ip6_route_lookup(net, &fl6, skb, RT6_LOOKUP_F_HAS_SADDR);
	/* An address of ours has the device that it is assigned to. */
	bool ends = dst_rt6_info(dst)->rt6i_flags & (RTF_LOCAL | RTF_ANYCAST);
	bool back = !dst->error && !ends && dst->dev == skb->dev;

	dst_release(dst);
	return back && !ipv6_dev_get_saddr(net, skb->dev, daddr, 0, ours);
}

/*
 * The packet's route, if other packets of the flow may take it, with a reference: a unicast one
 * that works, not in a VRF, where the device is exchanged only after the hook, and without a
 * lightweight tunnel or a transformation, whose state belongs to a packet. Else NULL.
 */
struct dst_entry *mxp_route_to_keep(const struct sk_buff *skb, u32 *cookie)
{
	struct dst_entry *dst = skb_dst(skb);

	if (!dst || dst->error || dst->lwtstate || dst->obsolete != DST_OBSOLETE_FORCE_CHK)
		return NULL;
	if (dst->flags & (DST_METADATA | DST_FAKE_RTABLE))
		return NULL;
#ifdef CONFIG_XFRM
	if (dst->xfrm)
		return NULL;
#endif
	if (skb->dev && netif_is_l3_slave(skb->dev))
		return NULL;
	if (dst->ops->family == AF_INET) {
		u16 type = dst_rtable(dst)->rt_type;

		if (type != RTN_UNICAST && type != RTN_LOCAL)
			return NULL;
		*cookie = 0;
	} else {
		if (ipv6_addr_is_multicast(&ipv6_hdr(skb)->daddr))
			return NULL;
		*cookie = rt6_get_cookie(dst_rt6_info(dst));
	}
	return dst_hold_safe(dst) ? dst : NULL;
}

bool mxp_dst_valid(struct dst_entry *dst, u32 cookie)
{
	return dst_check(dst, cookie);
}

bool mxp_dst_hold(struct dst_entry *dst)
{
	return dst_hold_safe(dst);
}

void mxp_dst_release(struct dst_entry *dst)
{
	dst_release(dst);
}

void mxp_skb_dst_drop(struct sk_buff *skb)
{
	skb_dst_drop(skb);
}

/* Zero: the packet is whole now. Anything else: it is not the caller's any more. */
int mxp_defragment_v4(struct net *net, struct sk_buff *skb, bool local)
{
	int err;

	local_bh_disable();
	err = ip_defrag(net, skb, local ? IP_DEFRAG_CONNTRACK_OUT : IP_DEFRAG_CONNTRACK_IN);
	local_bh_enable();
	if (!err)
		skb->ignore_df = 1;
	return err;
}

/* Zero: the packet is whole now. -EINPROGRESS: it is not the caller's any more. Else: bad. */
int mxp_defragment_v6(struct net *net, struct sk_buff *skb, bool local)
{
	return nf_ct_frag6_gather(net, skb,
				  local ? IP6_DEFRAG_CONNTRACK_OUT : IP6_DEFRAG_CONNTRACK_IN);
}

/*
 * Whether a packet at PRE_ROUTING can leave the hook and come back to it: nothing belongs to it
 * that lives only as long as the call (a borrowed route, a socket, what a bridge or IPsec
 * attached), and who called the hook goes on by its function alone, which a VRF does not.
 */
bool mxp_may_wait(const struct sk_buff *skb, const struct nf_hook_state *state)
{
	if (skb->_skb_refdst || skb->sk || state->sk || skb->dev != state->in || state->out)
		return false;
#ifdef CONFIG_SKB_EXTENSIONS
	if (skb->active_extensions)
		return false;
#endif
	return !skb_pfmemalloc(skb) && !netif_is_l3_master(skb->dev);
}

void mxp_hold_device(struct sk_buff *skb)
{
	dev_hold(skb->dev);
}

struct net_device *mxp_device(struct sk_buff *skb)
{
	return skb->dev;
}

void mxp_put_device(struct net_device *dev)
{
	dev_put(dev);
}

void mxp_drop(struct sk_buff *skb)
{
	kfree_skb_reason(skb, SKB_DROP_REASON_NETFILTER_DROP);
}

/* Of the first priority: in the next round it comes before more packets do. */
void mxp_tasklet_schedule(struct tasklet_struct *tasklet)
{
	tasklet_hi_schedule(tasklet);
}

u32 mxp_receiving_round(void)
{
	return raw_cpu_read(kstat.softirqs[NET_RX_SOFTIRQ]);
}

u32 mxp_random(void)
{
	return get_random_u32();
}

/*
 * How many interrupts this CPU has taken: its timer's, other CPUs' and devices'. The caller only
 * compares: a count that wraps or is torn between CPUs still differs.
 */
u64 mxp_interrupts(void)
{
	u64 sum = raw_cpu_read(kstat.irqs_sum);

#ifdef CONFIG_X86_LOCAL_APIC
#if MXP_IRQ_STAT_IS_ARRAY
	sum += raw_cpu_read(irq_stat.counts[IRQ_COUNT_APIC_TIMER]);
#ifdef CONFIG_SMP
	sum += raw_cpu_read(irq_stat.counts[IRQ_COUNT_RESCHEDULE]);
	sum += raw_cpu_read(irq_stat.counts[IRQ_COUNT_CALL_FUNCTION]);
#endif
#else
	sum += raw_cpu_read(irq_stat.apic_timer_irqs);
#ifdef CONFIG_SMP
	sum += raw_cpu_read(irq_stat.irq_resched_count);
	sum += raw_cpu_read(irq_stat.irq_call_count);
#endif
#endif
#endif
	return sum;
}
