// SPDX-License-Identifier: GPL-2.0

//! What the tests of a pool have in common: its clients, its upstreams, and what becomes of connections.

use super::super::abi::proxy::Family;
use super::super::tuple::tests::ip;
use super::super::tuple::{Ports, V4, V6};
use super::*;
use Outcome::{Answered, Refused, Unanswered};

mod flood;
mod health;
mod selection;

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

pub(super) fn at(now: u32) -> Moment {
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
