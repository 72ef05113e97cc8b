// SPDX-License-Identifier: GPL-2.0

//! Netfilter hooks: what they are, what they say of a packet, and how they are registered.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::sync::Arc;

use super::bindings;
use super::latency;
use super::net::Namespace;
use super::skb::Skb;
use crate::abi::proxy::Family;
use crate::datapath::link::ReadGuard;

mod packet;
#[cfg(not(probe))]
mod sender;

#[allow(unused_imports)] // Each module uses its own share.
pub(crate) use packet::{Fragment, HeaderBytes, HookState, Hooknum, LinearPacket, Packet};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Verdict(u32);

impl Verdict {
    /// It goes on.
    pub(crate) const ACCEPT: Self = Self(bindings::NF_ACCEPT);
    /// Netfilter frees it.
    pub(crate) const DROP: Self = Self(bindings::NF_DROP);
    /// It is not netfilter's any more.
    pub(crate) const STOLEN: Self = Self(bindings::NF_STOLEN);

    /// Netfilter frees it, and its sender gets `status`, a negative error, or EPERM if that is zero.
    pub(crate) const fn drop_with(status: i32) -> Self {
        Self(status.unsigned_abs() << bindings::NF_VERDICT_QBITS | bindings::NF_DROP)
    }

    /// Whether netfilter frees it.
    pub(crate) const fn is_drop(self) -> bool {
        self.0 & bindings::NF_VERDICT_MASK == bindings::NF_DROP
    }

    /// It is not netfilter's any more, and its sender gets `status`, which is zero or a negative
    /// error (NF_DROP_GETERR()).
    pub(crate) const fn stolen_with(status: i32) -> Self {
        Self(status.unsigned_abs() << bindings::NF_VERDICT_QBITS | bindings::NF_STOLEN)
    }
}

/// A netfilter hook: a function on packets, with what it works on.
pub(crate) trait Hook {
    /// What the hook works on.
    type Target: Send + Sync;
    /// Of which packets.
    const FAMILY: Family;
    /// At which place.
    const HOOKNUM: Hooknum;

    /// Where the target has the histogram of this hook's times, if they are ever taken.
    const LATENCY: Option<latency::Within<Self::Target>> = None;

    /// Whether its times are taken now: asked for every packet. Only on CPUs with LZCNT.
    #[inline(always)]
    fn is_timed() -> bool {
        false
    }

    /// Runs in a softirq, or in a task that sends: must not sleep.
    fn run(target: &Self::Target, guard: ReadGuard, packet: Packet<'_>) -> Verdict;
}

// What netfilter calls.
unsafe extern "C" fn trampoline<H: Hook>(
    target: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> u32 {
    if H::is_timed() && H::LATENCY.is_some() {
        // SAFETY: netfilter calls this function as `untimed` demands. The histogram is there, and
        // `is_timed` is true only on a CPU with LZCNT: proxy/parameters.c asks.
        return unsafe { latency::time::<H>(target, skb, state) };
    }
    // SAFETY: as above.
    unsafe { untimed::<H>(target, skb, state) }
}

/// # Safety
///
/// As netfilter calls a hook that `Registered` has registered.
#[inline(always)]
pub(super) unsafe extern "C" fn untimed<H: Hook>(
    target: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> u32 {
    // SAFETY: netfilter hands over the skb of a packet with `data` at its IP header, and a state
    // that lives as long as the call; `target` is what `Registered` keeps alive.
    let (target, packet, guard) = unsafe {
        let packet = Packet {
            skb: Skb::new(NonNull::new_unchecked(skb)),
            state: HookState::new(&*state),
        };
        // nf_hook() calls all hooks in an RCU read-side critical section.
        (&*target.cast::<H::Target>(), packet, ReadGuard::new())
    };
    H::run(target, guard, packet).0
}

/// A hook to register.
pub(crate) struct Registration<T> {
    ops: bindings::nf_hook_ops,
    marker: PhantomData<fn(&T)>,
}

impl<T> Registration<T> {
    /// `H` at `priority`: lower runs earlier.
    pub(crate) fn new<H: Hook<Target = T>>(priority: i32) -> Self {
        let ops = bindings::nf_hook_ops {
            hook: Some(trampoline::<H>),
            pf: match H::FAMILY {
                Family::V4 => bindings::NFPROTO_IPV4 as u8,
                Family::V6 => bindings::NFPROTO_IPV6 as u8,
            },
            hooknum: H::HOOKNUM as u32,
            priority,
            // SAFETY: all bytes zero is a value of this C struct.
            ..unsafe { core::mem::zeroed() }
        };
        Self {
            ops,
            marker: PhantomData,
        }
    }
}

/// Hooks in a namespace; dropping it takes them out and waits until none of them runs.
pub(crate) struct Registered<T> {
    ops: KVec<bindings::nf_hook_ops>,
    net: NonNull<bindings::net>,
    // What the hooks' private pointer points to.
    _target: Arc<T>,
}

// SAFETY: registering and unregistering may happen in any task; `T` is shared with hooks anyway.
unsafe impl<T: Send + Sync> Send for Registered<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Registered<T> {}

impl<T: Send + Sync> Registered<T> {
    /// Puts `hooks` on `target` into `net`, which the caller keeps alive as long as the result.
    pub(crate) fn new(
        net: &Namespace,
        target: Arc<T>,
        hooks: impl IntoIterator<Item = Registration<T>>,
    ) -> Result<Self> {
        let mut ops = KVec::new();
        for mut hook in hooks {
            hook.ops.priv_ = core::ptr::from_ref::<T>(&target).cast_mut().cast();
            ops.push(hook.ops, GFP_KERNEL)?;
        }
        let net = NonNull::new(net.as_ptr()).ok_or(EINVAL)?;
        // SAFETY: the ops lie on the heap and stay there until they are unregistered.
        let status = unsafe {
            bindings::nf_register_net_hooks(net.as_ptr(), ops.as_ptr(), ops.len() as u32)
        };
        if status != 0 {
            // The first of them were hooks for a moment, and may still run.
            // SAFETY: this may sleep.
            unsafe { bindings::synchronize_net() };
        }
        kernel::error::to_result(status)?;
        Ok(Self {
            ops,
            net,
            _target: target,
        })
    }
}

impl<T> Drop for Registered<T> {
    fn drop(&mut self) {
        let count = self.ops.len() as u32;
        // SAFETY: registered in `new`, in a namespace that the caller keeps alive.
        unsafe { bindings::nf_unregister_net_hooks(self.net.as_ptr(), self.ops.as_ptr(), count) };
        // Unregistering frees the array of hooks after a grace period, but does not wait for it.
        // SAFETY: may sleep: dropped by tasks only.
        unsafe { bindings::synchronize_net() };
    }
}
