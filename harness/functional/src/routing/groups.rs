// SPDX-License-Identifier: MIT OR Apache-2.0

//! Broadcasts and multicasts under a wide rule: they are for the machines on the link, and no upstream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use anyhow::{Context as _, Result};

use super::super::setup::{upstream, FAMILIES};
use super::super::GuestTest;
use super::fate::Outcome;
use super::lab::{beside_nft, each, version, Datagram, FIRST_PORT};
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_CLIENT_LINK};
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Rule;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{Host, CLIENT, ROUTER_CLIENT_SIDE};

/// Port of multicast DNS, RFC 6762.
const PORT: u16 = 5353;
/// Datagrams to each address.
const FEW: usize = 2;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// The broadcast address of the clients' net.
const BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 255);

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "groups-under-wide-rule",
        "broadcasts and multicasts that a wide rule matches reach whom they are for",
        under_wide_rule,
    )]
}

fn destinations(family: Family, link: u32) -> Vec<SocketAddr> {
    match family {
        Family::V4 => [GROUP_V4, BROADCAST, Ipv4Addr::BROADCAST]
            .map(|address| (address, PORT).into())
            .to_vec(),
        Family::V6 => vec![SocketAddrV6::new(GROUP_V6, PORT, 0, link).into()],
    }
}

/// Destination NAT as somebody writes it who knows that there are groups.
fn wide_dnat(to: SocketAddr) -> String {
    let version = version(to.ip());
    let groups = match to {
        SocketAddr::V4(_) => format!("{{ 224.0.0.0/4, {BROADCAST}, 255.255.255.255 }}"),
        SocketAddr::V6(_) => "ff00::/8".to_owned(),
    };
    let rule = format!("{version} daddr != {groups} udp dport 5000-6000 dnat {version} to {to}");
    format!(
        "table inet wide {{
    chain incoming {{
        type nat hook prerouting priority -100;
        {rule}
    }}
    chain own {{
        type nat hook output priority -100;
        {rule}
    }}
}}
"
    )
}

fn join(socket: &UdpSocket, at: Host, link: u32, family: Family) -> Result<()> {
    match at.address(family) {
        IpAddr::V4(own) => socket.join_multicast_v4(&GROUP_V4, &own),
        IpAddr::V6(_) => socket.join_multicast_v6(&GROUP_V6, link),
    }
    .context("cannot join the group")
}

fn under_wide_rule() -> Result<()> {
    let cases = FAMILIES
        .into_iter()
        .flat_map(|family| [Way::Forward, Way::Local].map(|way| (family, way)));
    each(
        cases,
        |case| format!("{case:?}"),
        |&(family, way)| {
            let count = destinations(family, 0).len();
            beside_nft(
                family,
                &[],
                |lab, trace| {
                    match &lab.context {
                        Some(context) => {
                            let to = [context::upstream(upstream(family), 0)];
                            let rule = Rule::any(family, &to).over(Protocol::Udp);
                            context.configure(&[rule.ports(5000, 6000)])?;
                        }
                        None => lab.nft(&wide_dnat(upstream(family)))?,
                    }
                    let any = match family {
                        Family::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
                    };
                    // From the client to the router, and the other way round.
                    let (from, to) = match way {
                        Way::Forward => (CLIENT, ROUTER_CLIENT_SIDE),
                        Way::Local => (ROUTER_CLIENT_SIDE, CLIENT),
                    };
                    let (out, into) = match way {
                        Way::Forward => (CLIENT_LINK.index, ROUTER_CLIENT_LINK.index),
                        Way::Local => (ROUTER_CLIENT_LINK.index, CLIENT_LINK.index),
                    };
                    let receiver = match way {
                        Way::Forward => lab.serve_on_router((any, PORT).into())?,
                        Way::Local => lab.serve_at_client((any, PORT).into())?,
                    };
                    join(receiver, to, into, family)?;
                    let sender = lab.client_at(way, 0, from.socket(family, FIRST_PORT))?;
                    sender.set_broadcast(true)?;
                    let links = match way {
                        // Groups have no other way than the main table's.
                        Way::Local if family == Family::V4 => {
                            "route add 224.0.0.0/4 dev clients\nroute add 255.255.255.255 dev clients\n"
                        }
                        _ => "",
                    };
                    lab.ip(links)?;
                    for to in destinations(family, out) {
                        let datagram = Datagram {
                            to: Some(to),
                            ..Datagram::of(way, 0)
                        };
                        for _ in 0..FEW {
                            trace.saw(format!("to {to}"), lab.send(&datagram)?);
                        }
                    }
                    Ok(())
                },
                |trace| trace.ensure(&vec![Outcome::Delivered; FEW * count]),
            )
        },
    )
}
