// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel itself offers, as a module in C would use it: what is inline there, or decided by a
 * constant size, is so here as well.
 */
#include <linux/ip.h>
#include <linux/jhash.h>
#include <linux/udp.h>
#include "kernel.h"

/* Ticks that the function takes, and a constant; with interrupts off. */
u64 mxp_time(void (*function)(void *argument), void *argument)
{
	unsigned long flags;
	u64 start, end;

	local_irq_save(flags);
	start = mxp_ticks_ordered();
	function(argument);
	end = mxp_ticks_ordered();
	local_irq_restore(flags);
	return end - start;
}

void mxp_softirqs_off(void)
{
	local_bh_disable();
}

void mxp_softirqs_on(void)
{
	local_bh_enable();
}

void mxp_micro_kmalloc(void *memory)
{
	*(void **)memory = kmalloc(MXP_FLOW_SIZE, GFP_ATOMIC | __GFP_NOWARN);
}

void mxp_micro_kzalloc(void *memory)
{
	*(void **)memory = kzalloc(MXP_FLOW_SIZE, GFP_ATOMIC | __GFP_NOWARN);
}

void mxp_micro_kfree(void *memory)
{
	kfree(*(void **)memory);
}

void mxp_micro_slab_alloc(void *slab)
{
	struct mxp_micro_slab *from = slab;

	from->memory = kmem_cache_alloc(from->cache, GFP_ATOMIC | __GFP_NOWARN);
}

void mxp_micro_slab_free(void *slab)
{
	struct mxp_micro_slab *to = slab;

	kmem_cache_free(to->cache, to->memory);
}

/* The first `bucket` entries are in the bucket as well, in the same order. */
void mxp_micro_table_init(struct mxp_micro_table *table, unsigned int bucket)
{
	unsigned int i;

	INIT_LIST_HEAD(&table->list);
	INIT_HLIST_HEAD(&table->head);
	table->heads = &table->head;
	for (i = MXP_LIST_LENGTH; i-- > 0;) {
		struct mxp_micro_entry *entry = &table->entries[i];

		entry->tuple = (struct mxp_micro_tuple) {
			.saddr = htonl(0xc6120000 + i),
			.daddr = htonl(0xcb007101),
			.sport = htons(40000),
			.dport = htons(80),
			.protocol = IPPROTO_UDP,
		};
		list_add(&entry->list, &table->list);
		if (i < bucket)
			hlist_add_head_rcu(&entry->bucket, &table->head);
	}
}

static __always_inline bool same(const struct mxp_micro_tuple *a, const struct mxp_micro_tuple *b)
{
	return a->saddr == b->saddr && a->daddr == b->daddr && a->sport == b->sport &&
	       a->dport == b->dport && a->protocol == b->protocol;
}

void mxp_micro_list_find(void *in)
{
	struct mxp_micro_table *table = in;
	struct mxp_micro_entry *entry;

	list_for_each_entry(entry, &table->list, list) {
		if (same(&entry->tuple, &table->wanted)) {
			table->found = entry;
			return;
		}
	}
}

void mxp_micro_hlist_find(void *in)
{
	struct mxp_micro_table *table = in;
	const struct mxp_micro_tuple *wanted = &table->wanted;
	u32 ports = (__force u32)wanted->sport | (__force u32)wanted->dport << 16;
	u32 hash = jhash_3words((__force u32)wanted->saddr, (__force u32)wanted->daddr, ports,
				table->seed);
	struct mxp_micro_entry *entry;

	hlist_for_each_entry_rcu(entry, &table->heads[hash & table->mask], bucket) {
		if (same(&entry->tuple, wanted)) {
			table->found = entry;
			return;
		}
	}
}

/* A datagram of IPv4, its data at the IP header as in a hook, with room for a link's. */
struct sk_buff *mxp_micro_skb(unsigned int payload)
{
	unsigned int size = sizeof(struct iphdr) + sizeof(struct udphdr) + payload;
	struct sk_buff *skb = alloc_skb(NET_SKB_PAD + ETH_HLEN + size, GFP_KERNEL);
	struct iphdr *ip;
	struct udphdr *udp;

	if (!skb)
		return NULL;
	skb_reserve(skb, NET_SKB_PAD + ETH_HLEN);
	ip = skb_put_zero(skb, size);
	udp = (struct udphdr *)(ip + 1);
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, sizeof(*ip));
	skb->protocol = htons(ETH_P_IP);
	ip->version = 4;
	ip->ihl = 5;
	ip->ttl = 64;
	ip->protocol = IPPROTO_UDP;
	ip->tot_len = htons(size);
	udp->len = htons(sizeof(*udp) + payload);
	/* Not zero, which would mean that there is no checksum. */
	udp->check = htons(0x1234);
	return skb;
}

/* A copy of all of it takes the packet's place. */
bool mxp_micro_skb_copy(struct sk_buff **skb)
{
	struct sk_buff *copy = skb_copy(*skb, GFP_ATOMIC);

	if (!copy)
		return false;
	consume_skb(*skb);
	*skb = copy;
	return true;
}

/* A clone takes the packet's place. It gets memory of its own, since it is to be written. */
bool mxp_micro_skb_clone(struct sk_buff **skb)
{
	struct sk_buff *clone = skb_clone(*skb, GFP_ATOMIC);

	if (!clone)
		return false;
	if (pskb_expand_head(clone, 0, 0, GFP_ATOMIC)) {
		kfree_skb(clone);
		return false;
	}
	consume_skb(*skb);
	*skb = clone;
	return true;
}

void mxp_micro_skb_free(struct sk_buff *skb)
{
	consume_skb(skb);
}

void mxp_micro_clone_only(void *pair)
{
	struct mxp_micro_pair *of = pair;

	of->clone = skb_clone(of->skb, GFP_ATOMIC);
}

void mxp_micro_memcpy(void *copy)
{
	struct mxp_micro_copy *what = copy;

	memcpy(what->to, what->from, what->size);
}
