// SPDX-License-Identifier: GPL-2.0

//! What the tests of a flow have in common: flows, and two ends that speak TCP through one.

use super::super::abi::proxy::Protocol;
use super::super::packet::TCP_HEADER;
use super::super::reopenings::Reopenings;
use super::super::state::Timeouts;
use super::super::tuple::tests::ip;
use super::super::tuple::{Ports, V4};
use super::super::upstream::Outcome;
use super::*;
use core::cell::Cell;
use Direction::{Original, Reply};

mod direct;
mod lifetime;
mod opening;
mod record;
mod window;

const OWNER: Owner = Owner {
    context: 1,
    upstream: Owner::NOBODY.upstream,
};

pub(super) fn flow(protocol: Protocol) -> Flow<()> {
    let tuple = Tuple::new(protocol, ip([1; 4]), ip([2; 4]), Ports::new(1, 2));
    Flow::new(&tuple, &tuple.to(ip([3; 4]), 4), OWNER, u32::MAX - 1).1
}

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

const HASH: u32 = 0x1234_5678;

/// Ticks a second, in what follows.
const HZ: u32 = 1000;
const TIMEOUTS: Timeouts = Timeouts {
    hz: HZ,
    udp: [30, 120, 180],
    tcp: [240, 432_000, 241, 242],
};

fn to_port(protocol: Protocol, port: u16) -> Tuple<V4> {
    let ports = Ports::new(5000_u16.to_be(), port.to_be());
    Tuple::new(protocol, ip([1; 4]), ip([2; 4]), ports)
}

fn segment(flags: u8, seq: u32, length: u32, ack: u32) -> Segment {
    let mut header = [0; TCP_HEADER];
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    Segment::read(&header, length + 20)
}

struct Peer {
    at: u32,
    seen: u32,
}

// Two ends that speak correct TCP through a flow.
struct Talk {
    flow: Flow<()>,
    reopenings: Reopenings,
    peers: [Peer; 2],
    // The last that was told.
    outcome: Cell<Option<Outcome>>,
    // The shifts of their window scale options.
    scales: [Option<u8>; 2],
}

impl Talk {
    fn new() -> Self {
        let peer = |at| Peer { at, seen: 0 };
        Self {
            flow: flow(Protocol::Tcp),
            reopenings: Reopenings::new(),
            // Over the wrap.
            peers: [peer(u32::MAX - 5), peer(1 << 31)],
            outcome: Cell::new(None),
            scales: [None; 2],
        }
    }

    fn send(&mut self, direction: Direction, flags: u8, length: u32) -> FlowState {
        let [mine, other] = [direction as usize, direction.other() as usize];
        let ack = if flags & ACK != 0 {
            self.peers[mine].seen
        } else {
            0
        };
        let state = self.inject(direction, flags, self.peers[mine].at, length, ack);
        let extra = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.peers[mine].at = self.peers[mine].at.wrapping_add(length + extra);
        self.peers[other].seen = self.peers[mine].at;
        state
    }

    fn inject(
        &self,
        direction: Direction,
        flags: u8,
        seq: u32,
        length: u32,
        ack: u32,
    ) -> FlowState {
        let segment = segment(flags, seq, length, ack);
        if !self.flow.is_plain(direction, Some(&segment)) {
            let options = match self.scales[direction as usize] {
                Some(shift) if flags & SYN != 0 => &[3, 3, shift, 0][..],
                _ => &[],
            };
            let outcome =
                self.flow
                    .advance_tcp(direction, &segment, options, &self.reopenings, HASH);
            self.outcome.set(outcome.or(self.outcome.get()));
        }
        self.flow.state()
    }

    fn open() -> Self {
        let mut talk = Self::new();
        assert_eq!(talk.send(Original, SYN, 0), FlowState::Opening);
        assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
        assert_eq!(talk.send(Original, ACK, 0), FlowState::Established);
        talk
    }

    // Both ends forget the connection, and the client opens another one from the same port.
    fn forget(&mut self) {
        for peer in &mut self.peers {
            peer.at = peer.at.wrapping_add(1 << 29);
        }
        self.outcome.set(None);
    }

    fn direct() -> Self {
        let mut talk = Self::new();
        talk.flow = Flow::direct(&to_port(Protocol::Tcp, 443), 0).1;
        talk
    }

    fn timeout(&self) -> u32 {
        self.flow.timeout(&to_port(Protocol::Tcp, 443), &TIMEOUTS)
    }
}

// The classes in which flows are dropped early, and how long ago each was last seen.
fn rank_of(flow: &Flow<()>, protocol: Protocol, direct: bool, now: u32) -> Option<(u32, u32)> {
    let rank = flow.early_drop_rank(protocol, direct, now, HZ)?;
    Some((rank >> 29, rank & ((1 << 29) - 1)))
}
