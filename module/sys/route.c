// SPDX-License-Identifier: GPL-2.0
/*
 * Routes: how a packet gets its new one, and which may be cached. The proxy only.
 */
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <net/addrconf.h>
#include <net/dst_metadata.h>
#include <net/ip.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ip_fib.h>
#include "kernel.h"
#include "version.h"

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
