// SPDX-License-Identifier: GPL-2.0

//! The slow path: what happens to packets that are not ordinary ones of an established flow. These are first
//! packets, FIN and RST, packets of an unusual shape, and those that are of no flow.

use crate::abi::proxy::Protocol;
use crate::batch::{self, Batched};
use crate::datapath::flow::Direction;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::{self, header_length, Parsed};
use crate::datapath::rules::Decision;
use crate::datapath::tcp::{segment, Opening, Segment};
use crate::datapath::translate::translate;
use crate::datapath::tuple::Tuple;
use crate::datapath::upstream::Outcome;
use crate::flows::{Created, Refused};
use crate::icmp;
use crate::instance::{Counter, Instance};
use crate::memory::FlowNode;
use crate::parameters::keys;
use crate::redirect::{read_segment, Redirect};
use crate::reinject::Reinject;
use crate::route_lookup::{count_dropped, hairpin_source, write_tuple, Dropped};
use crate::sys::hooks::{Fragment, Packet, Verdict};
use crate::sys::later_hooks::LaterHooks;
use crate::sys::route::RouteKey;
use crate::sys::static_key::is_on;
use crate::sys::time;

mod decide;

/// A packet of the usual shape that the fast path has found no flow for, as are most first packets.
#[cold]
#[inline(never)]
pub(crate) fn no_flow<A: Batched, const LOCAL: bool>(
    instance: &Instance,
    guard: ReadGuard,
    mut packet: Packet<'_>,
) -> Verdict {
    let Some(headers) = packet::usual::<A>(packet.skb.linear()) else {
        return slow_path::<A, LOCAL>(instance, guard, packet, true);
    };
    flush::<A, LOCAL>(instance);
    let hash = A::flows(instance).hash(&headers.tuple);
    let slow = SlowPacket::new(instance, &guard, &packet, &headers, hash);
    slow.first_packet::<LOCAL>(&mut packet)
}

// A packet must not overtake those that wait.
#[inline(always)]
fn flush<A: Batched, const LOCAL: bool>(instance: &Instance) {
    if !LOCAL && is_on!(keys::BATCHING_ACTIVE) {
        batch::flush::<A>(instance);
    }
}

/// Any packet. `passed`: the filter let its ports through already.
#[cold]
#[inline(never)]
pub(crate) fn slow_path<A: Batched, const LOCAL: bool>(
    instance: &Instance,
    guard: ReadGuard,
    mut packet: Packet<'_>,
    passed: bool,
) -> Verdict {
    flush::<A, LOCAL>(instance);
    let guard = &guard;
    // Ends: each time round asks for more bytes than the last, up to `packet::MAX_HEADERS`, and a packet is
    // defragmented once.
    let mut whole = false;
    loop {
        match A::parse(packet.skb.linear()) {
            Parsed::Transport(headers) => {
                if !passed && !instance.filter.passes(headers.tuple.ports) {
                    return Verdict::ACCEPT;
                }
                return handle::<A, LOCAL>(instance, guard, &mut packet, &headers);
            }
            Parsed::Fragment if !whole && packet.may_defragment() => {
                match packet.defragment(A::FAMILY) {
                    Fragment::Whole => whole = true,
                    Fragment::Gone => return Verdict::STOLEN,
                    Fragment::Bad => return Verdict::DROP,
                }
            }
            Parsed::Icmp(at) => return icmp::pass::<A, LOCAL>(instance, guard, &mut packet, at),
            Parsed::Fragment | Parsed::Other => return Verdict::ACCEPT,
            Parsed::Short(needed) if packet.skb.pull(needed) => {}
            Parsed::Short(_) | Parsed::Malformed => {
                instance.count(Counter::Malformed);
                // What cannot be read could be what a rule blocks.
                return match A::rules(instance.rules.load(guard)).block() {
                    true => Verdict::DROP,
                    false => Verdict::ACCEPT,
                };
            }
        }
    }
}

