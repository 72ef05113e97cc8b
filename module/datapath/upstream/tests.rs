// SPDX-License-Identifier: GPL-2.0

//! What the tests of a group have in common: its clients, its upstreams, and what becomes of connections.

use super::super::abi::proxy::{Family, Protocol, Selection};
use super::super::host::HostHeap;
use super::super::tuple::tests::ip;
use super::super::tuple::{Ports, V4, V6};
use super::*;
use core::num::NonZeroU8;
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
        weight: NonZeroU8::MIN,
        family: Family::V4,
        priority,
        port: 7000 + u16::from(last),
        group: 0,
        address: [10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
}

type TestGroup = Group<V4, HostHeap>;

fn of<A: Address>(
    selection: Selection,
    upstreams: impl IntoIterator<Item = Upstream>,
) -> Group<A, HostHeap> {
    let upstreams: Vec<_> = upstreams.into_iter().collect();
    let Ok(group) = Group::new(selection, &upstreams);
    group
}

fn group(selection: Selection, priorities: &[u8]) -> TestGroup {
    let upstreams = (0..=u8::MAX).zip(priorities);
    of(
        selection,
        upstreams.map(|(last, &priority)| upstream(last, priority)),
    )
}

fn tuple(protocol: Protocol) -> Tuple<V4> {
    Tuple::new(
        protocol,
        ip([1; 4]),
        ip([2; 4]),
        Ports::new(1, 80_u16.to_be()),
    )
}

fn select(group: &TestGroup, moment: Moment) -> Option<u8> {
    let (number, to) = group.select(&tuple(Protocol::Tcp), |_| moment)?;
    assert_eq!(to.destination(), ip([10, 0, 0, number]));
    assert_eq!(to.ports.destination(), (7000 + u16::from(number)).to_be());
    assert_eq!(to.source(), ip([1; 4]));
    Some(number)
}

fn report(group: &TestGroup, number: u8, outcome: Outcome, client: u32, now: u32) {
    let port = (7000 + u16::from(number)).to_be();
    let address = ip([10, 0, 0, number]);
    group.report(number, address, port, &told(outcome, client, now));
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
fn fail(group: &TestGroup, number: u8, now: u32) {
    report(group, number, Unanswered, ANN, now);
    report(group, number, Refused, BOB, now);
}
