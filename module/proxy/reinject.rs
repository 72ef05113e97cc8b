// SPDX-License-Identifier: GPL-2.0

//! How packets go on from the slow path: their route, the later hooks, and okfn().
//!
//! A flow is kept only if its first packet leaves the machine, or gets through to the end of LOCAL_IN, where
//! connection tracking confirms an entry. So for a first packet the hook does itself what netfilter and its
//! caller would do next, and learns what becomes of the packet. For other packets it does the same where
//! later hooks may change routes: if one did, the route is looked up again.

use crate::batch::Batched;
use crate::datapath::flow::Direction;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet;
use crate::datapath::tuple::Tuple;
use crate::instance::Instance;
use crate::memory::FlowNode;
use crate::parameters::keys;
use crate::redirect::Redirect;
use crate::route_lookup::{count_dropped, lookup_route, Asked, Dropped, Found};
use crate::sys::hooks::{Packet, Verdict};
use crate::sys::later_hooks::{okfn, LaterHooks};
use crate::sys::route::RouteKey;
use crate::sys::static_key::is_on;

/// A translated packet, to be injected again after our hook, as nf_reinject() does.
pub(crate) struct Reinject<'p, A: Batched> {
    pub(crate) flow: &'p FlowNode<A>,
    pub(crate) direction: Direction,
    /// What it looked like when it came, and looks like now.
    pub(crate) from: &'p Tuple<A>,
    pub(crate) to: &'p Tuple<A>,
    /// Where its transport header starts.
    pub(crate) transport: usize,
    /// What its route depends on, as that was before the route was looked up.
    pub(crate) key: RouteKey,
    /// Whether the flow was made for it, and it can be stolen from its hook (NF_STOLEN).
    pub(crate) is_first: bool,
    /// Whether it has got its route already.
    pub(crate) is_routed: bool,
}

