// SPDX-License-Identifier: GPL-2.0

//! What happens to packets that are no ordinary ones of an established flow: the first ones, the
//! last ones, those in an odd shape, and those that are none of the proxy's business.

use crate::abi::proxy::{Protocol, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
use crate::batch::{self, Batched};
use crate::datapath::flow::Side;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::{self, header_length, Parsed};
use crate::datapath::state::State;
use crate::datapath::tcp::{self, Segment};
use crate::datapath::translate::translate;
use crate::datapath::upstream::Moment;
use crate::flows::{Entry, Refused};
use crate::icmp;
use crate::instance::{Counter, Instance};
use crate::parameters::{self, changed};
use crate::redirect::read_segment;
use crate::sys::hooks::{Fragment, Packet, Verdict};
use crate::sys::random::random;
use crate::sys::static_key::is_on;
use crate::sys::time;
use crate::way::{search, Routed};

/// Any packet. `passed`: the filter let its ports through already.
#[cold]
#[inline(never)]
pub(crate) fn look_closely<A: Batched, const LOCAL: bool>(
    instance: &Instance,
    guard: ReadGuard,
    mut packet: Packet<'_>,
    passed: bool,
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
                if !passed && !instance.filter.passes(headers.tuple.ports) {
                    return Verdict::Accept;
                }
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
    let hash = A::flows(instance).hash(flow.key(Side::Original as usize)) as u32;
    let reopenings = &instance.reopenings;
    if let Some(outcome) = flow.advance_tcp(side, segment, options, reopenings, hash) {
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
    instance.count_packet::<true>(side, length);
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
