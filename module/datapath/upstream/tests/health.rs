// SPDX-License-Identifier: GPL-2.0

//! When an upstream is avoided, and when it is tried again.

use super::*;
use proptest::prelude::*;

#[test]
fn one_flow_at_a_time_tries_a_failed_one() {
    // Over the wrap.
    let group = group(Selection::Failover, &[0, 1]);
    let start = u32::MAX - RETRY / 2;
    let next = |later| select(&group, at(start.wrapping_add(later)));
    fail(&group, 0, start);
    assert_eq!(next(RETRY - 1), Some(1));
    assert_eq!([next(RETRY), next(RETRY)], [Some(0), Some(1)]);
    // That was not answered.
    report(&group, 0, Unanswered, ANN, start.wrapping_add(RETRY + 50));
    assert_eq!(next(2 * RETRY - 1), Some(1));
    assert_eq!([next(2 * RETRY), next(2 * RETRY)], [Some(0), Some(1)]);
    report(&group, 0, Answered, CAT, 0);
    assert_eq!([next(2 * RETRY), next(2 * RETRY)], [Some(0), Some(0)]);
}

#[test]
fn another_client_tries_soon() {
    let group = group(Selection::Failover, &[0, 1]);
    let next = |client, later| select(&group, client_at(client, RETRY + later)).unwrap();
    fail(&group, 0, 0);
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
fn a_client_alone_fails_over_for_itself() {
    let group = group(Selection::Failover, &[0, 1]);
    let next = |client, now| select(&group, client_at(client, now)).unwrap();
    for outcome in [Refused, Unanswered] {
        report(&group, 0, outcome, ANN, 0);
        assert_eq!([next(ANN, 0), next(BOB, 0)], [0, 0]);
        report(&group, 0, outcome, ANN, 1);
        report(&group, 0, outcome, ANN, 50);
        assert_eq!([next(ANN, RETRY), next(BOB, RETRY)], [1, 0]);
        // It tries as late as all others would.
        assert_eq!([next(ANN, RETRY + 1), next(ANN, RETRY + 2)], [0, 1]);
        assert_eq!([next(BOB, RETRY + 2), next(BOB, RETRY + 2)], [0, 0]);
        report(&group, 0, Answered, BOB, RETRY + 3);
        assert_eq!(next(ANN, RETRY + 3), 0);
    }
}

#[test]
fn a_second_client_makes_it_failed_for_all() {
    for (failures, now) in [(1, 0), (2, 0), (9, 0), (2, u32::MAX)] {
        let group = group(Selection::Failover, &[0, 1]);
        for _ in 0..failures {
            report(&group, 0, Unanswered, ANN, now);
        }
        assert_eq!(select(&group, client_at(CAT, now)), Some(0));
        report(&group, 0, Unanswered, BOB, now);
        for client in [ANN, BOB, CAT] {
            assert_eq!(select(&group, client_at(client, now)), Some(1));
        }
    }
}

#[test]
fn any_answer_begins_the_count_anew() {
    let group = group(Selection::Failover, &[0, 1]);
    for (round, client) in (0..).zip([ANN, ANN, BOB, CAT, BOB, ANN]) {
        report(&group, 0, Unanswered, client, round);
        report(&group, 0, Answered, CAT, round);
        for client in [ANN, BOB, CAT] {
            assert_eq!(select(&group, client_at(client, round)), Some(0));
        }
    }
    // Also of a flow that began before.
    fail(&group, 0, 10);
    assert_eq!(select(&group, at(10)), Some(1));
    report(&group, 0, Answered, CAT, 9);
    assert_eq!(select(&group, at(10)), Some(0));
}

#[test]
fn an_answer_outdates_what_was_sent_before() {
    for start in [0, u32::MAX - 100, u32::MAX - 500] {
        let group = group(Selection::Failover, &[0, 1]);
        let [recovered, now] = [200, 1000].map(|later| start.wrapping_add(later));
        let mut client = 0_u32;
        let mut silence = |before| {
            client = client.wrapping_add(1 << 8);
            let sent = recovered.wrapping_sub(before);
            let report = Report {
                sent,
                ..told(Unanswered, client, now)
            };
            group.report(0, ip([10, 0, 0, 0]), 7000_u16.to_be(), &report);
            select(&group, at(now)).unwrap()
        };
        // Nothing was cleared yet, however old it is.
        assert_eq!([silence(200), silence(100)], [0, 1]);
        report(&group, 0, Answered, CAT, recovered);
        assert_eq!([silence(200), silence(100), silence(1)], [0; 3]);
        // Sent at that time, or after it.
        assert_eq!([silence(0), silence(1), silence(u32::MAX)], [0, 0, 1]);
        // An answer that clears nothing changes nothing.
        report(&group, 0, Answered, CAT, recovered);
        report(&group, 0, Answered, CAT, now);
        assert_eq!([silence(1), silence(0), silence(u32::MAX)], [0, 0, 1]);
    }
}

#[test]
fn a_refusal_is_never_outdated() {
    let group = group(Selection::Failover, &[0, 1]);
    fail(&group, 0, 0);
    report(&group, 0, Answered, CAT, 5);
    fail(&group, 0, 5);
    assert_eq!(select(&group, at(5)), Some(1));
}

#[test]
fn a_clock_that_is_behind_does_not_let_anybody_try() {
    for since in [0, 5, u32::MAX] {
        let group = group(Selection::Failover, &[0, 1]);
        fail(&group, 0, since);
        assert_eq!(select(&group, at(since.wrapping_sub(1))), Some(1));
        // But one that has gone half around does.
        assert_eq!(select(&group, at(since.wrapping_sub(1 << 31))), Some(0));
    }
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
        let group = group(Selection::Failover, &[0, 1]);
        assert_eq!(select(&group, client_at(BOB, 0)), Some(0));
        if let Some(outcome) = syn {
            report(&group, 0, outcome, BOB, 30);
        }
        assert_eq!(select(&group, client_at(ANN, 30)), Some(0), "{syn:?}");
    }
}

