// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, as functions that Rust can call. No logic here.
 */
#include <linux/kernel_stat.h>
#include <linux/nsproxy.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/version.h>
#include "kernel.h"

void mxp_spin_init(struct mxp_spinlock *lock)
{
	spin_lock_init(&lock->lock);
}

void mxp_spin_lock_bh(struct mxp_spinlock *lock)
{
	spin_lock_bh(&lock->lock);
}

void mxp_spin_unlock_bh(struct mxp_spinlock *lock)
{
	spin_unlock_bh(&lock->lock);
}

void mxp_rcu_read_lock(void)
{
	rcu_read_lock();
}

void mxp_rcu_read_unlock(void)
{
	rcu_read_unlock();
}

void *mxp_alloc_percpu(size_t size, size_t align)
{
	return (__force void *)__alloc_percpu(size, align);
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

void *mxp_cache_alloc(struct kmem_cache *cache)
{
	return kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN);
}

void mxp_work_init(struct mxp_work *work, void (*function)(struct work_struct *))
{
	INIT_DELAYED_WORK(&work->work, function);
}

void mxp_work_queue(struct mxp_work *work, unsigned long delay)
{
	schedule_delayed_work(&work->work, delay);
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
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)
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
