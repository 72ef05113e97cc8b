// SPDX-License-Identifier: GPL-2.0

//! The memory order with which a pointer is read that the reader then follows. The reader has to see what was
//! written before the pointer was stored, with Release.

use core::sync::atomic::Ordering;

/// On x86, Relaxed, as the kernel's rcu_dereference() reads (a READ_ONCE()): reads that follow take their
/// address from this one, and such an address dependency orders them in the kernel's memory model
/// (tools/memory-model/Documentation/explanation.txt; what breaks one, such as comparing the pointer with
/// that of a known object, is in Documentation/RCU/rcu_dereference.rst, and is not done here).
/// Acquire would cost instructions, since the compiler then reads everything else again.
#[cfg(all(MODULE, target_arch = "x86_64", not(portable)))]
pub const FOLLOW: Ordering = Ordering::Relaxed;

/// Elsewhere Acquire: Rust's memory model has no dependencies, so with Relaxed Miri and the sanitizers would
/// see no order. On arm64 Acquire is one instruction, and what READ_ONCE() becomes in a kernel with LTO
/// (arch/arm64/include/asm/rwonce.h).
#[cfg(not(all(MODULE, target_arch = "x86_64", not(portable))))]
pub const FOLLOW: Ordering = Ordering::Acquire;
