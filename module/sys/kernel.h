/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Everything of the kernel that the modules use beyond the kernel crate. bindgen reads this file.
 * Rust uses types and exported functions as they are; functions mxp_*() of kernel.c stand for
 * inline functions and macros. route.c has those that are about routes.
 */
#ifndef MXP_KERNEL_H
#define MXP_KERNEL_H

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/interrupt.h>
#include <linux/jiffies.h>
#include <linux/jump_label.h>
#include <linux/miscdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/percpu.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/sched/clock.h>
#include <linux/seq_file.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <net/dst.h>
#include <net/ip6_fib.h>
#include <net/net_namespace.h>
#include <net/netfilter/ipv4/nf_defrag_ipv4.h>
#include <net/netfilter/ipv6/nf_defrag_ipv6.h>
#include <net/route.h>
#include <net/sock.h>
#include "arch/arch.h"

/* Fields that follow unions, or are in them, to which bindgen gives no stable name. */
enum {
	MXP_SKB_CSUM = offsetof(struct sk_buff, csum),
	MXP_SKB_MARK = offsetof(struct sk_buff, mark),
	MXP_SKB_REFDST = offsetof(struct sk_buff, _skb_refdst),
	MXP_SKB_NEXT = offsetof(struct sk_buff, next),
};

/*
 * Fields of struct net. Its groups are aligned to cache lines, and on some versions (7.2) bindgen's layout
 * differs from the compiler's.
 */
enum {
	MXP_NET_HASH_MIX = offsetof(struct net, hash_mix),
	MXP_NET_HOOKS_V4 = offsetof(struct net, nf.hooks_ipv4),
	MXP_NET_HOOKS_V6 = offsetof(struct net, nf.hooks_ipv6),
	MXP_NET_ROUTE_GENERATION = offsetof(struct net, ipv4.rt_genid),
	MXP_NET_ROUTE_GENERATION_V6 = offsetof(struct net, ipv6.fib6_sernum),
};

/* See mxp_disposition(). */
enum {
	MXP_UNICAST = 1,
	MXP_REENTERS = 2,
	MXP_MAY_BE_STOLEN = 4,
	MXP_MAY_BE_BACK = 8,
};

/* Where the compiler has the fields that layout.rs compares. */
enum {
	MXP_DEVICE_IFINDEX = offsetof(struct net_device, ifindex),
	MXP_DEVICE_NAME = offsetof(struct net_device, name),
	MXP_DST_ERROR = offsetof(struct dst_entry, error),
	MXP_DST_OBSOLETE = offsetof(struct dst_entry, obsolete),
	MXP_RTABLE_DST = offsetof(struct rtable, dst),
	MXP_RTABLE_GENID = offsetof(struct rtable, rt_genid),
	MXP_RT6_DST = offsetof(struct rt6_info, dst),
	MXP_RT6_FLAGS = offsetof(struct rt6_info, rt6i_flags),
	MXP_RT6_FROM = offsetof(struct rt6_info, from),
	MXP_FIB6_FLAGS = offsetof(struct fib6_info, fib6_flags),
	MXP_FIB6_NODE = offsetof(struct fib6_info, fib6_node),
	MXP_SHARED_DATAREF = offsetof(struct skb_shared_info, dataref),
	MXP_SOCK_BOUND_DEVICE = offsetof(struct sock, sk_bound_dev_if),
	MXP_SKB_NFCT = offsetof(struct sk_buff, _nfct),
	MXP_FILE_PRIVATE = offsetof(struct file, private_data),
};

/* A lock that softirqs take, too; its lockdep class is that of its rank. */
struct mxp_spinlock {
	spinlock_t lock;
};

struct mxp_work {
	struct delayed_work work;
};

/* Work that is done a grace period after it was queued. */
struct mxp_rcu_work {
	struct rcu_work work;
};

/* The order of locks: while one is held, only locks of later ranks may be taken. */
enum mxp_rank {
	MXP_RANK_TABLE,
	MXP_RANK_MAGAZINE,
	MXP_RANK_DEPOT,
	MXP_RANKS,
};

/* Moments that a test can stretch: see window.rs. */
enum mxp_window {
	MXP_WINDOW_RECLAIM,
	MXP_WINDOW_IDLE,
	MXP_WINDOW_SWEEP,
	MXP_WINDOW_RELEASE,
	MXP_WINDOW_SHOW,
	MXP_WINDOWS,
};

void mxp_spin_init(struct mxp_spinlock *lock, enum mxp_rank rank);
/* How a lock was taken. */
enum {
	MXP_WAITED = 1,		/* another CPU held it */
	MXP_BH_WAS_ENABLED = 2,
};

