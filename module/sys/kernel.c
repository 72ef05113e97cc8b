// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, as functions that Rust can call. No logic here.
 */
#include <linux/delay.h>
#include <linux/kernel_stat.h>
#include <linux/moduleparam.h>
#include <linux/netdevice.h>
#include <linux/netfilter_bridge.h>
#include <linux/nsproxy.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <net/ip.h>
#include <net/inet_sock.h>
#include <net/ipv6_frag.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/netfilter/nf_conntrack_zones.h>
#include "kernel.h"
#include "version.h"

void mxp_spin_init(struct mxp_spinlock *lock, enum mxp_rank rank)
{
	static struct lock_class_key keys[MXP_RANKS];

	spin_lock_init(&lock->lock);
	lockdep_set_class(&lock->lock, &keys[rank]);
}

/* Also disables BH, unless that was done already, as it mostly is. */
unsigned int mxp_spin_lock(struct mxp_spinlock *lock)
{
	unsigned int how = 0;

	if (!softirq_count()) {
		local_bh_disable();
		how = MXP_BH_WAS_ENABLED;
	}
	if (spin_trylock(&lock->lock))
		return how;
	spin_lock(&lock->lock);
	return how | MXP_WAITED;
}

void mxp_spin_unlock(struct mxp_spinlock *lock, unsigned int how)
{
	spin_unlock(&lock->lock);
	if (how & MXP_BH_WAS_ENABLED)
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

/* Copies the whole packet into memory of its own, and makes it linear. */
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
 * Allocates all of them or none; if none, `objects` may point to freed memory. The kernel's function returns
 * how many (6.12), or whether it did (7.3).
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

/* The NUMA node from which this CPU gets memory. */
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

bool mxp_machine_admin(void)
{
	return capable(CAP_NET_ADMIN);
}

struct proc_dir_entry *mxp_proc_net_mkdir(struct net *net, const char *name)
{
	return proc_net_mkdir(net, name, net->proc_net);
}

void *mxp_proc_data(const struct seq_file *file)
{
	return pde_data(file_inode(file->file));
}

unsigned long mxp_copy_from_user(void *to, const void __user *from, unsigned long size)
{
	return copy_from_user(to, from, size);
}

unsigned long mxp_copy_to_user(void __user *to, const void *from, unsigned long size)
{
	return copy_to_user(to, from, size);
}

/*
 * Whether a hook may change the route of untracked packets. Chains of nftables and BPF programs may. Of other
 * hooks all may but those of connection tracking and NAT, which let untracked packets pass, and those of the
 * last priority, which only look. NAT chains have no hook of their own, but are run by NAT's.
 */
static bool mxp_may_change(const struct nf_hook_ops *ops)
{
	if (ops->hook_ops_type == NF_HOOK_OP_NF_TABLES || ops->hook_ops_type == NF_HOOK_OP_BPF)
		return true;
	return ops->priority != NF_IP_PRI_CONNTRACK && ops->priority != NF_IP_PRI_NAT_DST &&
	       ops->priority != INT_MAX;
}

/* Whether any of the hooks from `first` on may. Reads them in an RCU section, as nfnetlink_hook.c does. */
bool mxp_hooks_may_change(const struct nf_hook_entries *entries, unsigned int first)
{
	struct nf_hook_ops **ops = nf_hook_entries_get_hook_ops(entries);

	for (unsigned int i = first; i < entries->num_hook_entries; i++)
		if (mxp_may_change(READ_ONCE(ops[i])))
			return true;
	return false;
}

/*
 * What is known of a packet before it has its new route:
 * - MXP_UNICAST: it goes to one host. A subnet's broadcast address is known only by routing, and by how the
 *   packet came in.
 * - MXP_REENTERS: PRE_ROUTING or LOCAL_OUT sees the packet once more after this hook: one of the machine's own
 *   to itself or through a VRF, or one that comes in through a VRF.
 * - MXP_MAY_BE_BACK: LOCAL_OUT may have seen it before, for the VRF of its device. The VRF drops the mark
 *   that it is untracked (vrf_nf_reset_ct()).
 * - MXP_MAY_BE_STOLEN: it can be stolen (NF_STOLEN) and handed to okfn().
 */
u32 mxp_disposition(const struct sk_buff *skb, const struct nf_hook_state *state)
{
	const struct dst_entry *dst = skb_dst(skb);
	u32 disposition = MXP_UNICAST;

	/* A VRF calls hooks, but not okfn(): vrf_rcv_nfhook(), vrf_output_direct(). */
	if (!(state->in && netif_is_l3_master(state->in)) &&
	    !(state->out && netif_is_l3_master(state->out)))
		disposition |= MXP_MAY_BE_STOLEN;
	if (state->hook == NF_INET_PRE_ROUTING) {
		if (skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST)
			disposition &= ~MXP_UNICAST;
		return netif_is_l3_slave(skb->dev) ? disposition | MXP_REENTERS : disposition;
	}
	if (state->out && netif_is_l3_master(state->out))
		disposition |= MXP_REENTERS;
	if (state->out && netif_is_l3_slave(state->out))
		disposition |= MXP_MAY_BE_BACK;
	if (!dst)
		return disposition;
	if (state->pf == NFPROTO_IPV4 &&
	    dst_rtable(dst)->rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST))
		disposition &= ~MXP_UNICAST;
	return dst->dev->flags & IFF_LOOPBACK ? disposition | MXP_REENTERS : disposition;
}