#[test]
fn a_try_that_is_dropped_on_its_way_is_made_up_for_soon() {
    let group = group(Selection::Failover, &[0, 1]);
    fail(&group, 0, 0);
    // Of this one no report comes.
    assert_eq!(select(&group, client_at(BOB, RETRY)), Some(0));
    assert_eq!(select(&group, client_at(CAT, RETRY + SOON)), Some(0));
    report(&group, 0, Answered, CAT, RETRY + SOON);
    assert_eq!(select(&group, client_at(ANN, RETRY + SOON)), Some(0));
}

#[test]
fn of_many_cpus_one_tries() {
    use std::sync::Barrier;
    let (rounds, cpus) = if cfg!(miri) { (3, 3) } else { (300, 4) };
    let group = group(Selection::Failover, &[0, 1]);
    fail(&group, 0, 0);
    let barrier = Barrier::new(cpus);
    let tried: Vec<u32> = std::thread::scope(|scope| {
        let cpu = |which: usize| {
            let (group, barrier) = (&group, &barrier);
            scope.spawn(move || {
                let tries = (1..=rounds).filter(|round| {
                    barrier.wait();
                    let moment = client_at((which as u32) << 8, round * RETRY);
                    select(group, moment) == Some(0)
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
        let group = group(Selection::Failover, &[0, 1]);
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            for client in [ANN, BOB] {
                let (group, barrier) = (&group, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    report(group, 0, Unanswered, client, 0);
                });
            }
        });
        assert_eq!(select(&group, client_at(CAT, 0)), Some(1));
    }
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
        let group = of::<V4>(Selection::Failover, upstreams);
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
                    group.report(at as u8, ip([10, 0, 0, at as u8]), port, &report);
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
            let selected = group.select(&tuple(protocol), |_| client_at(client, now));
            let (selected, _) = selected.unwrap();
            prop_assert_eq!(usize::from(selected), first.unwrap_or(0), "{:?} {:?}", stories, now);
        }
    }
}

// Clocks wrap: at 1000 Hz each 49.7 days.
#[test]
fn an_answer_long_ago_voids_no_failure() {
    for told_between in [Answered, Unanswered] {
        let group = group(Selection::Failover, &[0, 1]);
        let silent = |client, now: u32| {
            let sent = now.wrapping_sub(100);
            let report = Report {
                sent,
                ..told(Unanswered, client, now)
            };
            group.report(0, ip([10, 0, 0, 0]), 7000_u16.to_be(), &report);
        };
        let (first, middle) = (1000, 1000 + (1 << 31));
        fail(&group, 0, first);
        report(&group, 0, Answered, CAT, first);
        // What was sent before.
        silent(ANN, first + 50);
        silent(BOB, first + 50);
        assert_eq!(select(&group, at(first)), Some(0));
        match told_between {
            Unanswered => silent(ANN, middle),
            outcome => report(&group, 0, outcome, CAT, middle),
        }
        silent(ANN, first + 50);
        silent(BOB, first + 50);
        assert_eq!(select(&group, at(first + 50)), Some(1));
    }
}

#[test]
fn what_fails_and_works_again_is_news_once() {
    let group = group(Selection::Failover, &[0, 1, 2]);
    let news = || -> Vec<(u16, bool)> {
        group
            .news(7)
            .map(|(upstream, works)| {
                assert_eq!(upstream.group, 7);
                (upstream.port - 7000, works)
            })
            .collect()
    };
    assert_eq!(news(), []);
    // A failure of one client is nobody's news yet.
    report(&group, 1, Refused, ANN, 0);
    assert_eq!(news(), []);
    fail(&group, 1, 0);
    report(&group, 2, Refused, ANN, 0);
    report(&group, 2, Refused, ANN, 0);
    // Who asks for one is told of one.
    assert_eq!(group.news(7).take(1).count(), 1);
    assert_eq!(news(), [(2, false)]);
    assert_eq!(news(), []);
    report(&group, 1, Answered, CAT, 1);
    assert_eq!(news(), [(1, true)]);
    // What comes and goes in between is not told.
    report(&group, 2, Answered, CAT, 1);
    fail(&group, 2, 2);
    assert_eq!(news(), []);
}
