// SPDX-License-Identifier: MIT OR Apache-2.0

//! What befalls one client's connections says little about an upstream: others go on to the one that
//! they prefer. Only who lets all its clients down is passed over, by datagrams too.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::Selection;
use pnet::packet::ipv4::{self, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;

use super::ends::{frame, syn, Ends};
use super::setup::{client_address, original, Setup, FAMILIES, WAYS};
use super::sockets::{accept, connect, ensure_silent, is_readable, listen, udp, PATIENCE};
use super::upstreams::{at_port, by_preference};
use super::GuestTest;
use mutexlab_guest::net::layout::ROUTER_CLIENT_LINK;
use mutexlab_guest::net::nft;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Rule;
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::{ORIGINAL, UPSTREAM, WIRE_CLIENT, WIRE_ORIGINAL};
use mutexlab_wire::frame::Header;

const ETHERNET: usize = 14;
/// SYNs of the bad client.
const SYNS: u16 = 5;
/// Until their flows are forgotten.
const FORGOTTEN: Duration = Duration::from_millis(3500);

/// What is wrong with a client's SYNs, and what befalls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// The router drops them in FORWARD.
    Forbidden,
    /// They have one hop to live, as those of a traceroute: the router answers.
    Dying,
    /// They come from the upstream's own net, so its answers do not come by the router.
    Misplaced,
    /// The same, and the router checks sources: it drops them.
    Spoofed,
    /// Their checksum is wrong: the upstream drops them.
    Damaged,
    /// None, but the client never takes the answer.
    Deaf,
}

impl Flaw {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Forbidden, "forbidden"),
        (Self::Dying, "dying"),
        (Self::Misplaced, "misplaced"),
        (Self::Spoofed, "spoofed"),
        (Self::Damaged, "damaged"),
        (Self::Deaf, "deaf"),
    ];

    fn source(self, family: Family, port: u16) -> SocketAddr {
        let address: IpAddr = match (self, family) {
            (Self::Misplaced | Self::Spoofed, Family::V4) => [198, 51, 100, 77].into(),
            (Self::Misplaced | Self::Spoofed, Family::V6) => {
                [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x77].into()
            }
            _ => WIRE_CLIENT.address(family),
        };
        (address, port).into()
    }

    /// Readies the router.
    fn prepare(self, setup: &Setup) -> Result<()> {
        let router = &setup.layout.router;
        match self {
            Self::Forbidden => {
                let [v4, v6] = FAMILIES.map(|family| WIRE_CLIENT.address(family));
                nft::load(
                    router,
                    &format!(
                        "table inet wall {{
    chain passing {{
        type filter hook forward priority filter;
        ip saddr {v4} drop
        ip6 saddr {v6} drop
    }}
}}
"
                    ),
                )
            }
            Self::Spoofed => router.set_sysctl(
                &format!("ipv4/conf/{}/rp_filter", ROUTER_CLIENT_LINK.name),
                "1",
            ),
            _ => Ok(()),
        }
    }

    /// A SYN from `port`.
    fn frame(self, family: Family, port: u16) -> Result<Vec<u8>> {
        let header = Header {
            source: self.source(family, port),
            destination: original(family),
            transport: syn(port.into()),
        };
        let mut frame = frame(&header, &[])?;
        match self {
            Self::Dying => one_hop_left(&mut frame, family)?,
            Self::Damaged => {
                // The last byte of the option that it has.
                let last = frame.last_mut().context("an empty frame")?;
                *last ^= 1;
            }
            _ => {}
        }
        Ok(frame)
    }
}

fn one_hop_left(frame: &mut [u8], family: Family) -> Result<()> {
    match family {
        Family::V4 => {
            let mut ip = MutableIpv4Packet::new(&mut frame[ETHERNET..]).context("no IPv4")?;
            ip.set_ttl(1);
            let checksum = ipv4::checksum(&ip.to_immutable());
            ip.set_checksum(checksum);
        }
        Family::V6 => {
            let mut ip = MutableIpv6Packet::new(&mut frame[ETHERNET..]).context("no IPv6")?;
            ip.set_hop_limit(1);
        }
    }
    Ok(())
}

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let mut tests: Vec<GuestTest> = Flaw::ALL
        .into_iter()
        .map(|(flaw, name)| {
            GuestTest::new(
                format!("bad-client-{name}"),
                format!("SYNs of one client that are {name} take no upstream from others"),
                move || others_go_on(flaw),
            )
        })
        .collect();
    tests.extend([
        GuestTest::single(
            "refused-port",
            "one port of an upstream that keeps ports refuses, and the others are still used",
            refused_port,
        ),
        GuestTest::single(
            "failed-upstream-datagrams",
            "datagrams keep away from a failed upstream, also when it is time to try it again",
            datagrams_keep_away,
        ),
    ]);
    tests
}