fn handle<A: Batched, const LOCAL: bool>(
    instance: &Instance,
    guard: &ReadGuard,
    packet: &mut Packet<'_>,
    headers: &packet::Headers<A>,
) -> Verdict {
    // A packet that was given a lightweight tunnel's route is not ours to send elsewhere.
    if !LOCAL && packet.skb.has_dst() && packet.has_tunnel_route() {
        return Verdict::ACCEPT;
    }
    let flows = A::flows(instance);
    let hash = flows.hash(&headers.tuple);
    let known = if is_on!(keys::FLOW_CACHE_ENABLED) {
        flows.lookup_cached(guard, hash, &headers.tuple, instance)
    } else {
        flows.lookup_hashed(guard, hash, &headers.tuple)
    };
    let slow = SlowPacket::new(instance, guard, packet, headers, hash);
    let Some((flow, direction)) = known else {
        return slow.first_packet::<LOCAL>(packet);
    };
    if let Some(verdict) = slow.block_anew::<LOCAL>(packet, flow, direction) {
        return verdict;
    }
    let Next::Pass(outcome) = slow.advance(packet, flow, direction) else {
        flows.remove(guard, flow, instance);
        return slow.first_packet::<LOCAL>(packet);
    };
    let verdict = slow.translate_and_send::<LOCAL>(packet, flow, direction, None);
    // What the reverse path filter drops, say, is nobody's answer.
    if let (Some(outcome), false) = (outcome, verdict.is_drop()) {
        instance.report(guard, flow, outcome);
    }
    verdict
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It goes on; how the upstream took the connection, if it says so and gets through.
    Pass(Option<Outcome>),
    Reopen,
}

/// A packet on the slow path.
struct SlowPacket<'p, A: Batched> {
    instance: &'p Instance,
    guard: &'p ReadGuard,
    headers: &'p packet::Headers<A>,
    // Its tuple's.
    hash: usize,
    // Of TCP.
    segment: Option<Segment>,
}

impl<'p, A: Batched> SlowPacket<'p, A> {
    #[inline(always)]
    fn new(
        instance: &'p Instance,
        guard: &'p ReadGuard,
        packet: &Packet<'_>,
        headers: &'p packet::Headers<A>,
        hash: usize,
    ) -> Self {
        let segment = match headers.tuple.protocol {
            Protocol::Tcp => {
                let transport = packet.skb.linear().get(headers.transport..);
                let length = packet.skb.len().wrapping_sub(headers.transport as u32);
                transport.and_then(|transport| read_segment(transport, length))
            }
            Protocol::Udp => None,
        };
        Self {
            instance,
            guard,
            headers,
            hash,
            segment,
        }
    }

    // A packet that may change the state of its flow.
    fn advance(&self, packet: &Packet<'_>, flow: &FlowNode<A>, direction: Direction) -> Next {
        let segment = self.segment.as_ref();
        if flow.is_plain(direction, segment)
            || flow.is_plain_direct(direction, segment.map(|segment| segment.flags))
        {
            return Next::Pass(None);
        }
        let Some(segment) = segment else {
            flow.advance_udp(direction);
            return Next::Pass(None);
        };
        // A client that uses the ports of a closed connection again: it may have another upstream by
        // now.
        if flow.is_replaced_by(direction, segment) {
            return Next::Reopen;
        }
        let options = self.options(packet);
        let hash = match direction {
            Direction::Original => self.hash,
            Direction::Reply => {
                A::flows(self.instance).hash(flow.key(Direction::Original as usize))
            }
        } as u32;
        let reopenings = &self.instance.reopenings;
        Next::Pass(flow.advance_tcp(direction, segment, options, reopenings, hash))
    }

    // Those of TCP.
    fn options<'b>(&self, packet: &'b Packet<'_>) -> &'b [u8] {
        let transport = packet.skb.linear().get(self.headers.transport..);
        segment::options(transport.unwrap_or_default())
    }

