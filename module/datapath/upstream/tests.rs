// SPDX-License-Identifier: GPL-2.0

use super::super::abi::proxy::Family;
use super::super::tuple::tests::ip;
use super::super::tuple::{Ports, V4, V6};
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use Outcome::{Answered, Refused, Unanswered};

const RETRY: u32 = 160;
const SECOND: u32 = 10;
const SOON: u32 = RETRY / 8;

// Hashes of clients.
const ANN: u32 = 0x1234_5678;
const BOB: u32 = 0x9abc_def0;
const CAT: u32 = 0;

fn client_at(client: u32, now: u32) -> Moment {
    Moment {
        now,
        second: SECOND,
        retry: RETRY,
        random: 0,
        client,
    }
}

fn at(now: u32) -> Moment {
    client_at(ANN, now)
}

fn upstream(last: u8, priority: u8) -> Upstream {
    Upstream {
        family: Family::V4,
        priority,
        port: 7000 + u16::from(last),
        address: [10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

fn pool(selection: Selection, priorities: &[u8]) -> UpstreamPool<V4> {
    let upstreams = (0..)
        .zip(priorities)
        .map(|(last, &priority)| upstream(last, priority));
    UpstreamPool::new(1, selection, upstreams)
}

fn tuple(protocol: Protocol) -> Tuple<V4> {
    Tuple::new(
        protocol,
        ip([1; 4]),
        ip([2; 4]),
        Ports::new(1, 80_u16.to_be()),
    )
}

fn select(pool: &UpstreamPool<V4>, set: u8, moment: Moment) -> Option<u8> {
    let (number, to) = pool.select(set, &tuple(Protocol::Tcp), || moment)?;
    assert_eq!(to.destination(), ip([10, 0, 0, number]));
    assert_eq!(to.ports.destination(), (7000 + u16::from(number)).to_be());
    assert_eq!(to.source(), ip([1; 4]));
    Some(number)
}

fn report(pool: &UpstreamPool<V4>, number: u8, outcome: Outcome, client: u32, now: u32) {
    let port = (7000 + u16::from(number)).to_be();
    let address = ip([10, 0, 0, number]);
    pool.report(number, address, port, &told(outcome, client, now));
}

// Of a packet just sent.
fn told(outcome: Outcome, client: u32, now: u32) -> Report {
    Report {
        outcome,
        client,
        sent: now,
        now,
    }
}

/// Connections of two clients fail.
fn fail(pool: &UpstreamPool<V4>, number: u8, now: u32) {
    report(pool, number, Unanswered, ANN, now);
    report(pool, number, Refused, BOB, now);
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
    fail(&pool, 1, 0);
    assert_eq!(next(0), Some(2));
    fail(&pool, 2, 50);
    assert_eq!(next(99), Some(0));
    fail(&pool, 0, 99);
    // None works: as if all did.
    assert_eq!(next(99), Some(1));
}

#[test]
fn one_flow_at_a_time_tries_a_failed_one() {
    // Over the wrap.
    let pool = pool(Selection::Failover, &[0, 1]);
    let start = u32::MAX - RETRY / 2;
    let next = |later| select(&pool, 0b11, at(start.wrapping_add(later)));
    fail(&pool, 0, start);
    assert_eq!(next(RETRY - 1), Some(1));
    assert_eq!([next(RETRY), next(RETRY)], [Some(0), Some(1)]);
    // That was not answered.
    report(&pool, 0, Unanswered, ANN, start.wrapping_add(RETRY + 50));
    assert_eq!(next(2 * RETRY - 1), Some(1));
    assert_eq!([next(2 * RETRY), next(2 * RETRY)], [Some(0), Some(1)]);
    report(&pool, 0, Answered, CAT, 0);
    assert_eq!([next(2 * RETRY), next(2 * RETRY)], [Some(0), Some(0)]);
}

#[test]
fn another_client_tries_soon() {
    let pool = pool(Selection::Failover, &[0, 1]);
    let next = |client, later| select(&pool, 0b11, client_at(client, RETRY + later)).unwrap();
    fail(&pool, 0, 0);
    assert_eq!(next(ANN, 0), 0);
    assert_eq!([next(BOB, SOON - 1), next(ANN, SOON)], [1, 1]);
    assert_eq!([next(BOB, SOON), next(CAT, SOON)], [0, 1]);
    assert_eq!([next(CAT, 2 * SOON), next(ANN, 2 * SOON)], [0, 1]);
    // Alone, each waits as long as at first.
    assert_eq!(
        [next(CAT, RETRY + 2 * SOON - 1), next(CAT, RETRY + 2 * SOON)],
        [1, 0]
    );
}

#[test]
fn soon_is_a_second_at_least_and_no_later_than_retry() {
    let soon = |retry, second| {
        Moment {
            retry,
            second,
            ..at(0)
        }
        .soon()
    };
    assert_eq!(soon(30_000, 1000), 3750);
    assert_eq!(soon(4000, 1000), 1000);
    assert_eq!(soon(500, 1000), 500);
    assert_eq!(soon(u32::MAX, 1000), u32::MAX / 8);
}

#[test]
fn a_client_alone_fails_over_for_itself() {
    let pool = pool(Selection::Failover, &[0, 1]);
    let next = |client, now| select(&pool, 0b11, client_at(client, now)).unwrap();
    for outcome in [Refused, Unanswered] {
        report(&pool, 0, outcome, ANN, 0);
        assert_eq!([next(ANN, 0), next(BOB, 0)], [0, 0]);
        report(&pool, 0, outcome, ANN, 1);
        report(&pool, 0, outcome, ANN, 50);
        assert_eq!([next(ANN, RETRY), next(BOB, RETRY)], [1, 0]);
        // It tries as late as all others would.
        assert_eq!([next(ANN, RETRY + 1), next(ANN, RETRY + 2)], [0, 1]);
        assert_eq!([next(BOB, RETRY + 2), next(BOB, RETRY + 2)], [0, 0]);
        report(&pool, 0, Answered, BOB, RETRY + 3);
        assert_eq!(next(ANN, RETRY + 3), 0);
    }
}

#[test]
fn a_second_client_makes_it_failed_for_all() {
    for (failures, now) in [(1, 0), (2, 0), (9, 0), (2, u32::MAX)] {
        let pool = pool(Selection::Failover, &[0, 1]);
        for _ in 0..failures {
            report(&pool, 0, Unanswered, ANN, now);
        }
        assert_eq!(select(&pool, 0b11, client_at(CAT, now)), Some(0));
        report(&pool, 0, Unanswered, BOB, now);
        for client in [ANN, BOB, CAT] {
            assert_eq!(select(&pool, 0b11, client_at(client, now)), Some(1));
        }
    }
}

#[test]
fn any_answer_begins_the_count_anew() {
    let pool = pool(Selection::Failover, &[0, 1]);
    for (round, client) in (0..).zip([ANN, ANN, BOB, CAT, BOB, ANN]) {
        report(&pool, 0, Unanswered, client, round);
        report(&pool, 0, Answered, CAT, round);
        for client in [ANN, BOB, CAT] {
            assert_eq!(select(&pool, 0b11, client_at(client, round)), Some(0));
        }
    }
    // Also of a flow that began before.
    fail(&pool, 0, 10);
    assert_eq!(select(&pool, 0b11, at(10)), Some(1));
    report(&pool, 0, Answered, CAT, 9);
    assert_eq!(select(&pool, 0b11, at(10)), Some(0));
}

#[test]
fn an_answer_outdates_what_was_sent_before() {
    for start in [0, u32::MAX - 100, u32::MAX - 500] {
        let pool = pool(Selection::Failover, &[0, 1]);
        let [recovered, now] = [200, 1000].map(|later| start.wrapping_add(later));
        let mut client = 0_u32;
        let mut silence = |before| {
            client = client.wrapping_add(1 << 8);
            let sent = recovered.wrapping_sub(before);
            let report = Report {
                sent,
                ..told(Unanswered, client, now)
            };
            pool.report(0, ip([10, 0, 0, 0]), 7000_u16.to_be(), &report);
            select(&pool, 0b11, at(now)).unwrap()
        };
        // Nothing was cleared yet, however old it is.
        assert_eq!([silence(200), silence(100)], [0, 1]);
        report(&pool, 0, Answered, CAT, recovered);
        assert_eq!([silence(200), silence(100), silence(1)], [0; 3]);
        // Sent at that time, or after it.
        assert_eq!([silence(0), silence(1), silence(u32::MAX)], [0, 0, 1]);
        // An answer that clears nothing changes nothing.
        report(&pool, 0, Answered, CAT, recovered);
        report(&pool, 0, Answered, CAT, now);
        assert_eq!([silence(1), silence(0), silence(u32::MAX)], [0, 0, 1]);
    }
}

#[test]
fn a_refusal_is_never_outdated() {
    let pool = pool(Selection::Failover, &[0, 1]);
    fail(&pool, 0, 0);
    report(&pool, 0, Answered, CAT, 5);
    fail(&pool, 0, 5);
    assert_eq!(select(&pool, 0b11, at(5)), Some(1));
}

#[test]
fn a_clock_that_is_behind_does_not_let_anybody_try() {
    for since in [0, 5, u32::MAX] {
        let pool = pool(Selection::Failover, &[0, 1]);
        fail(&pool, 0, since);
        assert_eq!(select(&pool, 0b11, at(since.wrapping_sub(1))), Some(1));
        // But one that has gone half around does.
        assert_eq!(
            select(&pool, 0b11, at(since.wrapping_sub(1 << 31))),
            Some(0)
        );
    }
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
    assert!(pool.keeps_ports_at(0b10, ip([10, 0, 0, 3])));
    assert!(!pool.keeps_ports_at(0b01, ip([10, 0, 0, 3])));
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

/// What becomes of one SYN of another client, and whether the next connection of somebody else still
/// goes to the preferred upstream: the findings' table.
#[test]
fn one_syn_of_another_client_moves_nobody() {
    // Dropped by a rule, by its TTL, or by rp_filter: removed, nobody is told.
    let unseen = None;
    // Answered by a way past the router, or damaged and dropped there.
    let silent = Some(Unanswered);
    // Good, never acknowledged by its sender.
    let good = Some(Answered);
    for syn in [unseen, silent, good, Some(Refused)] {
        let pool = pool(Selection::Failover, &[0, 1]);
        assert_eq!(select(&pool, 0b11, client_at(BOB, 0)), Some(0));
        if let Some(outcome) = syn {
            report(&pool, 0, outcome, BOB, 30);
        }
        assert_eq!(select(&pool, 0b11, client_at(ANN, 30)), Some(0), "{syn:?}");
    }
}

#[test]
fn a_try_that_is_dropped_on_its_way_is_made_up_for_soon() {
    let pool = pool(Selection::Failover, &[0, 1]);
    fail(&pool, 0, 0);
    // Of this one no report comes.
    assert_eq!(select(&pool, 0b11, client_at(BOB, RETRY)), Some(0));
    assert_eq!(select(&pool, 0b11, client_at(CAT, RETRY + SOON)), Some(0));
    report(&pool, 0, Answered, CAT, RETRY + SOON);
    assert_eq!(select(&pool, 0b11, client_at(ANN, RETRY + SOON)), Some(0));
}

/// Connections of 300 s, after 150 s of the same, in ticks of a hundredth of a second, over the wrap.
struct Flood {
    /// Whether the other upstream leaves bad SYNs unanswered, too.
    everywhere: bool,
    /// How many addresses they come from, in turn.
    addresses: u32,
}

impl Flood {
    /// `arrivals`: whether a bad SYN, which the preferred upstream leaves unanswered, which is told
    /// after 120 s, and an honest one, which both answer at once, come in a tick; the bad one is
    /// first. How many honest ones there were, and how many reached the preferred one.
    fn run(&self, mut arrivals: impl FnMut(u32) -> [bool; 2]) -> (u32, u32) {
        const SECOND: u32 = 100;
        let pool = pool(Selection::Failover, &[0, 1]);
        let start = u32::MAX - 200 * SECOND;
        let mut opening = VecDeque::new();
        let (mut honest, mut reached) = (0, 0);
        for tick in 0..450 * SECOND {
            let now = start.wrapping_add(tick);
            let moment = |client| Moment {
                second: SECOND,
                retry: 30 * SECOND,
                ..client_at(client, now)
            };
            let [bad_comes, honest_comes] = arrivals(tick);
            if bad_comes {
                let bad = BOB.wrapping_add((tick % self.addresses) << 8);
                let number = select(&pool, 0b11, moment(bad)).unwrap();
                opening.push_back((now, number, bad));
            }
            let told = |sent: u32| now.wrapping_sub(sent) >= 120 * SECOND;
            while let Some((sent, number, client)) = opening.pop_front_if(|one| told(one.0)) {
                let silent = number == 0 || self.everywhere;
                let report = Report {
                    outcome: if silent { Unanswered } else { Answered },
                    client,
                    sent: if silent { sent } else { now },
                    now,
                };
                let port = (7000 + u16::from(number)).to_be();
                pool.report(number, ip([10, 0, 0, number]), port, &report);
            }
            if honest_comes {
                let number = select(&pool, 0b11, moment(ANN)).unwrap();
                report(&pool, number, Answered, ANN, now);
                if tick >= 150 * SECOND {
                    honest += 1;
                    reached += u32::from(number == 0);
                }
            }
        }
        (honest, reached)
    }
}

#[test]
#[cfg_attr(miri, ignore = "long, and no memory is involved")]
fn one_bad_client_keeps_nobody_from_the_preferred_upstream() {
    for everywhere in [false, true] {
        let flood = Flood {
            everywhere,
            addresses: 1,
        };
        // Ten a second of both, or one honest one in five seconds.
        assert_eq!(flood.run(|tick| [tick % 10 == 0; 2]), (3000, 3000));
        let seldom = |tick| [tick % 10 == 0, tick % 500 == 0];
        assert_eq!(flood.run(seldom), (60, 60));
    }
}

#[test]
fn of_many_cpus_one_tries() {
    use std::sync::Barrier;
    let (rounds, cpus) = if cfg!(miri) { (3, 3) } else { (300, 4) };
    let pool = pool(Selection::Failover, &[0, 1]);
    fail(&pool, 0, 0);
    let barrier = Barrier::new(cpus);
    let tried: Vec<u32> = std::thread::scope(|scope| {
        let cpu = |which: usize| {
            let (pool, barrier) = (&pool, &barrier);
            scope.spawn(move || {
                let tries = (1..=rounds).filter(|round| {
                    barrier.wait();
                    let moment = client_at((which as u32) << 8, round * RETRY);
                    select(pool, 0b11, moment) == Some(0)
                });
                tries.count() as u32
            })
        };
        let cpus: Vec<_> = (0..cpus).map(cpu).collect();
        cpus.into_iter().map(|cpu| cpu.join().unwrap()).collect()
    });
    assert_eq!(tried.iter().sum::<u32>(), rounds, "{tried:?}");
}

#[test]
fn failures_of_two_cpus_both_count() {
    use std::sync::Barrier;
    for _ in 0..if cfg!(miri) { 5 } else { 1000 } {
        let pool = pool(Selection::Failover, &[0, 1]);
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            for client in [ANN, BOB] {
                let (pool, barrier) = (&pool, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    report(pool, 0, Unanswered, client, 0);
                });
            }
        });
        assert_eq!(select(&pool, 0b11, client_at(CAT, 0)), Some(1));
    }
}

// xorshift64 (Marsaglia, "Xorshift RNGs", 2003): whether what happens once in `of` ticks does so now.
fn chance(state: &mut u64, of: u64) -> bool {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.is_multiple_of(of)
}

// In every `tcp_syn_timeout` and outage, all are right but those of the outage: the time until a
// probe is due, and as many more probes as bad SYNs take before an honest one.
#[test]
#[cfg_attr(miri, ignore = "long, and no memory is involved")]
fn many_bad_addresses_keep_others_away_for_a_part_of_the_time() {
    for (of, ratio) in [(10, 1.0), (100, 10.0), (500, 50.0)] {
        for (everywhere, addresses) in [(false, 2), (false, 1 << 20), (true, 2), (true, 1 << 20)] {
            let flood = Flood {
                everywhere,
                addresses,
            };
            let (mut honest, mut reached) = (0, 0);
            for seed in 1..=20_u64 {
                let mut state = seed << 20;
                let arrivals = |_| [chance(&mut state, 10), chance(&mut state, of)];
                let (more, of_them) = flood.run(arrivals);
                (honest, reached) = (honest + more, reached + of_them);
            }
            let share = f64::from(reached) / f64::from(honest);
            let promised = 120.0 / (120.0 + 30.0 + 3.75 * ratio);
            assert!(
                share > 0.9 * promised,
                "{share}, {promised}: {ratio} {everywhere} {addresses}"
            );
        }
    }
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

/// An upstream as the documentation has it: who failed there since anybody was answered; when that
/// was enough to avoid it, or when it was tried since, and by whom.
#[derive(Clone, Debug, Default)]
struct Story {
    keeps_port: bool,
    failures: Vec<u32>,
    // When an answer last made an end of failures.
    recovered: Option<u32>,
    rests: u32,
    tried_by: Option<u32>,
}

impl Story {
    /// Who avoids it: of all clients that failed there, the only one if it did so twice; all if there
    /// are two.
    fn avoided_by(&self, client: u32) -> bool {
        let all_same = self.failures.windows(2).all(|pair| pair[0] == pair[1]);
        self.failures.len() > 1 && (!all_same || self.failures[0] == client)
    }

    fn happens(&mut self, report: &Report) {
        let Report {
            client, sent, now, ..
        } = *report;
        let ago = |then: u32| (now.wrapping_sub(then) as i32).max(0);
        let recovered_since = |then| ago(then) < ago(sent);
        match report.outcome {
            Answered if self.failures.is_empty() => {}
            Answered => {
                self.failures.clear();
                self.recovered = Some(now);
            }
            Refused if self.keeps_port => {}
            _ if self.recovered.is_some_and(recovered_since) => {}
            Refused | Unanswered => {
                let avoided = |story: &Self| [ANN, BOB, CAT].map(|client| story.avoided_by(client));
                let before = avoided(self);
                self.failures.push(client);
                if avoided(self) != before {
                    (self.rests, self.tried_by) = (now, None);
                }
            }
        }
    }

    fn may_try(&self, client: u32, now: u32) -> bool {
        let by_another = self.tried_by.is_some_and(|one| one != client);
        let wait = if by_another { SOON } else { RETRY };
        // Times here are never far apart: what is late by more is a clock that was ahead.
        let elapsed = now.wrapping_sub(self.rests) as i32;
        elapsed >= wait as i32
    }
}

#[derive(Clone, Debug)]
enum Step {
    // How long before a failure by silence its client sent last.
    Report(usize, Outcome, u32, u32),
    Connect(u32),
    Datagram(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = || prop::sample::select(vec![ANN, BOB, CAT]);
    let outcome = prop::sample::select(vec![Answered, Refused, Refused, Unanswered, Unanswered]);
    prop_oneof![
        (0..3_usize, outcome, client(), 0..4 * SOON)
            .prop_map(|(at, how, who, ago)| Step::Report(at, how, who, ago)),
        client().prop_map(Step::Connect),
        client().prop_map(Step::Datagram),
    ]
}

proptest! {
    // Three upstreams by preference, of which the second keeps ports.
    #[test]
    fn upstreams_are_avoided_and_tried_as_documented(
        start: u32,
        steps in prop::collection::vec((any_step(), -1_i32..SOON as i32), 0..80),
    ) {
        let upstreams = [0, 1, 2].map(|last| match last {
            1 => Upstream { port: 0, ..upstream(1, 1) },
            _ => upstream(last, last),
        });
        let pool = UpstreamPool::<V4>::new(1, Selection::Failover, upstreams.into_iter());
        let mut stories = vec![Story::default(); 3];
        stories[1].keeps_port = true;
        let mut now = start;
        for (step, later) in steps {
            now = now.wrapping_add_signed(later);
            let (protocol, client) = match step {
                Step::Report(at, outcome, client, ago) => {
                    let mut report = told(outcome, client, now);
                    if outcome == Unanswered {
                        report.sent = now.wrapping_sub(ago);
                    }
                    let port = (7000 + at as u16).to_be();
                    pool.report(at as u8, ip([10, 0, 0, at as u8]), port, &report);
                    stories[at].happens(&report);
                    continue;
                }
                Step::Connect(client) => (Protocol::Tcp, client),
                Step::Datagram(client) => (Protocol::Udp, client),
            };
            let usable = |story: &Story| {
                let tries = protocol == Protocol::Tcp && story.may_try(client, now);
                !story.avoided_by(client) || tries
            };
            let first = stories.iter().position(usable);
            if let Some(story) = first.map(|at| &mut stories[at]) {
                if story.avoided_by(client) {
                    (story.rests, story.tried_by) = (now, Some(client));
                }
            }
            let selected = pool.select(0b111, &tuple(protocol), || client_at(client, now));
            let (selected, _) = selected.unwrap();
            prop_assert_eq!(usize::from(selected), first.unwrap_or(0), "{:?} {:?}", stories, now);
        }
    }

    // The word has room for what is in it.
    #[test]
    fn a_condition_fits_its_word(client in 0..u32::MAX >> SPARED, since: u32) {
        let all = [
            Good,
            Suspected { client },
            FailedFor { client, since },
            Failed { since },
            Tried { client, since },
        ];
        for condition in all {
            prop_assert_eq!(Condition::from_word(condition.word()), condition);
            prop_assert_eq!(condition.word() == 0, condition == Good);
        }
    }

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

// Clocks wrap: at 1000 Hz each 49.7 days.
#[test]
fn an_answer_long_ago_voids_no_failure() {
    for told_between in [Answered, Unanswered] {
        let pool = pool(Selection::Failover, &[0, 1]);
        let silent = |client, now: u32| {
            let sent = now.wrapping_sub(100);
            let report = Report {
                sent,
                ..told(Unanswered, client, now)
            };
            pool.report(0, ip([10, 0, 0, 0]), 7000_u16.to_be(), &report);
        };
        let (first, middle) = (1000, 1000 + (1 << 31));
        fail(&pool, 0, first);
        report(&pool, 0, Answered, CAT, first);
        // What was sent before.
        silent(ANN, first + 50);
        silent(BOB, first + 50);
        assert_eq!(select(&pool, 0b11, at(first)), Some(0));
        match told_between {
            Unanswered => silent(ANN, middle),
            outcome => report(&pool, 0, outcome, CAT, middle),
        }
        silent(ANN, first + 50);
        silent(BOB, first + 50);
        assert_eq!(select(&pool, 0b11, at(first + 50)), Some(1));
    }
}
