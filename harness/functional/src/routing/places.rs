// SPDX-License-Identifier: MIT OR Apache-2.0

//! Upstreams and clients at unusual addresses, headers that must be kept, and rules about sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::{ensure, Context as _, Result};

use super::super::setup::{client_address, original, upstream, Setup, FAMILIES, WAYS};
use super::super::sockets::{ensure_silent, is_readable, udp, PATIENCE};
use super::super::GuestTest;
use super::by_family;
use super::fate::{Fate, Outcome, Sight};
use super::lab::{
    beside_nft, each, router_on_second, server_on_second, Datagram, Redirect, FIRST_PORT,
};
use super::policy::{answer, send, FIRST, SECOND};
use mutexlab_guest::net::iproute2;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::CLIENT_LINK;
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_guest::traffic::icmp::Report;
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{Host, CLIENT, NEIGHBOUR, ROUTER_CLIENT_SIDE, UPSTREAM_PORT};
use mutexlab_wire::frame;
use mutexlab_wire::frame::{Header, Hop, Transport, FRAME_MAX};

const ETHERNET: usize = 14;
const LENGTH: usize = 64;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests = by_family(
        "route-to-loopback",
        "127.0.0.1 and ::1 as upstreams are reached where nft reaches them",
        to_loopback,
    );
    tests.extend([
        GuestTest::single(
            "route-link-local-client",
            "a client with a link-local address reaches the router as upstream, and nobody beyond",
            link_local_client,
        ),
        GuestTest::single(
            "headers-kept",
            "ECN, DSCP and flow label are kept, as with nft",
            headers_are_kept,
        ),
        GuestTest::single(
            "ipv6-long-options",
            "IPv6 packets with destination options of any length are redirected, as with nft",
            long_options,
        ),
        GuestTest::single(
            "no-redirects-turning-back",
            "the router does not tell clients of another way when their connections turn back",
            no_redirects,
        ),
        GuestTest::single(
            "beside-source-check",
            "rules about sources see the upstream's answers come from the upstream, as with nft",
            source_check,
        ),
    ]);
    tests
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn to_loopback(family: Family) -> Result<()> {
    // IPv6 has no such switch.
    let switches: &[&str] = match family {
        Family::V4 => &["0", "1"],
        Family::V6 => &["0"],
    };
    let cases = WAYS
        .into_iter()
        .flat_map(|way| switches.iter().map(move |&allowed| (way, allowed)));
    each(
        cases,
        |case| format!("{case:?}"),
        |&(way, allowed)| {
            let at = SocketAddr::new(loopback(family), UPSTREAM_PORT);
            let redirect = Redirect {
                original: original(family),
                upstream: at,
            };
            beside_nft(
                family,
                &[redirect],
                |lab, trace| {
                    if family == Family::V4 {
                        let router = &lab.layout().router;
                        router.set_sysctl("ipv4/conf/clients/route_localnet", allowed)?;
                    }
                    lab.serve_on_router(at)?;
                    let datagram = Datagram::of(way, 0);
                    for _ in 0..3 {
                        send(lab, trace, &datagram, 1)?;
                        answer(lab, trace, &datagram)?;
                    }
                    Ok(())
                },
                |trace| {
                    // From outside only where it is allowed.
                    let first = trace.outcomes().first().copied();
                    let reached = first == Some(Outcome::Delivered);
                    let expected = match (family, way) {
                        (Family::V4, Way::Forward) => Some(allowed == "1"),
                        (_, Way::Local) => Some(true),
                        (Family::V6, Way::Forward) => None,
                    };
                    ensure!(
                        expected.is_none_or(|expected| expected == reached),
                        "it is reached: {reached}"
                    );
                    Ok(())
                },
            )
        },
    )
}

