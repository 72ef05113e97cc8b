/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where the kernel's C differs between the versions that images/kernels.toml has; what differs in
 * its Rust is in version.rs. A kernel between two of these versions may need another number here.
 */
#ifndef MXP_VERSION_H
#define MXP_VERSION_H

#include <linux/version.h>

/* 6.12 lacks it, and generated tables use it. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define NLA_POLICY_MAX_LEN(_len) { .type = NLA_BINARY, .len = (_len) }
#endif

/* Since 6.13 ip_route_input_noref() takes a dscp_t instead of a TOS, and returns a drop reason. */
#define MXP_ROUTE_INPUT_TAKES_DSCP (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0))

/* ip6_route_input() is exported: not in 6.12, but in 7.2. */
#define MXP_ROUTE_INPUT_V6_IS_EXPORTED (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0))

/* irq_cpustat_t of x86 has an array of counts instead of a field for each: not in 6.12, but in 7.2. */
#define MXP_IRQ_STAT_IS_ARRAY (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0))

/* 7.3 has system_dfl_wq and warns once of system_unbound_wq. That 7.2 has it, too, was not tried. */
#define MXP_HAS_DFL_WQ (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0))

#endif
