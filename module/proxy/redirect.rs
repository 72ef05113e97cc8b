// SPDX-License-Identifier: GPL-2.0

//! What happens to a packet.

use core::marker::PhantomData;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Family, Protocol, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
use crate::batch::{self, Batched};
use crate::datapath::flow::Side;
use crate::datapath::icmp::Icmp;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::{self, header_length, Header, Parsed, TCP_HEADER, UDP_HEADER};
use crate::datapath::state::State;
use crate::datapath::tcp::{self, Segment};
use crate::datapath::translate::{translate, Offload};
use crate::datapath::tuple::{Tuple, V4, V6};
use crate::datapath::upstream::Moment;
use crate::flows::{Entry, Refused};
use crate::icmp;
use crate::instance::{Counter, Instance, Version};
use crate::parameters::{self, changed, priority, PROFILING};
use crate::sys::hooks::{
    self, Extent, Fragment, Glanced, Hook, Packet, Place, Registration, Verdict,
};
use crate::sys::latency::{within, Within};
use crate::sys::net::Namespace;
use crate::sys::random::random;
use crate::sys::route::Way;
use crate::sys::static_key::is_on;
use crate::sys::time;

/// The hooks.
pub(crate) struct Redirect<A, const LOCAL: bool>(PhantomData<A>);

impl<A: Batched, const LOCAL: bool> Hook for Redirect<A, LOCAL> {
    type Target = Instance;
    const FAMILY: Family = A::FAMILY;
    const PLACE: Place = if LOCAL {
        Place::LocalOut
    } else {
        Place::PreRouting
    };
    // In the order of abi::monitor::LATENCY_HOOKS.
    const LATENCY: Option<Within<Instance>> = Some(within!(
        Instance,
        latency,
        A::IS_V6 as usize + 2 * LOCAL as usize
    ));

    #[inline(always)]
    fn is_timed() -> bool {
        is_on!(PROFILING)
    }

    #[inline(always)]
    fn run(instance: &Instance, guard: ReadGuard, packet: Packet<'_>) -> Verdict {
        let Some(tuple) = A::glance(packet.skb.linear()) else {
            return look_closely::<A, LOCAL>(instance, guard, packet);
        };
        let passes = instance.filter.passes(tuple.ports);
        match tuple.protocol {
            _ if !passes => Verdict::Accept,
            Protocol::Tcp => match packet.glanced::<A::WithTcp>() {
                Ok(packet) => established::<A, _, LOCAL, true, false>(instance, guard, packet),
                Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet),
            },
            Protocol::Udp => match packet.glanced::<A::WithUdp>() {
                Ok(packet) => established::<A, _, LOCAL, false, false>(instance, guard, packet),
                Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet),
            },
        }
    }
}

// A packet at which `run` had a glance. What is not an ordinary packet of an established flow, in
// memory of its own and with a known way, is left untouched for `look_closely`: so there is no
// call in here but the last one, and nothing to be kept over it. Not inlined, so that packets of
// no flow need not save the registers that this takes.
#[inline(never)]
fn established<A: Batched, E: Extent, const LOCAL: bool, const TCP: bool, const OFFLOADED: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: Glanced<'_, E>,
) -> Verdict {
    if is_on!(changed::ANY) {
        return switched::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    if !OFFLOADED && packet.packet().skb.offload() != Offload::None {
        return established::<A, E, LOCAL, TCP, true>(instance, guard, packet);
    }
    match redirect::<A, E, LOCAL, TCP, OFFLOADED, false>(instance, &guard, packet) {
        Ok(verdict) => verdict,
        Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet),
    }
}

