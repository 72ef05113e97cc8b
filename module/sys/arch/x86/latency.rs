// SPDX-License-Identifier: GPL-2.0

//! Times a hook by one piece of assembly, since its instructions are part of what it measures: seventeen, with
//! the call of the hook and its return.

use core::ffi::c_void;

use super::super::super::bindings;
use super::super::super::hooks::{untimed, Hook};
use crate::abi::monitor::LATENCY_PRECISION;
use crate::datapath::octave::find_octave;

/// Calls the hook, and records how long that took on the CPU on which it ended.
///
/// The time includes interrupts; and at LOCAL_OUT, where the sending task can be preempted, the time that it
/// is off the CPU or on another one. Without a fence, the two readings may each change places with some
/// neighbouring instructions.
///
/// # Safety
///
/// As for [`untimed`]. `H::LATENCY` is there, and the CPU has LZCNT.
#[inline(always)]
pub(crate) unsafe fn time<H: Hook>(
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
    // which this instruction runs, which an interrupt cannot split (compare `this_cpu_add`).
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
            histogram = const match &H::LATENCY { Some(within) => within.offset(), None => 0 },
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
