// SPDX-License-Identifier: MIT OR Apache-2.0

//! "Everything, but": rules for all connections with some let by before them. What is let by is as if
//! there were no rules, in both directions, and for as long as it lasts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use anyhow::{bail, ensure, Context as _, Result};
use mutex_abi::proxy::HOOK_PRE_ROUTING;

use super::conversation::pass;
use super::redirector::{beside_nft, Redirector};
use super::setup::{client_address, upstream, Setup, FAMILIES, WAYS};
use super::sockets::{
    accept, answer, connect, ensure_silent, exchange_streams, is_readable, listen, send, udp,
    PATIENCE,
};
use super::GuestTest;
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_CLIENT_LINK};
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Rule;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{Host, ORIGINAL, ROUTER_CLIENT_SIDE, WIRE_ORIGINAL};

/// Ports of servers that are let by: of DNS, and of something above 1024.
const SERVICES: [u16; 2] = [53, 5353];
/// Messages of each conversation.
const MESSAGES: u32 = 4;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests: Vec<GuestTest> = [
        beside_nft(
            "wide-udp",
            "answers of UDP servers that are let by a wide rule come from them",
            bypassed_datagrams,
        ),
        beside_nft(
            "wide-tcp",
            "connections that are let by a wide rule reach their servers",
            bypassed_connections,
        ),
        beside_nft(
            "wide-dns",
            "DNS that is let by a wide rule is answered by whom it asked",
            dns,
        ),
        beside_nft(
            "wide-replaced",
            "connections stay where rules put them when the rules change on the way",
            replaced,
        ),
        beside_nft(
            "wide-loopback",
            "a client on the router gets the answer of the proxy on its loopback",
            loopback,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    tests.push(GuestTest::single(
        "wide-broadcast",
        "broadcast and multicast, such as DHCP and mDNS, are not for wide rules",
        broadcast,
    ));
    tests
}

/// The server that is let by, at any port.
fn lan(family: Family) -> Rule {
    let mut rule = Rule::any(family, &[]).to(ORIGINAL.socket(family, 0));
    (rule.record.port_first, rule.record.port_last) = (0, u16::MAX);
    rule
}

/// All the rest.
fn everything(family: Family) -> Rule {
    Rule::any(family, &[context::upstream(upstream(family), 0)])
}

/// Everything, but the server.
fn everything_but_the_lan() -> Vec<Rule> {
    FAMILIES
        .into_iter()
        .flat_map(|family| [lan(family), everything(family)])
        .collect()
}

/// A conversation over UDP with `server`, which stands at `at`.
struct Datagrams {
    client: UdpSocket,
    server: UdpSocket,
    to: SocketAddr,
    turn: u32,
}

impl Datagrams {
    fn new(setup: &Setup, way: Way, to: SocketAddr, at: SocketAddr) -> Result<Self> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        Ok(Self {
            client: udp(setup.client(way), client_address(way, family))?,
            server: udp(&setup.layout.server, at)?,
            to,
            turn: 0,
        })
    }

    fn say(&mut self) -> Result<()> {
        let label = Label {
            flow: self.to.port().into(),
            sequence: self.turn,
        };
        self.turn += 1;
        let seen = send(&self.client, self.to, &self.server, label, 64)?;
        answer(&self.server, seen, &self.client, self.to, label, 64)
    }
}

fn bypassed_datagrams(redirector: Redirector) -> Result<()> {
    let setup = Setup::new()?;
    let redirection = redirector.redirect(&setup, &everything_but_the_lan())?;
    for family in FAMILIES {
        for way in WAYS {
            let what = || format!("{family:?} {way:?}");
            for port in SERVICES {
                let to = ORIGINAL.socket(family, port);
                let mut let_by = Datagrams::new(&setup, way, to, to)?;
                for _ in 0..MESSAGES {
                    let_by
                        .say()
                        .with_context(|| format!("let by, {}", what()))?;
                }
            }
            let to = WIRE_ORIGINAL.socket(family, SERVICES[1]);
            let mut redirected = Datagrams::new(&setup, way, to, upstream(family))?;
            for _ in 0..MESSAGES {
                redirected
                    .say()
                    .with_context(|| format!("redirected, {}", what()))?;
            }
        }
    }
    drop(redirection);
    setup.finish()
}