// The same while any optimization is not where it is by default.
#[inline(never)]
fn switched<A: Batched, E: Extent, const LOCAL: bool, const TCP: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: Glanced<'_, E>,
) -> Verdict {
    if LOCAL {
        return costly::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    if !is_on!(changed::BATCHING) {
        return at_once::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    match batch::offer::<A>(instance, packet.into_packet()) {
        Ok(verdict) => verdict,
        Err(packet) => match packet.glanced::<E>() {
            Ok(packet) => at_once::<A, E, LOCAL, TCP>(instance, guard, packet),
            Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet),
        },
    }
}

/// A packet that waited; those that came before it are on their way.
#[inline(never)]
pub(crate) fn resume<A: Batched>(
    instance: &Instance,
    guard: ReadGuard,
    packet: Packet<'_>,
) -> Verdict {
    let Some(tuple) = A::glance(packet.skb.linear()) else {
        return look_closely::<A, false>(instance, guard, packet);
    };
    match tuple.protocol {
        Protocol::Tcp => match packet.glanced::<A::WithTcp>() {
            Ok(packet) => at_once::<A, _, false, true>(instance, guard, packet),
            Err(packet) => look_closely::<A, false>(instance, guard, packet),
        },
        Protocol::Udp => match packet.glanced::<A::WithUdp>() {
            Ok(packet) => at_once::<A, _, false, false>(instance, guard, packet),
            Err(packet) => look_closely::<A, false>(instance, guard, packet),
        },
    }
}

// A packet that does not wait, or has waited, while all else is as by default.
#[inline(never)]
fn at_once<A: Batched, E: Extent, const LOCAL: bool, const TCP: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: Glanced<'_, E>,
) -> Verdict {
    if is_on!(changed::SAVING) {
        return costly::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    match redirect::<A, E, LOCAL, TCP, true, false>(instance, &guard, packet) {
        Ok(verdict) => verdict,
        Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet),
    }
}

// The same while any of what saves work is off.
#[inline(never)]
fn costly<A: Batched, E: Extent, const LOCAL: bool, const TCP: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: Glanced<'_, E>,
) -> Verdict {
    let redirect = || redirect::<A, E, LOCAL, TCP, true, true>(instance, &guard, packet);
    let redirected = if is_on!(changed::RCU) {
        A::flows(instance).hold(redirect)
    } else {
        redirect()
    };
    match redirected {
        Ok(verdict) => verdict,
        Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet),
    }
}

// `SWITCHED`: see which optimizations are on.
#[inline(always)]
fn redirect<
    'p,
    A: Routed,
    E: Extent,
    const LOCAL: bool,
    const TCP: bool,
    const OFFLOADED: bool,
    const SWITCHED: bool,
>(
    instance: &Instance,
    guard: &ReadGuard,
    mut packet: Glanced<'p, E>,
) -> Result<Verdict, Packet<'p>> {
    let protocol = if TCP { Protocol::Tcp } else { Protocol::Udp };
    let length = packet.packet().skb.len();
    let offload = if OFFLOADED {
        packet.packet().skb.offload()
    } else {
        Offload::None
    };
    let state = packet.packet().state;
    if SWITCHED && is_on!(changed::ZERO_COPY) && !packet.copy() {
        return Err(packet.into_packet());
    }
    // The stack's own segments share their payload with what waits to be acknowledged.
    let Some(headers) = packet.headers::<LOCAL>() else {
        return Err(packet.into_packet());
    };
    let Some((network, transport)) = headers.as_mut().split_at_mut_checked(A::LENGTH) else {
        return Err(packet.into_packet());
    };
    let Some((addresses, ports)) = A::addresses(network).zip(packet::ports(transport)) else {
        return Err(packet.into_packet());
    };
    let from = Tuple {
        addresses,
        ports,
        protocol,
    };
    let flows = A::flows(instance);
    let found = if SWITCHED && is_on!(changed::CACHE) {
        flows.find_lately(guard, &from, instance)
    } else {
        flows.find_quickly(guard, &from)
    };
    let Some((flow, side)) = found else {
        return Err(packet.into_packet());
    };
    let segment = if TCP {
        read_segment(transport, length.wrapping_sub(A::LENGTH as u32))
    } else {
        None
    };
    if segment.is_some() != TCP || !flow.is_plain(side, segment.as_ref()) {
        return Err(packet.into_packet());
    }
    let to = Tuple {
        protocol,
        ..flow.key(side.other() as usize).reverse()
    };
    // The machine's own answers go where they were going anyway.
    let stays = LOCAL && from.destination() == to.destination();
    let route = flow.route(side);
    let onward = if stays {
        Onward::AsItIs
    } else if SWITCHED && is_on!(changed::ROUTE_CACHE) {
        Onward::Search
    } else {
        let way = if LOCAL {
            route.way_out(state, A::IS_V6)
        } else {
            route.way_in(state, A::IS_V6)
        };
        match way {
            Some(way) => Onward::Along(way),
            None => return Err(packet.into_packet()),
        }
    };
    let Some(sum) = translate(network, transport, &to, flow.change(side), offload) else {
        return Err(packet.into_packet());
    };
    let mut packet = packet.into_packet();
    packet.skb.settle(sum);
    packet.skb.untrack();
    flow.count(side, length, time::jiffies());
    instance.count_packet(side, length);
    Ok(match onward {
        Onward::AsItIs => Verdict::Accept,
        Onward::Along(way) if LOCAL => way.take_out(packet),
        Onward::Along(way) => way.take_in(packet),
        Onward::Search => search::<A, LOCAL>(instance, &mut packet, &from, &to),
    })
}

