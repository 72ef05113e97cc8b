// SPDX-License-Identifier: GPL-2.0

//! Memory orders of reads on the fast path, which pair with stores with Release.

use core::sync::atomic::Ordering;

/// With which a pointer is read that the reader then follows: it has to see what was written before the pointer was
/// stored.
///
/// On x86, Relaxed, as the kernel's rcu_dereference() reads (a READ_ONCE()): reads that follow take their
/// address from this one, and such an address dependency orders them in the kernel's memory model
/// (tools/memory-model/Documentation/explanation.txt; what breaks one, such as comparing the pointer with
/// that of a known object, is in Documentation/RCU/rcu_dereference.rst, and is not done here).
/// Acquire would cost instructions, since the compiler then reads everything else again.
#[cfg(all(MODULE, target_arch = "x86_64", not(portable)))]
pub const FOLLOW: Ordering = Ordering::Relaxed;

/// See there. Elsewhere Acquire: Rust's memory model has no dependencies, so with Relaxed Miri and the sanitizers would
/// see no order. On arm64 Acquire is one instruction, and what READ_ONCE() becomes in a kernel with LTO
/// (arch/arm64/include/asm/rwonce.h).
#[cfg(not(all(MODULE, target_arch = "x86_64", not(portable))))]
pub const FOLLOW: Ordering = Ordering::Acquire;

/// With which a word is read before others that must not be older than it.
///
/// On x86, Relaxed: a CPU there loads in order (tools/memory-model/Documentation/recipes.txt), and what the
/// compiler makes of these reads, a branch between them, was looked at. Acquire would make it load again what it
/// has of the packet. Elsewhere Acquire.
pub const SEEN_FIRST: Ordering = FOLLOW;
