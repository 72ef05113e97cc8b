// SPDX-License-Identifier: GPL-2.0

//! Everything that depends on the machine: per-CPU words by one instruction, branches that are patched, the
//! clock that hooks are timed with, prefetching, marks for the lens.
//!
//! There are two forms with the same functions. The form for x86-64 saves instructions on every packet's
//! path. The portable one calls what the kernel's C has on every machine; `Kbuild` selects it on all machines but
//! x86-64 (`--cfg portable`, `MXP_PORTABLE` in C), and for a test on request. `arch.h` and `arch.c` are their
//! counterparts in C.
//!
//! [`order`](crate::datapath::order) and [`octave`](crate::datapath::octave), which do not depend on the
//! kernel, belong here as well.

#[cfg(portable)]
mod portable;
#[cfg(not(portable))]
mod x86;

#[cfg(portable)]
pub(crate) use portable::*;
#[cfg(not(portable))]
pub(crate) use x86::*;

// Counters are words of 64 bits that are read while other CPUs write them. They are read whole only where a
// register holds 64 bits.
const _: () = assert!(usize::BITS == 64);
