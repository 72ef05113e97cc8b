// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, as functions that Rust can call. No logic here.
 */
#include <linux/delay.h>
#include <linux/inetdevice.h>
#include <linux/kernel_stat.h>
#include <linux/moduleparam.h>
#include <linux/netdevice.h>
#include <linux/netfilter_bridge.h>
#include <linux/nsproxy.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/inet_sock.h>
#include <net/ip_fib.h>
#include <net/ipv6_frag.h>
#include <net/l3mdev.h>
#include <net/dst_metadata.h>
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

unsigned long mxp_copy_from_user(void *to, const void __user *from, unsigned long size)
{
	return copy_from_user(to, from, size);
}

unsigned long mxp_copy_to_user(void __user *to, const void *from, unsigned long size)
{
	return copy_to_user(to, from, size);
}

/* The route of a packet of the machine's own. */
int mxp_route_output_v4(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	__be32 saddr = ip_hdr(skb)->saddr;
	unsigned int type = RTN_LOCAL;

	/*
	 * With RTN_UNSPEC, ip_route_me_harder() looks the type of the source address up, only to see whether it
	 * is unicast. Given the type, it saves that look-up.
	 */
	if (ipv4_is_zeronet(saddr) || ipv4_is_multicast(saddr) || ipv4_is_lbcast(saddr))
		type = RTN_UNSPEC;
	return ip_route_me_harder(net, sk, skb, type);
}

/*
 * Looks up the route of a packet that came in, by its header as it is now. Zero: the packet has a route,
 * which may report an error. -EHOSTUNREACH: the packet must not go on (rp_filter, martian).
 *
 * The metadata of a tunnel that a packet has instead of a route may matter to policy rules: the look-up reads
 * it, and then drops it itself.
 */
int mxp_route_input_v4(struct sk_buff *skb)
{
	const struct iphdr *iph = ip_hdr(skb);
	int err;

#if MXP_ROUTE_INPUT_TAKES_DSCP
	err = ip_route_input_noref(skb, iph->daddr, iph->saddr, ip4h_dscp(iph), skb->dev) ?
		-EHOSTUNREACH : 0;
#else
	err = ip_route_input_noref(skb, iph->daddr, iph->saddr, iph->tos, skb->dev);
#endif
	/* No ICMP redirect: it would tell the sender of a better way to an address that it does not know. */
	IPCB(skb)->flags &= ~IPSKB_DOREDIRECT;
	return err;
}

#if !MXP_ROUTE_INPUT_V6_IS_EXPORTED
/* Fills in the ports of a packet that came in, for policy rules that ask for them. */
static void mxp_ports_v6(const struct sk_buff *skb, unsigned int transport, u8 protocol,
			 struct flowi6 *fl6)
{
	const __be16 *ports = (const void *)(skb->data + transport);

	fl6->flowi6_proto = protocol;
	fl6->fl6_sport = ports[0];
	fl6->fl6_dport = ports[1];
}

static struct dst_entry *mxp_lookup_v6(const struct sk_buff *skb, unsigned int transport,
				       u8 protocol)
{
	const struct ipv6hdr *iph = ipv6_hdr(skb);
	struct flowi6 fl6 = {
		.flowi6_iif = skb->dev->ifindex,
		.flowi6_mark = skb->mark,
		.flowlabel = ip6_flowinfo(iph),
		.daddr = iph->daddr,
		.saddr = iph->saddr,
	};

	if (transport)
		mxp_ports_v6(skb, transport, protocol, &fl6);
	return ip6_route_lookup(dev_net(skb->dev), &fl6, skb, RT6_LOOKUP_F_HAS_SADDR);
}
#endif

/*
 * The same for IPv6, whose look-up does not check sources. Older kernels do not export ip6_route_input():
 * there the packet goes on without a route, and the kernel looks it up later. If the caller `asks`, the
 * result is one if that route will report an error, which takes a look-up of its own.
 */
int mxp_route_input_v6(struct sk_buff *skb, unsigned int transport, u8 protocol, bool asks)
{
#if MXP_ROUTE_INPUT_V6_IS_EXPORTED
	ip6_route_input(skb);
	return 0;
#else
	struct dst_entry *dst;
	int err;

	skb_dst_drop(skb);
	if (!asks)
		return 0;
	dst = mxp_lookup_v6(skb, transport, protocol);
	err = dst->error;
	dst_release(dst);
	return err ? 1 : 0;
#endif
}

/*
 * An address of ours on the device through which a packet came in, if by its header as it is now it would
 * go out there again; zero if not. In both cases the packet has its route then, unless it must not go on.
 */
