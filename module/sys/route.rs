// SPDX-License-Identifier: GPL-2.0

//! The way that a flow's packets take, kept with the flow.
//!
//! To look it up is most of what forwarding a packet costs. A kept route is used only while the
//! kernel holds it to be valid, asked anew for each packet, and only for packets that came in
//! through the same device as the one for which it was looked up, with which the kernel's check
//! of their source (rp_filter) was made.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::bindings;
use super::hooks::{Packet, State, Verdict};

/// A route, or none yet.
///
/// # Invariants
///
/// The pointer is null, or the slot has a reference to the route.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Route {
    dst: AtomicPtr<bindings::dst_entry>,
    device: AtomicU32,
    cookie: AtomicU32,
}

/// A valid way for the packet that it was asked for, to be taken in the same hook.
pub(crate) struct Way(NonNull<bindings::dst_entry>);

impl Way {
    /// Sends a packet that came in this way.
    #[inline(always)]
    pub(crate) fn take_in(self, mut packet: Packet<'_>) -> Verdict {
        if packet.skb.has_route() {
            return self.take_instead(packet);
        }
        packet.skb.borrow_route(self.0);
        Verdict::Accept
    }

    // Of its own, and called last, so that the usual packet pays nothing for the call.
    #[inline(never)]
    fn take_instead(self, mut packet: Packet<'_>) -> Verdict {
        packet.skb.forget_route();
        packet.skb.borrow_route(self.0);
        Verdict::Accept
    }

    /// Sends a packet of the machine's own this way. Drops it if the way is gone at just this
    /// moment.
    #[inline(always)]
    pub(crate) fn take_out(self, mut packet: Packet<'_>) -> Verdict {
        // Who sends is not in an RCU section when the hook is done: it needs a reference.
        // SAFETY: the route lives until the end of this hook's RCU section.
        if !unsafe { bindings::mxp_dst_hold(self.0.as_ptr()) } {
            return Verdict::Drop;
        }
        packet.skb.forget_route();
        packet.skb.give_route(self.0);
        Verdict::Accept
    }
}

impl Route {
    // The route, if it is still valid. IPv4: what ipv4_dst_check() of net/ipv4/route.c does.
    #[inline(always)]
    fn valid(&self, state: State<'_>, v6: bool) -> Option<NonNull<bindings::dst_entry>> {
        let dst = NonNull::new(self.dst.load(Ordering::Relaxed))?;
        if v6 {
            let cookie = self.cookie.load(Ordering::Relaxed);
            // SAFETY: the slot's reference keeps the route; released, it lives until after this
            // hook's RCU section. The routes of an IPv6 flow are `rt6_info`.
            let valid = unsafe {
                is_fresh_v6(dst.cast(), cookie) || bindings::mxp_dst_valid(dst.as_ptr(), cookie)
            };
            return valid.then_some(dst);
        }
        let route = dst.cast::<bindings::rtable>();
        // SAFETY: as above; the routes of an IPv4 flow begin with a `dst_entry` in an `rtable`
        // (dst_rtable()). Both fields are words that others write whole.
        let (obsolete, generation) = unsafe {
            (
                (&raw const (*route.as_ptr()).dst.obsolete).read_volatile(),
                (*route.as_ptr()).rt_genid,
            )
        };
        let fresh = i32::from(obsolete) == bindings::DST_OBSOLETE_FORCE_CHK
            && generation == state.route_generation();
        fresh.then_some(dst)
    }

    /// The kept way, if it is one for a packet that came in.
    #[inline(always)]
    pub(crate) fn way_in(&self, state: State<'_>, v6: bool) -> Option<Way> {
        if self.device.load(Ordering::Relaxed) != state.device_in() {
            return None;
        }
        self.valid(state, v6).map(Way)
    }

    /// The kept way, if it is one for a packet of the machine's own.
    #[inline(always)]
    pub(crate) fn way_out(&self, state: State<'_>, v6: bool) -> Option<Way> {
        self.valid(state, v6).map(Way)
    }

    /// Keeps the route that the packet has got, if the flow's other packets may take it.
    #[cold]
    pub(crate) fn keep(&self, packet: &Packet<'_>) {
        let mut cookie = 0;
        // SAFETY: the buffer is the hook's, its route valid as long as it has it.
        let dst = unsafe { bindings::mxp_route_to_keep(packet.skb.as_ptr(), &raw mut cookie) };
        if dst.is_null() {
            return;
        }
        // Who reads a mixture of two routes' words looks the way up again, or takes a way that
        // was right for the flow a moment ago.
        self.device.store(packet.state.device(), Ordering::Relaxed);
        self.cookie.store(cookie, Ordering::Relaxed);
        release(self.dst.swap(dst, Ordering::AcqRel));
    }
}

/// Whether a route is of the usual sort, a copy that one CPU has of a route that does not expire,
/// and still valid: what ip6_dst_check() of net/ipv6/route.c does with such a one.
///
/// # Safety
///
/// The route lives, and the caller is in an RCU read-side critical section.
#[inline(always)]
unsafe fn is_fresh_v6(route: NonNull<bindings::rt6_info>, cookie: u32) -> bool {
    const USUAL: u32 = bindings::RTF_PCPU;
    const UNUSUAL: u32 = bindings::RTF_EXPIRES;
    let route = route.as_ptr();
    // SAFETY: by the caller's promise the route lives, and with it, under RCU, what it is from and
    // the node of that. All fields are words that others write whole.
    unsafe {
        if (*route).sernum != 0 || (*route).rt6i_flags & (USUAL | UNUSUAL) != USUAL {
            return false;
        }
        if i32::from((&raw const (*route).dst.obsolete).read_volatile())
            != bindings::DST_OBSOLETE_FORCE_CHK
        {
            return false;
        }
        let from = (&raw const (*route).from).read_volatile();
        if from.is_null() || (*from).fib6_flags & UNUSUAL != 0 {
            return false;
        }
        let node = (&raw const (*from).fib6_node).read_volatile();
        !node.is_null() && (&raw const (*node).fn_sernum).read_volatile() as u32 == cookie
    }
}

fn release(dst: *mut bindings::dst_entry) {
    if !dst.is_null() {
        // SAFETY: the slot's reference, which it has no more; hooks that still use the route are
        // in RCU sections, which freeing it waits for.
        unsafe { bindings::mxp_dst_release(dst) };
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        release(*self.dst.get_mut());
    }
}
