// SPDX-License-Identifier: GPL-2.0

//! What happens to a packet.

use core::marker::PhantomData;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Family, Protocol};
use crate::batch::{self, Batched};
use crate::closely::{look_closely, Seen};
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::{self, TCP_HEADER};
use crate::datapath::tcp::{Flags, Segment};
use crate::datapath::translate::{translate, Offload};
use crate::datapath::tuple::{Tuple, V4, V6};
use crate::instance::Instance;
use crate::parameters::{changed, priority, PROFILING};
use crate::sys::hooks::{self, Extent, Glanced, Hook, Packet, Place, Registration, Verdict};
use crate::sys::latency::{within, Within};
use crate::sys::net::Namespace;
use crate::sys::route::Way;
use crate::sys::static_key::is_on;
use crate::sys::time;
use crate::way::{count_dropped, search, Asked, Routed};

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
            return look_closely::<A, LOCAL>(instance, guard, packet, Seen::Nothing);
        };
        let passes = instance.filter.passes(tuple.ports);
        match tuple.protocol {
            _ if !passes => Verdict::ACCEPT,
            Protocol::Tcp => match packet.glanced::<A::WithTcp>() {
                Ok(packet) => established::<A, _, LOCAL, true, false>(instance, guard, packet),
                Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet, Seen::Ports),
            },
            Protocol::Udp => match packet.glanced::<A::WithUdp>() {
                Ok(packet) => established::<A, _, LOCAL, false, false>(instance, guard, packet),
                Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet, Seen::Ports),
            },
        }
    }
}

