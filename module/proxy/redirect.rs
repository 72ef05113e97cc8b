// SPDX-License-Identifier: GPL-2.0

//! What happens to a packet.

use core::marker::PhantomData;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Family, Protocol, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
use crate::datapath::flow::{Owner, Side, State};
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::{self, header_length, Parsed, TCP_HEADER};
use crate::datapath::tcp::Segment;
use crate::datapath::translate::{translate, Offload};
use crate::datapath::tuple::{Tuple, V4, V6};
use crate::flows::{Entry, Refused};
use crate::instance::{Counter, Instance, Version};
use crate::sys::hooks::{self, Fragment, Hook, Packet, Place, Registration, Verdict};
use crate::sys::net::Namespace;
use crate::sys::time;

/// Before connection tracking (-200) and after what may put fragments together (-400) or work on
/// raw packets (-300). Packets of our flows are translated here in both directions and marked
/// untracked, so that connection tracking never sees one direction before and one after
/// translation.
const PRIORITY: i32 = -250;

struct Redirect<A, const LOCAL: bool>(PhantomData<A>);

impl<A: Routed, const LOCAL: bool> Hook for Redirect<A, LOCAL> {
    type Target = Instance;
    const FAMILY: Family = A::FAMILY;
    const PLACE: Place = if LOCAL {
        Place::LocalOut
    } else {
        Place::PreRouting
    };

    #[inline(always)]
    fn run(instance: &Instance, guard: ReadGuard, packet: Packet<'_>) -> Verdict {
        let Some(tuple) = A::glance(packet.skb.linear()) else {
            return look_closely::<A, LOCAL>(instance, guard, packet);
        };
        if !instance.filter.passes(tuple.ports) {
            return Verdict::Accept;
        }
        match tuple.protocol {
            Protocol::Tcp => established::<A, LOCAL, true, false>(instance, guard, packet),
            Protocol::Udp => established::<A, LOCAL, false, false>(instance, guard, packet),
        }
    }
}

// A packet at which `run` had a glance. What is not an ordinary packet of an established flow, in
// memory of its own and with a known way, is left untouched for `look_closely`: so there is no
// call in here but the last one, and nothing to be kept over it. Not inlined, so that packets of
// no flow need not save the registers that this takes.
#[inline(never)]
fn established<A: Routed, const LOCAL: bool, const TCP: bool, const OFFLOADED: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: Packet<'_>,
) -> Verdict {
    if !OFFLOADED && packet.skb.offload() != Offload::None {
        return established::<A, LOCAL, TCP, true>(instance, guard, packet);
    }
    match redirect::<A, LOCAL, TCP, OFFLOADED>(instance, &guard, packet) {
        Ok(verdict) => verdict,
        Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet),
    }
}

#[inline(always)]
fn redirect<'p, A: Routed, const LOCAL: bool, const TCP: bool, const OFFLOADED: bool>(
    instance: &Instance,
    guard: &ReadGuard,
    mut packet: Packet<'p>,
) -> Result<Verdict, Packet<'p>> {
    let protocol = if TCP { Protocol::Tcp } else { Protocol::Udp };
    let length = packet.skb.len();
    let offload = if OFFLOADED {
        packet.skb.offload()
    } else {
        Offload::None
    };
    let state = packet.state;
    // The stack's own segments share their payload with what waits to be acknowledged.
    let Some((network, transport)) = packet
        .skb
        .headers::<LOCAL>(A::LENGTH, header_length(protocol))
    else {
        return Err(packet);
    };
    let Some((addresses, ports)) = A::addresses(network).zip(packet::ports(transport)) else {
        return Err(packet);
    };
    let from = Tuple {
        addresses,
        ports,
        protocol,
    };
    let Some((flow, side)) = A::flows(instance).find_quickly(guard, &from) else {
        return Err(packet);
    };
    let segment = if TCP {
        read_segment(transport, length.wrapping_sub(A::LENGTH as u32))
    } else {
        None
    };
    if segment.is_some() != TCP || !flow.is_plain(side, segment.as_ref()) {
        return Err(packet);
    }
    let to = Tuple {
        protocol,
        ..flow.key(side.other() as usize).reverse()
    };
    // The machine's own answers go where they were going anyway.
    let stays = LOCAL && from.destination() == to.destination();
    let route = flow.route(side);
    let way = match (LOCAL, stays) {
        (true, true) => None,
        (true, false) => route.way_out(state, A::IS_V6),
        (false, _) => route.way_in(state, A::IS_V6),
    };
    if way.is_none() && !stays {
        return Err(packet);
    }
    let Some(sum) = translate(network, transport, &to, flow.change(side), offload) else {
        return Err(packet);
    };
    packet.skb.settle(sum);
    packet.skb.untrack();
    flow.count(side, length, time::jiffies());
    instance.count_packet(side, length);
    Ok(match way {
        None => Verdict::Accept,
        Some(way) if LOCAL => way.take_out(packet),
        Some(way) => way.take_in(packet),
    })
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
fn look_closely<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    guard: ReadGuard,
    mut packet: Packet<'_>,
) -> Verdict {
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
            Parsed::Icmp(_) | Parsed::Fragment | Parsed::Other => return Verdict::Accept,
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
    let Some((flow, side)) = flows.find(guard, &headers.tuple) else {
        return begin::<A, LOCAL>(instance, guard, packet, headers, segment);
    };
    if !flow.is_plain(side, segment.as_ref())
        && advance(packet, headers, segment.as_ref(), flow, side) == Next::BeginAnew
    {
        flows.remove(guard, flow, instance);
        return begin::<A, LOCAL>(instance, guard, packet, headers, segment);
    }
    pass::<A, LOCAL>(instance, packet, headers, flow, side)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Pass,
    BeginAnew,
}

