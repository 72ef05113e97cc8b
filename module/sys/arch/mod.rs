// SPDX-License-Identifier: GPL-2.0

//! What depends on the machine, and nothing of which is anywhere else: per-CPU words by one instruction,
//! branches that are patched, the clock that hooks are timed with, prefetching, marks for the lens.
//!
//! There are two forms with the same functions. That for x86-64 saves instructions where every packet
//! passes. The portable one asks C for what the kernel has on every machine; `Kbuild` takes it wherever the
//! first does not hold (`--cfg portable`, `MXP_PORTABLE` in C), and for a test if told so. `arch.h` and
//! `arch.c` are the same for C.
//!
//! [`order`](crate::datapath::order) and [`octave`](crate::datapath::octave), which know no kernel, belong
//! here as well.

#[cfg(portable)]
mod portable;
#[cfg(not(portable))]
mod x86;

#[cfg(portable)]
pub(crate) use portable::*;
#[cfg(not(portable))]
pub(crate) use x86::*;

// Counters are words of 64 bits, which are read while other CPUs write them: whole only where a
// register holds one.
const _: () = assert!(usize::BITS == 64);