// A packet at which `run` had a glance. What is not an ordinary packet of an established flow, in
// memory of its own and with a known way, is left untouched for `look_closely`: so there is no
// call in here but the last one, and nothing to be kept over it. Not inlined, so that packets of
// no flow need not save the registers that this takes.
#[inline(never)]
fn established<A: Batched, E: Extent, const LOCAL: bool, const TCP: bool, const ODD: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: Glanced<'_, E>,
) -> Verdict {
    if is_on!(changed::ANY) {
        return switched::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    if !ODD && packet.packet().skb.is_offloaded() {
        return established::<A, E, LOCAL, TCP, true>(instance, guard, packet);
    }
    match redirect::<A, E, LOCAL, TCP, ODD, false>(instance, &guard, packet) {
        Ok(verdict) => verdict,
        Err(Left::Odd(packet)) => established::<A, E, LOCAL, TCP, true>(instance, guard, packet),
        Err(Left::Slow(packet, seen)) => look_closely::<A, LOCAL>(instance, guard, packet, seen),
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
    if is_on!(changed::HOOKS_BEHIND) && instance.hooks_behind.are_there(A::FAMILY) {
        return look_closely::<A, LOCAL>(instance, guard, packet.into_packet(), Seen::Ports);
    }
    if !is_on!(changed::BATCHING) {
        return at_once::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    match batch::offer::<A>(instance, packet.into_packet()) {
        Ok(verdict) => verdict,
        Err(packet) => match packet.glanced::<E>() {
            Ok(packet) => at_once::<A, E, LOCAL, TCP>(instance, guard, packet),
            Err(packet) => look_closely::<A, LOCAL>(instance, guard, packet, Seen::Ports),
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
        return look_closely::<A, false>(instance, guard, packet, Seen::Nothing);
    };
    match tuple.protocol {
        Protocol::Tcp => match packet.glanced::<A::WithTcp>() {
            Ok(packet) => at_once::<A, _, false, true>(instance, guard, packet),
            Err(packet) => look_closely::<A, false>(instance, guard, packet, Seen::Ports),
        },
        Protocol::Udp => match packet.glanced::<A::WithUdp>() {
            Ok(packet) => at_once::<A, _, false, false>(instance, guard, packet),
            Err(packet) => look_closely::<A, false>(instance, guard, packet, Seen::Ports),
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
        Err(left) => {
            let (packet, seen) = left.into_slow();
            look_closely::<A, LOCAL>(instance, guard, packet, seen)
        }
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
        Err(left) => {
            let (packet, seen) = left.into_slow();
            look_closely::<A, LOCAL>(instance, guard, packet, seen)
        }
    }
}

// `ODD`: a device may have to do with its checksums, or it may have a route that it came in with.
// `SWITCHED`: see which optimizations are on.
#[inline(always)]
fn redirect<
    'p,
    A: Routed,
    E: Extent,
    const LOCAL: bool,
    const TCP: bool,
    const ODD: bool,
    const SWITCHED: bool,
>(
    instance: &Instance,
    guard: &ReadGuard,
    mut packet: Glanced<'p, E>,
) -> Result<Verdict, Left<'p, E>> {
    let protocol = if TCP { Protocol::Tcp } else { Protocol::Udp };
    let length = packet.packet().skb.len();
    let state = packet.packet().state;
    if SWITCHED && is_on!(changed::ZERO_COPY) && !packet.copy() {
        return Err(Left::slow(packet));
    }
    let (network, transport) = packet
        .peek()
        .as_ref()
        .split_at_checked(A::LENGTH)
        .unwrap_or_default();
    let Some((addresses, ports)) = A::addresses(network).zip(packet::ports(transport)) else {
        return Err(Left::slow(packet));
    };
    let from = Tuple {
        addresses,
        ports,
        protocol,
    };
    let flows = A::flows(instance);
    let found = if SWITCHED && is_on!(changed::CACHE) {
        flows.find_lately(guard, flows.hash(&from), &from, instance)
    } else {
        flows.find(guard, &from)
    };
    let Some((flow, side)) = found else {
        return Err(Left::Slow(packet.into_packet(), Seen::NoFlow));
    };
    if !flow.is_established(side) {
        let flags = if TCP { Flags::of(transport) } else { None };
        if flags.is_some() == TCP && flow.is_plain_direct(side, flags) {
            flow.count(side, length, time::jiffies());
            instance.count_direct::<SWITCHED>(length);
            return Ok(Verdict::ACCEPT);
        }
        return Err(Left::slow(packet));
    }
    // One that came in with a route has it from somebody who may have given it more than that.
    if !LOCAL && packet.packet().skb.has_route() {
        if !ODD {
            return Err(Left::Odd(packet));
        }
        if packet.packet().has_tunnel_route() {
            return Err(Left::slow(packet));
        }
    }
    let offload = if ODD {
        packet.packet().skb.offload(A::LENGTH, !TCP)
    } else {
        Offload::None
    };
    // The stack's own segments share their payload with what waits to be acknowledged, and so do they
    // when they come in from another namespace.
    let Some(headers) = packet.headers() else {
        return Err(Left::slow(packet));
    };
    let Some((network, transport)) = headers.as_mut().split_at_mut_checked(A::LENGTH) else {
        return Err(Left::slow(packet));
    };
    let segment = || read_segment(transport, length.wrapping_sub(A::LENGTH as u32));
    if TCP && !segment().is_some_and(|segment| flow.accept_plain(side, &segment)) {
        return Err(Left::slow(packet));
    }
    let to = Tuple {
        protocol,
        ..flow.key(side.other() as usize).reverse()
    };
    // The machine's own answers go where they were going anyway.
    let stays = LOCAL && from.destination() == to.destination();
    let onward = if stays {
        Onward::AsItIs
    } else if SWITCHED && is_on!(changed::ROUTE_CACHE) {
        Onward::Search
    } else {
        let key = state.route_key::<LOCAL>(A::IS_V6, A::tos(network));
        match flow.route(side).find(key, state, A::IS_V6) {
            Some(way) => Onward::Along(way),
            None => return Err(Left::slow(packet)),
        }
    };
    let Some(sum) = translate(network, transport, &to, flow.change(side), offload) else {
        return Err(Left::slow(packet));
    };
    let mut packet = packet.into_packet();
    packet.skb.settle(sum);
    packet.skb.untrack();
    flow.count(side, length, time::jiffies());
    instance.count_packet::<SWITCHED>(side, length);
    #[cfg(shared_counter)]
    crate::shared_counter::count();
    Ok(match onward {
        Onward::AsItIs => Verdict::ACCEPT,
        Onward::Along(way) if LOCAL => way.take_out(&mut packet),
        Onward::Along(way) if ODD => way.take::<false>(&mut packet),
        Onward::Along(way) => way.take_in(&mut packet),
        Onward::Search => {
            match search::<A, LOCAL>(&mut packet, A::LENGTH, &from, &to, Asked::Route) {
                Ok(_) => Verdict::ACCEPT,
                Err(dropped) => count_dropped(instance, dropped),
            }
        }
    })
}

// A packet that is left as it was.
enum Left<'p, E> {
    // For the variant that handles odd ones.
    Odd(Glanced<'p, E>),
    Slow(Packet<'p>, Seen),
}

impl<'p, E: Extent> Left<'p, E> {
    #[inline(always)]
    fn slow(packet: Glanced<'p, E>) -> Self {
        Self::Slow(packet.into_packet(), Seen::Ports)
    }

    #[inline(always)]
    fn into_slow(self) -> (Packet<'p>, Seen) {
        match self {
            Self::Odd(packet) => (packet.into_packet(), Seen::Ports),
            Self::Slow(packet, seen) => (packet, seen),
        }
    }
}

// How an established packet gets on.
enum Onward {
    AsItIs,
    Along(Way),
    Search,
}

/// The segment that a transport header begins, with what follows of it `length` bytes.
#[inline(always)]
pub(crate) fn read_segment(transport: &[u8], length: u32) -> Option<Segment> {
    Some(Segment::read(
        transport.first_chunk::<TCP_HEADER>()?,
        length,
    ))
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
