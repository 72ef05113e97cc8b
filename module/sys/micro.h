/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's own functions for what the modules do in their own way, to be measured beside it. The
 * probe only.
 */
#ifndef MXP_MICRO_H
#define MXP_MICRO_H

#include <linux/list.h>
#include <linux/rculist.h>
#include <linux/skbuff.h>
#include <linux/slab.h>

enum {
	MXP_FLOW_SIZE = 192,
	MXP_LIST_LENGTH = 512,
};

u64 mxp_time(void (*function)(void *argument), void *argument);
void mxp_softirqs_off(void);
void mxp_softirqs_on(void);

/* Each takes a pointer to the pointer to the memory. */
void mxp_micro_kmalloc(void *memory);
void mxp_micro_kzalloc(void *memory);
void mxp_micro_kfree(void *memory);

struct mxp_micro_slab {
	struct kmem_cache *cache;
	void *memory;
};

void mxp_micro_slab_alloc(void *slab);
void mxp_micro_slab_free(void *slab);

struct mxp_micro_tuple {
	__be32 saddr, daddr;
	__be16 sport, dport;
	u8 protocol;
};

struct mxp_micro_entry {
	struct list_head list;
	struct hlist_node bucket;
	struct mxp_micro_tuple tuple;
};

/* A list, and a hash table whose entries all are in one bucket. */
struct mxp_micro_table {
	struct list_head list;
	struct hlist_head *heads;
	u32 mask, seed;
	struct mxp_micro_tuple wanted;
	struct mxp_micro_entry *found;
	struct hlist_head head;
	struct mxp_micro_entry entries[MXP_LIST_LENGTH];
};

void mxp_micro_table_init(struct mxp_micro_table *table, unsigned int bucket);
void mxp_micro_list_find(void *table);
void mxp_micro_hlist_find(void *table);

struct sk_buff *mxp_micro_skb(unsigned int payload);
bool mxp_micro_skb_copy(struct sk_buff **skb);
bool mxp_micro_skb_clone(struct sk_buff **skb);
void mxp_micro_skb_free(struct sk_buff *skb);

struct mxp_micro_pair {
	struct sk_buff *skb, *clone;
};

void mxp_micro_clone_only(void *pair);

struct mxp_micro_copy {
	void *to;
	const void *from;
	size_t size;
};

void mxp_micro_memcpy(void *copy);

#endif
