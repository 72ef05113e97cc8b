// SPDX-License-Identifier: GPL-2.0

use super::super::abi::proxy::Protocol;
use super::super::checksum::Sum;
use super::super::packet::TCP_HEADER;
use super::super::tuple::tests::{any_v4, any_v6, ip};
use super::super::tuple::{Ports, V4, V6};
use super::*;
use core::cell::Cell;
use proptest::prelude::*;
use Side::{Original, Reply};

const OWNER: Owner = Owner {
    context: 1,
    upstream: 0,
};

fn sum<A: Address>(tuple: &Tuple<A>) -> Sum {
    let (addresses, ports) = tuple.sums();
    addresses.and(ports)
}

fn there_and_back<A: Address>(original: Tuple<A>, upstream: Tuple<A>) {
    let (keys, flow) = Flow::<()>::new(&original, &upstream, OWNER, 0);
    for side in Side::ALL {
        let before = keys[side as usize];
        let after = keys[side.other() as usize].reverse();
        let got = flow.change(side).transport.apply(!sum(&before).fold());
        assert_eq!(!got % 0xffff, sum(&after).fold() % 0xffff);
    }
}

proptest! {
    #[test]
    fn changes_are_those_of_the_checksums(
        four in any_v4(), six in any_v6(), address in any::<[u64; 2]>(), ports in any::<u32>(),
    ) {
        let other = V4(address[0] as u32);
        there_and_back(four, Tuple::new(four.protocol, other, other, Ports(ports)));
        let other = V6(address);
        there_and_back(six, Tuple::new(six.protocol, other, other, Ports(ports)));
    }
}

fn flow(protocol: Protocol) -> Flow<()> {
    let tuple = Tuple::new(protocol, ip([1; 4]), ip([2; 4]), Ports::new(1, 2));
    Flow::new(&tuple, &tuple.to(ip([3; 4]), 4), OWNER, u32::MAX - 1).1
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

struct Peer {
    at: u32,
    seen: u32,
}

// Two ends that speak correct TCP through a flow.
struct Talk {
    flow: Flow<()>,
    peers: [Peer; 2],
    // The last that was told.
    outcome: Cell<Option<Outcome>>,
}

impl Talk {
    fn new() -> Self {
        let peer = |at| Peer { at, seen: 0 };
        Self {
            flow: flow(Protocol::Tcp),
            // Over the wrap.
            peers: [peer(u32::MAX - 5), peer(1 << 31)],
            outcome: Cell::new(None),
        }
    }

    fn send(&mut self, side: Side, flags: u8, length: u32) -> State {
        let [mine, other] = [side as usize, side.other() as usize];
        let ack = if flags & ACK != 0 {
            self.peers[mine].seen
        } else {
            0
        };
        let state = self.inject(side, flags, self.peers[mine].at, length, ack);
        let extra = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.peers[mine].at = self.peers[mine].at.wrapping_add(length + extra);
        self.peers[other].seen = self.peers[mine].at;
        state
    }

    fn inject(&self, side: Side, flags: u8, seq: u32, length: u32, ack: u32) -> State {
        let mut header = [0; TCP_HEADER];
        header[4..8].copy_from_slice(&seq.to_be_bytes());
        header[8..12].copy_from_slice(&ack.to_be_bytes());
        header[12] = 5 << 4;
        header[13] = flags;
        let segment = Segment::read(&header, length + 20);
        if !self.flow.is_plain(side, Some(&segment)) {
            let outcome = self.flow.advance_tcp(side, &segment, &[]);
            self.outcome.set(outcome.or(self.outcome.get()));
        }
        self.flow.state()
    }

    fn open() -> Self {
        let mut talk = Self::new();
        assert_eq!(talk.send(Original, SYN, 0), State::Opening);
        assert_eq!(talk.send(Reply, SYN | ACK, 0), State::Established);
        assert_eq!(talk.send(Original, ACK, 0), State::Established);
        talk
    }
}

#[test]
fn a_connection_opens_and_closes() {
    let mut talk = Talk::open();
    talk.send(Original, ACK, 1000);
    talk.send(Reply, ACK, 60_000);
    assert_eq!(talk.send(Reply, FIN | ACK, 10), State::Closing);
    assert_eq!(talk.send(Original, ACK, 7), State::Closing);
    assert_eq!(talk.send(Original, FIN | ACK, 0), State::Closed);
    assert_eq!(talk.send(Reply, ACK, 0), State::Closed);
}

#[test]
fn who_only_acknowledges_is_followed_over_the_wrap() {
    let mut talk = Talk::open();
    for _ in 0..200 {
        talk.send(Original, ACK, 1000);
        talk.send(Reply, ACK, 0);
    }
    assert_eq!(talk.send(Reply, FIN | ACK, 0), State::Closing);
}

#[test]
fn a_repeated_fin_closes_nothing_more() {
    let mut talk = Talk::open();
    let at = talk.peers[1].at;
    talk.send(Reply, FIN | ACK, 0);
    assert_eq!(
        talk.inject(Reply, FIN | ACK, at, 0, talk.peers[1].seen),
        State::Closing
    );
}

#[test]
fn an_end_can_reset() {
    for side in Side::ALL {
        let mut talk = Talk::open();
        talk.send(Original, ACK, 100);
        talk.send(Reply, ACK, 100);
        talk.send(side, ACK, 50);
        assert_eq!(talk.send(side, RST | ACK, 0), State::Closed, "{side:?}");
    }
}

#[test]
fn a_server_can_refuse() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, 1), State::Opening);
    assert_eq!(talk.outcome.get(), None);
    let ack = talk.peers[1].seen;
    assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, ack), State::Closed);
    assert_eq!(talk.outcome.get(), Some(Outcome::Refused));
    talk.outcome.set(None);
    talk.inject(Reply, RST | ACK, 0, 0, ack);
    assert_eq!(talk.outcome.get(), None);
}