unsigned int mxp_spin_lock(struct mxp_spinlock *lock);
void mxp_spin_unlock(struct mxp_spinlock *lock, unsigned int how);

void mxp_cond_resched(void);
void mxp_window(enum mxp_window window);
bool mxp_skb_copy(struct sk_buff *skb);

void mxp_rcu_read_lock(void);
void mxp_rcu_read_unlock(void);

void *mxp_alloc_percpu(size_t size, size_t align, bool charged);
unsigned int mxp_cpus(void);
bool mxp_cpu_possible(unsigned int cpu);
void *mxp_per_cpu_ptr(void *base, unsigned int cpu);
void *mxp_this_cpu_ptr(void *base);
void mxp_free_percpu(void *base);

struct kmem_cache *mxp_cache_create(const char *name, unsigned int size, unsigned int align);
bool mxp_cache_alloc(struct kmem_cache *cache, size_t count, void **objects);
void *mxp_kmalloc(size_t size);
unsigned int mxp_nodes(void);
unsigned int mxp_this_node(void);
unsigned int mxp_node_of(const void *memory);

void mxp_work_init(struct mxp_work *work, void (*function)(struct work_struct *));
void mxp_work_queue(struct mxp_work *work, unsigned long delay);
void mxp_rcu_work_init(struct mxp_rcu_work *work, void (*function)(struct work_struct *));
void mxp_rcu_work_queue(struct mxp_rcu_work *work);

struct net *mxp_current_net(void);
struct net *mxp_get_net(struct net *net);
void mxp_put_net(struct net *net);
bool mxp_net_admin(struct net *net);
bool mxp_machine_admin(void);
struct proc_dir_entry *mxp_proc_net_mkdir(struct net *net, const char *name);
/* What the entry of an open file was made with. */
void *mxp_proc_data(const struct seq_file *file);

unsigned long mxp_copy_from_user(void *to, const void __user *from, unsigned long size);
unsigned long mxp_copy_to_user(void __user *to, const void *from, unsigned long size);

int mxp_route_output_v4(struct net *net, struct sock *sk, struct sk_buff *skb);
int mxp_route_input_v4(struct sk_buff *skb);
int mxp_route_input_v6(struct sk_buff *skb, unsigned int transport, u8 protocol, bool asks);
__be32 mxp_hairpin_source_v4(struct sk_buff *skb);
bool mxp_hairpin_source_v6(struct sk_buff *skb, unsigned int transport, u8 protocol,
			   struct in6_addr *ours);
bool mxp_has_tunnel_route(const struct sk_buff *skb);
struct dst_entry *mxp_route_to_cache(const struct net *net, const struct sk_buff *skb, bool local);
bool mxp_route_valid_v6(struct dst_entry *dst);
bool mxp_hooks_may_change(const struct nf_hook_entries *entries, unsigned int first);
u32 mxp_disposition(const struct sk_buff *skb, const struct nf_hook_state *state);
int mxp_hand_on(const struct nf_hook_state *state, struct sk_buff *skb);
bool mxp_dst_hold(struct dst_entry *dst);
void mxp_dst_release(struct dst_entry *dst);
void mxp_skb_dst_drop(struct sk_buff *skb);

s64 mxp_sender_user(const struct nf_hook_state *state);
s64 mxp_sender_group(const struct nf_hook_state *state);
u64 mxp_sender_control_group(const struct nf_hook_state *state, int level);
const struct task_struct *mxp_sender_process(const struct nf_hook_state *state);
const struct task_struct *mxp_process_parent(const struct task_struct *task);
u64 mxp_process_number(const struct task_struct *task);
void mxp_process_name(const struct task_struct *task, u8 *name);
void mxp_reject(struct sk_buff *skb, const struct nf_hook_state *state, u8 protocol);

bool mxp_may_defragment(const struct sk_buff *skb);
int mxp_defragment_v4(struct net *net, struct sk_buff *skb, bool local);
int mxp_defragment_v6(struct net *net, struct sk_buff *skb, bool local);

void mxp_untrack_template(struct sk_buff *skb);

bool mxp_may_queue(const struct sk_buff *skb, const struct nf_hook_state *state);
void mxp_hold_device(struct sk_buff *skb);
struct net_device *mxp_device(struct sk_buff *skb);
void mxp_put_device(struct net_device *dev);
void mxp_drop(struct sk_buff *skb);
void mxp_tasklet_schedule(struct tasklet_struct *tasklet);
u32 mxp_net_rx_count(void);

u64 mxp_interrupts(void);
u32 mxp_random(void);
void mxp_random_bytes(void *bytes, size_t size);

#include "memory.h"
#include "micro.h"
#include "netlink.h"

#endif
