// SPDX-License-Identifier: MIT OR Apache-2.0

//! A flood of frames that make no sense does no harm.

use std::net::SocketAddr;

use anyhow::{ensure, Context as _, Result};

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, sized, Setup, FAMILIES, PROTOCOLS};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{CLIENT_LINK, SERVER_LINK};
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::addresses::{
    ORIGINAL, ORIGINAL_PORT, ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, UPSTREAM, UPSTREAM_PORT,
    WIRE_CLIENT,
};
use mutexlab_wire::frame::Hop;
use mutexlab_wire::mutate::Mutator;

/// Frames in all: on a plain kernel, on a debug kernel, which takes about 1,500 a second when it is
/// emulated.
const FRAMES: (usize, usize) = (1_000_000, 30_000);
/// Frames after which the connections beside are looked at.
const ROUND: usize = 10_000;
/// Client ports that the frames are about: few, so that replies and errors meet their flows.
const PORTS: std::ops::Range<u16> = 50_000..50_064;
/// Chosen once.
const SEED: u64 = 20_240_229;

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "malformed-flood",
        "a million broken frames from both sides do no harm (30000 on a debug kernel)",
        run,
    )]
}

fn run() -> Result<()> {
    // Flows come and go all the time.
    let setup = Setup::with_parameters(&[
        ("max_flows", "4096"),
        ("gc_interval", "1"),
        ("tcp_syn_timeout", "1"),
        ("tcp_fin_timeout", "1"),
        ("tcp_close_timeout", "1"),
    ])?;
    let mut rules = all_rules();
    for family in FAMILIES {
        let (from, to) = (target(family), redirected(family));
        rules.extend(PROTOCOLS.map(|protocol| context::redirect(protocol, from, to)));
    }
    let context = setup.context(&rules)?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut beside = of_every_sort(&servers)?;
    let mut storms = Vec::new();
    for family in FAMILIES {
        storms.push(Storm::from_client(&setup, family)?);
        storms.push(Storm::from_server(&setup, family)?);
    }
    for round in 0..sized(FRAMES.0, FRAMES.1)? / ROUND {
        for storm in &mut storms {
            storm
                .send(ROUND / (2 * FAMILIES.len()))
                .with_context(|| format!("round {round}"))?;
        }
        for conversation in &mut beside {
            conversation
                .say()
                .with_context(|| format!("beside, after round {round}"))?;
        }
    }
    let stats = context.stats()?;
    // Otherwise nothing of it came to the module's ears.
    ensure!(
        stats.malformed > 0 && stats.packets_reply > 0 && stats.flows_created > PORTS.len() as u64,
        "expected malformed packets, replies and flows, got {stats:?}"
    );
    of_every_sort(&servers).context("afterwards")?;
    drop(beside);
    drop((servers, context));
    setup.finish()
}

/// Where the frames go: not where the connections beside go.
fn target(family: Family) -> SocketAddr {
    ORIGINAL.socket(family, ORIGINAL_PORT + 2)
}

/// Where they are redirected. Nobody is there, and the server says so.
fn redirected(family: Family) -> SocketAddr {
    UPSTREAM.socket(family, UPSTREAM_PORT + 2)
}

/// Frames of one IP version on one link.
struct Storm {
    channel: Channel,
    mutator: Mutator,
    frame: Vec<u8>,
}

impl Storm {
    fn from_client(setup: &Setup, family: Family) -> Result<Self> {
        let hop = Hop {
            source: mac_of(WIRE_CLIENT),
            destination: mac_of(ROUTER_CLIENT_SIDE),
        };
        let pairs: Vec<_> = PORTS
            .map(|port| (WIRE_CLIENT.socket(family, port), target(family)))
            .collect();
        Ok(Self {
            channel: Channel::open(&setup.layout.client, &CLIENT_LINK, family)?,
            mutator: Mutator::new(SEED, hop, &pairs)?,
            frame: Vec::new(),
        })
    }

    fn from_server(setup: &Setup, family: Family) -> Result<Self> {
        let hop = Hop {
            source: mac_of(UPSTREAM),
            destination: mac_of(ROUTER_SERVER_SIDE),
        };
        let pairs: Vec<_> = PORTS
            .map(|port| (redirected(family), WIRE_CLIENT.socket(family, port)))
            .collect();
        Ok(Self {
            channel: Channel::open(&setup.layout.server, &SERVER_LINK, family)?,
            mutator: Mutator::new(!SEED, hop, &pairs)?,
            frame: Vec::new(),
        })
    }

    fn send(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.mutator.next(&mut self.frame);
            self.channel.send_frame(&self.frame)?;
        }
        Ok(())
    }
}
