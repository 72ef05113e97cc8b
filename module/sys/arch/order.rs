// SPDX-License-Identifier: GPL-2.0

//! How a pointer is read through which the reader will look. It has to see what was written before
//! the pointer was, with Release.

use core::sync::atomic::Ordering;

/// On x86, Relaxed, as the kernel's rcu_dereference() reads (a READ_ONCE()): reads that follow take their
/// address from this one, and such an address dependency orders them in the kernel's memory model
/// (tools/memory-model/Documentation/explanation.txt; what breaks one, such as comparing the pointer with
/// that of a known object, is in Documentation/RCU/rcu_dereference.rst, and nobody does that here).
/// Acquire would cost instructions, since the compiler then reads everything else again.
#[cfg(all(MODULE, target_arch = "x86_64", not(portable)))]
pub const FOLLOW: Ordering = Ordering::Relaxed;

/// Elsewhere Acquire, which Rust's memory model knows, as it does not know dependencies: so Miri and the
/// sanitizers see an order that is there. In a kernel that is what READ_ONCE() becomes on arm64 as soon as
/// it is optimized as a whole (arch/arm64/include/asm/rwonce.h), and one instruction.
#[cfg(not(all(MODULE, target_arch = "x86_64", not(portable))))]
pub const FOLLOW: Ordering = Ordering::Acquire;
