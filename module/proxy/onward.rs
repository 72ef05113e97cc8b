// SPDX-License-Identifier: GPL-2.0

//! How packets get on from the slow path.
//!
//! A flow is kept only if its first packet leaves the machine, or gets through to the end of LOCAL_IN: as
//! connection tracking confirms an entry only then. So with a first packet the hook does itself what
//! netfilter and its caller would do next, and learns what becomes of it. The same has to be done with others
//! where hooks behind ours may change where they go: if one did, the route is looked up again.

use crate::batch::Batched;
use crate::datapath::flow::Side;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet;
use crate::datapath::tuple::Tuple;
use crate::flows::Entry;
use crate::instance::Instance;
use crate::parameters::changed;
use crate::redirect::Redirect;
use crate::sys::behind::{hand_on, Behind};
use crate::sys::hooks::{Packet, Verdict};
use crate::sys::route::Key;
use crate::sys::static_key::is_on;
use crate::way::{count_dropped, search, Asked, Dropped, Found};

/// A translated packet that goes on.
pub(crate) struct Onward<'p, A: Batched> {
    pub(crate) flow: &'p Entry<A>,
    pub(crate) side: Side,
    /// What it looked like when it came, and looks like now.
    pub(crate) from: &'p Tuple<A>,
    pub(crate) to: &'p Tuple<A>,
    /// Where its transport header starts.
    pub(crate) transport: usize,
    /// What its route depends on, as it was before any was looked up.
    pub(crate) key: Key,
    /// Whether the flow was made for it, and it can be taken out of its hook.
    pub(crate) is_first: bool,
    /// Whether it has got its route already.
    pub(crate) is_routed: bool,
}

// What of a packet decides where it goes, and hooks may change.
#[derive(PartialEq, Eq)]
struct Destined<A: Batched> {
    mark: u32,
    tos: u8,
    tuple: Option<Tuple<A>>,
}

