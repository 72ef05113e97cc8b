// SPDX-License-Identifier: GPL-2.0

//! The hooks of one place that run after ours.
//!
//! Our hook can run them itself, as nf_hook_slow() would do next. So it learns what becomes of a packet, and
//! can look its route up after they have changed it.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::bindings;
use super::hooks::{Hook, Packet};
use super::net::Namespace;
use crate::abi::proxy::Family;
use crate::datapath::link::ReadGuard;

/// The hooks after ours; they stay as long as the RCU section.
#[derive(Clone, Copy)]
pub(crate) struct LaterHooks<'g> {
    entries: NonNull<bindings::nf_hook_entries>,
    first: u32,
    marker: PhantomData<&'g ReadGuard>,
}

impl<'g> LaterHooks<'g> {
    /// Finds those after the hook `H` on `target` in the namespace of a packet; `None` if ours is not
    /// there (any more).
    pub(crate) fn of_packet<H: Hook>(
        guard: &'g ReadGuard,
        packet: &Packet<'_>,
        target: &H::Target,
    ) -> Option<Self> {
        // SAFETY: a packet's namespace lives as long as the packet.
        unsafe { Self::find::<H>(guard, packet.state.raw().net, target) }
    }

    /// The same in `net`.
    pub(crate) fn in_namespace<H: Hook>(
        guard: &'g ReadGuard,
        net: &'g Namespace,
        target: &H::Target,
    ) -> Option<Self> {
        // SAFETY: the reference keeps the namespace.
        unsafe { Self::find::<H>(guard, net.as_ptr(), target) }
    }

    /// # Safety
    ///
    /// The namespace lives as long as the guard.
    pub(super) unsafe fn find<H: Hook>(
        _guard: &'g ReadGuard,
        net: *mut bindings::net,
        target: &H::Target,
    ) -> Option<Self> {
        let hooks = match H::FAMILY {
            Family::V4 => bindings::MXP_NET_HOOKS_V4,
            Family::V6 => bindings::MXP_NET_HOOKS_V6,
        };
        // SAFETY: by the caller the namespace lives; under RCU the array that is read does, with so
        // many hooks (nf_hook()). Hooks are told apart by what they work on: a target has one for each
        // place.
        unsafe {
            let place = net
                .byte_add(hooks as usize)
                .cast::<*mut bindings::nf_hook_entries>()
                .add(H::HOOKNUM as usize);
            let entries = NonNull::new(place.read_volatile())?;
            let count = (*entries.as_ptr()).num_hook_entries;
            let hooks = (&raw const (*entries.as_ptr()).hooks).cast::<bindings::nf_hook_entry>();
            let ours = core::ptr::from_ref(target).cast_mut().cast();
            let index = (0..count).find(|&index| (*hooks.add(index.into())).priv_ == ours)?;
            Some(Self {
                entries,
                first: u32::from(index).wrapping_add(1),
                marker: PhantomData,
            })
        }
    }

    /// Whether any of them may change the route of untracked packets: by a mark, an address, or the DSCP.
    #[inline(always)]
    pub(crate) fn may_change_routes(self) -> bool {
        let entries = self.entries.as_ptr();
        // SAFETY: the array lives as long as the RCU section.
        self.first < u32::from(unsafe { (*entries).num_hook_entries })
            && unsafe { bindings::mxp_hooks_may_change(entries, self.first) }
    }

    /// Runs them. `Err`: the packet is not the caller's any more. Zero if it was queued (NFQUEUE) or stolen, or
    /// freed since its queue has no listener; else the error by which it was dropped.
    pub(crate) fn run(self, packet: &mut Packet<'_>) -> Result<(), i32> {
        // SAFETY: the hooks live as long as the RCU section; buffer and state are what netfilter gave
        // our hook, and this is how it goes on with them. The state is a variable of nf_hook(), of which
        // hooks get a const pointer; nf_queue() copies it, and nothing writes to it.
        let status = unsafe {
            bindings::nf_hook_slow(
                packet.skb.as_ptr(),
                core::ptr::from_ref(packet.state.raw()).cast_mut(),
                self.entries.as_ptr(),
                self.first,
            )
        };
        match status {
            1 => Ok(()),
            status => Err(status),
        }
    }
}

/// Calls okfn() with a packet, as netfilter's caller does after the last hook, and returns its result. The
/// packet is not the caller's any more.
pub(crate) fn okfn(packet: &mut Packet<'_>) -> i32 {
    // SAFETY: buffer and state are what netfilter gave our hook, and all hooks after it have run; NF_HOOK()
    // calls okfn() then.
    unsafe { bindings::mxp_hand_on(packet.state.raw(), packet.skb.as_ptr()) }
}
