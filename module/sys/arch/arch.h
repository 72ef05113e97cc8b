/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What depends on the machine, for C; and the functions of C that the portable form of Rust uses: see
 * mod.rs. MXP_PORTABLE comes from Kbuild.
 */
#ifndef MXP_ARCH_H
#define MXP_ARCH_H

#include <linux/types.h>

#ifdef MXP_PORTABLE

#include <linux/jump_label.h>
#include <linux/sched/clock.h>

void mxp_this_cpu_add(void *counter, u64 by);
void *mxp_this_cpu_load(const void *pointer);
bool mxp_static_key_enabled(const struct static_key_false *key);
void mxp_prefetch(const void *address);

/* Nanoseconds. */
static inline u64 mxp_ticks_ordered(void)
{
	return local_clock();
}

/* Whether hooks can be timed. */
static inline bool mxp_can_time(void)
{
	return true;
}

#else

#include <asm/cpufeature.h>
#include <asm/tsc.h>

static inline u64 mxp_ticks_ordered(void)
{
	return rdtsc_ordered();
}

/* The code that finds the bucket of a time needs LZCNT; x86-64 CPUs have it since 2013. */
static inline bool mxp_can_time(void)
{
	return boot_cpu_has(X86_FEATURE_ABM);
}

#endif

u64 mxp_arch_interrupts(void);

#endif
