// SPDX-License-Identifier: MIT OR Apache-2.0

//! More new connections than the table holds: those that are established keep their places.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use pnet::packet::tcp::TcpFlags;

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, Setup, FAMILIES};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::CLIENT_LINK;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::{Family, Protocol};
use mutexlab_protocol::addresses::{
    ORIGINAL, ORIGINAL_PORT, ROUTER_CLIENT_SIDE, UPSTREAM_PORT, WIRE_CLIENT, WIRE_UPSTREAM,
};
use mutexlab_wire::frame::{Header, Hop, Segment, Transport};

/// Between two bursts, which are of the IP versions in turn. A table is then filled anew in a tenth of a second, and
/// no faster for a faster machine: an answer has to come before that.
const PAUSE: Duration = Duration::from_millis(5);
/// Flows that the table takes.
const MAX_FLOWS: &str = "500";
/// Connections of the flood before anything is said, several times what the table takes.
const AHEAD: u64 = 3_000;
/// How long so many more may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages of each conversation during the flood, at least.
const MESSAGES: usize = 40;
/// How often a client tries to open a connection during the flood.
const TRIES: usize = 3;
/// Connections of the flood that are opened without a break: more would fill the queue of packets
/// that every receiver in the kernel shares, and lose others' packets there.
const BURST: u16 = 50;

/// What the module can stand.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "syn-flood",
            "a flood of TCP connections that nobody answers evicts none that is established",
            || established_stay(Protocol::Tcp),
        ),
        GuestTest::single(
            "udp-flood",
            "a flood of UDP flows that nobody answers evicts none that is established",
            || established_stay(Protocol::Udp),
        ),
        GuestTest::single(
            "syn-flood-new-connection",
            "a new connection can be opened during a flood of TCP connections",
            || newcomers_enter(Protocol::Tcp),
        ),
        GuestTest::single(
            "udp-flood-new-connection",
            "a new connection can be opened during a flood of UDP flows",
            || newcomers_enter(Protocol::Udp),
        ),
    ]
}

fn established_stay(protocol: Protocol) -> Result<()> {
    let setup = Setup::with_parameters(&[("max_flows", MAX_FLOWS)])?;
    let context = setup.context(&all_rules())?;
    let flooded = setup.context(&FAMILIES.map(|family| flood_rule(protocol, family)))?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut conversations = of_every_sort(&servers)?;
    during_flood(&setup, protocol, |sent| {
        let (before, deadline) = (sent(), Instant::now() + PATIENCE);
        let mut turn = 0;
        // Until the flood would have filled the table several times more.
        while turn < MESSAGES || sent() < before + AHEAD {
            for conversation in &mut conversations {
                conversation
                    .say()
                    .with_context(|| format!("message {turn}, after {} of the flood", sent()))?;
            }
            turn += 1;
            ensure!(Instant::now() < deadline, "the flood stopped on the way");
        }
        Ok(())
    })?;
    let stats = context.stats()?;
    let max: u64 = MAX_FLOWS.parse()?;
    ensure!(
        // So many of each IP version.
        stats.flows_current <= 2 * max && stats.flows_evicted > 0,
        "expected tables full of {max} flows and unanswered ones evicted, got {stats:?}"
    );
    // The flood's places are free again, and new connections can have them.
    drop(flooded);
    of_every_sort(&servers).context("after the flood")?;
    drop(conversations);
    drop((servers, context));
    setup.finish()
}

fn newcomers_enter(protocol: Protocol) -> Result<()> {
    let setup = Setup::with_parameters(&[("max_flows", MAX_FLOWS)])?;
    let context = setup.context(&all_rules())?;
    let flooded = setup.context(&FAMILIES.map(|family| flood_rule(protocol, family)))?;
    let servers = Servers::of_both(&setup.layout)?;
    during_flood(&setup, protocol, |_| {
        for turn in 0..MESSAGES / 10 {
            enter(&servers).with_context(|| format!("turn {turn}"))?;
        }
        Ok(())
    })?;
    drop((servers, flooded, context));
    setup.finish()
}

/// Opens connections of every sort. An answer that takes longer than the flood needs to fill the table, as
/// when the host stops the guest for a while, finds its flow evicted: so clients try again, as they do
/// when a packet is lost.
fn enter(servers: &[Servers<'_>]) -> Result<()> {
    let mut entered = Ok(());
    for _ in 0..TRIES {
        entered = of_every_sort(servers).map(drop);
        if entered.is_ok() {
            break;
        }
    }
    entered
}

/// Does `work` while connections of `protocol` that nobody answers are opened without end. The work
/// may ask how many there were.
fn during_flood(
    setup: &Setup,
    protocol: Protocol,
    work: impl FnOnce(&dyn Fn() -> u64) -> Result<()>,
) -> Result<()> {
    let mut floods = FAMILIES
        .into_iter()
        .map(|family| Flood::new(setup, protocol, family))
        .collect::<Result<Vec<_>>>()?;
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                for flood in &mut floods {
                    flood.burst()?;
                    sent.fetch_add(BURST.into(), Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            }
            Ok(())
        });
        while sent.load(Ordering::Relaxed) < AHEAD && !flood.is_finished() {
            thread::yield_now();
        }
        let result = work(&|| sent.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        let flooded = flood.join().expect("the flood does not panic");
        result.and(flooded)
    })
}

/// Redirects the flood to a machine that takes everything and answers nothing.
fn flood_rule(protocol: Protocol, family: Family) -> context::Rule {
    let upstream = WIRE_UPSTREAM.socket(family, UPSTREAM_PORT);
    context::redirect(protocol, target(family), upstream)
}

fn target(family: Family) -> SocketAddr {
    ORIGINAL.socket(family, ORIGINAL_PORT + 2)
}

/// First packets of ever new connections.
struct Flood {
    channel: Channel,
    protocol: Protocol,
    family: Family,
    port: u16,
}

impl Flood {
    fn new(setup: &Setup, protocol: Protocol, family: Family) -> Result<Self> {
        Ok(Self {
            channel: Channel::open(&setup.layout.client, &CLIENT_LINK, family)?,
            protocol,
            family,
            port: 0,
        })
    }

    fn burst(&mut self) -> Result<()> {
        let hop = Hop {
            source: mac_of(WIRE_CLIENT),
            destination: mac_of(ROUTER_CLIENT_SIDE),
        };
        for _ in 0..BURST {
            self.port = self.port.wrapping_add(1).max(1);
            let header = Header {
                source: WIRE_CLIENT.socket(self.family, self.port),
                destination: target(self.family),
                transport: match self.protocol {
                    Protocol::Udp => Transport::Udp,
                    Protocol::Tcp => Transport::Tcp(Segment {
                        sequence: self.port.into(),
                        acknowledgement: 0,
                        flags: TcpFlags::SYN,
                    }),
                },
            };
            self.channel.send(hop, &header, &[])?;
        }
        Ok(())
    }
}