#[test]
fn a_client_that_gives_up_says_nothing_of_the_server() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    assert_eq!(talk.send(Original, RST, 0), State::Closed);
    assert_eq!(talk.outcome.get(), None);
    let mut talk = Talk::open();
    assert_eq!(talk.outcome.take(), Some(Outcome::Answered));
    talk.send(Reply, RST | ACK, 0);
    assert_eq!(talk.outcome.get(), None);
}

#[test]
fn nobody_who_guesses_closes_or_opens() {
    let mut talk = Talk::open();
    talk.send(Original, ACK, 100);
    let (at, seen) = (talk.peers[0].at, talk.peers[0].seen);
    for off in [1, 1000, 70_000, 1 << 20, 1 << 31, u32::MAX - 70_000] {
        let seq = at.wrapping_add(off);
        assert_eq!(talk.inject(Original, RST, seq, 0, 0), State::Established);
        // Data that pretends to be next, far off or with an acknowledgement of nothing.
        let ack = seen.wrapping_add(1 << 30);
        talk.inject(Original, ACK, seq, 10, ack);
        assert_eq!(
            talk.inject(Original, FIN | ACK, seq, 0, ack),
            State::Established
        );
        assert_eq!(talk.inject(Reply, SYN | ACK, seq, 0, 5), State::Established);
    }
    assert_eq!(talk.send(Original, RST, 0), State::Closed);
    let waiting = Talk::new();
    assert_eq!(waiting.inject(Reply, ACK, 5, 0, 5), State::Opening);
    assert_eq!(waiting.inject(Reply, SYN | ACK, 5, 0, 5), State::Opening);
}

#[test]
fn udp_is_established_by_an_answer() {
    let flow = flow(Protocol::Udp);
    flow.advance_udp(Original);
    assert_eq!(flow.state(), State::Opening);
    assert!(!flow.is_plain(Original, None));
    flow.advance_udp(Reply);
    assert_eq!(flow.state(), State::Established);
    assert!(flow.is_plain(Original, None) && flow.is_plain(Reply, None));
}

#[test]
fn idle_time_wraps_never_is_negative_and_counts_both_sides() {
    let flow = flow(Protocol::Udp);
    assert_eq!(flow.idle(u32::MAX), 1);
    assert_eq!(flow.idle(3), 5);
    assert_eq!(flow.idle(u32::MAX - 2), 0);
    flow.count(Reply, 100, 2);
    assert_eq!(flow.idle(3), 1);
    assert_eq!(flow.counted(Reply), (1, 100));
}

#[test]
fn each_half_is_a_line_of_its_own() {
    // What the kernel keeps for a route: a pointer and two words.
    assert_eq!(size_of::<Half<[u64; 2]>>(), 64);
    assert_eq!(size_of::<Flow<[u64; 2]>>(), 128);
}
