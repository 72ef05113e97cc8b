// SPDX-License-Identifier: GPL-2.0

//! The route of a flow's packets of one direction, cached with the flow, as a `dst_cache` is
//! with a tunnel of the kernel's.
//!
//! The look-up is most of what forwarding a packet costs. A cached route is used only while the
//! kernel would find it again: its validity is checked for each packet, and it serves only packets
//! whose [`RouteKey`] is that of the packet for which it was found. Where a route depends on more than
//! a key says, none is cached: see `mxp_route_to_cache()`.

use core::ptr::NonNull;

use super::bindings;
use super::hooks::{HookState, Packet, Verdict};
use crate::datapath::keyed_slot::{KeyedSlot, Lost};

/// What a cached route depends on beside addresses and ports, which are the flow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteKey(u64);

impl RouteKey {
    // Where the TOS byte is in the word, and in that byte the DSCP. The bits below are not compared: two of
    // ECN (RFC 3168) and, in a slot, a version.
    const TOS: u32 = 24;
    const DSCP: u32 = Self::TOS + 2;

    /// Of IPv4: the device by which packets come in, or to which the sending socket is bound; and
    /// the DSCP, by which routes may differ (`ip route add … tos`).
    #[inline(always)]
    pub(crate) fn v4(device: u32, tos: u8) -> Self {
        Self(u64::from(device) << 32 | u64::from(tos) << Self::TOS)
    }

    /// Of IPv6: the device, and the generation of the namespace's routes before the route was found.
    /// IPv6 has no routes by DSCP.
    #[inline(always)]
    pub(crate) fn v6(device: u32, generation: u32) -> Self {
        Self(u64::from(device) << 32 | u64::from(generation))
    }

    // Whether the word of a slot has this key.
    #[inline(always)]
    fn is_in(self, word: u64, v6: bool) -> bool {
        if v6 {
            self.0 == word
        } else {
            (self.0 ^ word) >> Self::DSCP == 0
        }
    }

    // The word for a slot that had `old`.
    fn word(self, old: u64, v6: bool) -> u64 {
        const VERSIONS: u64 = (1 << RouteKey::TOS) - 1;
        if v6 {
            self.0
        } else {
            self.0 | (old.wrapping_add(1) & VERSIONS)
        }
    }
}

/// A cached route, or none yet.
///
/// # Invariants
///
/// The slot is empty, or has a reference to the route, which was found for a packet of the slot's key.
#[derive(Default)]
#[repr(transparent)]
pub(crate) struct CachedRoute(KeyedSlot<bindings::dst_entry>);

/// A valid route (`dst_entry`) for the packet that it was asked for, to be attached in the same hook.
pub(crate) struct Dst(NonNull<bindings::dst_entry>);

impl Dst {
    /// Attaches it to a packet that came in, and has no route: skb_dst_set_noref().
    #[inline(always)]
    pub(crate) fn attach_input(self, packet: &mut Packet<'_>) -> Verdict {
        packet.skb.set_dst_noref(self.0);
        Verdict::ACCEPT
    }

    /// Attaches it to a packet of the machine's own: skb_dst_set(). Drops the packet if the route's last
    /// reference has just gone.
    #[inline(always)]
    pub(crate) fn attach_output(self, packet: &mut Packet<'_>) -> Verdict {
        // The sender is in no RCU section after the hook, so the packet needs a reference.
        // SAFETY: the route lives until the end of this hook's RCU section.
        if !unsafe { bindings::mxp_dst_hold(self.0.as_ptr()) } {
            return Verdict::DROP;
        }
        packet.skb.drop_dst();
        packet.skb.set_dst(self.0);
        Verdict::ACCEPT
    }

    /// Attaches it to any packet, in place of the route that this has.
    #[inline(always)]
    pub(crate) fn attach<const LOCAL: bool>(self, packet: &mut Packet<'_>) -> Verdict {
        if LOCAL {
            return self.attach_output(packet);
        }
        packet.skb.drop_dst();
        self.attach_input(packet)
    }
}