    // A packet of no flow.
    #[inline(never)]
    fn first_packet<const LOCAL: bool>(&self, packet: &mut Packet<'_>) -> Verdict {
        // A connection that was there before the rule goes on as it began.
        if self.segment.is_some_and(|segment| !segment.flags.opens()) {
            return Verdict::ACCEPT;
        }
        // As in `handle`, for packets that come by `no_flow`.
        if !LOCAL && packet.skb.has_dst() && packet.has_tunnel_route() {
            return Verdict::ACCEPT;
        }
        let tuple = &self.headers.tuple;
        let disposition = packet.disposition();
        let rules = A::rules(self.instance.rules.load(self.guard));
        // Broadcast and multicast are never redirected.
        if tuple.destination().is_shared() || !disposition.is_unicast() {
            // Nor is anybody told that they are blocked.
            return match rules.block().then(|| self.ask_again::<LOCAL>(packet)) {
                Some(Decision::Block { .. }) => self.block(packet, false),
                _ => Verdict::ACCEPT,
            };
        }
        let flows = A::flows(self.instance);
        // Translated already, and back at one of our hooks: see `Disposition::reenters`.
        if (packet.skb.is_untracked() || disposition.may_be_back())
            && flows.lookup(self.guard, &tuple.reverse()).is_some()
        {
            return Verdict::ACCEPT;
        }
        let mut redirect = match self.decide::<LOCAL, false>(packet) {
            Decision::Redirect(choice) => Some(choice),
            Decision::Direct => None,
            Decision::Block { tells } => return self.block(packet, tells),
        };
        let mut routed_to = None;
        match &mut redirect {
            // The hook that sees it last makes the flow.
            None if disposition.reenters() => return Verdict::ACCEPT,
            None => {}
            Some(choice) if !LOCAL => {
                if !self.make_writable(packet) {
                    return Verdict::DROP;
                }
                // A hairpin's answers would go to the client past us.
                let there = choice.upstream;
                let key = self.route_key::<LOCAL>(packet);
                if let Some(source) = hairpin_source(packet, self.headers.transport, &there) {
                    choice.upstream = there.from_address(source);
                }
                if packet.skb.has_dst() {
                    routed_to = Some((there, key));
                } else if !A::IS_V6 && !self.may_change_routes(packet) {
                    return count_dropped(self.instance, Dropped::NoRoute(0));
                }
            }
            Some(_) => {}
        }
        let opening = self
            .segment
            .as_ref()
            .map_or_else(Opening::default, |segment| {
                Opening::by(segment, self.options(packet))
            });
        let created = flows.create(
            self.guard,
            self.hash,
            tuple,
            redirect.as_ref(),
            opening,
            self.instance,
        );
        match (created, redirect) {
            (
                Ok(Created {
                    flow,
                    direction,
                    is_new,
                }),
                _,
            ) => {
                if !LOCAL && redirect.is_some() && flow.is_direct() {
                    // Another CPU made the flow by older or newer rules: undo what was done for a redirect.
                    packet.skb.drop_dst();
                    write_tuple(packet, self.headers.transport, tuple);
                }
                // A new flow knows of its first packet. `Next::Reopen` is not followed: the flow was made
                // a moment ago.
                if !is_new {
                    self.advance(packet, flow, direction);
                }
                if is_new && disposition.may_be_stolen() {
                    self.send_first::<LOCAL>(packet, flow, routed_to)
                } else {
                    self.translate_and_send::<LOCAL>(packet, flow, direction, routed_to)
                }
            }
            // It passes as it is, without a flow.
            (Err(_), None) => Verdict::ACCEPT,
            (Err(refused), Some(_)) => {
                // Untranslated, the packet would reach a server that it must not reach.
                self.instance.count(match refused {
                    Refused::NoMemory => Counter::DroppedNoMemory,
                    Refused::TableFull => Counter::DroppedTableFull,
                    Refused::NoPort => Counter::DroppedNoPort,
                });
                Verdict::DROP
            }
        }
    }

    fn end(&self) -> usize {
        let length = header_length(self.headers.tuple.protocol);
        self.headers.transport.wrapping_add(length)
    }

