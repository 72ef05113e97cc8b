// SPDX-License-Identifier: GPL-2.0

//! Packets that were stolen from a hook (NF_STOLEN), and go on from there later.
//!
//! As nf_queue() does, the queue keeps the packet, its state, and a reference to the device through which it
//! came in. The states of packets of one hook differ in the device only, and that is in the packet: so packets
//! need no memory but their own.

use core::ptr::NonNull;

use super::bindings;
use super::hooks::{Hook, HookState, Hooknum, Packet, Verdict};
use super::later_hooks::{okfn, LaterHooks};
use super::rcu;
use super::skb::Skb;
use crate::datapath::link::ReadGuard;

/// A hook whose packets can wait.
pub(crate) trait Resumed: Hook {
    /// How many packets are prepared together.
    const GROUP: usize;

    /// Prefetches for the packets that come next, given from their IP headers on.
    fn prepare<'p>(
        target: &Self::Target,
        guard: &ReadGuard,
        packets: impl Iterator<Item = &'p [u8]>,
    );

    /// Takes the place of [`Hook::run`] for a packet that waited: runs in a softirq, with BH disabled.
    fn resume(target: &Self::Target, guard: ReadGuard, packet: Packet<'_>) -> Verdict;
}

/// Packets in the order in which they came.
///
/// # Invariants
///
/// `first` is null, or begins a list, linked by `next`, of buffers that are this queue's alone,
/// each with a reference to its device, and ends with `last`; and `state` is what netfilter gave
/// with each of them, but for the device.
#[derive(Default)]
pub(crate) struct SkbQueue {
    first: Option<NonNull<bindings::sk_buff>>,
    last: Option<NonNull<bindings::sk_buff>>,
    state: Option<bindings::nf_hook_state>,
}

// SAFETY: buffers may be handled on any CPU; the state's pointers are to the namespace and code.
unsafe impl Send for SkbQueue {}

fn next(skb: NonNull<bindings::sk_buff>) -> *mut *mut bindings::sk_buff {
    skb.as_ptr()
        .wrapping_byte_add(bindings::MXP_SKB_NEXT as usize)
        .cast()
}

impl SkbQueue {
    /// Whether the packet can wait: everything that belongs to it lives long enough, and it has the okfn()
    /// and namespace of those that wait already.
    #[inline]
    pub(crate) fn admits(&self, packet: &Packet<'_>) -> bool {
        let state = packet.state.raw();
        if let Some(others) = &self.state {
            let address = |of: bindings::nf_hook_state| of.okfn.map(|function| function as usize);
            if address(*others) != address(*state) || others.net != state.net {
                return false;
            }
        }
        // SAFETY: both are what netfilter gave the hook.
        unsafe { bindings::mxp_may_queue(packet.skb.as_ptr(), state) }
    }

    /// Takes a packet out of its hook, after [`Self::admits`] was true for it.
    #[inline]
    pub(crate) fn push(&mut self, packet: Packet<'_>) -> Verdict {
        let state = *packet.state.raw();
        let skb = packet.skb.into_raw();
        // SAFETY: the buffer is the hook's, and by its verdict now ours; it has a device, and it is
        // on no list.
        unsafe {
            bindings::mxp_hold_device(skb.as_ptr());
            next(skb).write(core::ptr::null_mut());
        }
        match self.last {
            // SAFETY: by the type's invariant a buffer of ours.
            Some(last) => unsafe { next(last).write(skb.as_ptr()) },
            None => self.first = Some(skb),
        }
        self.last = Some(skb);
        self.state.get_or_insert(state);
        Verdict::STOLEN
    }

    fn pop(&mut self) -> Option<NonNull<bindings::sk_buff>> {
        let skb = self.first?;
        // SAFETY: a buffer of ours.
        unsafe {
            self.first = NonNull::new(next(skb).read());
            next(skb).write(core::ptr::null_mut());
        }
        if self.first.is_none() {
            self.last = None;
        }
        Some(skb)
    }

    // The packets, from their IP headers on.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = self.first;
        core::iter::from_fn(move || {
            let skb = at?;
            // SAFETY: a buffer of ours, which stays so while `self` is borrowed.
            unsafe {
                at = NonNull::new(next(skb).read());
                Some(Skb::new(skb).into_linear())
            }
        })
    }

    /// Runs the packets through `H`, their hook, and sends them on, in their order. To be
    /// called with BH disabled.
    pub(crate) fn flush<H: Resumed>(&mut self, target: &H::Target) {
        let Some(mut state) = self.state.take() else {
            return;
        };
        rcu::read(|guard| {
            const {
                assert!(matches!(H::HOOKNUM, Hooknum::PreRouting));
            }
            // SAFETY: the namespace lives as long as hooks in it.
            let later = unsafe { LaterHooks::find::<H>(guard, state.net, target) };
            while self.first.is_some() {
                H::prepare(target, guard, self.iter().take(H::GROUP));
                for _ in 0..H::GROUP {
                    let Some(skb) = self.pop() else {
                        break;
                    };
                    // SAFETY: the buffer is ours from here on, and has a reference to its device,
                    // which is put when the packet is gone.
                    unsafe {
                        let device = bindings::mxp_device(skb.as_ptr());
                        state.in_ = device;
                        let packet = || Packet {
                            skb: Skb::new(skb),
                            state: HookState::new(&state),
                        };
                        // This is an RCU read-side critical section.
                        let verdict = H::resume(target, ReadGuard::new(), packet());
                        send(later, packet(), verdict);
                        bindings::mxp_put_device(device);
                    }
                }
            }
        });
    }
}

impl Drop for SkbQueue {
    fn drop(&mut self) {
        while let Some(skb) = self.pop() {
            // SAFETY: the buffer is ours, and has a reference to its device.
            unsafe {
                let device = bindings::mxp_device(skb.as_ptr());
                bindings::mxp_drop(skb.as_ptr());
                bindings::mxp_put_device(device);
            }
        }
    }
}

/// Acts on the verdict of our hook, as nf_hook_slow() and netfilter's caller would.
///
/// # Safety
///
/// The buffer is the caller's unless it was stolen, and is gone afterwards; BH is disabled.
unsafe fn send(later: Option<LaterHooks<'_>>, mut packet: Packet<'_>, verdict: Verdict) {
    match (verdict, later) {
        (Verdict::ACCEPT, Some(later)) => {
            if later.run(&mut packet).is_ok() {
                okfn(&mut packet);
            }
        }
        // SAFETY: the buffer is ours.
        (Verdict::ACCEPT | Verdict::DROP, _) => unsafe {
            bindings::mxp_drop(packet.skb.as_ptr());
        },
        // Stolen.
        _ => {}
    }
}
