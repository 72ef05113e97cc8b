// SPDX-License-Identifier: GPL-2.0
/* Forwards by the router's own routes and neighbours: bpf-helpers(7), bpf_fib_lookup. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define SECTION(name) __attribute__((section(name), used))
#define HTONS(value) __builtin_bswap16(value)
#define AF_INET 2
#define AF_INET6 10

static long (*const fib_lookup)(void *context, struct bpf_fib_lookup *parameters, int size,
				__u32 flags) = (void *)BPF_FUNC_fib_lookup;
static long (*const redirect)(__u32 link, __u64 flags) = (void *)BPF_FUNC_redirect;

/* The checksum after the TTL went down by one: RFC 1624. */
static __always_inline void age(struct iphdr *ip)
{
	__u32 sum = ip->check;

	sum += HTONS(0x0100);
	ip->check = (__u16)(sum + (sum >= 0xffff));
	ip->ttl--;
}

SECTION("xdp")
int forward(struct xdp_md *context)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct bpf_fib_lookup route = {};

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	route.ifindex = context->ingress_ifindex;
	if (ethernet->h_proto == HTONS(ETH_P_IP)) {
		struct iphdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->ttl <= 1)
			return XDP_PASS;
		route.family = AF_INET;
		route.tos = ip->tos;
		route.l4_protocol = ip->protocol;
		route.tot_len = HTONS(ip->tot_len);
		route.ipv4_src = ip->saddr;
		route.ipv4_dst = ip->daddr;
		if (fib_lookup(context, &route, sizeof(route), 0) != BPF_FIB_LKUP_RET_SUCCESS)
			return XDP_PASS;
		age(ip);
	} else if (ethernet->h_proto == HTONS(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->hop_limit <= 1)
			return XDP_PASS;
		route.family = AF_INET6;
		route.flowinfo = *(__be32 *)ip & HTONS(0x0fff);
		route.l4_protocol = ip->nexthdr;
		route.tot_len = HTONS(ip->payload_len);
		__builtin_memcpy(route.ipv6_src, &ip->saddr, sizeof(ip->saddr));
		__builtin_memcpy(route.ipv6_dst, &ip->daddr, sizeof(ip->daddr));
		if (fib_lookup(context, &route, sizeof(route), 0) != BPF_FIB_LKUP_RET_SUCCESS)
			return XDP_PASS;
		ip->hop_limit--;
	} else {
		return XDP_PASS;
	}
	__builtin_memcpy(ethernet->h_dest, route.dmac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, route.smac, ETH_ALEN);
	return redirect(route.ifindex, 0);
}

char _license[] SECTION("license") = "GPL";
