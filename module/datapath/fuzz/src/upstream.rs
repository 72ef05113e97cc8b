// SPDX-License-Identifier: GPL-2.0

//! Selections from a group and reports about it, beside a model that does what the documentation
//! says.

use mutex_abi::proxy::{Family, Protocol, Selection, Upstream};
use mutex_datapath::host::HostHeap;
use mutex_datapath::tuple::{Address, Ports, Tuple, V4};
use mutex_datapath::upstream::{Group, Moment, Outcome, Report};
use std::num::NonZeroU8;

use super::input::Input;

/// What happened to an upstream since it last answered anybody.
#[derive(Clone, Copy)]
enum Event {
    /// A connection of the client failed.
    Failed(u32, u32),
    /// A connection of the client was let through to see whether it works again.
    Tried(u32, u32),
}

/// The upstreams of a group as they are documented.
pub struct Model {
    selection: Selection,
    turn: u32,
    upstreams: Vec<Upstream>,
    events: Vec<Vec<Event>>,
    // When an answer last made an end of events.
    recovered: Vec<Option<u32>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    InOrder,
    /// It may be tried.
    Rested,
    Avoided,
}

// A clock that is behind has not gone on at all.
fn elapsed(since: u32, now: u32) -> u32 {
    match since.wrapping_sub(now) {
        1..=0x1_0000 => 0,
        _ => now.wrapping_sub(since),
    }
}

impl Model {
    pub fn new(selection: Selection, upstreams: Vec<Upstream>) -> Self {
        Self {
            selection,
            turn: 0,
            events: vec![Vec::new(); upstreams.len()],
            recovered: vec![None; upstreams.len()],
            upstreams,
        }
    }

    // It is failed for everybody from the failure on that is a second client's, and else for a client
    // from its second failure on.
    fn standing(&self, at: usize, moment: &Moment) -> Standing {
        let mut first = None;
        let mut failures = 0;
        // Since when it is to rest, who tried last, and whether that is for everybody.
        let mut rest: Option<(u32, Option<u32>, bool)> = None;
        for event in &self.events[at] {
            match *event {
                Event::Failed(client, now) => {
                    failures += 1;
                    let another = *first.get_or_insert(client) != client;
                    let already = rest.is_some_and(|(_, _, all)| all || !another);
                    if failures > 1 && !already {
                        rest = Some((now, None, another));
                    }
                }
                Event::Tried(client, now) => {
                    let (.., all) = rest.expect("only what failed is tried");
                    rest = Some((now, Some(client), all));
                }
            }
        }
        let Some((since, tried, all)) = rest else {
            return Standing::InOrder;
        };
        if !all && first != Some(moment.client) {
            return Standing::InOrder;
        }
        // Another client than who tried it need not wait as long.
        let wait = match tried {
            Some(client) if client != moment.client => {
                moment.retry.min(moment.second.max(moment.retry / 8))
            }
            _ => moment.retry,
        };
        match elapsed(since, moment.now) >= wait {
            true => Standing::Rested,
            false => Standing::Avoided,
        }
    }

    /// The number of an upstream of this IP version.
    pub fn select(&mut self, family: Family, protocol: Protocol, moment: &Moment) -> Option<usize> {
        let candidates: Vec<usize> = (0..self.upstreams.len())
            .filter(|&at| self.upstreams[at].family == family)
            .collect();
        let turn = match self.selection {
            // Of one there is no turn to take.
            Selection::RoundRobin if candidates.len() != 1 => {
                self.turn = self.turn.wrapping_add(1);
                self.turn.wrapping_sub(1)
            }
            _ => moment.random,
        };
        // Those that failed are passed over, until a connection may try them again.
        let usable: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|&at| match self.standing(at, moment) {
                Standing::InOrder => true,
                Standing::Rested => protocol == Protocol::Tcp,
                Standing::Avoided => false,
            })
            .collect();
        let none = usable.is_empty();
        let from = if none { candidates } else { usable };
        let selected = match self.selection {
            Selection::Failover => {
                let best = from.iter().map(|&at| self.upstreams[at].priority).min();
                from.into_iter()
                    .find(|&at| Some(self.upstreams[at].priority) == best)?
            }
            _ if from.is_empty() => return None,
            _ => from[turn as usize % from.len()],
        };
        // A connection is the one that tries.
        if !none && self.standing(selected, moment) == Standing::Rested {
            self.events[selected].push(Event::Tried(moment.client, moment.now));
        }
        Some(selected)
    }

    fn report(&mut self, number: usize, report: &Report) {
        let (now, client) = (report.now, report.client);
        match report.outcome {
            Outcome::Answered if self.events[number].is_empty() => {}
            Outcome::Answered => {
                self.events[number].clear();
                self.recovered[number] = Some(now);
            }
            // Of many ports, one that is closed.
            Outcome::Refused if self.upstreams[number].port == 0 => {}
            _ => {
                let old = elapsed(report.sent, now);
                let is_void = |since| elapsed(since, now) < old;
                if !self.recovered[number].is_some_and(is_void) {
                    self.events[number].push(Event::Failed(client, now));
                }
            }
        }
    }

    /// What packets of `tuple` to the upstream look like.
    pub fn tuple<A: Address>(&self, number: usize, tuple: &Tuple<A>) -> Tuple<A> {
        let upstream = &self.upstreams[number];
        let port = match upstream.port {
            0 => tuple.ports.destination(),
            port => port.to_be(),
        };
        tuple.to(A::from_bytes(upstream.address), port)
    }

    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    pub fn selection(&self) -> Selection {
        self.selection
    }
}

