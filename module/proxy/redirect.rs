// SPDX-License-Identifier: GPL-2.0

//! What happens to a packet: the hooks, and the fast path.
//!
//! The calls:
//!
//! ```text
//! run            every packet: reads the tuple, and asks the filter of ports
//!   fast_path      what passed the filter; mostly ordinary packets of established flows
//!     redirect       as long as no key is on: every optimization is as by default
//!     fast_path      in a variant for packets with offloaded checksums, or with a route of their own
//!     dispatch       while any key is on (NON_DEFAULT)
//!       ablation       for the machine's own packets
//!       slow_path      where later hooks may change routes (LATER_HOOKS)
//!       batch::offer   while batching is on (BATCHING_ACTIVE): queues the packet, or leaves it to
//!       fast_batched
//! resume         packets that waited, when their batch is flushed
//!   fast_batched
//!     redirect       as long as nothing that saves work is off
//!     ablation       while something is (ABLATION)
//!       redirect       with ABLATION: asks the key of each; under the table's lock without RCU
//! no_flow        what `redirect` has found no flow for: first packets
//! slow_path      whatever else any of these leaves; `redirect` has not translated it then
//! ```

use core::marker::PhantomData;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Family, Protocol};
use crate::batch::{self, Batched};
use crate::datapath::flow::Pace;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::{self, TCP_HEADER};
use crate::datapath::tcp::{Flags, Segment};
use crate::datapath::translate::{translate, Offload};
use crate::datapath::tuple::{Tuple, V4, V6};
use crate::instance::Instance;
use crate::parameters::{keys, priority, PROFILING_ENABLED};
use crate::route_lookup::{count_dropped, lookup_route, Asked, Routed};
use crate::slow_path::{no_flow, slow_path};
use crate::sys::hooks::{
    self, HeaderBytes, Hook, Hooknum, LinearPacket, Packet, Registration, Verdict,
};
use crate::sys::latency::{within, Within};
use crate::sys::net::Namespace;
use crate::sys::route::Dst;
use crate::sys::static_key::is_on;
use crate::sys::time;

/// The hooks.
pub(crate) struct Redirect<A, const LOCAL: bool>(PhantomData<A>);

impl<A: Batched, const LOCAL: bool> Hook for Redirect<A, LOCAL> {
    type Target = Instance;
    const FAMILY: Family = A::FAMILY;
    const HOOKNUM: Hooknum = if LOCAL {
        Hooknum::LocalOut
    } else {
        Hooknum::PreRouting
    };
    // In the order of abi::monitor::LATENCY_HOOKS.
    const LATENCY: Option<Within<Instance>> = Some(within!(
        Instance,
        latency,
        A::IS_V6 as usize + 2 * LOCAL as usize
    ));

    #[inline(always)]
    fn is_timed() -> bool {
        is_on!(PROFILING_ENABLED)
    }

    #[inline(always)]
    fn run(instance: &Instance, guard: ReadGuard, packet: Packet<'_>) -> Verdict {
        let Some(tuple) = A::parse_fast(packet.skb.linear()) else {
            return slow_path::<A, LOCAL>(instance, guard, packet, false);
        };
        let passes = instance.filter.passes(tuple.ports);
        match tuple.protocol {
            _ if !passes => Verdict::ACCEPT,
            Protocol::Tcp => match packet.into_linear::<A::WithTcp>() {
                Ok(packet) => take::<A, _, LOCAL, true>(instance, guard, packet),
                Err(packet) => slow_path::<A, LOCAL>(instance, guard, packet, true),
            },
            Protocol::Udp => match packet.into_linear::<A::WithUdp>() {
                Ok(packet) => take::<A, _, LOCAL, false>(instance, guard, packet),
                Err(packet) => slow_path::<A, LOCAL>(instance, guard, packet, true),
            },
        }
    }
}

// Chooses the variant of the fast path.
#[inline(always)]
fn take<A: Batched, E: HeaderBytes, const LOCAL: bool, const TCP: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: LinearPacket<'_, E>,
) -> Verdict {
    if packet.packet().skb.is_offloaded() {
        fast_path::<A, E, LOCAL, TCP, true, false>(instance, guard, packet)
    } else {
        fast_path::<A, E, LOCAL, TCP, false, false>(instance, guard, packet)
    }
}

// A packet of which `run` has read the tuple. Only an ordinary packet of an established flow, with headers
// of its own and a cached route, is handled here; any other is left untouched for the slow path. So the
// only call in here is the last one, and no register is kept over it. Not inlined, so that packets of
// no flow need not save the registers that this takes.
#[inline(never)]
fn fast_path<
    A: Batched,
    E: HeaderBytes,
    const LOCAL: bool,
    const TCP: bool,
    const OFFLOADED: bool,
    const ROUTED: bool,
