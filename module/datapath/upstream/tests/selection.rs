// SPDX-License-Identifier: GPL-2.0

//! To which upstream a flow goes.

use super::super::health::Health;
use super::*;
use proptest::prelude::*;

#[test]
fn takes_turns_exactly() {
    let group = group(Selection::RoundRobin, &[0; 200]);
    let mut hits = [0; 200];
    for _ in 0..600 {
        hits[usize::from(select(&group, at(0)).unwrap())] += 1;
    }
    assert_eq!(hits, [3; 200]);
}

#[test]
fn random_numbers_reach_all() {
    let group = group(Selection::Random, &[0; 256]);
    for random in 0..256 {
        let moment = Moment { random, ..at(0) };
        assert_eq!(select(&group, moment), Some(random as u8));
    }
}

#[test]
fn the_lowest_priority_that_works_is_preferred() {
    let group = group(Selection::Failover, &[2, 1, 1]);
    let next = |now| select(&group, at(now));
    assert_eq!(next(0), Some(1));
    fail(&group, 1, 0);
    assert_eq!(next(0), Some(2));
    fail(&group, 2, 50);
    assert_eq!(next(99), Some(0));
    fail(&group, 0, 99);
    // None works: as if all did.
    assert_eq!(next(99), Some(1));
}

#[test]
fn a_datagram_tries_nothing() {
    let group = group(Selection::Failover, &[0, 1]);
    let next = |protocol, now| {
        let selected = group.select(&tuple(protocol), |_| at(now));
        selected.map(|(number, _)| number)
    };
    fail(&group, 0, 0);
    assert_eq!(next(Protocol::Udp, 0), Some(1));
    assert_eq!(next(Protocol::Udp, RETRY), Some(1));
    assert_eq!(next(Protocol::Tcp, RETRY), Some(0));
    assert_eq!(next(Protocol::Tcp, RETRY), Some(1));
    assert_eq!(next(Protocol::Udp, RETRY), Some(1));
    // None is in order: as if all were, though one is due.
    fail(&group, 1, RETRY);
    assert_eq!(next(Protocol::Udp, 3 * RETRY), Some(0));
    report(&group, 0, Answered, CAT, 3 * RETRY);
    assert_eq!(next(Protocol::Udp, 3 * RETRY), Some(0));
    // Failed for one client: so for its datagrams.
    report(&group, 0, Unanswered, ANN, 0);
    report(&group, 0, Unanswered, ANN, 0);
    report(&group, 1, Answered, CAT, 0);
    assert_eq!(next(Protocol::Udp, 3 * RETRY), Some(1));
}

#[test]
fn a_datagram_leaves_the_only_upstream_as_it_is() {
    let group = group(Selection::Failover, &[0]);
    let only = |protocol| group.select(&tuple(protocol), |_| at(RETRY)).unwrap().0;
    let health = || group.members[0].record.health(&at(RETRY));
    fail(&group, 0, 0);
    assert_eq!(only(Protocol::Udp), 0);
    assert_eq!(health(), Health::Due);
    // A connection there is a try, though it has no choice.
    assert_eq!(only(Protocol::Tcp), 0);
    assert_eq!(health(), Health::Failed);
}

#[test]
fn turns_pass_over_what_failed() {
    let group = group(Selection::RoundRobin, &[0; 3]);
    fail(&group, 1, 0);
    let seen: Vec<_> = (0..4).map(|_| select(&group, at(1)).unwrap()).collect();
    assert_eq!(seen, [0, 2, 0, 2]);
}

#[test]
fn a_report_is_for_the_same_upstream_only() {
    let group = group(Selection::Failover, &[0, 1]);
    let port = 7000_u16.to_be();
    let report = |number, address, port| {
        for client in [ANN, BOB] {
            group.report(number, ip(address), port, &told(Refused, client, 0));
        }
    };
    report(0, [10, 0, 0, 1], port);
    report(0, [10, 0, 0, 0], 1);
    report(8, [10, 0, 0, 0], port);
    assert_eq!(select(&group, at(0)), Some(0));
    report(0, [10, 0, 0, 0], port);
    assert_eq!(select(&group, at(0)), Some(1));
}

#[test]
fn a_port_can_be_kept() {
    let keeps = Upstream {
        port: 0,
        ..upstream(3, 0)
    };
    let group: TestGroup = of(Selection::Failover, [upstream(2, 9), keeps]);
    let (number, to) = group.select(&tuple(Protocol::Tcp), |_| at(0)).unwrap();
    assert_eq!((number, to.ports.destination()), (1, 80_u16.to_be()));
    let places =
        [(2, 7002), (3, 0)].map(|(last, port): (_, u16)| (ip([10, 0, 0, last]), port.to_be()));
    assert_eq!(group.places().collect::<Vec<_>>(), places);
    assert!(group.keeps_ports());
    assert!(!of::<V4>(Selection::Failover, [upstream(2, 9)]).keeps_ports());
    let next = || group.select(&tuple(Protocol::Tcp), |_| at(0)).unwrap().0;
    // One port that is closed, asked for by whomever, says nothing of the others, good or bad.
    for port in 90..99 {
        group.report(
            1,
            ip([10, 0, 0, 3]),
            port,
            &told(Refused, u32::from(port) << 8, 0),
        );
        assert_eq!(next(), 1);
    }
    // What it was sent to does not matter if nothing comes back.
    group.report(1, ip([10, 0, 0, 3]), 99, &told(Unanswered, BOB, 0));
    group.report(1, ip([10, 0, 0, 3]), 98, &told(Unanswered, CAT, 0));
    assert_eq!(next(), 0);
    group.report(1, ip([10, 0, 0, 3]), 97, &told(Refused, ANN, 0));
    assert_eq!(next(), 0);
    group.report(1, ip([10, 0, 0, 3]), 96, &told(Answered, ANN, 0));
    assert_eq!(next(), 1);
}

