// SPDX-License-Identifier: GPL-2.0

use super::super::abi::proxy::Family;
use super::super::tuple::tests::ip;
use super::super::tuple::{Ports, V4, V6};
use super::*;
use proptest::prelude::*;
use Outcome::{Answered, Failed};

const RETRY: u32 = 100;

fn at(now: u32) -> Moment {
    Moment {
        now,
        retry: RETRY,
        random: 0,
    }
}

fn upstream(last: u8, priority: u8) -> Upstream {
    Upstream {
        family: Family::V4,
        priority,
        port: 7000 + u16::from(last),
        address: [10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

fn pool(selection: Selection, priorities: &[u8]) -> Pool<V4> {
    let upstreams = (0..)
        .zip(priorities)
        .map(|(last, &priority)| upstream(last, priority));
    Pool::new(1, selection, upstreams)
}

fn tuple(protocol: Protocol) -> Tuple<V4> {
    Tuple::new(
        protocol,
        ip([1; 4]),
        ip([2; 4]),
        Ports::new(1, 80_u16.to_be()),
    )
}

fn select(pool: &Pool<V4>, set: u8, moment: Moment) -> Option<u8> {
    let (number, to) = pool.select(set, &tuple(Protocol::Tcp), || moment)?;
    assert_eq!(to.destination(), ip([10, 0, 0, number]));
    assert_eq!(to.ports.destination(), (7000 + u16::from(number)).to_be());
    assert_eq!(to.source(), ip([1; 4]));
    Some(number)
}

fn report(pool: &Pool<V4>, number: u8, outcome: Outcome, now: u32) {
    let port = (7000 + u16::from(number)).to_be();
    pool.report(number, ip([10, 0, 0, number]), port, outcome, now);
}

#[test]
fn takes_turns_exactly() {
    let pool = pool(Selection::RoundRobin, &[0; 5]);
    let mut hits = [0; 5];
    for _ in 0..300 {
        hits[usize::from(select(&pool, 0b10110, at(0)).unwrap())] += 1;
    }
    assert_eq!(hits, [0, 100, 100, 0, 100]);
}

#[test]
fn random_numbers_reach_all() {
    let pool = pool(Selection::Random, &[0; 8]);
    for random in 0..8 {
        let moment = Moment { random, ..at(0) };
        assert_eq!(select(&pool, 0xff, moment), Some(random as u8));
    }
}

#[test]
fn the_lowest_priority_that_works_is_preferred() {
    let pool = pool(Selection::Failover, &[2, 1, 1, 0]);
    let next = |now| select(&pool, 0b0111, at(now));
    assert_eq!(next(0), Some(1));
    report(&pool, 1, Failed, 0);
    assert_eq!(next(0), Some(2));
    report(&pool, 2, Failed, 50);
    assert_eq!(next(99), Some(0));
    report(&pool, 0, Failed, 99);
    // None works: as if all did.
    assert_eq!(next(99), Some(1));
}

#[test]
fn one_flow_at_a_time_tries_a_failed_one() {
    // Over the wrap.
    let pool = pool(Selection::Failover, &[0, 1]);
    let start = u32::MAX - RETRY / 2;
    let next = |later| select(&pool, 0b11, at(start.wrapping_add(later)));
    report(&pool, 0, Failed, start);
    assert_eq!(next(RETRY - 1), Some(1));
    assert_eq!([next(RETRY), next(RETRY)], [Some(0), Some(1)]);
    // That was not answered.
    report(&pool, 0, Failed, start.wrapping_add(RETRY + 50));
    assert_eq!(next(2 * RETRY - 1), Some(1));
    assert_eq!([next(2 * RETRY), next(2 * RETRY)], [Some(0), Some(1)]);
    report(&pool, 0, Answered, 0);
    assert_eq!([next(2 * RETRY), next(2 * RETRY)], [Some(0), Some(0)]);
}

#[test]
fn a_datagram_tries_nothing() {
    let pool = pool(Selection::Failover, &[0, 1]);
    let next = |protocol, now| {
        let selected = pool.select(0b11, &tuple(protocol), || at(now));
        selected.map(|(number, _)| number)
    };
    report(&pool, 0, Failed, 0);
    assert_eq!(next(Protocol::Udp, 0), Some(1));
    assert_eq!(next(Protocol::Udp, RETRY), Some(0));
    assert_eq!(next(Protocol::Tcp, RETRY), Some(0));
    assert_eq!(next(Protocol::Tcp, RETRY), Some(1));
    assert_eq!(next(Protocol::Udp, RETRY), Some(1));
}

#[test]
fn turns_pass_over_what_failed() {
    let pool = pool(Selection::RoundRobin, &[0; 3]);
    report(&pool, 1, Failed, 0);
    let seen: Vec<_> = (0..4)
        .map(|_| select(&pool, 0b111, at(1)).unwrap())
        .collect();
    assert_eq!(seen, [0, 2, 0, 2]);
}

#[test]
fn a_report_is_for_the_same_upstream_only() {
    let pool = pool(Selection::Failover, &[0, 1]);
    let port = 7000_u16.to_be();
    pool.report(0, ip([10, 0, 0, 1]), port, Failed, 0);
    pool.report(0, ip([10, 0, 0, 0]), 1, Failed, 0);
    pool.report(8, ip([10, 0, 0, 0]), port, Failed, 0);
    assert_eq!(select(&pool, 0b11, at(0)), Some(0));
    pool.report(0, ip([10, 0, 0, 0]), port, Failed, 0);
    assert_eq!(select(&pool, 0b11, at(0)), Some(1));
}

#[test]
fn a_port_can_be_kept() {
    let keeps = Upstream {
        port: 0,
        ..upstream(3, 0)
    };
    let pool = Pool::<V4>::new(1, Selection::Failover, [upstream(2, 9), keeps].into_iter());
    let (number, to) = pool.select(0b11, &tuple(Protocol::Tcp), || at(0)).unwrap();
    assert_eq!((number, to.ports.destination()), (1, 80_u16.to_be()));
    assert!(pool.is_at(ip([10, 0, 0, 2]), 7002_u16.to_be()));
    assert!(!pool.is_at(ip([10, 0, 0, 2]), 80) && !pool.is_at(ip([10, 0, 0, 3]), 80));
    assert!(pool.keeps_ports_at(0b10, ip([10, 0, 0, 3])));
    assert!(!pool.keeps_ports_at(0b01, ip([10, 0, 0, 3])));
    // What it was sent to last does not matter.
    pool.report(1, ip([10, 0, 0, 3]), 99, Failed, 0);
    assert_eq!(
        pool.select(0b11, &tuple(Protocol::Tcp), || at(0))
            .unwrap()
            .0,
        0
    );
}

proptest! {
    #[test]
    fn selects_a_candidate_whatever_happened(
        versions in prop::collection::vec(any::<bool>(), 0..=8),
        set: u8,
        selection in prop_oneof![
            Just(Selection::RoundRobin), Just(Selection::Failover), Just(Selection::Random)
        ],
        steps in prop::collection::vec((0_u8..8, any::<bool>(), any::<u32>(), any::<u32>()), 0..40),
    ) {
        let upstreams = (0..).zip(&versions).map(|(last, &six)| Upstream {
            family: if six { Family::V6 } else { Family::V4 },
            ..upstream(last, last % 3)
        });
        let pool = Pool::<V4>::new(1, selection, upstreams.clone());
        let other = Pool::<V6>::new(1, selection, upstreams);
        let is_candidate = |number: u8, six: bool| {
            set >> number & 1 != 0 && versions.get(usize::from(number)) == Some(&six)
        };
        for (number, answered, now, random) in steps {
            let outcome = if answered { Answered } else { Failed };
            report(&pool, number, outcome, now);
            let moment = Moment { now, retry: RETRY, random };
            match select(&pool, set, moment) {
                Some(selected) => prop_assert!(is_candidate(selected, false)),
                None => prop_assert!(!(0..8).any(|number| is_candidate(number, false))),
            }
            let six = Tuple::new(Protocol::Tcp, V6([0; 2]), V6([0; 2]), Ports::new(1, 2));
            let selected = other.select(set, &six, || moment).is_some();
            prop_assert_eq!(selected, (0..8).any(|number| is_candidate(number, true)));
        }
    }
}