impl CachedRoute {
    // Whether a route is still what the kernel would find.
    #[inline(always)]
    fn is_valid(dst: NonNull<bindings::dst_entry>, state: HookState<'_>, v6: bool) -> bool {
        if v6 {
            // SAFETY: the slot's reference keeps the route; released, it lives until after this
            // hook's RCU section. The routes of an IPv6 flow are `rt6_info`.
            return unsafe {
                is_fresh_v6(dst.cast()) || bindings::mxp_route_valid_v6(dst.as_ptr())
            };
        }
        let route = dst.cast::<bindings::rtable>();
        // What ipv4_dst_check() of net/ipv4/route.c does.
        // SAFETY: as above; the routes of an IPv4 flow begin with a `dst_entry` in an `rtable`
        // (dst_rtable()). Both fields are words that are written whole.
        let (obsolete, generation) = unsafe {
            (
                (&raw const (*route.as_ptr()).dst.obsolete).read_volatile(),
                (&raw const (*route.as_ptr()).rt_genid).read_volatile(),
            )
        };
        i32::from(obsolete) == bindings::DST_OBSOLETE_FORCE_CHK
            && generation == state.route_generation()
    }

    /// The cached route, if it is one for a packet of `key`.
    #[inline(always)]
    pub(crate) fn get(&self, key: RouteKey, state: HookState<'_>, v6: bool) -> Option<Dst> {
        let dst = self.0.get(|word| key.is_in(word, v6))?;
        if !Self::is_valid(dst, state, v6) {
            return None;
        }
        Some(Dst(dst))
    }

    /// Caches the packet's route, if all packets of the flow with its `key` take it; `key` was made before
    /// the route was looked up. `own`: the packet is one of the machine's own.
    #[cold]
    pub(crate) fn set(&self, packet: &Packet<'_>, key: RouteKey, v6: bool, own: bool) {
        let Some(turn) = self.0.turn() else {
            return;
        };
        // SAFETY: the buffer is the hook's, its route valid as long as it has it.
        let dst = unsafe {
            bindings::mxp_route_to_cache(packet.state.raw().net, packet.skb.as_ptr(), own)
        };
        if dst.is_null() {
            return;
        }
        let word = key.word(turn.word(), v6);
        // (An IPv6 reader that is held up between two loads while the slot is written twice, for another
        // device and again for the first, may take the route of the other one, for one packet; IPv4 keys have
        // a version against that.)
        match turn.replace(word, dst) {
            Ok(before) => release(before),
            Err(Lost) => release(dst),
        }
    }
}

/// Whether a route is of the usual sort, a CPU's own copy of a route that does not expire, and still in the
/// tables. That is what ip6_dst_check() of net/ipv6/route.c checks for such a route, except for what was
/// added to the tables since: that is in the key.
///
/// # Safety
///
/// The route lives, and the caller is in an RCU read-side critical section.
#[inline(always)]
unsafe fn is_fresh_v6(route: NonNull<bindings::rt6_info>) -> bool {
    const USUAL: u32 = bindings::RTF_PCPU;
    const UNUSUAL: u32 = bindings::RTF_EXPIRES;
    let route = route.as_ptr();
    // SAFETY: by the caller's promise the route lives, and with it, under RCU, what `from` points to. All
    // fields are words that are written whole.
    unsafe {
        if (&raw const (*route).rt6i_flags).read_volatile() & (USUAL | UNUSUAL) != USUAL {
            return false;
        }
        if i32::from((&raw const (*route).dst.obsolete).read_volatile())
            != bindings::DST_OBSOLETE_FORCE_CHK
        {
            return false;
        }
        let from = (&raw const (*route).from).read_volatile();
        !from.is_null()
            && (&raw const (*from).fib6_flags).read_volatile() & UNUSUAL == 0
            && !(&raw const (*from).fib6_node).read_volatile().is_null()
    }
}

fn release(dst: *mut bindings::dst_entry) {
    if !dst.is_null() {
        // SAFETY: the reference was the slot's, or comes from `mxp_route_to_cache`, and is given up here once.
        // Hooks that still use the route are in RCU sections, and freeing it waits for these.
        unsafe { bindings::mxp_dst_release(dst) };
    }
}

impl Drop for CachedRoute {
    fn drop(&mut self) {
        release(self.0.take());
    }
}
