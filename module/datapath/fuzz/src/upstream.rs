// SPDX-License-Identifier: GPL-2.0

//! Selections from a pool and reports about it, beside a model that does what the documentation
//! says.

use mutex_abi::proxy::{Family, Protocol, Selection, Upstream, MAX_UPSTREAMS};
use mutex_datapath::tuple::{Address, Ports, Tuple, V4};
use mutex_datapath::upstream::{Moment, Outcome, Pool};

use super::input::Input;

/// The upstreams of a context as they are documented.
pub struct Model {
    selection: Selection,
    turn: u32,
    upstreams: Vec<Upstream>,
    // When it failed, or was tried since.
    failed: [Option<u32>; MAX_UPSTREAMS],
}

impl Model {
    pub fn new(selection: Selection, upstreams: Vec<Upstream>) -> Self {
        Self {
            selection,
            turn: 0,
            upstreams,
            failed: [None; MAX_UPSTREAMS],
        }
    }

    /// The number of an upstream of `set`.
    pub fn select(
        &mut self,
        family: Family,
        set: u8,
        protocol: Protocol,
        moment: &Moment,
    ) -> Option<usize> {
        let candidates: Vec<usize> = (0..self.upstreams.len())
            .filter(|&at| set >> at & 1 != 0 && self.upstreams[at].family == family)
            .collect();
        let turn = match self.selection {
            // Of one there is no turn to take.
            Selection::RoundRobin if candidates.len() != 1 => {
                self.turn = self.turn.wrapping_add(1);
                self.turn.wrapping_sub(1)
            }
            _ => moment.random,
        };
        // Those that failed are passed over, until one may try them again.
        let rested = |since: u32| moment.now.wrapping_sub(since) >= moment.retry;
        let usable: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|&at| self.failed[at].is_none_or(rested))
            .collect();
        let all_failed = usable.is_empty();
        let from = if all_failed { candidates } else { usable };
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
        if !all_failed && protocol == Protocol::Tcp && self.failed[selected].is_some() {
            self.failed[selected] = Some(moment.now);
        }
        Some(selected)
    }

    fn report(&mut self, number: usize, outcome: Outcome, now: u32) {
        let failed = &mut self.failed[number];
        match outcome {
            Outcome::Answered => *failed = None,
            Outcome::Failed => *failed = failed.or(Some(now)),
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
                family: if six { Family::V6 } else { Family::V4 },
                priority: how >> 4 & 3,
                port: u16::from(how >> 6),
                address,
            }
        })
        .collect();
    let pool = Pool::<V4>::new(7, selection, upstreams.iter().copied());
    let mut model = Model::new(selection, upstreams);
    let mut now = input.u32();
    while !input.is_empty() {
        let how = input.u8();
        now = now.wrapping_add(u32::from(input.u8()));
        if how & 1 == 0 {
            select(&mut input, how, &pool, &mut model, now);
        } else {
            report(&mut input, how, &pool, &mut model, now);
        }
    }
}

fn select(input: &mut Input<'_>, how: u8, pool: &Pool<V4>, model: &mut Model, now: u32) {
    let protocol = match how & 2 {
        0 => Protocol::Tcp,
        _ => Protocol::Udp,
    };
    let moment = Moment {
        now,
        retry: u32::from(how >> 2),
        random: u32::from(input.u8()),
    };
    let set = input.u8();
    let tuple = Tuple::new(protocol, V4(1), V4(2), Ports::new(3, 4));
    let expected = model.select(Family::V4, set, protocol, &moment);
    let expected = expected.map(|number| (number as u8, model.tuple(number, &tuple)));
    assert_eq!(pool.select(set, &tuple, || moment), expected);
}

fn report(input: &mut Input<'_>, how: u8, pool: &Pool<V4>, model: &mut Model, now: u32) {
    let number = usize::from(how >> 2 & 7);
    let outcome = match how & 2 {
        0 => Outcome::Answered,
        _ => Outcome::Failed,
    };
    let Some(upstream) = model.upstreams().get(number).copied() else {
        let anybody = V4::from_bytes([10; 16]);
        pool.report(number as u8, anybody, 0, outcome, now);
        return;
    };
    // The one that it is, or one that once had its number.
    let wrong = input.u8();
    let address = V4::from_bytes(upstream.address.map(|byte| byte ^ (wrong & 1)));
    let port = upstream.port ^ u16::from(wrong >> 1 & 1);
    let same = wrong & 1 == 0 && (upstream.port == 0 || port == upstream.port);
    pool.report(number as u8, address, port.to_be(), outcome, now);
    if same && upstream.family == Family::V4 {
        model.report(number, outcome, now);
    }
}
