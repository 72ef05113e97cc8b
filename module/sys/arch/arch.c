// SPDX-License-Identifier: GPL-2.0
/* Part of kernel.c: see arch.h. */
#include <linux/build_bug.h>
#include <linux/jump_label.h>
#include <linux/percpu.h>
#include <linux/prefetch.h>
#include "arch.h"

#ifdef MXP_PORTABLE

void mxp_this_cpu_add(void *counter, u64 by)
{
	this_cpu_add(*(u64 __percpu *)counter, by);
}

/* The caller follows the pointer: it is read once, and reads through it depend on its value. */
void *mxp_this_cpu_load(const void *pointer)
{
	return this_cpu_read(*(void * __percpu *)pointer);
}

bool mxp_static_key_enabled(const struct static_key_false *key)
{
	return static_key_enabled(key);
}

void mxp_prefetch(const void *address)
{
	prefetch(address);
}

/* The kernel's total (irqs_sum) is taken to have them all. */
u64 mxp_arch_interrupts(void)
{
	return 0;
}

#else

/* The layout that x86/static_key.rs writes. */
static_assert(sizeof(struct jump_entry) == 16);
static_assert(offsetof(struct jump_entry, code) == 0);
static_assert(offsetof(struct jump_entry, target) == 4);
static_assert(offsetof(struct jump_entry, key) == 8);

/* Those of the local APIC, which the kernel's total (irqs_sum) leaves out. */
u64 mxp_arch_interrupts(void)
{
	u64 sum = 0;

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

#endif