fn link_local_client() -> Result<()> {
    let family = Family::V6;
    let client = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let on_router = ROUTER_CLIENT_SIDE.socket(family, UPSTREAM_PORT);
    each(
        [on_router, upstream(family)],
        |upstream| format!("upstream {upstream}"),
        |&upstream| {
            let redirect = Redirect {
                original: original(family),
                upstream,
            };
            let is_near = upstream == on_router;
            beside_nft(
                family,
                &[redirect],
                |lab, trace| {
                    let near = format!("addr add {client}/64 dev lan nodad\n");
                    iproute2::run(&lab.layout().client, family, &near)?;
                    lab.ip(&format!(
                        "neigh add {client} lladdr {} dev clients nud permanent\n\
                         addr add fe80::1/64 dev clients nodad\n",
                        mac_of(CLIENT)
                    ))?;
                    if is_near {
                        lab.serve_on_router(upstream)?;
                    }
                    let from = SocketAddrV6::new(client, FIRST_PORT, 0, CLIENT_LINK.index);
                    lab.client_at(Way::Forward, 0, from.into())?;
                    let datagram = Datagram::of(Way::Forward, 0);
                    for _ in 0..3 {
                        send(lab, trace, &datagram, 1)?;
                        answer(lab, trace, &datagram)?;
                    }
                    Ok(())
                },
                |trace| {
                    if is_near {
                        trace.ensure(&[Outcome::Delivered, Outcome::Answered].repeat(3))
                    } else {
                        // Beyond scope of source address (RFC 4443, section 3.1).
                        trace.ensure(&[Outcome::Reported(1, 2); 3])
                    }
                },
            )
        },
    )
}

/// A frame of the client's to `to` with a label.
fn frame(to: SocketAddr, label: Label) -> Result<Vec<u8>> {
    frame_from(CLIENT, to, label)
}

/// The same from another machine.
pub fn frame_from(from: Host, to: SocketAddr, label: Label) -> Result<Vec<u8>> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let header = Header {
        source: from.socket(family, FIRST_PORT + label.flow as u16),
        destination: to,
        transport: Transport::Udp,
    };
    let hop = Hop {
        source: mac_of(CLIENT),
        destination: mac_of(ROUTER_CLIENT_SIDE),
    };
    let mut payload = [0; LENGTH];
    payload::fill(&mut payload, Kind::Request, label);
    let mut buffer = [0; FRAME_MAX];
    Ok(frame::build(&mut buffer, hop, &header, &payload)?.to_vec())
}

/// The class of the only packet that arrived.
fn class(fate: &Fate) -> Result<u32> {
    match fate.sights[..] {
        [Sight::Arrived { class, .. }] => Ok(class),
        _ => anyhow::bail!("expected one packet to arrive: {fate}"),
    }
}

fn headers_are_kept() -> Result<()> {
    // DSCP 46 with each of the four values of ECN; and a flow label.
    let classes = [0xb8, 0xb9, 0xba, 0xbb];
    each(
        FAMILIES,
        |family| format!("{family:?}"),
        |&family| {
            beside_nft(
                family,
                &[Redirect::usual(family)],
                |lab, trace| {
                    for tos in classes {
                        for _ in 0..2 {
                            let label = lab.label(0);
                            let mut frame = frame(original(family), label)?;
                            let expected = match family {
                                Family::V4 => {
                                    set_tos(&mut frame, tos);
                                    u32::from(tos)
                                }
                                Family::V6 => {
                                    let class = u32::from(tos) << 20 | 0xa_bcde;
                                    let word = (6 << 28 | class).to_be_bytes();
                                    frame[ETHERNET..ETHERNET + 4].copy_from_slice(&word);
                                    class
                                }
                            };
                            let fate = lab.send_frame(&frame, label)?;
                            let found = class(&fate)?;
                            ensure!(
                                found == expected,
                                "sent with class {expected:#x}, arrived with {found:#x}"
                            );
                            trace.saw(format!("class {expected:#x}"), fate);
                        }
                    }
                    Ok(())
                },
                |trace| trace.ensure(&[FIRST; 2 * 4]),
            )
        },
    )
}

/// Sets the TOS byte of a frame of IPv4.
fn set_tos(frame: &mut [u8], tos: u8) {
    use pnet::packet::ipv4::{self, MutableIpv4Packet};
    frame[ETHERNET + 1] = tos;
    if let Some(mut ip) = MutableIpv4Packet::new(&mut frame[ETHERNET..]) {
        let sum = ipv4::checksum(&ip.to_immutable());
        ip.set_checksum(sum);
    }
}

/// Puts a header of destination options of `length` bytes into a frame of IPv6. The options are unknown
/// ones, to be skipped.
fn with_options(frame: &[u8], length: usize) -> Result<Vec<u8>> {
    const NEXT: usize = ETHERNET + 6;
    const HEADERS: usize = ETHERNET + 40;
    const OPTIONS: u8 = 60;
    const UNKNOWN: u8 = 0x1e;
    let mut options = vec![frame[NEXT], u8::try_from(length / 8 - 1)?];
    while options.len() < length {
        let rest = length - options.len() - 2;
        // No rest of one byte may be left, in which no option fits.
        let content = if rest > 250 { 240 } else { rest };
        options.extend([UNKNOWN, u8::try_from(content)?]);
        options.resize(options.len() + content, 0);
    }
    let mut packet = [&frame[..HEADERS], &options, &frame[HEADERS..]].concat();
    packet[NEXT] = OPTIONS;
    let size = u16::try_from(packet.len() - HEADERS)?;
    packet[NEXT - 2..NEXT].copy_from_slice(&size.to_be_bytes());
    Ok(packet)
}

