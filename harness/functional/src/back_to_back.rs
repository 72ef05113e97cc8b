// SPDX-License-Identifier: MIT OR Apache-2.0

//! The longest burst that is found, corrected as RFC 9004 says, is that of a buffer that is known:
//! netem's, which passes frames on at a rate of its own.

use anyhow::{ensure, Result};

use super::setup::Setup;
use super::GuestTest;
use mutexlab_guest::measure::back_to_back::longest;
use mutexlab_guest::net::layout::ROUTER_SERVER_LINK;
use mutexlab_guest::net::netem::Netem;
use mutexlab_guest::traffic::closed_loop::ClosedLoop;
use mutexlab_guest::traffic::flows::Flows;
use mutexlab_guest::traffic::open_loop::Generator;
use mutexlab_guest::traffic::pace::Pace;
use mutexlab_guest::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::rfc2544::back_to_back::{BackToBack, Bound, Found, Test};
use mutexlab_model::traffic::{Load, Traffic};

/// Frames that netem keeps.
const BUFFER: u32 = 4;
/// Frames a second that it passes on.
const PASSED_ON: u32 = 5;
/// Bytes of one: Ethernet, IPv4, UDP, payload.
const FRAME: u32 = 14 + 20 + 8 + 64;
/// Slow, so that a busy machine can send them in time: a tenth of a second late is not late.
const GOAL: BackToBack = BackToBack {
    rate: 10,
    longest: 16,
    step: 1,
    tests: 1,
    pause_ms: 1_000,
    trial_ms: 1_000,
};

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "back-to-back-finds-buffer",
        "the longest burst without a loss tells the size of a buffer that is known",
        run,
    )
    .on_debug()]
}

fn run() -> Result<()> {
    let setup = Setup::new()?;
    let slow = Netem {
        rate: PASSED_ON * FRAME,
        limit: Some(BUFFER),
        ..Netem::default()
    };
    slow.apply(&setup.layout.router, &ROUTER_SERVER_LINK)?;
    let mut delivery = Delivery::default();
    let tests = measure(&setup, &mut delivery).map_err(Stop::into_error)?;
    ensure!(
        tests.iter().all(|test| test.bound == Bound::Loss),
        "not all searches ended by a loss: {tests:?}"
    );
    let found = Found {
        goal: GOAL,
        throughput: Some(PASSED_ON),
        tests,
    };
    let benchmark = found.benchmark();
    let frames = benchmark.map_or(0.0, |benchmark| {
        benchmark.corrected * f64::from(GOAL.rate) / 1e9
    });
    // A frame has just left, and each may be late by its period. Without the correction it would be
    // twice as many.
    let expected = f64::from(BUFFER);
    ensure!(
        (expected - 1.5..=expected + 1.0).contains(&frames),
        "a buffer of {BUFFER} frames seems to be one of {frames}: {found:?}"
    );
    setup.finish()
}

fn measure(setup: &Setup, delivery: &mut Delivery) -> Result<Vec<Test>, Stop> {
    let traffic = Traffic {
        load: Load::BackToBack(GOAL),
        ..Traffic::USUAL
    };
    let (flows, target) = (Flows::measured(&traffic), Target::Original);
    let mut closed_loop = ClosedLoop::new(&setup.layout, &traffic, flows, target)?;
    closed_loop.open(0..1, delivery)?;
    closed_loop.establish(0..1, delivery)?;
    let connections = closed_loop.hand_over();
    let wire = setup.layout.wire(target);
    let mut generator = Generator::new(&wire, &traffic, connections, None, Pace::BetweenTicks)?;
    (0..GOAL.tests)
        .map(|_| longest(&mut generator, &GOAL, delivery))
        .collect()
}