impl<A: Batched> Onward<'_, A> {
    /// Sends the packet on.
    #[inline(always)]
    pub(crate) fn send<const LOCAL: bool>(
        self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
    ) -> Verdict {
        if LOCAL {
            self.send_out(instance, guard, packet)
        } else {
            self.send_in(instance, guard, packet)
        }
    }

    // A packet that came in.
    fn send_in(self, instance: &Instance, guard: &ReadGuard, packet: &mut Packet<'_>) -> Verdict {
        let (found, is_new) = self.route::<false>(packet);
        let behind = Behind::of_packet::<Redirect<A, false>>(guard, packet, instance);
        let behind = behind
            .filter(|behind| self.is_first || behind.may_change_routes() && packet.may_be_taken());
        let Some(behind) = behind else {
            self.keep::<false>(packet, is_new);
            return verdict(instance, found);
        };
        // A direct one has no route of ours.
        let found = if self.flow.is_direct() {
            if let Err(status) = behind.run(packet) {
                self.is_gone(instance, guard, status != 0);
                return Verdict::STOLEN;
            }
            found
        } else {
            let before = self.destined(packet);
            let route = packet.skb.dst();
            // Who takes it away (NFQUEUE) may give it another mark before it comes back, and then is to find
            // it without a route, if the kernel finds the right one by its source.
            let own = (self.from.source() == self.to.source()).then(|| packet.skb.detach_route());
            if let Err(status) = behind.run(packet) {
                self.is_gone(instance, guard, status != 0);
                return Verdict::STOLEN;
            }
            let after = self.destined(packet);
            if after == before {
                // Who gave it another one meanwhile meant that.
                if let (Some(own), false) = (own, packet.skb.has_route()) {
                    packet.skb.attach_route(own);
                }
                self.keep::<false>(packet, is_new && packet.skb.dst() == route);
                found
            } else {
                drop(own);
                let tuple = after.tuple.as_ref().unwrap_or(self.to);
                search::<A, false>(packet, self.transport, self.from, tuple, self.asked())
            }
        };
        if found.is_err() {
            self.is_gone(instance, guard, true);
            return verdict(instance, found);
        }
        self.finish(instance, guard, packet, found == Ok(Found::Error));
        Verdict::STOLEN
    }

    // One of the machine's own: its route first, which others may change, and then look it up
    // themselves.
    fn send_out(self, instance: &Instance, guard: &ReadGuard, packet: &mut Packet<'_>) -> Verdict {
        let (found, is_new) = self.route::<true>(packet);
        self.keep::<true>(packet, is_new);
        let verdict = verdict(instance, found);
        if !self.is_first {
            return verdict;
        }
        if verdict.is_drop() {
            self.is_gone(instance, guard, true);
            return verdict;
        }
        let behind = Behind::of_packet::<Redirect<A, true>>(guard, packet, instance);
        let Some(behind) = behind else {
            return verdict;
        };
        if let Err(status) = behind.run(packet) {
            self.is_gone(instance, guard, status != 0);
            return Verdict::stolen_with(status);
        }
        Verdict::stolen_with(self.finish(instance, guard, packet, false))
    }

    fn destined(&self, packet: &Packet<'_>) -> Destined<A> {
        let bytes = packet.skb.linear();
        let ports = bytes.get(self.transport..).and_then(packet::ports);
        Destined {
            mark: packet.skb.mark(),
            tos: A::tos(bytes),
            tuple: A::addresses(bytes)
                .zip(ports)
                .map(|(addresses, ports)| Tuple {
                    addresses,
                    ports,
                    protocol: self.to.protocol,
                }),
        }
    }

    fn asked(&self) -> Asked {
        if self.is_first {
            Asked::RouteAndErrors
        } else {
            Asked::Route
        }
    }

    // Gives the packet its route: the one that it has, if that leads there, the one that is kept, or what a
    // look-up finds. And whether it may be kept now.
    fn route<const LOCAL: bool>(&self, packet: &mut Packet<'_>) -> (Result<Found, Dropped>, bool) {
        // A direct one finds it itself, and the machine's own answers go where they were going anyway.
        let stays = LOCAL && self.from.destination() == self.to.destination();
        if self.flow.is_direct() || stays {
            return (Ok(Found::Route), false);
        }
        let keeps = !is_on!(changed::ROUTE_CACHE);
        if self.is_routed {
            return (Ok(Found::Route), keeps);
        }
        let kept = if keeps && !self.is_first {
            let slot = self.flow.route(self.side);
            slot.find(self.key, packet.state, A::IS_V6)
        } else {
            None
        };
        if let Some(way) = kept {
            let found = match way.take::<LOCAL>(packet) {
                Verdict::ACCEPT => Ok(Found::Route),
                _ => Err(Dropped::NoRoute(0)),
            };
            return (found, false);
        }
        let found = search::<A, LOCAL>(packet, self.transport, self.from, self.to, self.asked());
        (found, keeps && found == Ok(Found::Route))
    }

    // Keeps the packet's route with the flow, if it is a `new` one.
    #[inline(always)]
    fn keep<const LOCAL: bool>(&self, packet: &Packet<'_>, new: bool) {
        if new {
            let slot = self.flow.route(self.side);
            slot.keep(packet, self.key, A::IS_V6, LOCAL);
        }
    }

    // Hands the packet on behind the last hook, and tells what its sender is to hear. `error`: its route,
    // which it has not got yet, reports one.
    fn finish(
        &self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
        error: bool,
    ) -> i32 {
        let error = error || packet.has_route_error();
        // What the network's queues did with it: net_xmit_errno().
        let status = match hand_on(packet) {
            NET_XMIT_CN => 0,
            1.. => ENOBUFS,
            status => status,
        };
        self.is_gone(instance, guard, error || status != 0);
        status
    }

    // A first packet is the caller's no more; `dropped`: nor will it reach anybody.
    fn is_gone(&self, instance: &Instance, guard: &ReadGuard, dropped: bool) {
        if self.is_first && dropped && self.flow.is_alone() {
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
/// What a sender hears when a queue is full.
const ENOBUFS: i32 = -105;