// Hashes that are told apart, though some only by their last bit that counts.
const CLIENTS: [u32; 4] = [0, 8, 1 << 31, u32::MAX];

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let selection = match input.below(3) {
        0 => Selection::RoundRobin,
        1 => Selection::Failover,
        _ => Selection::Random,
    };
    // Few different values, so that some are the same.
    let upstreams: Vec<_> = (0..input.below(9) as u8)
        .map(|last| {
            let how = input.u8();
            let six = how & 1 != 0;
            let mut address = [0; 16];
            address[..4].copy_from_slice(&[10, 0, 0, 1 + (last & how >> 1)]);
            Upstream {
                weight: NonZeroU8::MIN,
                family: if six { Family::V6 } else { Family::V4 },
                priority: how >> 4 & 3,
                port: u16::from(how >> 6),
                group: 0,
                address,
            }
        })
        .collect();
    let Ok(group) = Group::<V4, HostHeap>::new(selection, &upstreams);
    let mut model = Model::new(selection, upstreams);
    let mut now = input.u32();
    while !input.is_empty() {
        let how = input.u8();
        now = now.wrapping_add(u32::from(input.u8()));
        // A CPU may have read the clock a little earlier.
        let now = now.wrapping_sub(u32::from(input.u8() & 3));
        let client = CLIENTS[input.below(4)];
        if how & 1 == 0 {
            select(&mut input, how, &group, &mut model, client, now);
        } else {
            report(&mut input, how, &group, &mut model, client, now);
        }
    }
}

fn select(
    input: &mut Input<'_>,
    how: u8,
    group: &Group<V4, HostHeap>,
    model: &mut Model,
    client: u32,
    now: u32,
) {
    let protocol = match how & 2 {
        0 => Protocol::Tcp,
        _ => Protocol::Udp,
    };
    let moment = Moment {
        now,
        second: u32::from(how >> 6),
        retry: 1 + u32::from(how >> 2),
        client,
        random: u32::from(input.u8()),
    };
    let tuple = Tuple::new(protocol, V4(1), V4(2), Ports::new(3, 4));
    let expected = model.select(Family::V4, protocol, &moment);
    let expected = expected.map(|number| (number as u8, model.tuple(number, &tuple)));
    assert_eq!(group.select(&tuple, |_| moment), expected);
}

fn report(
    input: &mut Input<'_>,
    how: u8,
    group: &Group<V4, HostHeap>,
    model: &mut Model,
    client: u32,
    now: u32,
) {
    let number = usize::from(how >> 2 & 7);
    // More failures than answers, so that some come in a row.
    let outcome = match how >> 5 {
        0 => Outcome::Answered,
        1..=3 => Outcome::Refused,
        _ => Outcome::Unanswered,
    };
    let old = match outcome {
        Outcome::Unanswered => u32::from(input.u8()),
        _ => 0,
    };
    let report = Report {
        outcome,
        client,
        sent: now.wrapping_sub(old),
        now,
    };
    let Some(upstream) = model.upstreams().get(number).copied() else {
        let anybody = V4::from_bytes([10; 16]);
        group.report(number as u8, anybody, 0, &report);
        return;
    };
    // Mostly the one that it is, else one that once had its number.
    let wrong = match input.u8() {
        wrong @ ..64 => wrong,
        _ => 0,
    };
    let address = V4::from_bytes(upstream.address.map(|byte| byte ^ (wrong & 1)));
    let port = upstream.port ^ u16::from(wrong >> 1 & 1);
    let same = wrong & 1 == 0 && (upstream.port == 0 || port == upstream.port);
    group.report(number as u8, address, port.to_be(), &report);
    if same && upstream.family == Family::V4 {
        model.report(number, &report);
    }
}