// A packet that may change the state of its flow.
#[cold]
fn advance<A: Routed>(
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
    let options = headers.transport.wrapping_add(TCP_HEADER);
    let options = packet.skb.linear().get(options..).unwrap_or_default();
    flow.advance_tcp(side, segment, options);
    Next::Pass
}

// A packet of no flow.
#[cold]
fn begin<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    guard: &ReadGuard,
    packet: &mut Packet<'_>,
    headers: &packet::Packet<A>,
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
    let Some((rule, upstream)) = rules.find(hook, &headers.tuple) else {
        return Verdict::Accept;
    };
    let owner = Owner {
        context: rule.owner,
        upstream: 0,
    };
    let flows = A::flows(instance);
    match flows.create(guard, &headers.tuple, &upstream, owner, instance) {
        Ok(flow) => {
            advance(packet, headers, segment.as_ref(), flow, Side::Original);
            pass::<A, LOCAL>(instance, packet, headers, flow, Side::Original)
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

// Translates a packet of `flow` and sends it on.
fn pass<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    packet: &mut Packet<'_>,
    headers: &packet::Packet<A>,
    flow: &Entry<A>,
    side: Side,
) -> Verdict {
    let length = packet.skb.len();
    let offload = packet.skb.offload();
    let from = &headers.tuple;
    let to = flow.key(side.other() as usize).reverse();
    let end = headers.transport.wrapping_add(header_length(to.protocol));
    if !packet.skb.unshare(end) {
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
    let found = if LOCAL {
        packet.route_out(A::FAMILY)
    } else {
        A::route_in(packet, from, &to)
    };
    if !found {
        instance.count(Counter::DroppedNoRoute);
        return Verdict::Drop;
    }
    flow.route(side).keep(packet);
    Verdict::Accept
}

/// How packets of one version of IP find their way.
trait Routed: Version {
    const IS_V6: bool = matches!(Self::FAMILY, Family::V6);

    /// Finds the way of a packet that came in as `from` and was made to look like `to`.
    fn route_in(packet: &mut Packet<'_>, from: &Tuple<Self>, to: &Tuple<Self>) -> bool;
}

impl Routed for V4 {
    // Where it really comes from is what the check of sources (rp_filter) has to see.
    fn route_in(packet: &mut Packet<'_>, from: &Tuple<Self>, to: &Tuple<Self>) -> bool {
        packet.route_in_v4(to.destination().0, from.source().0)
    }
}

impl Routed for V6 {
    // IPv6 has no check of sources in its routing.
    fn route_in(packet: &mut Packet<'_>, _: &Tuple<Self>, _: &Tuple<Self>) -> bool {
        packet.route_in_v6()
    }
}

/// Puts the proxy's hooks into `net`.
pub(crate) fn register(
    net: &Namespace,
    instance: Arc<Instance>,
) -> Result<hooks::Registered<Instance>> {
    let hooks = [
        Registration::new::<Redirect<V4, false>>(PRIORITY),
        Registration::new::<Redirect<V6, false>>(PRIORITY),
        Registration::new::<Redirect<V4, true>>(PRIORITY),
        Registration::new::<Redirect<V6, true>>(PRIORITY),
    ];
    hooks::Registered::new(net, instance, hooks)
}
