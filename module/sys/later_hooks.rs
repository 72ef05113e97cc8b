// SPDX-License-Identifier: GPL-2.0

//! The hooks of one place that run after ours.
//!
//! To run them from within our hook is what nf_hook_slow() would do next: so the hook learns what
//! becomes of a packet, and looks its route up when everybody has had his say.

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

    /// Whether any of them may change where untracked packets go: by a mark, an address, or the DSCP.
    #[inline(always)]
    pub(crate) fn may_change_routes(self) -> bool {
        let entries = self.entries.as_ptr();
        // SAFETY: the array lives as long as the RCU section.
        self.first < u32::from(unsafe { (*entries).num_hook_entries })
            && unsafe { bindings::mxp_hooks_may_change(entries, self.first) }
    }

    /// Runs them. `Err`: the packet is not the caller's any more; zero if NFQUEUE has it, or nobody who
    /// should have taken it from there was there, else the error by which it was dropped.
    pub(crate) fn run(self, packet: &mut Packet<'_>) -> Result<(), i32> {
        // SAFETY: the hooks live as long as the RCU section; buffer and state are what netfilter gave
        // our hook, and this is how it goes on with them. The state is its caller's variable (nf_hook()),
        // of which hooks get a constant one; nf_queue() copies it, and nobody writes to it.
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

/// Hands a packet to whom netfilter's caller would have given it after the last hook. It is not the
/// caller's any more; what that function returned.
pub(crate) fn okfn(packet: &mut Packet<'_>) -> i32 {
    // SAFETY: buffer and state are what netfilter gave our hook, all hooks after it have run, and so
    // netfilter does it (NF_HOOK()).
    unsafe { bindings::mxp_hand_on(packet.state.raw(), packet.skb.as_ptr()) }
}