fn others_go_on(flaw: Flaw) -> Result<()> {
    let setup = Setup::with_parameters(&[("tcp_syn_timeout", "1"), ("gc_interval", "1")])?;
    flaw.prepare(&setup)?;
    for family in FAMILIES {
        // Sources of IPv6 are checked by rules only.
        if (flaw, family) == (Flaw::Spoofed, Family::V6) {
            continue;
        }
        let context = setup.context(&[])?;
        let (first, second) = (at_port(family, 7001), at_port(family, 7002));
        context.put(&by_preference(first, second, family))?;
        let preferred = listen(&setup.layout.server, first)?;
        let backup = listen(&setup.layout.server, second)?;
        let mut ends = Ends::open(&setup, family)?;
        for port in 1..=SYNS {
            ends.send_frame(&flaw.frame(family, 20_000 + port)?)?;
        }
        thread::sleep(FORGOTTEN);
        for way in WAYS {
            let from = client_address(way, family);
            let _client = connect(setup.client(way), from, original(family))?;
            ensure!(
                is_readable(&preferred, Duration::from_secs(1))?,
                "{family:?} {way:?}: another client's connection did not come to the preferred \
                 upstream, but to the other: {}",
                is_readable(&backup, Duration::ZERO)?
            );
            accept(&preferred)?;
        }
    }
    setup.finish()
}

/// Upstreams that keep ports, by preference: a client asks for a port that is closed at the first.
fn refused_port() -> Result<()> {
    const CLOSED: u16 = 9001;
    const OPEN: u16 = 9009;
    let setup = Setup::new()?;
    for family in FAMILIES {
        let context = setup.context(&[])?;
        let upstreams = [
            context::upstream(UPSTREAM.socket(family, 0), 3),
            context::upstream(ORIGINAL.socket(family, 0), 7),
        ];
        let rule = Rule::any(family, &upstreams).ports(9000, 9100);
        context.put(&context::configuration(Selection::Failover, &[rule]))?;
        let first = listen(&setup.layout.server, UPSTREAM.socket(family, OPEN))?;
        let _second = listen(&setup.layout.server, ORIGINAL.socket(family, OPEN))?;
        for way in WAYS {
            let from = client_address(way, family);
            let to = |port| WIRE_ORIGINAL.socket(family, port);
            let refused = connect(setup.client(way), from, to(CLOSED));
            ensure!(
                refused.is_err(),
                "nobody listens at port {CLOSED}; expected a refusal"
            );
            let _client = connect(setup.client(way), from, to(OPEN))?;
            ensure!(
                is_readable(&first, Duration::from_secs(1))?,
                "{family:?} {way:?}: port {OPEN} of the first upstream is passed over, since \
                 port {CLOSED} refused"
            );
            accept(&first)?;
        }
    }
    setup.finish()
}

fn datagrams_keep_away() -> Result<()> {
    const DATAGRAMS: u32 = 20;
    const RETRY: Duration = Duration::from_secs(1);
    let setup = Setup::with_parameters(&[("upstream_retry", "1")])?;
    for family in FAMILIES {
        let context = setup.context(&[])?;
        let (first, second) = (at_port(family, 7001), at_port(family, 7002));
        context.put(&by_preference(first, second, family))?;
        let backup = listen(&setup.layout.server, second)?;
        // Refused to several clients, so that it has failed for all of them.
        let deadline = Instant::now() + PATIENCE;
        for way in WAYS.into_iter().cycle() {
            let from = client_address(way, family);
            if connect(setup.client(way), from, original(family)).is_ok() {
                accept(&backup)?;
                if way == Way::Local {
                    break;
                }
            }
            ensure!(
                Instant::now() < deadline,
                "an upstream that refuses everybody is not passed over"
            );
        }
        thread::sleep(2 * RETRY);
        let failed = udp(&setup.layout.server, first)?;
        let works = udp(&setup.layout.server, second)?;
        for number in 0..DATAGRAMS {
            // Each of a flow of its own.
            let client = udp(
                setup.client(Way::Forward),
                client_address(Way::Forward, family),
            )?;
            client.send_to(b"?", original(family))?;
            ensure!(
                is_readable(&works, Duration::from_secs(1))?,
                "{family:?}: datagram {number} did not come to the upstream that works, but to \
                 the failed one: {}",
                is_readable(&failed, Duration::ZERO)?
            );
            works.recv(&mut [0; 16])?;
        }
        ensure_silent(&failed, "the failed upstream")?;
    }
    setup.finish()
}
