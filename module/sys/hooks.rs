// SPDX-License-Identifier: GPL-2.0

//! Netfilter hooks.

use core::ffi::c_void;
use core::ptr::NonNull;

use kernel::prelude::*;
use kernel::sync::Arc;

use super::bindings;
use super::net::Namespace;
use super::skb::Skb;
use crate::abi::proxy::Family;
use crate::datapath::link::ReadGuard;

/// Where on a packet's way a hook is; the numbers are `enum nf_inet_hooks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(dead_code)] // Each module uses its own share.
pub(crate) enum Place {
    PreRouting = bindings::NF_INET_PRE_ROUTING as u8,
    LocalIn = bindings::NF_INET_LOCAL_IN as u8,
    Forward = bindings::NF_INET_FORWARD as u8,
    LocalOut = bindings::NF_INET_LOCAL_OUT as u8,
    PostRouting = bindings::NF_INET_POST_ROUTING as u8,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
}

/// A packet at a hook.
pub(crate) struct Packet<'a> {
    /// The packet.
    pub(crate) skb: Skb<'a>,
    /// The hook.
    pub(crate) place: Place,
    state: &'a bindings::nf_hook_state,
}

impl Packet<'_> {
    /// Finds the way to the packet's new destination, for a packet of the machine's own. False if
    /// there is none.
    pub(crate) fn reroute(&mut self, family: Family) -> bool {
        let (net, sk, skb) = (self.state.net, self.state.sk, self.skb.as_ptr());
        let status = match family {
            // SAFETY: all three are what netfilter gave this hook.
            Family::V4 => unsafe {
                bindings::ip_route_me_harder(net, sk, skb, bindings::RTN_UNSPEC as u32)
            },
            // SAFETY: as above.
            Family::V6 => unsafe { bindings::ip6_route_me_harder(net, sk, skb) },
        };
        status == 0
    }
}

/// A function on packets, with what it works on.
pub(crate) trait Hook {
    /// What all packets share.
    type Target: Send + Sync;
    /// Which packets.
    const FAMILY: Family;
    /// Where.
    const PLACE: Place;

    /// Runs in a softirq, or in a task that sends: must not sleep.
    fn run(target: &Self::Target, guard: &ReadGuard, packet: &mut Packet<'_>) -> Verdict;
}

unsafe extern "C" fn trampoline<H: Hook>(
    target: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> u32 {
    let Some(skb) = NonNull::new(skb) else {
        return bindings::NF_ACCEPT;
    };
    // SAFETY: netfilter hands over the skb of a packet with `data` at its IP header, and a state
    // that lives as long as the call; `target` is what `Registered` keeps alive.
    let (target, mut packet, guard) = unsafe {
        let packet = Packet {
            skb: Skb::new(skb),
            place: H::PLACE,
            state: &*state,
        };
        // nf_hook() calls all hooks in an RCU read-side critical section.
        (&*target.cast::<H::Target>(), packet, ReadGuard::new())
    };
    match H::run(target, &guard, &mut packet) {
        Verdict::Accept => bindings::NF_ACCEPT,
        Verdict::Drop => bindings::NF_DROP,
    }
}

/// A hook to register.
pub(crate) struct Registration<T> {
    ops: bindings::nf_hook_ops,
    marker: core::marker::PhantomData<fn(&T)>,
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
            hooknum: H::PLACE as u32,
            priority,
            // SAFETY: all bytes zero is a value of this C struct.
            ..unsafe { core::mem::zeroed() }
        };
        Self {
            ops,
            marker: core::marker::PhantomData,
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
