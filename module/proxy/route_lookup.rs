// SPDX-License-Identifier: GPL-2.0

//! Looks routes up, as the kernel would route packets at this moment.
//!
//! The kernel's NAT translates a packet's destination before it is routed, and its source after
//! that. Here both are translated when the route is looked up. So the header gets its real source back
//! for the look-up: `rp_filter` and policy rules ask for that.

use crate::abi::proxy::Family;
use crate::datapath::icmp::Icmp;
use crate::datapath::packet::{Header, TCP_HEADER, UDP_HEADER};
use crate::datapath::tuple::{Tuple, V4, V6};
use crate::instance::{Counter, Instance, Version};
use crate::sys::hooks::{HeaderBytes, Packet, Verdict};

/// What a look-up is to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Route,
    /// The route, and whether it reports an error.
    RouteAndErrors,
}

/// That a packet may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has its route, or the kernel will find it.
    Route,
    /// The kernel will find one that reports an error.
    Error,
}

/// Why a packet must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// With the error that a sender on this machine is told.
    NoRoute(i32),
    NoMemory,
}

/// Counts a packet that must not go on.
#[cold]
pub(crate) fn count_dropped(instance: &Instance, dropped: Dropped) -> Verdict {
    match dropped {
        Dropped::NoRoute(error) => {
            instance.count(Counter::DroppedNoRoute);
            Verdict::drop_with(error)
        }
        Dropped::NoMemory => {
            instance.count(Counter::DroppedNoMemory);
            Verdict::DROP
        }
    }
}

/// Looks up the route of a translated packet that came as `from` and leaves as `to`, with its transport
/// header at `transport`.
#[cold]
pub(crate) fn lookup_route<A: Routed, const LOCAL: bool>(
    packet: &mut Packet<'_>,
    transport: usize,
    from: &Tuple<A>,
    to: &Tuple<A>,
    asked: Asked,
) -> Result<Found, Dropped> {
    let ask = |packet: &mut Packet<'_>| {
        if LOCAL {
            packet.route_output(A::FAMILY)
        } else {
            let asks = asked == Asked::RouteAndErrors;
            packet.route_input(A::FAMILY, Some((transport, to.protocol)), asks)
        }
    };
    let routed = to.from_source_of(from);
    let found = if routed == *to {
        Some(ask(packet))
    } else {
        with_tuple(packet, transport, &routed, ask)
    };
    told(found)
}

/// The same for a message of ICMP that came from `source`.
#[cold]
pub(crate) fn lookup_route_icmp<A: Routed, const LOCAL: bool>(
    packet: &mut Packet<'_>,
    source: A,
) -> Result<Found, Dropped> {
    let found = with_source(packet, source, |packet| {
        if LOCAL {
            packet.route_output(A::FAMILY)
        } else {
            packet.route_input(A::FAMILY, None, false)
        }
    });
    told(found)
}

// The result of a look-up: see `Packet::route_input`.
fn told(found: Option<i32>) -> Result<Found, Dropped> {
    match found {
        Some(0) => Ok(Found::Route),
        Some(1..) => Ok(Found::Error),
        Some(error) => Err(Dropped::NoRoute(error)),
        None => Err(Dropped::NoMemory),
    }
}

/// An address of the machine's own on the device by which a packet came in, if as `to` it would go out
/// there again. Leaves `to` in the packet's headers, with their old checksums, for the translation that
/// follows; and leaves the route to there on the packet, if there is one and the kernel allows it.
#[cold]
pub(crate) fn hairpin_source<A: Routed>(
    packet: &mut Packet<'_>,
    transport: usize,
    to: &Tuple<A>,
) -> Option<A> {
    write_tuple(packet, transport, to)?;
    A::hairpin_source(packet, transport, to)
}

/// Puts `tuple` into a packet's headers, and leaves their checksums.
pub(crate) fn write_tuple<A: Routed>(
    packet: &mut Packet<'_>,
    transport: usize,
    tuple: &Tuple<A>,
) -> Option<Tuple<A>> {
    let end = transport.wrapping_add(UDP_HEADER);
    A::replace_tuple(packet.skb.writable(end)?, transport, tuple)
}

// Runs `ask` while the headers have `tuple`, with their old checksums. `None` if the headers are shared.
fn with_tuple<A: Routed, R>(
    packet: &mut Packet<'_>,
    transport: usize,
    tuple: &Tuple<A>,
    ask: impl FnOnce(&mut Packet<'_>) -> R,
) -> Option<R> {
    let own = write_tuple(packet, transport, tuple)?;
    let answer = ask(packet);
    write_tuple(packet, transport, &own)?;
    Some(answer)
}

// The same, with another source only.
fn with_source<A: Routed, R>(
    packet: &mut Packet<'_>,
    source: A,
    ask: impl FnOnce(&mut Packet<'_>) -> R,
) -> Option<R> {
    let own = A::addresses(packet.skb.linear())?;
    let (_, destination) = A::split(own);
    A::set_addresses(
        packet.skb.writable(A::LENGTH)?,
        A::pair(source, destination),
    )?;
    let answer = ask(packet);
    A::set_addresses(packet.skb.writable(A::LENGTH)?, own)?;
    Some(answer)
}

/// How packets of one version of IP are routed.
pub(crate) trait Routed: Version + Icmp {
    /// Which version it is.
    const IS_V6: bool = matches!(Self::FAMILY, Family::V6);
    /// The header with that of UDP.
    type WithUdp: HeaderBytes;
    /// The header with that of TCP, both without options.
    type WithTcp: HeaderBytes;

    /// Our address on the device by which a packet came in, if by its header, which has `to`, it goes out
    /// there again.
    fn hairpin_source(packet: &mut Packet<'_>, transport: usize, to: &Tuple<Self>) -> Option<Self>;
}

impl Routed for V4 {
    type WithUdp = [u8; Self::LENGTH + UDP_HEADER];
    type WithTcp = [u8; Self::LENGTH + TCP_HEADER];

    fn hairpin_source(packet: &mut Packet<'_>, _: usize, _: &Tuple<Self>) -> Option<Self> {
        packet.hairpin_source_v4().map(Self)
    }
}

impl Routed for V6 {
    type WithUdp = [u8; Self::LENGTH + UDP_HEADER];
    type WithTcp = [u8; Self::LENGTH + TCP_HEADER];

    fn hairpin_source(packet: &mut Packet<'_>, transport: usize, to: &Tuple<Self>) -> Option<Self> {
        packet.hairpin_source_v6(transport, to.protocol).map(Self)
    }
}
