// SPDX-License-Identifier: MIT OR Apache-2.0

//! Traffic of many flows as the benchmark sends it finds its way, and the flow table grows.

use std::num::NonZeroU32;
use std::thread;

use anyhow::{anyhow, bail, ensure, Result};

use super::setup::{ensure_no_loss, Setup, FAMILIES, PROTOCOLS};
use super::GuestTest;
use mutexlab_guest::kernel::memory::Slabs;
use mutexlab_guest::net::softnet::Received;
use mutexlab_guest::proxy::buckets;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::closed_loop::ClosedLoop;
use mutexlab_guest::traffic::flows::Flows;
use mutexlab_guest::traffic::placement;
use mutexlab_guest::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Family, Load, Protocol, Traffic};

/// More than one client of the crowd has.
const FLOWS: u32 = 1_100;
const ROUND_TRIPS: u32 = 200;
/// Bytes that a flow may take, also where a checker puts something around it.
const FLOW_SIZE_MAX: u64 = 1_024;

/// Each CPU's share of the round trips of [`spread`].
const ROUND_TRIPS_EACH: u64 = 50;
/// And of their packets.
const PACKETS_EACH: u64 = 2 * ROUND_TRIPS_EACH;

/// Flows that are spread over two CPUs keep them apart, and it is noticed if they do not.
pub fn spread() -> Result<()> {
    let setup = Setup::new()?;
    setup.layout.route_crowd(Family::V4)?;
    let [original, upstream] = [Target::Original, Target::Upstream].map(|at| at.socket(Family::V4));
    let context = setup.context(&[context::redirect(Protocol::Udp, original, upstream)])?;
    let mut received = Vec::new();
    for spread in [NonZeroU32::new(2), None] {
        let traffic = Traffic {
            spread,
            flows: 2,
            ..traffic(Family::V4, Protocol::Udp)
        };
        let before = Received::read()?;
        let mut delivery = Delivery::default();
        let told = |stop| match stop {
            Stop::Subject(reason) => anyhow!("{spread:?}: {reason}"),
            Stop::Infra(error) => error,
        };
        // In a thread of its own: a test's may run on any CPU.
        thread::scope(|scope| {
            let sent = scope.spawn(|| -> Result<(), Stop> {
                placement::stay_on(0)?;
                let flows = Flows::measured(&traffic);
                let mut closed_loop =
                    ClosedLoop::new(&setup.layout, &traffic, flows, Target::Upstream)?;
                for flow in flows.by_cpu() {
                    closed_loop.open(flow..flow + 1, &mut delivery)?;
                    closed_loop.establish(flow..flow + 1, &mut delivery)?;
                }
                let picks = flows.picks().take(2 * ROUND_TRIPS_EACH as usize);
                closed_loop.round_trips(picks, &mut delivery)
            });
            sent.join().expect("no panic in sending")
        })
        .map_err(told)?;
        received.push(Received::read()?.since(&before, &[PACKETS_EACH; 2]));
    }
    let [apart, together] = received.as_slice() else {
        bail!("expected two results");
    };
    ensure!(apart.is_ok(), "flows of two CPUs: {apart:?}");
    ensure!(together.is_err(), "all flows on CPU 0: {together:?}");
    drop(context);
    setup.finish()
}

/// One test for each IP version.
pub fn tests() -> Vec<GuestTest> {
    let test = |family| {
        let version = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        GuestTest::new(
            format!("crowd-{version}"),
            format!("{FLOWS} flows of the benchmark's over IP{version} share a table that grows"),
            move || {
                PROTOCOLS
                    .into_iter()
                    .try_for_each(|protocol| run(family, protocol))
            },
        )
    };
    FAMILIES.map(test).into()
}

fn run(family: Family, protocol: Protocol) -> Result<()> {
    let setup = Setup::with_parameters(&[("hash_buckets", "16"), ("gc_interval", "1")])?;
    let router = &setup.layout.router;
    setup.layout.route_crowd(family)?;
    let [original, upstream] = [Target::Original, Target::Upstream].map(|at| at.socket(family));
    let context = setup.context(&[context::redirect(protocol, original, upstream)])?;
    let traffic = traffic(family, protocol);
    let mut delivery = Delivery::default();
    exchange(&setup, &traffic, &mut delivery).map_err(|stop| match stop {
        Stop::Subject(reason) => anyhow!("{protocol:?}: {reason}; {delivery:?}"),
        Stop::Infra(error) => error,
    })?;
    let requests = match protocol {
        Protocol::Tcp => ROUND_TRIPS,
        // The first packet of each flow is one, too.
        Protocol::Udp => FLOWS + ROUND_TRIPS,
    };
    ensure!(
        delivery.at_upstream == u64::from(requests) && delivery.at_original == 0,
        "{requests} requests of {protocol:?} arrived as {delivery:?}"
    );
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure!(
        stats.flows_created == u64::from(FLOWS),
        "expected {FLOWS} flows, got {stats:?}"
    );
    let cache = match family {
        Family::V4 => "mutex_flow_v4",
        Family::V6 => "mutex_flow_v6",
    };
    let bytes = Slabs::of(cache)?.hold(FLOWS.into());
    if bytes > FLOW_SIZE_MAX * u64::from(FLOWS) {
        bail!("{FLOWS} flows take {bytes} bytes");
    }
    ensure!(buckets::count(router, family)? >= FLOWS.into());
    drop(context);
    setup.finish()
}

fn traffic(family: Family, protocol: Protocol) -> Traffic {
    Traffic {
        family,
        protocol,
        flows: FLOWS,
        load: Load::Closed {
            round_trips: ROUND_TRIPS,
            burst: 1,
        },
        ..Traffic::USUAL
    }
}

fn exchange(setup: &Setup, traffic: &Traffic, delivery: &mut Delivery) -> Result<(), Stop> {
    let flows = Flows::measured(traffic);
    let mut closed_loop = ClosedLoop::new(&setup.layout, traffic, flows, Target::Upstream)?;
    // In turns, as first packets are measured.
    for start in (0..FLOWS).step_by(10) {
        let batch = start..FLOWS.min(start + 10);
        closed_loop.open(batch.clone(), delivery)?;
        closed_loop.establish(batch, delivery)?;
    }
    buckets::wait_for(&setup.layout.router, traffic.family, FLOWS)?;
    closed_loop.round_trips(flows.picks().take(ROUND_TRIPS as usize), delivery)
}
