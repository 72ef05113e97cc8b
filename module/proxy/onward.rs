// SPDX-License-Identifier: GPL-2.0

//! How packets get on from the slow path.
//!
//! A flow is kept only if its first packet leaves the machine, or reaches a socket: as connection
//! tracking confirms an entry only then. So with a first packet the hook does itself what netfilter
//! and its caller would do next, and learns what becomes of it. The same has to be done with others where
//! hooks behind ours may change where they go: these have their say before the route is taken.

use crate::datapath::flow::Side;
use crate::datapath::link::ReadGuard;
use crate::datapath::tuple::Tuple;
use crate::batch::Batched;
use crate::flows::Entry;
use crate::instance::Instance;
use crate::parameters::changed;
use crate::redirect::Redirect;
use crate::sys::behind::{hand_on, Behind};
use crate::sys::hooks::{Packet, Verdict};
use crate::sys::route::Key;
use crate::sys::static_key::is_on;
use crate::way::search;

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
    /// Where the route leads that it has got already.
    pub(crate) routed_to: Option<Tuple<A>>,
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

    // A packet that came in: first what others do with it, then its route.
    fn send_in(
        self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
    ) -> Verdict {
        let behind = Behind::of_packet::<Redirect<A, false>>(guard, packet, instance);
        let Some(behind) = behind else {
            return self.route::<false>(instance, packet, false);
        };
        let others = behind.may_change_routes();
        if !self.is_first && !(others && packet.may_be_taken()) {
            return self.route::<false>(instance, packet, false);
        }
        if let Err(status) = behind.run(packet) {
            self.is_gone(instance, guard, status != 0);
            return Verdict::STOLEN;
        }
        let verdict = self.route::<false>(instance, packet, others);
        if verdict.is_drop() {
            self.is_gone(instance, guard, true);
            return verdict;
        }
        self.finish(instance, guard, packet);
        Verdict::STOLEN
    }

    // One of the machine's own: its route first, which others may change, and then look it up
    // themselves.
    fn send_out(
        self,
        instance: &Instance,
        guard: &ReadGuard,
        packet: &mut Packet<'_>,
    ) -> Verdict {
        let verdict = self.route::<true>(instance, packet, false);
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
        Verdict::stolen_with(self.finish(instance, guard, packet))
    }

    // Gives the packet its route: the one that it has, if that leads there and nobody else had his say
    // since, the one that is kept, or what a look-up finds.
    fn route<const LOCAL: bool>(
        &self,
        instance: &Instance,
        packet: &mut Packet<'_>,
        others: bool,
    ) -> Verdict {
        // A direct one finds it itself, and the machine's own answers go where they were going anyway.
        let stays = LOCAL && self.from.destination() == self.to.destination();
        if self.flow.is_direct() || stays {
            return Verdict::ACCEPT;
        }
        let is_routed = self.routed_to.as_ref().is_some_and(|there| {
            there.destination() == self.to.destination()
                && there.ports.destination() == self.to.ports.destination()
        });
        let verdict = if is_routed && !others {
            Verdict::ACCEPT
        } else {
            search::<A, LOCAL>(instance, packet, self.transport, self.from, self.to)
        };
        if verdict == Verdict::ACCEPT && !others && !is_on!(changed::ROUTE_CACHE) {
            self.flow.route(self.side).keep(packet, self.key, A::IS_V6);
        }
        verdict
    }

    // Hands the packet on behind the last hook, and tells what its sender is to hear.
    fn finish(&self, instance: &Instance, guard: &ReadGuard, packet: &mut Packet<'_>) -> i32 {
        let error = packet.has_route_error();
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

/// include/linux/netdevice.h: another packet was dropped, or the queue is nearly full.
const NET_XMIT_CN: i32 = 2;
/// What a sender hears when a queue is full.
const ENOBUFS: i32 = -105;