// How an established packet gets on.
enum Onward {
    AsItIs,
    Along(Way),
    Search,
}

// Looks the way of a translated packet up.
#[cold]
fn search<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    packet: &mut Packet<'_>,
    from: &Tuple<A>,
    to: &Tuple<A>,
) -> Verdict {
    let found = if LOCAL {
        packet.route_out(A::FAMILY)
    } else {
        A::route_in(packet, from.source(), to.destination())
    };
    if found {
        Verdict::Accept
    } else {
        instance.count(Counter::DroppedNoRoute);
        Verdict::Drop
    }
}

#[inline(always)]
fn read_segment(transport: &[u8], length: u32) -> Option<Segment> {
    Some(Segment::read(
        transport.first_chunk::<TCP_HEADER>()?,
        length,
    ))
}

// Any packet.
#[cold]
#[inline(never)]
fn look_closely<A: Batched, const LOCAL: bool>(
    instance: &Instance,
    guard: ReadGuard,
    mut packet: Packet<'_>,
) -> Verdict {
    // It must not overtake those that wait.
    if !LOCAL && is_on!(changed::BATCHING) {
        batch::go_on::<A>(instance);
    }
    let guard = &guard;
    // Each round asks for more bytes than the last, of at most packet::MAX_HEADERS and a header;
    // and a packet that was put together is no fragment.
    let mut whole = false;
    loop {
        match A::parse(packet.skb.linear()) {
            Parsed::Transport(headers) => {
                return handle::<A, LOCAL>(instance, guard, &mut packet, &headers);
            }
            Parsed::Fragment if !whole => match packet.defragment(A::FAMILY) {
                Fragment::Whole => whole = true,
                Fragment::Gone => return Verdict::Stolen,
                Fragment::Bad => return Verdict::Drop,
            },
            Parsed::Icmp(at) => return icmp::pass::<A, LOCAL>(instance, guard, &mut packet, at),
            Parsed::Fragment | Parsed::Other => return Verdict::Accept,
            Parsed::Short(needed) if packet.skb.pull(needed) => {}
            Parsed::Short(_) | Parsed::Malformed => {
                instance.count(Counter::Malformed);
                return Verdict::Accept;
            }
        }
    }
}

fn handle<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    guard: &ReadGuard,
    packet: &mut Packet<'_>,
    headers: &packet::Packet<A>,
) -> Verdict {
    if !instance.filter.passes(headers.tuple.ports) {
        return Verdict::Accept;
    }
    let segment = match headers.tuple.protocol {
        Protocol::Tcp => {
            let transport = packet.skb.linear().get(headers.transport..);
            let length = packet.skb.len().wrapping_sub(headers.transport as u32);
            transport.and_then(|transport| read_segment(transport, length))
        }
        Protocol::Udp => None,
    };
    let flows = A::flows(instance);
    let known = if is_on!(changed::CACHE) {
        flows.find_lately(guard, &headers.tuple, instance)
    } else {
        None
    };
    let hash = flows.hash(&headers.tuple);
    let known = known.or_else(|| flows.find_hashed(guard, hash, &headers.tuple));
    let Some((flow, side)) = known else {
        return begin::<A, LOCAL>(instance, guard, packet, headers, hash, segment);
    };
    if !flow.is_plain(side, segment.as_ref())
        && advance(
            instance,
            guard,
            packet,
            headers,
            segment.as_ref(),
            flow,
            side,
        ) == Next::BeginAnew
    {
        flows.remove(guard, flow, instance);
        return begin::<A, LOCAL>(instance, guard, packet, headers, hash, segment);
    }
    pass::<A, LOCAL>(instance, packet, headers, flow, side, false)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Pass,
    BeginAnew,
}

