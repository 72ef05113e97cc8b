// SPDX-License-Identifier: GPL-2.0

//! How packets find their way.

use crate::abi::proxy::Family;
use crate::datapath::icmp::Icmp;
use crate::datapath::packet::{Header, TCP_HEADER, UDP_HEADER};
use crate::datapath::tuple::{Tuple, V4, V6};
use crate::instance::{Counter, Instance, Version};
use crate::sys::hooks::{Extent, Packet, Verdict};

/// Looks the way of a translated packet up.
#[cold]
pub(crate) fn search<A: Routed, const LOCAL: bool>(
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

/// Whether the packets of a connection would turn back.
pub(crate) struct Back<A> {
    /// If so: an address of the machine's own on the device by which they came.
    pub(crate) source: Option<A>,
    /// Whether the packet has its route to the upstream now.
    pub(crate) has_route: bool,
}

/// How packets of one version of IP find their way.
pub(crate) trait Routed: Version + Icmp {
    /// Which version it is.
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