__be32 mxp_hairpin_source_v4(struct sk_buff *skb)
{
	const struct rtable *rt;

	if (mxp_route_input_v4(skb))
		return 0;
	rt = skb_rtable(skb);
	if (rt->rt_type != RTN_UNICAST || rt->dst.dev != skb->dev)
		return 0;
	return inet_select_addr(skb->dev, rt_nexthop(rt, ip_hdr(skb)->daddr), RT_SCOPE_UNIVERSE);
}

static bool mxp_turns_back_v6(const struct sk_buff *skb, const struct dst_entry *dst)
{
	/* The route to an address of ours has the device that the address is assigned to, but does not go out. */
	bool ends = dst_rt6_info(dst)->rt6i_flags & (RTF_LOCAL | RTF_ANYCAST);

	return !dst->error && !ends && dst->dev == skb->dev;
}

/* The same for IPv6; false for zero. On older kernels (see above) the packet has no route then. */
bool mxp_hairpin_source_v6(struct sk_buff *skb, unsigned int transport, u8 protocol,
			   struct in6_addr *ours)
{
	bool back;
#if MXP_ROUTE_INPUT_V6_IS_EXPORTED
	ip6_route_input(skb);
	back = mxp_turns_back_v6(skb, skb_dst(skb));
#else
	struct dst_entry *dst;

	skb_dst_drop(skb);
	dst = mxp_lookup_v6(skb, transport, protocol);
	back = mxp_turns_back_v6(skb, dst);
	dst_release(dst);
#endif
	return back && !ipv6_dev_get_saddr(dev_net(skb->dev), skb->dev, &ipv6_hdr(skb)->daddr, 0,
					   ours);
}

/*
 * Whether the packet came in with a route that has the state of a lightweight tunnel, which later code
 * (seg6 End.DX4) must find.
 */
bool mxp_has_tunnel_route(const struct sk_buff *skb)
{
	return skb_valid_dst(skb) && skb_dst(skb)->lwtstate;
}

/*
 * Whether an IPv6 route has several next hops. The flow label selects one of them: packets of one flow may
 * have different ones.
 */
static bool mxp_is_multipath_v6(const struct dst_entry *dst)
{
	const struct fib6_info *from = rcu_dereference(dst_rt6_info(dst)->from);

	return from && (from->fib6_nsiblings || from->nh);
}

/*
 * The packet's route, with a reference, if it may be cached: if all packets of its flow and direction take
 * it that have the same DSCP, and come in through the same device or are sent by a socket bound to the same.
 * Else NULL.
 *
 * Only a unicast route without an error is cached. Not cached is:
 * - a route with a lightweight tunnel or a transformation, whose state belongs to a packet;
 * - a route in a VRF, where the packet's device is exchanged only after the hook;
 * - any route where policy rules may ask for a mark, for ports or for a user.
 *   net->ipv4.fib_has_custom_rules is set before the first rule counts, and each rule that is added
 *   invalidates the routes that were found before;
 * - for the machine's own packets, any route where IPsec output policies may ask for a mark. Adding one
 *   invalidates routes as well. Of forwarded packets these policies are asked later.
 */
struct dst_entry *mxp_route_to_cache(const struct net *net, const struct sk_buff *skb, bool local)
{
	struct dst_entry *dst = skb_dst(skb);

	if (!dst || dst->error || dst->lwtstate || dst->obsolete != DST_OBSOLETE_FORCE_CHK)
		return NULL;
	if (dst->flags & (DST_METADATA | DST_FAKE_RTABLE))
		return NULL;
#ifdef CONFIG_XFRM
	if (dst->xfrm || (local && net->xfrm.policy_count[XFRM_POLICY_OUT]))
		return NULL;
#endif
	if (skb->dev && netif_is_l3_slave(skb->dev))
		return NULL;
	if (dst->ops->family == AF_INET) {
		u16 type = dst_rtable(dst)->rt_type;

#ifdef CONFIG_IP_MULTIPLE_TABLES
		if (READ_ONCE(net->ipv4.fib_has_custom_rules))
			return NULL;
#endif
		if (type != RTN_UNICAST && type != RTN_LOCAL)
			return NULL;
	} else {
		if (fib6_has_custom_rules(net) || mxp_is_multipath_v6(dst))
			return NULL;
		if (ipv6_addr_is_multicast(&ipv6_hdr(skb)->daddr))
			return NULL;
	}
	return dst_hold_safe(dst) ? dst : NULL;
}

/* Whether an IPv6 route is valid. What was added to the tables since it was found does not count here. */
bool mxp_route_valid_v6(struct dst_entry *dst)
{
	return dst_check(dst, rt6_get_cookie(dst_rt6_info(dst)));
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
