/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Everything of the kernel that the modules use beyond the kernel crate. bindgen reads this file:
 * types and exported functions are used from Rust as they are; mutex_*() in kernel.c stand for
 * what is an inline function or a macro in C.
 */
#ifndef MUTEX_KERNEL_H
#define MUTEX_KERNEL_H

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <net/net_namespace.h>
#include <net/netfilter/ipv4/nf_defrag_ipv4.h>
#include <net/netfilter/ipv6/nf_defrag_ipv6.h>
#include <net/netfilter/nf_conntrack_common.h>

/* Fields behind unions that bindgen gives no stable name. */
enum {
	MUTEX_SKB_CSUM = offsetof(struct sk_buff, csum),
};

/* A lock that softirqs take, too; its lockdep class is the module's. */
struct mutex_spinlock {
	spinlock_t lock;
};

struct mutex_work {
	struct delayed_work work;
};

void mutex_spin_init(struct mutex_spinlock *lock);
void mutex_spin_lock_bh(struct mutex_spinlock *lock);
void mutex_spin_unlock_bh(struct mutex_spinlock *lock);

void mutex_rcu_read_lock(void);
void mutex_rcu_read_unlock(void);

void *mutex_alloc_percpu(size_t size, size_t align);
unsigned int mutex_cpus(void);
bool mutex_cpu_possible(unsigned int cpu);
void *mutex_per_cpu_ptr(void *base, unsigned int cpu);
void *mutex_this_cpu_ptr(void *base);
void mutex_free_percpu(void *base);

struct kmem_cache *mutex_cache_create(const char *name, unsigned int size, unsigned int align);
void *mutex_cache_alloc(struct kmem_cache *cache);

void mutex_work_init(struct mutex_work *work, void (*function)(struct work_struct *));
void mutex_work_queue(struct mutex_work *work, unsigned long delay);

struct net *mutex_current_net(void);
struct net *mutex_get_net(struct net *net);
void mutex_put_net(struct net *net);
bool mutex_net_admin(struct net *net);

unsigned long mutex_copy_from_user(void *to, const void __user *from, unsigned long size);
unsigned long mutex_copy_to_user(void __user *to, const void *from, unsigned long size);

u64 mutex_interrupts(void);

#endif