impl<A: Batched> Reinject<'_, A> {
    /// Sends the packet on.
    #[inline(always)]
    pub(crate) fn send<const LOCAL: bool>(
        self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
    ) -> Verdict {
        if LOCAL {
            self.send_output(instance, guard, packet)
        } else {
            self.send_input(instance, guard, packet)
        }
    }

    // A packet that came in.
    #[inline(always)]
    fn send_input(
        self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
    ) -> Verdict {
        let (found, is_new) = self.route::<false>(packet);
        let later = LaterHooks::of_packet::<Redirect<A, false>>(guard, packet, instance);
        let later = later
            .filter(|later| self.is_first || later.may_change_routes() && packet.may_be_stolen());
        let Some(later) = later else {
            self.keep::<false>(packet, is_new);
            return verdict(instance, found);
        };
        // A direct one has no route of ours.
        let found = if self.flow.is_direct() {
            if let Err(status) = later.run(packet) {
                self.drop_unconfirmed(instance, guard, status != 0);
                return Verdict::STOLEN;
            }
            found
        } else {
            let before = (packet.skb.mark(), A::tos(packet.skb.linear()));
            let route = packet.skb.dst();
            // NFQUEUE may give the packet another mark before it sends it on. So the packet is queued without
            // a route, and the kernel looks one up by that mark. Not if its source was translated: by that
            // the kernel would not find the right route.
            let own = (self.from.source() == self.to.source()).then(|| packet.skb.detach_route());
            if let Err(status) = later.run(packet) {
                self.drop_unconfirmed(instance, guard, status != 0);
                return Verdict::STOLEN;
            }
            let now = self.tuple(packet);
            if self.is_as_before(packet, before, now.as_ref()) {
                // A route that a hook has given it stays.
                if let (Some(own), false) = (own, packet.skb.has_dst()) {
                    packet.skb.attach_route(own);
                }
                self.keep::<false>(packet, is_new && packet.skb.dst() == route);
                found
            } else {
                drop(own);
                let now = now.as_ref().unwrap_or(self.to);
                lookup_route::<A, false>(packet, self.transport, self.from, now, self.asked())
            }
        };
        if found.is_err() {
            self.drop_unconfirmed(instance, guard, true);
            return verdict(instance, found);
        }
        self.call_okfn(instance, guard, packet, found == Ok(Found::Error));
        Verdict::STOLEN
    }

    // One of the machine's own: its route first. Later hooks that change what it depends on look it up
    // again themselves.
    #[inline(always)]
    fn send_output(
        self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
    ) -> Verdict {
        let (found, is_new) = self.route::<true>(packet);
        let verdict = verdict(instance, found);
        if !self.is_first {
            self.keep::<true>(packet, is_new);
            return verdict;
        }
        if verdict.is_drop() {
            self.drop_unconfirmed(instance, guard, true);
            return verdict;
        }
        let later = LaterHooks::of_packet::<Redirect<A, true>>(guard, packet, instance);
        let Some(later) = later else {
            return verdict;
        };
        let route = packet.skb.dst();
        if let Err(status) = later.run(packet) {
            self.drop_unconfirmed(instance, guard, status != 0);
            return Verdict::stolen_with(status);
        }
        self.keep::<true>(packet, is_new && packet.skb.dst() == route);
        Verdict::stolen_with(self.call_okfn(instance, guard, packet, false))
    }

    // Whether the later hooks have changed nothing that the route depends on; `now`: the packet's tuple, if it
    // can still be read.
    fn is_as_before(
        &self,
        packet: &Packet<'_>,
        (mark, tos): (u32, u8),
        now: Option<&Tuple<A>>,
    ) -> bool {
        packet.skb.mark() == mark && A::tos(packet.skb.linear()) == tos && now == Some(self.to)
    }

    fn tuple(&self, packet: &Packet<'_>) -> Option<Tuple<A>> {
        let bytes = packet.skb.linear();
        let ports = bytes.get(self.transport..).and_then(packet::ports)?;
        Some(Tuple {
            addresses: A::addresses(bytes)?,
            ports,
            protocol: self.to.protocol,
        })
    }

    fn asked(&self) -> Asked {
        if self.is_first {
            Asked::RouteAndErrors
        } else {
            Asked::Route
        }
    }

    // Gives the packet its route: the one that it has already, the cached one, or the one that a look-up finds.
    // And whether that is to be cached now.
    #[inline(always)]
    fn route<const LOCAL: bool>(&self, packet: &mut Packet<'_>) -> (Result<Found, Dropped>, bool) {
        // The kernel routes packets of direct flows. The machine's own answers keep their destination, and so
        // their route.
        let stays = LOCAL && self.from.destination() == self.to.destination();
        if self.flow.is_direct() || stays {
            return (Ok(Found::Route), false);
        }
        let keeps = !is_on!(keys::ROUTE_CACHE_DISABLED);
        if self.is_routed {
            return (Ok(Found::Route), keeps);
        }
        let kept = if keeps && !self.is_first {
            let slot = self.flow.route(self.direction);
            slot.get(self.key, packet.state, A::IS_V6)
        } else {
            None
        };
        if let Some(dst) = kept {
            let found = match dst.attach::<LOCAL>(packet) {
                Verdict::ACCEPT => Ok(Found::Route),
                _ => Err(Dropped::NoRoute(0)),
            };
            return (found, false);
        }
        let found =
            lookup_route::<A, LOCAL>(packet, self.transport, self.from, self.to, self.asked());
        (found, keeps && found == Ok(Found::Route))
    }

    // Caches the packet's route with the flow, if it is a `new` one.
    #[inline(always)]
    fn keep<const LOCAL: bool>(&self, packet: &Packet<'_>, new: bool) {
        if new {
            let slot = self.flow.route(self.direction);
            slot.set(packet, self.key, A::IS_V6, LOCAL);
        }
    }

    // Calls okfn() with the packet after the last hook, and returns the status for its sender. `error`: the
    // route that the kernel is still to find for it reports one.
    fn call_okfn(
        &self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
        error: bool,
    ) -> i32 {
        let error = error || packet.has_route_error();
        // What the network's queues did with it: net_xmit_errno().
        let status = match okfn(packet) {
            NET_XMIT_CN => 0,
            1.. => ENOBUFS,
            status => status,
        };
        self.drop_unconfirmed(instance, guard, error || status != 0);
        status
    }

    // After a packet was handed on; `dropped`: it was not delivered. If it was the first of its flow, the flow
    // goes, unless it is confirmed.
    fn drop_unconfirmed(&self, instance: &Instance, guard: &ReadGuard, dropped: bool) {
        if self.is_first && dropped && self.flow.is_unconfirmed() {
            A::flows(instance).remove(guard, self.flow, instance);
        }
    }
}

fn verdict(instance: &Instance, found: Result<Found, Dropped>) -> Verdict {
    match found {
        Ok(_) => Verdict::ACCEPT,
        Err(dropped) => count_dropped(instance, dropped),
    }
}

/// include/linux/netdevice.h: another packet was dropped, or the queue is nearly full.
const NET_XMIT_CN: i32 = 2;
/// What a sender is told when a queue is full.
const ENOBUFS: i32 = -105;