    // Makes the headers the packet's own; false, and counted, without memory for it.
    #[inline(always)]
    fn make_writable(&self, packet: &mut Packet<'_>) -> bool {
        let end = self.end();
        let writable = packet.skb.writable(end).is_some() || packet.skb.unshare(end);
        if !writable {
            self.instance.count(Counter::DroppedNoMemory);
        }
        writable
    }

    // Whether a later hook may give a packet a route for which the look-up has found none.
    #[cold]
    fn may_change_routes(&self, packet: &Packet<'_>) -> bool {
        LaterHooks::of_packet::<Redirect<A, false>>(self.guard, packet, self.instance)
            .is_some_and(LaterHooks::may_change_routes)
    }

    // What a route depends on that is looked up after this.
    #[inline(always)]
    fn route_key<const LOCAL: bool>(&self, packet: &Packet<'_>) -> RouteKey {
        packet
            .state
            .route_key::<LOCAL>(A::IS_V6, A::tos(packet.skb.linear()))
    }

    // Translates a packet of `flow` and sends it on. `routed_to`: where the route leads that the packet may
    // have got already, and that route's key.
    #[inline(never)]
    fn translate_and_send<const LOCAL: bool>(
        &self,
        packet: &mut Packet<'_>,
        flow: &FlowNode<A>,
        direction: Direction,
        routed_to: Option<(Tuple<A>, RouteKey)>,
    ) -> Verdict {
        self.send_on::<LOCAL>(packet, flow, direction, routed_to, false)
    }

    // The same for the packet for which the flow was made.
    #[inline(never)]
    fn send_first<const LOCAL: bool>(
        &self,
        packet: &mut Packet<'_>,
        flow: &FlowNode<A>,
        routed_to: Option<(Tuple<A>, RouteKey)>,
    ) -> Verdict {
        self.send_on::<LOCAL>(packet, flow, Direction::Original, routed_to, true)
    }

    // The same. `is_first`: the flow was made for this packet, and it can be stolen from its hook.
    #[inline(always)]
    fn send_on<const LOCAL: bool>(
        &self,
        packet: &mut Packet<'_>,
        flow: &FlowNode<A>,
        direction: Direction,
        routed_to: Option<(Tuple<A>, RouteKey)>,
        is_first: bool,
    ) -> Verdict {
        let length = packet.skb.len();
        let transport = self.headers.transport;
        let from = &self.headers.tuple;
        let to = flow.key(direction.other() as usize).reverse();
        if flow.is_direct() {
            flow.count(direction, length, time::jiffies());
            self.instance.count_direct::<true>(length);
            if !is_first {
                return Verdict::ACCEPT;
            }
        } else {
            // `first_packet` has made the headers writable before it looked the route up.
            if routed_to.is_none() && !self.make_writable(packet) {
                return Verdict::DROP;
            }
            let offload = packet.skb.offload(transport, to.protocol == Protocol::Udp);
            let sum = packet
                .skb
                .writable(self.end())
                .and_then(|bytes| bytes.split_at_mut_checked(transport))
                .and_then(|(network, transport)| {
                    translate(
                        network,
                        transport,
                        &to,
                        flow.checksum_fixup(direction),
                        offload,
                    )
                });
            let Some(sum) = sum else {
                self.instance.count(Counter::DroppedNoMemory);
                return Verdict::DROP;
            };
            packet.skb.fix_checksum(sum);
            packet.skb.untrack();
            flow.count(direction, length, time::jiffies());
            self.instance.count_packet::<true>(direction, length);
        }
        // Only a route that leads there: another CPU may have chosen another upstream.
        let routed = routed_to.filter(|(there, _)| {
            there.destination() == to.destination()
                && there.ports.destination() == to.ports.destination()
        });
        let reinject = Reinject {
            flow,
            direction,
            from,
            to: &to,
            transport,
            key: routed.map_or_else(|| self.route_key::<LOCAL>(packet), |(_, key)| key),
            is_first,
            is_routed: routed.is_some(),
        };
        reinject.send::<LOCAL>(self.instance, self.guard, packet)
    }
}