// A packet that may change the state of its flow.
#[cold]
fn advance<A: Routed>(
    instance: &Instance,
    guard: &ReadGuard,
    packet: &Packet<'_>,
    headers: &packet::Packet<A>,
    segment: Option<&Segment>,
    flow: &Entry<A>,
    side: Side,
) -> Next {
    let Some(segment) = segment else {
        flow.advance_udp(side);
        return Next::Pass;
    };
    // A client that uses the ports of a closed connection again: it may have another upstream by
    // now.
    if segment.flags.opens() && side == Side::Original && flow.state() == State::Closed {
        return Next::BeginAnew;
    }
    let transport = packet.skb.linear().get(headers.transport..);
    let options = tcp::options(transport.unwrap_or_default());
    if let Some(outcome) = flow.advance_tcp(side, segment, options) {
        instance.report(guard, flow, outcome);
    }
    Next::Pass
}

// A packet of no flow; `hash` is its tuple's.
#[cold]
fn begin<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    guard: &ReadGuard,
    packet: &mut Packet<'_>,
    headers: &packet::Packet<A>,
    hash: usize,
    segment: Option<Segment>,
) -> Verdict {
    // A connection that was there before the rule goes on as it began.
    if segment.is_some_and(|segment| !segment.flags.opens()) {
        return Verdict::Accept;
    }
    let hook = if LOCAL {
        HOOK_LOCAL_OUT
    } else {
        HOOK_PRE_ROUTING
    };
    let rules = A::rules(instance.rules.load(guard));
    let state = packet.state;
    let Some(choice) = rules.choose(hook, &headers.tuple, || state.interface(), moment) else {
        return Verdict::Accept;
    };
    let mut upstream = choice.upstream;
    // Else the answer would go to the client past us.
    let mut has_route = false;
    if !LOCAL {
        let back = A::source_back(packet, &upstream);
        has_route = back.has_route;
        if let Some(source) = back.source {
            upstream = upstream.from_address(source);
        }
    }
    let flows = A::flows(instance);
    match flows.create(
        guard,
        hash,
        &headers.tuple,
        &upstream,
        choice.owner,
        instance,
    ) {
        Ok(flow) => {
            advance(
                instance,
                guard,
                packet,
                headers,
                segment.as_ref(),
                flow,
                Side::Original,
            );
            let side = Side::Original;
            pass::<A, LOCAL>(instance, packet, headers, flow, side, has_route)
        }
        Err(refused) => {
            // Sent on untranslated, the packet would reach a server that it must not reach.
            instance.count(match refused {
                Refused::NoMemory => Counter::DroppedNoMemory,
                Refused::TableFull => Counter::DroppedTableFull,
                Refused::NoPort => Counter::DroppedNoPort,
            });
            Verdict::Drop
        }
    }
}

fn moment(is_random: bool) -> Moment {
    Moment {
        now: time::jiffies(),
        retry: parameters::upstream_retry().saturating_mul(time::HZ),
        random: if is_random { random() } else { 0 },
    }
}