fn long_options() -> Result<()> {
    const LENGTHS: [usize; 6] = [8, 472, 480, 600, 768, 1024];
    let family = Family::V6;
    beside_nft(
        family,
        &[Redirect::usual(family)],
        |lab, trace| {
            for (flow, length) in (0..).zip(LENGTHS) {
                for _ in 0..2 {
                    let label = lab.label(flow);
                    let frame = with_options(&frame(original(family), label)?, length)?;
                    trace.saw(format!("{length} bytes"), lab.send_frame(&frame, label)?);
                }
            }
            Ok(())
        },
        |trace| trace.ensure(&[FIRST; 2 * LENGTHS.len()]),
    )
}

fn no_redirects() -> Result<()> {
    let setup = Setup::new()?;
    let layout = &setup.layout;
    for scope in ["all", "clients"] {
        let variable = format!("ipv4/conf/{scope}/send_redirects");
        layout.router.set_sysctl(&variable, "1")?;
    }
    for family in FAMILIES {
        let upstream = NEIGHBOUR.socket(family, UPSTREAM_PORT);
        let prefix = match family {
            Family::V4 => 24,
            Family::V6 => 64,
        };
        RouteSocket::open(&layout.client)?.add_address(CLIENT_LINK.index, upstream.ip(), prefix)?;
        let rule = context::redirect(Protocol::Udp, original(family), upstream);
        let context = setup.context(&[rule])?;
        let server = udp(&layout.client, upstream)?;
        let client = udp(&layout.client, client_address(Way::Forward, family))?;
        let mut at_client = Channel::open(&layout.client, &CLIENT_LINK, family)?;
        for _ in 0..5 {
            client.send_to(&[1; LENGTH], original(family))?;
            ensure!(is_readable(&server, PATIENCE)?, "{family:?}: lost");
            let (_, seen) = server.recv_from(&mut [0; LENGTH])?;
            server.send_to(&[2; LENGTH], seen)?;
            ensure!(is_readable(&client, PATIENCE)?, "{family:?}: no answer");
            client.recv_from(&mut [0; LENGTH])?;
            // The request as it turned back, and the answer; and nothing else.
            for what in ["the request", "the answer"] {
                let frame = at_client.receive(&[mac_of(CLIENT)])?;
                let frame = frame.with_context(|| format!("{family:?}: {what} was not seen"))?;
                let report = Report::parse(frame).ok();
                ensure!(report.is_none(), "{family:?}: instead of {what} {report:?}");
            }
        }
        ensure_silent(&at_client, "the client's link")?;
        drop(context);
    }
    setup.finish()
}

fn source_check() -> Result<()> {
    each(
        FAMILIES,
        |family| format!("{family:?}"),
        |&family| {
            let upstream = SocketAddr::new(server_on_second(family), UPSTREAM_PORT);
            let redirect = Redirect {
                original: original(family),
                upstream,
            };
            beside_nft(
                family,
                &[redirect],
                |lab, trace| {
                    lab.serve(upstream)?;
                    // The upstream's answers come by the link on which it is.
                    let answers = format!(
                        "rule add from {} lookup 50\nroute add default via {} dev lan2 table 50\n",
                        upstream.ip(),
                        router_on_second(family)
                    );
                    iproute2::run(&lab.layout().server, family, &answers)?;
                    let (version, net) = match family {
                        Family::V4 => ("ip", "203.0.113.0/24"),
                        Family::V6 => ("ip6", "2001:db8:3::/64"),
                    };
                    lab.nft(&format!(
                        "table inet sources {{
    chain incoming {{
        type filter hook prerouting priority -300;
        iifname \"second\" {version} saddr != {net} drop
    }}
}}
"
                    ))?;
                    let datagram = Datagram::of(Way::Forward, 0);
                    for _ in 0..3 {
                        send(lab, trace, &datagram, 1)?;
                        answer(lab, trace, &datagram)?;
                    }
                    Ok(())
                },
                |trace| trace.ensure(&[SECOND, Outcome::Answered].repeat(3)),
            )
        },
    )
}