fn bypassed_connections(redirector: Redirector) -> Result<()> {
    let setup = Setup::new()?;
    let redirection = redirector.redirect(&setup, &everything_but_the_lan())?;
    for family in FAMILIES {
        for way in WAYS {
            let service = |host: Host| host.socket(family, SERVICES[1]);
            for (to, at) in [
                (service(ORIGINAL), service(ORIGINAL)),
                (service(WIRE_ORIGINAL), upstream(family)),
            ] {
                let listener = listen(&setup.layout.server, at)?;
                let client = connect(setup.client(way), client_address(way, family), to)?;
                let (server, _) = accept(&listener)?;
                exchange_streams(&client, &server, 100_000)
                    .with_context(|| format!("{family:?} {way:?} to {to}"))?;
            }
        }
    }
    drop(redirection);
    setup.finish()
}

/// All but one port is redirected.
fn dns(redirector: Redirector) -> Result<()> {
    let setup = Setup::new()?;
    let rules = FAMILIES.map(|family| {
        let [port, _] = SERVICES;
        [
            Rule::any(family, &[]).over(Protocol::Udp).ports(port, port),
            everything(family),
        ]
    });
    let redirection = redirector.redirect(&setup, &rules.concat())?;
    for family in FAMILIES {
        for way in WAYS {
            let to = ORIGINAL.socket(family, SERVICES[0]);
            for _ in 0..MESSAGES {
                // As resolvers do, from a new port each time.
                Datagrams::new(&setup, way, to, to)?
                    .say()
                    .with_context(|| format!("{family:?} {way:?}"))?;
            }
        }
    }
    drop(redirection);
    setup.finish()
}

/// Connections of both sorts, and then rules that would have decided otherwise.
fn replaced(redirector: Redirector) -> Result<()> {
    let setup = Setup::new()?;
    let redirection = redirector.redirect(&setup, &everything_but_the_lan())?;
    for family in FAMILIES {
        for way in WAYS {
            let attempt = || -> Result<()> {
                redirection.replace(&setup, &everything_but_the_lan())?;
                let let_by = ORIGINAL.socket(family, SERVICES[1]);
                let redirected = WIRE_ORIGINAL.socket(family, SERVICES[1]);
                let mut conversations = [
                    Datagrams::new(&setup, way, let_by, let_by)?,
                    Datagrams::new(&setup, way, redirected, upstream(family))?,
                ];
                let mut streams = Vec::new();
                for (to, at) in [(let_by, let_by), (redirected, upstream(family))] {
                    let listener = listen(&setup.layout.server, at)?;
                    let client = connect(setup.client(way), client_address(way, family), to)?;
                    streams.push((client, accept(&listener)?.0));
                }
                let mut say_all = |turn: u32| -> Result<()> {
                    for one in &mut conversations {
                        one.say().with_context(|| format!("UDP to {}", one.to))?;
                    }
                    for (client, server) in &streams {
                        let label = Label {
                            flow: 5,
                            sequence: turn,
                        };
                        pass(client, server, Kind::Request, label)?;
                        pass(server, client, Kind::Answer, label)?;
                    }
                    Ok(())
                };
                for turn in 0..MESSAGES {
                    say_all(turn).context("before the rules changed")?;
                }
                let others = FAMILIES.map(|family| {
                    let away = Rule::any(family, &[]).to(redirected_port(family));
                    [away, everything(family)]
                });
                redirection.replace(&setup, &others.concat())?;
                for turn in MESSAGES..2 * MESSAGES {
                    say_all(turn).context("after the rules changed")?;
                }
                Ok(())
            };
            attempt().with_context(|| format!("{family:?} {way:?}"))?;
        }
    }
    drop(redirection);
    setup.finish()
}

fn redirected_port(family: Family) -> SocketAddr {
    WIRE_ORIGINAL.socket(family, SERVICES[1])
}

