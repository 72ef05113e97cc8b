// SPDX-License-Identifier: GPL-2.0

//! A flow beside a model of TCP, made from RFC 9293 (with RFC 5961 and RFC 7413) and not from the code: two
//! ends, a network that delays, reorders, duplicates and loses segments before and after the flow, ends that
//! crash and use the tuple anew, and somebody who forges segments in the name of either without
//! having seen one.
//!
//! Numbers have 64 bits and do not wrap. Every connection of an end begins far from all others, also in the
//! 32 bits of which the flow knows; those of the forger lie far from all.

use super::tests::{ACK, FIN, RST, SYN};
use super::Direction;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};
use std::hash::{BuildHasher, RandomState};
use Direction::{Original, Reply};

mod ends;
mod judge;
mod world;

use world::{Op, World};

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Original), Just(Reply)]
}

fn any_op() -> impl Strategy<Value = Op> {
    let flags = prop_oneof![
        Just(SYN),
        Just(SYN | ACK),
        Just(ACK),
        Just(FIN | ACK),
        Just(RST),
        Just(RST | ACK)
    ];
    let near = prop_oneof![Just(ACK), Just(FIN | ACK), Just(RST)];
    let place = 0..40_usize;
    prop_oneof![
        3 => prop_oneof![3 => Just(0), 1 => 1..1400_i64].prop_map(|data| Op::Connect(Original, data)),
        1 => Just(Op::Connect(Reply, 0)),
        2 => any::<bool>().prop_map(Op::Listen),
        3 => (any_direction(), prop_oneof![3 => 0..2000_i64, 1 => 30_000..65_000_i64])
            .prop_map(|(direction, data)| Op::Send(direction, data)),
        2 => any_direction().prop_map(Op::Close),
        1 => any_direction().prop_map(Op::Abort),
        1 => any_direction().prop_map(Op::Crash),
        3 => (any_direction(), 1..3000_i64).prop_map(|(direction, most)| Op::Repeat(direction, most)),
        25 => Just(Op::Deliver(0)),
        4 => place.clone().prop_map(Op::Deliver),
        1 => place.clone().prop_map(Op::Duplicate),
        1 => place.prop_map(Op::Lose),
        2 => (any_direction(), flags, any::<u32>(), any::<u32>(), 0..100_i64)
            .prop_map(|(direction, flags, seq, ack, data)| Op::Forge(direction, flags, seq, ack, data)),
        1 => (any_direction(), near, 0..100_000_i64, any::<bool>())
            .prop_map(|(direction, flags, off, behind)| Op::ForgeNear(direction, flags, off, behind)),
    ]
}

type Case = ([u32; 2], [Option<u8>; 2], bool, Vec<Op>);

fn any_case() -> impl Strategy<Value = Case> {
    // With greater ones what is within the window is no more far from other connections.
    let shift = prop::option::of(0..12_u8);
    let ops = prop::collection::vec(any_op(), 1..150);
    (
        any::<[u32; 2]>(),
        [shift.clone(), shift],
        any::<bool>(),
        ops,
    )
}

const CASES: u32 = if cfg!(miri) { 4 } else { 600 };

// Other cases each time; PROPTEST_RNG_SEED and PROPTEST_CASES say which and how many.
#[test]
fn a_flow_is_where_its_ends_are() {
    #[allow(clippy::disallowed_methods)]
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("PROPTEST_RNG_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let config = ProptestConfig {
        cases: number("PROPTEST_CASES").map_or(CASES, |cases| cases as u32),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&any_case(), |(base, options, fast_open, ops)| {
        World::new(base, options, fast_open).run(&ops).map(|_| ())
    });
    if let Err(error) = result {
        panic!("PROPTEST_RNG_SEED={seed}: {error}");
    }
}

// Else the test above could pass because nothing happens.
#[test]
#[cfg_attr(miri, ignore = "statistics")]
fn everything_happens() {
    let mut runner = TestRunner::deterministic();
    let mut sum = [0; 9];
    for _ in 0..1500 {
        let (base, options, fast_open, ops) = any_case().new_tree(&mut runner).unwrap().current();
        let seen = World::new(base, options, fast_open).run(&ops);
        let seen = seen.unwrap_or_else(|error| panic!("{error}"));
        let counts = [
            seen.established,
            seen.anew,
            seen.at_once,
            seen.without_data,
            seen.reset,
            seen.refused,
            seen.finished,
            seen.challenged,
            seen.forged,
        ];
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(sum.iter().all(|&count| count >= 10), "{sum:?}");
}
