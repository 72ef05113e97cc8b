// SPDX-License-Identifier: MIT OR Apache-2.0

//! The open loop tells exactly what a server does wrong on purpose, and nothing else.

use anyhow::{ensure, Context as _, Result};

use super::setup::{Setup, PROTOCOLS};
use super::GuestTest;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::closed_loop::ClosedLoop;
use mutexlab_guest::traffic::flows::Flows;
use mutexlab_guest::traffic::open_loop::{Generator, Stream};
use mutexlab_guest::traffic::pace::Pace;
use mutexlab_guest::traffic::target::{Stop, Target};
use mutexlab_model::measured::{Delivery, OpenLoop};
use mutexlab_model::traffic::{Family, Load, Protocol, Traffic};
use mutexlab_protocol::{Deed, Mischief};

/// Every tenth of them is befallen, the last of which is followed by another.
const PACKETS: u32 = 205;
const EVERY: u32 = 10;
const BEFALLEN: u64 = (PACKETS / EVERY) as u64;
const RATE: u32 = 200;
/// Longer than it is to the next packet, even on a busy machine.
const DELAY: u64 = 300_000_000;

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "open-loop-tells",
        "an open loop tells what its server drops, delays, repeats, reorders and damages",
        run,
    )]
}

fn run() -> Result<()> {
    PROTOCOLS
        .into_iter()
        .try_for_each(|protocol| all_deeds(protocol).with_context(|| format!("{protocol:?}")))
}

fn all_deeds(protocol: Protocol) -> Result<()> {
    let setup = Setup::new()?;
    let [original, upstream] = [Target::Original, Target::Upstream].map(|at| at.socket(Family::V4));
    let context = setup.context(&[context::redirect(protocol, original, upstream)])?;
    for deed in [
        None,
        Some(Deed::Drop),
        Some(Deed::Delay(DELAY)),
        Some(Deed::Duplicate),
        Some(Deed::Reorder),
        Some(Deed::Corrupt),
    ] {
        let (open, delivery) = stream(&setup, protocol, deed).map_err(Stop::into_error)?;
        let (there, back) = (&open.forward, &open.round_trip);
        let told = [
            back.lost,
            back.reordered,
            back.duplicates,
            delivery.bad_checksum,
        ];
        let (lost, reordered, repeated, damaged) = match deed {
            None => (0, 0, 0, 0),
            Some(Deed::Drop) => (BEFALLEN, 0, 0, 0),
            // Later answers come first.
            Some(Deed::Delay(_) | Deed::Reorder) => (0, BEFALLEN, 0, 0),
            Some(Deed::Duplicate) => (0, 0, BEFALLEN, 0),
            Some(Deed::Corrupt) => (BEFALLEN, 0, 0, BEFALLEN),
        };
        ensure!(
            told == [lost, reordered, repeated, damaged],
            "{deed:?}: lost, reordered, repeated and damaged are told as {told:?}"
        );
        ensure!(
            [there.lost, there.reordered, there.duplicates] == [0; 3]
                && there.arrived == u64::from(PACKETS),
            "{deed:?} befalls answers, but of requests is told {there:?}"
        );
        // A busy machine may keep others as long.
        let late = back.latency.pairs().filter(|&(time, _)| time >= DELAY);
        let late: u64 = late.map(|(_, count)| count).sum();
        ensure!(
            late >= BEFALLEN || !matches!(deed, Some(Deed::Delay(_))),
            "{deed:?}: only {late} answers took longer than {DELAY} ns"
        );
        ensure!(delivery.bad_payload == 0 && delivery.at_original == 0);
    }
    drop(context);
    setup.finish()
}

fn stream(
    setup: &Setup,
    protocol: Protocol,
    deed: Option<Deed>,
) -> Result<(OpenLoop, Delivery), Stop> {
    let traffic = Traffic {
        protocol,
        load: Load::Open {
            rate: RATE,
            packets: PACKETS,
            churn: 0,
        },
        ..Traffic::USUAL
    };
    let mut delivery = Delivery::default();
    let flows = Flows::measured(&traffic);
    let target = Target::Upstream;
    let mut closed_loop = ClosedLoop::new(&setup.layout, &traffic, flows, target)?;
    closed_loop.open(0..1, &mut delivery)?;
    closed_loop.establish(0..1, &mut delivery)?;
    let connections = closed_loop.hand_over();
    let mischief = deed.map(|deed| Mischief { deed, every: EVERY });
    let wire = setup.layout.wire(target);
    let mut generator = Generator::new(&wire, &traffic, connections, mischief, Pace::BetweenTicks)?;
    let stream = Stream {
        packets: PACKETS,
        rate: RATE,
        churn: 0,
    };
    let open = generator.run(&stream, &mut delivery)?;
    Ok((open, delivery))
}