/// Everything goes to a proxy on the router's loopback, at both hooks: its answers come in there, too.
fn loopback(redirector: Redirector) -> Result<()> {
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    for family in FAMILIES {
        let at: SocketAddr = match family {
            Family::V4 => (Ipv4Addr::LOCALHOST, 9009).into(),
            Family::V6 => (Ipv6Addr::LOCALHOST, 9009).into(),
        };
        let rule = Rule::any(family, &[context::upstream(at, 0)])
            .over(Protocol::Udp)
            .ports(1024, u16::MAX);
        let redirection = redirector.redirect(&setup, &[rule])?;
        let server = udp(router, at)?;
        let client = udp(router, client_address(Way::Local, family))?;
        let to = ORIGINAL.socket(family, SERVICES[1]);
        for sequence in 0..MESSAGES {
            let label = Label { flow: 6, sequence };
            let seen = send(&client, to, &server, label, 64)?;
            answer(&server, seen, &client, to, label, 64).with_context(|| format!("{family:?}"))?;
        }
        drop(redirection);
    }
    setup.finish()
}

/// What is for all machines of a net comes to the router, and to no upstream.
fn broadcast() -> Result<()> {
    const DHCP: (u16, u16) = (68, 67);
    const MDNS: u16 = 5353;
    let setup = Setup::new()?;
    // The router's own answers are nobody's to redirect, either: they are the LAN's.
    let clients = |family| everything(family).at(HOOK_PRE_ROUTING);
    let context = setup.context(&FAMILIES.map(clients))?;
    let layout = &setup.layout;
    let servers = FAMILIES
        .map(|family| udp(&layout.server, upstream(family)))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let everywhere: SocketAddr = (Ipv4Addr::UNSPECIFIED, DHCP.1).into();
    let dhcp_server = udp(&layout.router, everywhere)?;
    let client = udp(
        &layout.client,
        (client_address(Way::Forward, Family::V4).ip(), DHCP.0).into(),
    )?;
    client.set_broadcast(true)?;
    client.send_to(b"discover", (Ipv4Addr::new(192, 0, 2, 255), DHCP.1))?;
    let from = take(&dhcp_server, "broadcast")?;
    // And the answer, to the client alone.
    dhcp_server.send_to(b"offer", from)?;
    take(&client, "the answer to a broadcast")?;
    // mDNS, to groups that the router has joined.
    let (group, group_v6) = (
        Ipv4Addr::new(224, 0, 0, 251),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
    );
    let IpAddr::V4(router) = ROUTER_CLIENT_SIDE.address(Family::V4) else {
        bail!("the router has no IPv4 address");
    };
    let member = udp(&layout.router, (group, MDNS).into())?;
    member.join_multicast_v4(&group, &router)?;
    let asker = udp(&layout.client, client_address(Way::Forward, Family::V4))?;
    asker.send_to(b"who?", (group, MDNS))?;
    take(&member, "multicast")?;
    let member = udp(&layout.router, (Ipv6Addr::UNSPECIFIED, MDNS + 1).into())?;
    member.join_multicast_v6(&group_v6, ROUTER_CLIENT_LINK.index)?;
    let asker = udp(&layout.client, client_address(Way::Forward, Family::V6))?;
    let to = SocketAddrV6::new(group_v6, MDNS + 1, 0, CLIENT_LINK.index);
    asker.send_to(b"who?", to)?;
    take(&member, "multicast of IPv6")?;
    for server in &servers {
        ensure_silent(server, "the upstream")?;
    }
    let stats = context.stats()?;
    ensure!(
        stats.dropped_no_route == 0,
        "broadcast or multicast was dropped: {stats:?}"
    );
    drop(context);
    setup.finish()
}

/// Whom something came from, which must come.
fn take(socket: &UdpSocket, what: &str) -> Result<SocketAddr> {
    ensure!(is_readable(socket, PATIENCE)?, "{what} did not arrive");
    let (_, from) = socket.recv_from(&mut [0; 16])?;
    Ok(from)
}