>(
    instance: &Instance,
    guard: ReadGuard,
    packet: LinearPacket<'_, E>,
) -> Verdict {
    if is_on!(keys::NON_DEFAULT) {
        return dispatch::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    match redirect::<A, E, LOCAL, TCP, OFFLOADED, ROUTED, false>(instance, &guard, packet) {
        Ok(verdict) => verdict,
        Err(Left::Routed(packet)) => {
            fast_path::<A, E, LOCAL, TCP, true, true>(instance, guard, packet)
        }
        Err(left) => left.handle::<A, LOCAL>(instance, guard),
    }
}

// The same while any key is on.
#[inline(never)]
fn dispatch<A: Batched, E: HeaderBytes, const LOCAL: bool, const TCP: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: LinearPacket<'_, E>,
) -> Verdict {
    if LOCAL {
        return ablation::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    if is_on!(keys::LATER_HOOKS) && instance.later_hooks.are_there(A::FAMILY) {
        return slow_path::<A, LOCAL>(instance, guard, packet.into_packet(), true);
    }
    if !is_on!(keys::BATCHING_ACTIVE) {
        return fast_batched::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    match batch::offer::<A>(instance, packet.into_packet()) {
        Ok(verdict) => verdict,
        Err(packet) => match packet.into_linear::<E>() {
            Ok(packet) => fast_batched::<A, E, LOCAL, TCP>(instance, guard, packet),
            Err(packet) => slow_path::<A, LOCAL>(instance, guard, packet, true),
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
    let Some(tuple) = A::parse_fast(packet.skb.linear()) else {
        return slow_path::<A, false>(instance, guard, packet, false);
    };
    match tuple.protocol {
        Protocol::Tcp => match packet.into_linear::<A::WithTcp>() {
            Ok(packet) => fast_batched::<A, _, false, true>(instance, guard, packet),
            Err(packet) => slow_path::<A, false>(instance, guard, packet, true),
        },
        Protocol::Udp => match packet.into_linear::<A::WithUdp>() {
            Ok(packet) => fast_batched::<A, _, false, false>(instance, guard, packet),
            Err(packet) => slow_path::<A, false>(instance, guard, packet, true),
        },
    }
}

// A packet that does not wait, or has waited, while all else is as by default.
#[inline(never)]
fn fast_batched<A: Batched, E: HeaderBytes, const LOCAL: bool, const TCP: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: LinearPacket<'_, E>,
) -> Verdict {
    if is_on!(keys::ABLATION) {
        return ablation::<A, E, LOCAL, TCP>(instance, guard, packet);
    }
    match redirect::<A, E, LOCAL, TCP, true, true, false>(instance, &guard, packet) {
        Ok(verdict) => verdict,
        Err(left) => left.handle::<A, LOCAL>(instance, guard),
    }
}

// The same while any of what saves work is off.
#[inline(never)]
fn ablation<A: Batched, E: HeaderBytes, const LOCAL: bool, const TCP: bool>(
    instance: &Instance,
    guard: ReadGuard,
    packet: LinearPacket<'_, E>,
) -> Verdict {
    let redirect = || redirect::<A, E, LOCAL, TCP, true, true, true>(instance, &guard, packet);
    let redirected = if is_on!(keys::RCU_DISABLED) {
        A::flows(instance).with_lock(redirect)
    } else {
        redirect()
    };
    match redirected {
        Ok(verdict) => verdict,
        Err(left) => left.handle::<A, LOCAL>(instance, guard),
    }
}

// `OFFLOADED`: the packet's checksum may be left to a device, or computed by one. `ROUTED`: it may have come
// in with a route. `ABLATION`: the keys are asked which optimizations are on.
#[inline(always)]
fn redirect<
    'p,
    A: Routed,
    E: HeaderBytes,
    const LOCAL: bool,
    const TCP: bool,
    const OFFLOADED: bool,
    const ROUTED: bool,
    const ABLATION: bool,
>(
    instance: &Instance,
    guard: &ReadGuard,
    mut packet: LinearPacket<'p, E>,
) -> Result<Verdict, Left<'p, E>> {
    let protocol = if TCP { Protocol::Tcp } else { Protocol::Udp };
    let state = packet.packet().state;
    if ABLATION && is_on!(keys::ZERO_COPY_DISABLED) && !packet.copy() {
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
    let found = if ABLATION && is_on!(keys::FLOW_CACHE_ENABLED) {
        flows.lookup_cached(guard, flows.hash(&from), &from, instance)
    } else {
        flows.lookup(guard, &from)
    };
    let Some((flow, direction)) = found else {
        return Err(Left::NoFlow(packet.into_packet()));
    };
    let dir = flow.dir(direction);
    match dir.pace() {
        Pace::Translated => {}
        Pace::Direct
            if !TCP || Flags::of(transport).is_some_and(|flags| !flags.may_change_state()) =>
        {
            let length = packet.packet().skb.len();
            dir.count(length, time::jiffies());
            instance.count_direct::<ABLATION>(length);
            return Ok(Verdict::ACCEPT);
        }
        Pace::Direct | Pace::Slow => return Err(Left::slow(packet)),
    }
    let length = packet.packet().skb.len();
    // A route that a packet came in with may carry more than where it goes.
    if !LOCAL && packet.packet().skb.has_dst() {
        if !ROUTED {
            return Err(Left::Routed(packet));
        }
        if packet.packet().has_tunnel_route() {
            return Err(Left::slow(packet));
        }
    }
    let offload = if OFFLOADED {
        packet.packet().skb.offload(A::LENGTH, !TCP)
    } else {
        Offload::None
    };
    // Segments of a socket, of this namespace or another, share their payload with the retransmit queue:
    // only the headers have to be the packet's own.
    let Some(headers) = packet.headers() else {
        return Err(Left::slow(packet));
    };
    let Some((network, transport)) = headers.as_mut().split_at_mut_checked(A::LENGTH) else {
        return Err(Left::slow(packet));
    };
    let segment = || read_segment(transport, length.wrapping_sub(A::LENGTH as u32));
    if TCP && !segment().is_some_and(|segment| dir.accept_plain(&segment)) {
        return Err(Left::slow(packet));
    }
    let to = Tuple {
        protocol,
        ..flow.key(direction.other() as usize).reverse()
    };
    // The machine's own answers go where they were going anyway.
    let stays = LOCAL && from.destination() == to.destination();
    let routing = if stays {
        Routing::Unchanged
    } else if ABLATION && is_on!(keys::ROUTE_CACHE_DISABLED) {
        Routing::Lookup
    } else {
        let key = state.route_key::<LOCAL>(A::IS_V6, A::tos(network));
        match dir.route().get(key, state, A::IS_V6) {
            Some(dst) => Routing::Cached(dst),
            None => return Err(Left::slow(packet)),
        }
    };
    let Some(sum) = translate(network, transport, &to, dir.checksum_fixup(), offload) else {
        return Err(Left::slow(packet));
    };
    let mut packet = packet.into_packet();
    packet.skb.fix_checksum(sum);
    dir.count(length, time::jiffies());
    instance.count_packet::<ABLATION>(direction, length);
    // As late as that: it may be a call, over which registers are kept.
    packet.skb.untrack();
    #[cfg(shared_counter)]
    crate::shared_counter::count();
    Ok(match routing {
        Routing::Unchanged => Verdict::ACCEPT,
        Routing::Cached(dst) if LOCAL => dst.attach_output(&mut packet),
        Routing::Cached(dst) if ROUTED => dst.attach::<false>(&mut packet),
        Routing::Cached(dst) => dst.attach_input(&mut packet),
        Routing::Lookup => {
            match lookup_route::<A, LOCAL>(&mut packet, A::LENGTH, &from, &to, Asked::Route) {
                Ok(_) => Verdict::ACCEPT,
                Err(dropped) => count_dropped(instance, dropped),
            }
        }
    })
}

// A packet that is left as it was.
enum Left<'p, E> {
    // It has a route: for the variant that expects one.
    Routed(LinearPacket<'p, E>),
    // Of no flow.
    NoFlow(Packet<'p>),
    Slow(Packet<'p>),
}

impl<'p, E: HeaderBytes> Left<'p, E> {
    #[inline(always)]
    fn slow(packet: LinearPacket<'p, E>) -> Self {
        Self::Slow(packet.into_packet())
    }

    #[inline(always)]
    fn handle<A: Batched, const LOCAL: bool>(
        self,
        instance: &Instance,
        guard: ReadGuard,
    ) -> Verdict {
        let packet = match self {
            Self::NoFlow(packet) => return no_flow::<A, LOCAL>(instance, guard, packet),
            Self::Routed(packet) => packet.into_packet(),
            Self::Slow(packet) => packet,
        };
        slow_path::<A, LOCAL>(instance, guard, packet, true)
    }
}

// Which route an established packet takes.
enum Routing {
    Unchanged,
    Cached(Dst),
    Lookup,
}

/// The segment whose TCP header `transport` begins with; `length` bytes with its payload.
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
