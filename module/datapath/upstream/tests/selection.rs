// SPDX-License-Identifier: GPL-2.0

//! To which upstream a flow goes.

use super::*;
use proptest::prelude::*;

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
    fail(&pool, 1, 0);
    assert_eq!(next(0), Some(2));
    fail(&pool, 2, 50);
    assert_eq!(next(99), Some(0));
    fail(&pool, 0, 99);
    // None works: as if all did.
    assert_eq!(next(99), Some(1));
}

#[test]
fn a_datagram_tries_nothing() {
    let pool = pool(Selection::Failover, &[0, 1]);
    let next = |protocol, now| {
        let selected = pool.select(0b11, &tuple(protocol), || at(now));
        selected.map(|(number, _)| number)
    };
    fail(&pool, 0, 0);
    assert_eq!(next(Protocol::Udp, 0), Some(1));
    assert_eq!(next(Protocol::Udp, RETRY), Some(1));
    assert_eq!(next(Protocol::Tcp, RETRY), Some(0));
    assert_eq!(next(Protocol::Tcp, RETRY), Some(1));
    assert_eq!(next(Protocol::Udp, RETRY), Some(1));
    // None is in order: as if all were, though one is due.
    fail(&pool, 1, RETRY);
    assert_eq!(next(Protocol::Udp, 3 * RETRY), Some(0));
    report(&pool, 0, Answered, CAT, 3 * RETRY);
    assert_eq!(next(Protocol::Udp, 3 * RETRY), Some(0));
    // Failed for one client: so for its datagrams.
    report(&pool, 0, Unanswered, ANN, 0);
    report(&pool, 0, Unanswered, ANN, 0);
    report(&pool, 1, Answered, CAT, 0);
    assert_eq!(next(Protocol::Udp, 3 * RETRY), Some(1));
}

#[test]
fn a_datagram_leaves_the_only_upstream_as_it_is() {
    let pool = pool(Selection::Failover, &[0, 1]);
    let only = |protocol| pool.select(0b01, &tuple(protocol), || at(RETRY)).unwrap().0;
    fail(&pool, 0, 0);
    assert_eq!(only(Protocol::Udp), 0);
    assert_eq!(
        pool.members[0].as_ref().unwrap().record.health(&at(RETRY)),
        Health::Due
    );
    // A connection there is a try, though it has no choice.
    assert_eq!(only(Protocol::Tcp), 0);
    assert_eq!(select(&pool, 0b11, at(RETRY)), Some(1));
}

#[test]
fn turns_pass_over_what_failed() {
    let pool = pool(Selection::RoundRobin, &[0; 3]);
    fail(&pool, 1, 0);
    let seen: Vec<_> = (0..4)
        .map(|_| select(&pool, 0b111, at(1)).unwrap())
        .collect();
    assert_eq!(seen, [0, 2, 0, 2]);
}

#[test]
fn a_report_is_for_the_same_upstream_only() {
    let pool = pool(Selection::Failover, &[0, 1]);
    let port = 7000_u16.to_be();
    let report = |number, address, port| {
        for client in [ANN, BOB] {
            pool.report(number, ip(address), port, &told(Refused, client, 0));
        }
    };
    report(0, [10, 0, 0, 1], port);
    report(0, [10, 0, 0, 0], 1);
    report(8, [10, 0, 0, 0], port);
    assert_eq!(select(&pool, 0b11, at(0)), Some(0));
    report(0, [10, 0, 0, 0], port);
    assert_eq!(select(&pool, 0b11, at(0)), Some(1));
}

#[test]
fn a_port_can_be_kept() {
    let keeps = Upstream {
        port: 0,
        ..upstream(3, 0)
    };
    let pool = UpstreamPool::<V4>::new(1, Selection::Failover, [upstream(2, 9), keeps].into_iter());
    let (number, to) = pool.select(0b11, &tuple(Protocol::Tcp), || at(0)).unwrap();
    assert_eq!((number, to.ports.destination()), (1, 80_u16.to_be()));
    assert!(pool.is_at(ip([10, 0, 0, 2]), 7002_u16.to_be()));
    assert!(!pool.is_at(ip([10, 0, 0, 2]), 80) && !pool.is_at(ip([10, 0, 0, 3]), 80));
    let keeping_at = |last| pool.keeping_at(ip([10, 0, 0, last])).collect::<Vec<_>>();
    assert_eq!((keeping_at(3), keeping_at(2)), (vec![1], vec![]));
    assert_eq!((pool.keeping(0b11), pool.keeping(0b01)), (0b10, 0));
    let next = || {
        pool.select(0b11, &tuple(Protocol::Tcp), || at(0))
            .unwrap()
            .0
    };
    // One port that is closed, asked for by whomever, says nothing of the others, good or bad.
    for port in 90..99 {
        pool.report(
            1,
            ip([10, 0, 0, 3]),
            port,
            &told(Refused, u32::from(port) << 8, 0),
        );
        assert_eq!(next(), 1);
    }
    // What it was sent to does not matter if nothing comes back.
    pool.report(1, ip([10, 0, 0, 3]), 99, &told(Unanswered, BOB, 0));
    pool.report(1, ip([10, 0, 0, 3]), 98, &told(Unanswered, CAT, 0));
    assert_eq!(next(), 0);
    pool.report(1, ip([10, 0, 0, 3]), 97, &told(Refused, ANN, 0));
    assert_eq!(next(), 0);
    pool.report(1, ip([10, 0, 0, 3]), 96, &told(Answered, ANN, 0));
    assert_eq!(next(), 1);
}

#[test]
fn no_datagram_goes_to_a_failed_upstream() {
    let pool = pool(Selection::Failover, &[0, 1]);
    fail(&pool, 0, 0);
    let hits = (RETRY..RETRY + 1000).filter(|&now| {
        let selected = pool.select(0b11, &tuple(Protocol::Udp), || at(now));
        selected.unwrap().0 == 0
    });
    assert_eq!(hits.count(), 0);
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
        let pool = UpstreamPool::<V4>::new(1, selection, upstreams.clone());
        let other = UpstreamPool::<V6>::new(1, selection, upstreams);
        let is_candidate = |number: u8, six: bool| {
            set >> number & 1 != 0 && versions.get(usize::from(number)) == Some(&six)
        };
        for (number, answered, now, random) in steps {
            let outcome = if answered { Answered } else { Unanswered };
            report(&pool, number, outcome, random, now);
            let moment = Moment { random, ..client_at(random, now) };
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