/*
 * Calls okfn(), as netfilter's caller does after the last hook, and returns its result. BH is disabled for
 * packets that come in: the code that receives them (a socket's queue, per-CPU counters) relies on it, while
 * nf_reinject() runs hooks in a task.
 */
int mxp_hand_on(const struct nf_hook_state *state, struct sk_buff *skb)
{
	int status;

	if (state->hook != NF_INET_PRE_ROUTING)
		return state->okfn(state->net, state->sk, skb);
	local_bh_disable();
	status = state->okfn(state->net, state->sk, skb);
	local_bh_enable();
	return status;
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

/*
 * Fragments go to connection tracking's own queues, and those that it leaves alone are left alone: see
 * nf_ct_defrag_user() and ipv4_conntrack_defrag() of net/ipv4/netfilter/nf_defrag_ipv4.c.
 */
static u16 mxp_zone(const struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (ct)
		return nf_ct_zone_id(nf_ct_zone(ct), CTINFO2DIR(ctinfo));
#endif
	return NF_CT_DEFAULT_ZONE_ID;
}

bool mxp_may_defragment(const struct sk_buff *skb)
{
	const struct sock *sk = skb->sk;

	if (sk && sk_fullsock(sk) && sk->sk_family == PF_INET && inet_test_bit(NODEFRAG, sk))
		return false;
	return skb->_nfct != IP_CT_UNTRACKED;
}

/* Zero: the packet is whole now. Anything else: it is not the caller's any more. */
int mxp_defragment_v4(struct net *net, struct sk_buff *skb, bool local)
{
	u32 user = local ? IP_DEFRAG_CONNTRACK_OUT : IP_DEFRAG_CONNTRACK_IN;
	int err;

	if (nf_bridge_in_prerouting(skb))
		user = IP_DEFRAG_CONNTRACK_BRIDGE_IN;
	local_bh_disable();
	err = ip_defrag(net, skb, user + mxp_zone(skb));
	local_bh_enable();
	if (!err)
		skb->ignore_df = 1;
	return err;
}

/* Zero: the packet is whole now. -EINPROGRESS: it is not the caller's any more. Else: bad. */
int mxp_defragment_v6(struct net *net, struct sk_buff *skb, bool local)
{
	u32 user = local ? IP6_DEFRAG_CONNTRACK_OUT : IP6_DEFRAG_CONNTRACK_IN;

	if (nf_bridge_in_prerouting(skb))
		user = IP6_DEFRAG_CONNTRACK_BRIDGE_IN;
	return nf_ct_frag6_gather(net, skb, user + mxp_zone(skb));
}

/*
 * Makes a packet untracked to which a rule has attached a template (ct zone set). A packet that is tracked
 * already stays so.
 */
void mxp_untrack_template(struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	enum ip_conntrack_info ctinfo;
	const struct nf_conn *ct = nf_ct_get(skb, &ctinfo);

	if (!ct || !nf_ct_is_template(ct))
		return;
	nf_conntrack_put(skb_nfct(skb));
	nf_ct_set(skb, NULL, IP_CT_UNTRACKED);
#endif
}

/*
 * Whether a packet at PRE_ROUTING can be taken out of the hook and go on later: nothing belongs to it
 * that lives only as long as the call (a route without a reference, a socket, what a bridge or IPsec
 * attached), and the hook's caller goes on by okfn() alone, which a VRF does not.
 */
bool mxp_may_queue(const struct sk_buff *skb, const struct nf_hook_state *state)
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

/* As HI_SOFTIRQ, which the next softirq round runs first: before more packets are received. */
void mxp_tasklet_schedule(struct tasklet_struct *tasklet)
{
	tasklet_hi_schedule(tasklet);
}

u32 mxp_net_rx_count(void)
{
	return raw_cpu_read(kstat.softirqs[NET_RX_SOFTIRQ]);
}

u32 mxp_random(void)
{
	return get_random_u32();
}

void mxp_random_bytes(void *bytes, size_t size)
{
	get_random_bytes(bytes, size);
}

/*
 * How many interrupts this CPU has taken: its timer's, other CPUs' and devices'. Callers only compare two
 * results, so it does not matter that the count wraps, or that a task may move between the two reads.
 */
u64 mxp_interrupts(void)
{
	return raw_cpu_read(kstat.irqs_sum) + mxp_arch_interrupts();
}

#include "arch/arch.c"
