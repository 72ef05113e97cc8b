// SPDX-License-Identifier: GPL-2.0

//! How long hooks take: a histogram of what the time-stamp counter says after, less before.
//!
//! It counts in what it measures, and so is one piece of assembly: seventeen instructions, with the
//! call of the hook and its return.

use core::ffi::c_void;
use core::marker::PhantomData;

use super::bindings;
use super::counters::Counters;
use super::hooks::{untimed, Hook};
use crate::abi::histogram::Octaves;
use crate::abi::monitor::LATENCY_PRECISION;
use crate::datapath::octave::find_octave;

/// The times of one hook, on each CPU: a counter for each place of [`Octaves`]. 8200 bytes a CPU.
pub(crate) type Histogram = Counters<{ Octaves::<LATENCY_PRECISION>::COUNT }>;

/// Where a `T` has a histogram.
///
/// # Invariants
///
/// So many bytes after the beginning of every `T` there is a [`Histogram`].
pub(crate) struct Within<T>(usize, PhantomData<fn(&T)>);

impl<T> Within<T> {
    /// The histogram `index` of an array, which is `offset` bytes after a `T`'s beginning. It must
    /// be what `_field` leads to. For [`within`].
    ///
    /// # Safety
    ///
    /// As said.
    pub(crate) const unsafe fn new<const N: usize>(
        offset: usize,
        _field: fn(&T) -> &[Histogram; N],
        index: usize,
    ) -> Self {
        assert!(index < N);
        // INVARIANT: by the caller's promise, and an array has no gaps.
        Self(offset + index * size_of::<Histogram>(), PhantomData)
    }
}

// Each module uses its own share of sys/.
#[allow(unused_macros)]
/// [`Within`]: the histogram `$index` of the array `$field` of `$target`.
macro_rules! within {
    ($target:ty, $field:ident, $index:expr) => {
        // SAFETY: the field's offset, and the field.
        unsafe {
            $crate::sys::latency::Within::new(
                core::mem::offset_of!($target, $field),
                |target: &$target| &target.$field,
                $index,
            )
        }
    };
}

#[allow(unused_imports)]
pub(crate) use within;

/// Calls the hook, and records how long that took on the CPU on which it ended.
///
/// An interrupt that falls into it counts, and so does time that a task spends on no CPU, or on
/// another: its own packets a task may send while it can be preempted. Without a fence, the two
/// readings may each change places with some neighbouring instructions.
///
/// # Safety
///
/// As for [`untimed`]. `H::LATENCY` is there, and the CPU has LZCNT.
#[inline(always)]
pub(super) unsafe fn time<H: Hook>(
    target: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> u32 {
    let verdict;
    // SAFETY: `untimed` is called as the caller promises, with its arguments where C has them, and
    // may overwrite what C lets it. The stack is used, which is not ruled out, and left as it was:
    // the histogram's pointer and the first reading are pushed in this order and popped in reverse.
    //
    // The histogram is where `Within` says, and its first and only field, as it is transparent, is
    // the pointer to its counters. What `find_octave` leaves in RCX is below `Octaves::COUNT`, of
    // which there are so many, of eight bytes: so what is incremented is one of them, on the CPU on
    // which this instruction runs, which an interrupt cannot split (compare `Counters::add`).
    unsafe {
        core::arch::asm!(
            "push qword ptr [rdi + {histogram}]",
            "mov rcx, rdx",
            "rdtsc",
            "push rax",
            "mov rdx, rcx",
            "call {function}",
            "mov r8d, eax",
            "rdtsc",
            "pop rcx",
            // The low words do: a hook takes less than 2^32 ticks.
            "sub eax, ecx",
            find_octave!(),
            "pop rdi",
            "inc qword ptr gs:[rdi + rcx * 8]",
            histogram = const match H::LATENCY { Some(Within(offset, _)) => offset, None => 0 },
            function = sym untimed::<H>,
            precision = const LATENCY_PRECISION,
            inlateout("rdi") target => _,
            inlateout("rsi") skb => _,
            inlateout("rdx") state => _,
            lateout("r8d") verdict,
            clobber_abi("C"),
        );
    }
    verdict
}