#[test]
fn no_datagram_goes_to_a_failed_upstream() {
    let group = group(Selection::Failover, &[0, 1]);
    fail(&group, 0, 0);
    let hits = (RETRY..RETRY + 1000).filter(|&now| {
        let selected = group.select(&tuple(Protocol::Udp), |_| at(now));
        selected.unwrap().0 == 0
    });
    assert_eq!(hits.count(), 0);
}

proptest! {
    #[test]
    fn selects_a_candidate_whatever_happened(
        versions in prop::collection::vec(any::<bool>(), 0..=8),
        selection in prop_oneof![
            Just(Selection::RoundRobin), Just(Selection::Failover), Just(Selection::Random)
        ],
        steps in prop::collection::vec((0_u8..8, any::<bool>(), any::<u32>(), any::<u32>()), 0..40),
    ) {
        let upstreams = (0..).zip(&versions).map(|(last, &six)| Upstream {
            family: if six { Family::V6 } else { Family::V4 },
            ..upstream(last, last % 3)
        });
        let group: TestGroup = of(selection, upstreams.clone());
        let other: Group<V6, HostHeap> = of(selection, upstreams);
        for (number, answered, now, random) in steps {
            let outcome = if answered { Answered } else { Unanswered };
            report(&group, number, outcome, random, now);
            let moment = Moment { random, ..client_at(random, now) };
            match select(&group, moment) {
                Some(selected) => prop_assert_eq!(versions.get(usize::from(selected)), Some(&false)),
                None => prop_assert!(!versions.contains(&false)),
            }
            let six = Tuple::new(Protocol::Tcp, V6([0; 2]), V6([0; 2]), Ports::new(1, 2));
            match other.select(&six, |_| moment) {
                Some((selected, _)) => prop_assert_eq!(versions.get(usize::from(selected)), Some(&true)),
                None => prop_assert!(!versions.contains(&true)),
            }
        }
    }
}

fn weighted(selection: Selection, weights: &[u8]) -> TestGroup {
    let upstreams = (0..=u8::MAX).zip(weights);
    of(
        selection,
        upstreams.map(|(last, &weight)| Upstream {
            weight: NonZeroU8::new(weight).unwrap(),
            ..upstream(last, 0)
        }),
    )
}

proptest! {
    #[test]
    fn turns_are_as_the_weights_say(weights in prop::collection::vec(1..=255_u8, 2..9), failed in prop::option::of(0..9_usize)) {
        let group = weighted(Selection::RoundRobin, &weights);
        let failed = failed.filter(|&number| number < weights.len());
        if let Some(number) = failed {
            fail(&group, number as u8, 0);
        }
        let usable = |number: usize| Some(number) != failed;
        let total: u32 = (0..weights.len()).filter(|&number| usable(number)).map(|number| u32::from(weights[number])).sum();
        let turns = 4 * total;
        let mut hits = vec![0_u64; weights.len()];
        for _ in 0..turns {
            hits[usize::from(select(&group, at(0)).unwrap())] += 1;
        }
        let mut used = (0..weights.len()).filter(|&number| usable(number)).map(|number| weights[number]);
        let first = used.next();
        let all_the_same = used.all(|weight| Some(weight) == first);
        for (number, &weight) in weights.iter().enumerate() {
            let expected = if usable(number) { 4 * i64::from(weight) } else { 0 };
            let off = (hits[number] as i64 - expected).abs();
            // Those that have the same weight take turns exactly.
            let most = if all_the_same || !usable(number) { 0 } else { 5 };
            prop_assert!(off <= most, "{:?} of {:?}", hits, weights);
        }
        prop_assert_eq!(hits.iter().sum::<u64>(), turns.into());
        let counted: Vec<u64> = group.connections().map(|(_, count)| count).collect();
        prop_assert_eq!(counted, hits);
    }

    #[test]
    fn random_numbers_are_shared_as_the_weights_say(weights in prop::collection::vec(1..=255_u8, 2..9)) {
        let group = weighted(Selection::Random, &weights);
        let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
        let mut hits = vec![0; weights.len()];
        for random in 0..total {
            let moment = Moment { random, ..at(0) };
            hits[usize::from(select(&group, moment).unwrap())] += 1;
        }
        let all_the_same = weights.iter().all(|weight| *weight == weights[0]);
        prop_assert!(all_the_same || hits.iter().eq(&weights), "{:?} of {:?}", hits, weights);
    }

    #[test]
    fn a_client_stays_until_its_upstream_fails(weights in prop::collection::vec(1..=255_u8, 2..9), clients in prop::collection::vec(any::<u32>(), 1..50)) {
        let group = weighted(Selection::SourceHash, &weights);
        let to = |client: u32| {
            let tuple = Tuple::new(Protocol::Tcp, V4(client), ip([2; 4]), Ports::new(1, 80_u16.to_be()));
            group.select(&tuple, |_| at(0)).unwrap().0
        };
        let before: Vec<u8> = clients.iter().map(|&client| to(client)).collect();
        prop_assert_eq!(&before, &clients.iter().map(|&client| to(client)).collect::<Vec<_>>());
        let failed = before[0];
        fail(&group, failed, 0);
        for (&client, &old) in clients.iter().zip(&before) {
            let now = to(client);
            prop_assert!(now != failed);
            prop_assert!(old == failed || now == old);
        }
        report(&group, failed, Answered, CAT, 1);
        prop_assert_eq!(before, clients.iter().map(|&client| to(client)).collect::<Vec<_>>());
    }
}