// Translates a packet of `flow` and sends it on, along its route if it has the right one already.
fn pass<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    packet: &mut Packet<'_>,
    headers: &packet::Packet<A>,
    flow: &Entry<A>,
    side: Side,
    has_route: bool,
) -> Verdict {
    let length = packet.skb.len();
    let offload = packet.skb.offload();
    let from = &headers.tuple;
    let to = flow.key(side.other() as usize).reverse();
    let end = headers.transport.wrapping_add(header_length(to.protocol));
    if packet.skb.writable(end).is_none() && !packet.skb.unshare(end) {
        instance.count(Counter::DroppedNoMemory);
        return Verdict::Drop;
    }
    let sum = packet
        .skb
        .writable(end)
        .and_then(|bytes| bytes.split_at_mut_checked(headers.transport))
        .and_then(|(network, transport)| {
            translate(network, transport, &to, flow.change(side), offload)
        });
    let Some(sum) = sum else {
        instance.count(Counter::DroppedNoMemory);
        return Verdict::Drop;
    };
    packet.skb.settle(sum);
    packet.skb.untrack();
    flow.count(side, length, time::jiffies());
    instance.count_packet(side, length);
    // Packets that came in find their way after this hook if they have none yet; the machine's own
    // have one to the original destination by now.
    if LOCAL && from.destination() == to.destination() {
        return Verdict::Accept;
    }
    let verdict = if has_route {
        Verdict::Accept
    } else {
        search::<A, LOCAL>(instance, packet, from, &to)
    };
    if verdict == Verdict::Accept && !is_on!(changed::ROUTE_CACHE) {
        flow.route(side).keep(packet);
    }
    verdict
}

/// Whether the packets of a connection would turn back.
pub(crate) struct Back<A> {
    /// If so: an address of the machine's own on the device by which they came.
    source: Option<A>,
    /// Whether the packet has its route to the upstream now.
    has_route: bool,
}

/// How packets of one version of IP find their way.
pub(crate) trait Routed: Version + Icmp {
    const IS_V6: bool = matches!(Self::FAMILY, Family::V6);
    /// The header with that of UDP.
    type WithUdp: Extent;
    /// The header with that of TCP, both without options.
    type WithTcp: Extent;

    /// Finds the way of a packet that came in from `source`, whatever its header says now, and
    /// goes to `destination`.
    fn route_in(packet: &mut Packet<'_>, source: Self, destination: Self) -> bool;

    /// Whether a packet that came in and will look like `to` goes out through the same device.
    fn source_back(packet: &mut Packet<'_>, to: &Tuple<Self>) -> Back<Self>;
}

impl Routed for V4 {
    type WithUdp = [u8; Self::LENGTH + UDP_HEADER];
    type WithTcp = [u8; Self::LENGTH + TCP_HEADER];

    // Where it really comes from is what the check of sources (rp_filter) has to see.
    fn route_in(packet: &mut Packet<'_>, source: Self, destination: Self) -> bool {
        packet.route_in_v4(destination.0, source.0)
    }

    // Looks its route up just as `route_in` would.
    fn source_back(packet: &mut Packet<'_>, to: &Tuple<Self>) -> Back<Self> {
        let source = packet.source_back_v4(to.destination().0, to.source().0);
        Back {
            source: source.map(Self),
            has_route: packet.skb.has_route(),
        }
    }
}

impl Routed for V6 {
    type WithUdp = [u8; Self::LENGTH + UDP_HEADER];
    type WithTcp = [u8; Self::LENGTH + TCP_HEADER];

    // IPv6 has no check of sources in its routing.
    fn route_in(packet: &mut Packet<'_>, _: Self, _: Self) -> bool {
        packet.route_in_v6()
    }

    fn source_back(packet: &mut Packet<'_>, to: &Tuple<Self>) -> Back<Self> {
        let source = packet.source_back_v6(to.destination().0, to.source().0);
        Back {
            source: source.map(Self),
            has_route: false,
        }
    }
}

/// Puts the proxy's hooks into `net`.
pub(crate) fn register(
    net: &Namespace,
    instance: Arc<Instance>,
) -> Result<hooks::Registered<Instance>> {
    // Before connection tracking: packets of our flows are translated here in both directions and
    // marked untracked, so that it never sees one direction before and one after translation.
    let (pre_routing, local_out) = (priority::pre_routing(), priority::local_out());
    let hooks = [
        Registration::new::<Redirect<V4, false>>(pre_routing),
        Registration::new::<Redirect<V6, false>>(pre_routing),
        Registration::new::<Redirect<V4, true>>(local_out),
        Registration::new::<Redirect<V6, true>>(local_out),
    ];
    hooks::Registered::new(net, instance, hooks)
}
