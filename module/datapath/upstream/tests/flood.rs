// SPDX-License-Identifier: GPL-2.0

//! Clients whose connections fail, beside honest ones.

use super::*;
use std::collections::VecDeque;

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
        let group = group(Selection::Failover, &[0, 1]);
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
                let number = select(&group, moment(bad)).unwrap();
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
                group.report(number, ip([10, 0, 0, number]), port, &report);
            }
            if honest_comes {
                let number = select(&group, moment(ANN)).unwrap();
                report(&group, number, Answered, ANN, now);
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
