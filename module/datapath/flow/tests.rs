// SPDX-License-Identifier: GPL-2.0

use super::super::abi::proxy::Protocol;
use super::super::checksum::Sum;
use super::super::packet::TCP_HEADER;
use super::super::tuple::tests::{any_v4, any_v6, ip};
use super::super::tuple::{Ports, V4, V6};
use super::*;
use core::cell::Cell;
use proptest::prelude::*;
use Direction::{Original, Reply};

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
    for direction in Direction::ALL {
        let before = keys[direction as usize];
        let after = keys[direction.other() as usize].reverse();
        let got = flow
            .checksum_fixup(direction)
            .transport
            .apply(!sum(&before).fold());
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

pub(super) fn flow(protocol: Protocol) -> Flow<()> {
    let tuple = Tuple::new(protocol, ip([1; 4]), ip([2; 4]), Ports::new(1, 2));
    Flow::new(&tuple, &tuple.to(ip([3; 4]), 4), OWNER, u32::MAX - 1).1
}

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

const HASH: u32 = 0x1234_5678;

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

fn segment(flags: u8, seq: u32, length: u32, ack: u32) -> Segment {
    let mut header = [0; TCP_HEADER];
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    Segment::read(&header, length + 20)
}

proptest! {
    // A flow that is made with its SYN is as one that sees it.
    #[test]
    fn a_flow_is_opened_as_by_its_first_segment(
        seq: u32, length in 0..2000_u32, more in prop::sample::select(vec![0, 8, 0x40, 0xc0]),
        shift in prop::option::of(0..16_u8),
    ) {
        let options = shift.map_or([1; 4], |shift| [3, 3, shift, 0]);
        let syn = segment(SYN | more, seq, length, 0);
        let tuple = to_port(Protocol::Tcp, 443);
        for make in [
            || Flow::<()>::direct(&to_port(Protocol::Tcp, 443), 7).1,
            || flow(Protocol::Tcp),
        ] {
            let (seen, opened) = (make(), make().opened(Opening::by(&syn, &options)));
            let outcome = seen.advance_tcp(Original, &syn, &options, &Reopenings::new(), HASH);
            prop_assert_eq!(outcome, None);
            prop_assert_eq!(format!("{seen:?}"), format!("{opened:?}"));
            prop_assert_eq!(seen.timeout(&tuple, &TIMEOUTS), opened.timeout(&tuple, &TIMEOUTS));
        }
    }
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
}

#[test]
fn a_connection_opens_and_closes() {
    let mut talk = Talk::open();
    talk.send(Original, ACK, 1000);
    talk.send(Reply, ACK, 60_000);
    assert_eq!(talk.send(Reply, FIN | ACK, 10), FlowState::Closing);
    assert_eq!(talk.send(Original, ACK, 7), FlowState::Closing);
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
    assert_eq!(talk.send(Reply, ACK, 0), FlowState::Closed);
}

#[test]
fn who_only_acknowledges_is_followed_over_the_wrap() {
    let mut talk = Talk::open();
    for _ in 0..200 {
        talk.send(Original, ACK, 1000);
        talk.send(Reply, ACK, 0);
    }
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closing);
}

#[test]
fn a_repeated_fin_closes_nothing_more() {
    let mut talk = Talk::open();
    let at = talk.peers[1].at;
    talk.send(Reply, FIN | ACK, 0);
    assert_eq!(
        talk.inject(Reply, FIN | ACK, at, 0, talk.peers[1].seen),
        FlowState::Closing
    );
}

#[test]
fn an_end_can_reset() {
    for direction in Direction::ALL {
        let mut talk = Talk::open();
        talk.send(Original, ACK, 100);
        talk.send(Reply, ACK, 100);
        talk.send(direction, ACK, 50);
        assert_eq!(
            talk.send(direction, RST | ACK, 0),
            FlowState::Closed,
            "{direction:?}"
        );
    }
}

#[test]
fn a_server_can_refuse() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, 1), FlowState::Opening);
    assert_eq!(talk.outcome.get(), None);
    let ack = talk.peers[1].seen;
    assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, ack), FlowState::Closed);
    assert_eq!(talk.outcome.get(), Some(Outcome::Refused));
    talk.outcome.set(None);
    talk.inject(Reply, RST | ACK, 0, 0, ack);
    assert_eq!(talk.outcome.get(), None);
}

#[test]
fn a_client_that_gives_up_says_nothing_of_the_server() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    assert_eq!(talk.send(Original, RST, 0), FlowState::Closed);
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
        assert_eq!(
            talk.inject(Original, RST, seq, 0, 0),
            FlowState::Established
        );
        // Data that pretends to be next, far off or with an acknowledgement of nothing.
        let ack = seen.wrapping_add(1 << 30);
        talk.inject(Original, ACK, seq, 10, ack);
        assert_eq!(
            talk.inject(Original, FIN | ACK, seq, 0, ack),
            FlowState::Established
        );
        assert_eq!(
            talk.inject(Reply, SYN | ACK, seq, 0, 5),
            FlowState::Established
        );
    }
    assert_eq!(talk.send(Original, RST, 0), FlowState::Closed);
    let waiting = Talk::new();
    assert_eq!(waiting.inject(Reply, ACK, 5, 0, 5), FlowState::Opening);
    assert_eq!(
        waiting.inject(Reply, SYN | ACK, 5, 0, 5),
        FlowState::Opening
    );
}

// Fast Open: the SYN has data, of which the server takes all or nothing (RFC 7413, section 4.2).
#[test]
fn an_answer_may_leave_the_data_of_a_syn() {
    for taken in [0, 1, 999, 1000] {
        let mut talk = Talk::new();
        let first = talk.peers[0].at.wrapping_add(1);
        talk.send(Original, SYN, 1000);
        talk.peers[1].seen = first.wrapping_add(taken);
        assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
        assert_eq!(talk.outcome.get(), Some(Outcome::Answered), "{taken}");
        // The client sends again what was not taken.
        let (at, seen) = (talk.peers[1].seen, talk.peers[0].seen);
        talk.inject(Original, ACK, at, 1000 - taken, seen);
        talk.peers[1].seen = talk.peers[0].at;
        assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closing);
        assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
    }
}

#[test]
fn a_refusal_may_leave_the_data_of_a_syn() {
    for (taken, state) in [
        (-1, FlowState::Opening),
        (0, FlowState::Closed),
        (1000, FlowState::Closed),
        (1001, FlowState::Opening),
    ] {
        let mut talk = Talk::new();
        let first = talk.peers[0].at.wrapping_add(1);
        talk.send(Original, SYN, 1000);
        let ack = first.wrapping_add_signed(taken);
        assert_eq!(talk.inject(Reply, RST | ACK, 0, 0, ack), state, "{taken}");
    }
}

// Linux does not repeat the data of a SYN with it.
#[test]
fn a_repeated_syn_takes_no_data_back() {
    let mut talk = Talk::new();
    let at = talk.peers[0].at;
    talk.send(Original, SYN, 1000);
    talk.inject(Original, SYN, at, 0, 0);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
}

#[test]
fn nobody_who_guesses_takes_a_syn_back() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    let at = talk.peers[0].at;
    // What the reply direction has sent last is not known yet: zero is a guess like others.
    for seq in [0, 1, at.wrapping_sub(1), at.wrapping_add(1)] {
        assert_eq!(talk.inject(Original, RST, seq, 0, 0), FlowState::Opening);
    }
    // Another SYN in the client's name does not hide the first.
    talk.inject(Original, SYN, 77, 0, 0);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
}

// The client gave its first attempt up without a word, and uses the port again.
#[test]
fn a_second_attempt_is_answered_or_refused() {
    for (flags, state) in [
        (SYN | ACK, FlowState::Established),
        (RST | ACK, FlowState::Closed),
    ] {
        let mut talk = Talk::new();
        talk.send(Original, SYN, 0);
        talk.peers[0].at = 1 << 20;
        talk.send(Original, SYN, 0);
        assert_eq!(talk.send(Reply, flags, 0), state);
        assert!(talk.outcome.get().is_some());
    }
}

impl Talk {
    // Both ends forget the connection, and the client opens another one from the same port.
    fn forget(&mut self) {
        for peer in &mut self.peers {
            peer.at = peer.at.wrapping_add(1 << 29);
        }
        self.outcome.set(None);
    }
}

#[test]
fn both_ends_can_use_a_tuple_anew() {
    for last in [RST, FIN | ACK] {
        for before in [FlowState::Established, FlowState::Closing] {
            for data in [0, 700] {
                let mut talk = Talk::open();
                talk.send(Original, ACK, 100);
                if before == FlowState::Closing {
                    talk.send(Reply, FIN | ACK, 0);
                }
                talk.forget();
                let first = talk.peers[0].at.wrapping_add(1);
                assert_eq!(talk.send(Original, SYN, data), before);
                talk.peers[1].seen = first;
                assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
                assert_eq!(talk.outcome.get(), Some(Outcome::Answered));
                talk.peers[0].at = first;
                assert_eq!(talk.send(Original, ACK, 1000), FlowState::Established);
                talk.send(Reply, ACK, 50_000);
                if last == RST {
                    assert_eq!(talk.send(Reply, RST, 0), FlowState::Closed);
                } else {
                    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closing);
                    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
                }
            }
        }
    }
}

// The RST may be forged, with the SYN that it refuses: a client that lives says so by its next segment.
#[test]
fn a_refused_syn_ends_a_connection_only_if_its_client_is_silent() {
    let tuple = to_port(Protocol::Tcp, 443);
    let mut talk = Talk::open();
    talk.outcome.set(None);
    let forged = 1 << 29;
    let refuse = |talk: &Talk, ack| {
        talk.inject(Original, SYN, forged, 0, 0);
        let state = talk.inject(Reply, RST | ACK, 0, 0, ack);
        assert_eq!(state, FlowState::Established);
        assert_eq!(talk.outcome.get(), None);
        talk.flow.timeout(&tuple, &TIMEOUTS)
    };
    assert_eq!(refuse(&talk, forged + 2), 432_000);
    assert_eq!(refuse(&talk, forged + 1), 240);
    // Not one more that guesses.
    talk.inject(Original, ACK, forged + 1, 0, 0);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 240);
    talk.send(Reply, ACK, 100);
    talk.send(Original, ACK, 100);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
    talk.send(Original, FIN | ACK, 0);
    talk.inject(Original, SYN, forged, 0, 0);
    talk.inject(Reply, RST | ACK, 0, 0, forged + 1);
    assert_eq!(talk.flow.state(), FlowState::Closing);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
}

// RFC 5961, section 4: a SYN in a living connection is answered by an acknowledgement; one who sent
// the SYN does not know of that connection, and resets it with the very number.
#[test]
fn a_client_that_forgot_resets_by_the_challenge() {
    let mut talk = Talk::open();
    talk.send(Original, ACK, 100);
    talk.send(Reply, ACK, 100);
    let (at, seen) = (talk.peers[1].at, talk.peers[1].seen);
    talk.forget();
    talk.inject(Original, SYN, talk.peers[0].at, 0, 0);
    assert_eq!(talk.inject(Reply, ACK, at, 0, seen), FlowState::Established);
    assert_eq!(talk.inject(Original, RST, seen, 0, 0), FlowState::Closed);
}

#[test]
fn a_forged_syn_changes_nothing() {
    let mut talk = Talk::open();
    for seq in [5, 1 << 30, talk.peers[0].at] {
        talk.inject(Original, SYN, seq, 2, 0);
        // As one who only sees his own direction would have it answered.
        for ack in [0, seq, seq.wrapping_add(4)] {
            talk.inject(Reply, SYN | ACK, 9, 0, ack);
            talk.inject(Reply, RST | ACK, 9, 0, ack);
        }
        assert_eq!(talk.flow.state(), FlowState::Established);
    }
    talk.send(Original, ACK, 1000);
    talk.send(Reply, ACK, 1000);
    talk.send(Original, FIN | ACK, 0);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
}

// What the network delivers twice and late is no new connection.
#[test]
fn a_late_handshake_starts_nothing_anew() {
    let mut talk = Talk::new();
    let [client, server] = [talk.peers[0].at, talk.peers[1].at];
    talk.send(Original, SYN, 0);
    talk.send(Reply, SYN | ACK, 0);
    talk.send(Original, ACK, 3000);
    talk.send(Reply, FIN | ACK, 3000);
    talk.inject(Original, SYN, client, 0, 0);
    let ack = client.wrapping_add(1);
    assert_eq!(
        talk.inject(Reply, SYN | ACK, server, 0, ack),
        FlowState::Closing
    );
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
    assert_eq!(
        talk.inject(Reply, SYN | ACK, server, 0, ack),
        FlowState::Closed
    );
}

// The server has crashed, and answers a late copy of the living client's SYN: the client resets it.
#[test]
fn a_late_syn_that_a_new_server_answers_starts_nothing_anew() {
    let mut talk = Talk::new();
    let client = talk.peers[0].at;
    talk.send(Original, SYN, 0);
    talk.send(Reply, SYN | ACK, 0);
    talk.send(Original, ACK, 3000);
    let expected = talk.peers[0].seen;
    talk.inject(Original, SYN, client, 0, 0);
    let ack = client.wrapping_add(1);
    talk.inject(Reply, SYN | ACK, expected.wrapping_add(1 << 29), 0, ack);
    assert_eq!(talk.inject(Reply, RST, expected, 0, 0), FlowState::Closed);
}

// RFC 9293, section 3.5, figure 8: the server answers an old SYN first.
#[test]
fn an_old_syn_is_reset_and_the_new_one_answered() {
    for old_first in [true, false] {
        let talk = Talk::new();
        let (new, old) = (talk.peers[0].at, talk.peers[0].at.wrapping_sub(1 << 28));
        for seq in if old_first { [old, new] } else { [new, old] } {
            assert_eq!(talk.inject(Original, SYN, seq, 0, 0), FlowState::Opening);
        }
        let ack = old.wrapping_add(1);
        talk.inject(Reply, SYN | ACK, 1000, 0, ack);
        assert_eq!(talk.inject(Original, RST, ack, 0, 0), FlowState::Closed);
        let ack = new.wrapping_add(1);
        let state = talk.inject(Reply, SYN | ACK, 1 << 30, 0, ack);
        assert_eq!(state, FlowState::Established, "{old_first}");
    }
}

// RFC 9293, section 3.5, figure 7.
#[test]
fn both_can_open_at_once() {
    let [client, server] = [1000, 2000];
    let begin = || {
        let talk = Talk::new();
        assert_eq!(talk.inject(Original, SYN, client, 0, 0), FlowState::Opening);
        assert_eq!(talk.inject(Reply, SYN, server, 0, 0), FlowState::Opening);
        let ack = server + 1;
        let state = talk.inject(Original, SYN | ACK, client, 0, ack);
        assert_eq!(state, FlowState::Opening);
        talk
    };
    // The SYN of the answer, the acknowledgement of the other one's, data or the end.
    for (flags, length, state) in [
        (SYN | ACK, 0, FlowState::Established),
        (ACK, 0, FlowState::Established),
        (ACK, 500, FlowState::Established),
        (FIN | ACK, 0, FlowState::Closing),
    ] {
        let talk = begin();
        let at = server + u32::from(flags & SYN == 0);
        // Not one who guesses.
        assert_eq!(
            talk.inject(Reply, flags, at, length, 77),
            FlowState::Opening
        );
        assert_eq!(talk.inject(Reply, flags, at, length, client + 1), state);
        assert_eq!(talk.outcome.get(), Some(Outcome::Answered));
        let at = server + 1 + length;
        talk.inject(Original, ACK, client + 1, 60_000, at);
        let ack = client + 60_001;
        talk.inject(Reply, FIN | ACK, at, 0, ack);
        let state = talk.inject(Original, FIN | ACK, ack, 0, at + 1);
        assert_eq!(state, FlowState::Closed);
    }
    // One gives up.
    let talk = begin();
    assert_eq!(talk.inject(Reply, RST, server, 0, 0), FlowState::Opening);
    assert_eq!(talk.inject(Reply, RST, server + 1, 0, 0), FlowState::Closed);
    assert_eq!(talk.outcome.get(), Some(Outcome::Refused));
    let talk = begin();
    assert_eq!(
        talk.inject(Original, RST, client + 1, 0, 0),
        FlowState::Closed
    );
    assert_eq!(talk.outcome.get(), None);
    // One closes before it is answered.
    let talk = begin();
    let closes = || talk.inject(Original, FIN | ACK, client + 1, 0, server + 1);
    assert_eq!(closes(), FlowState::Opening);
    assert_eq!(closes(), FlowState::Opening);
    let state = talk.inject(Reply, SYN | ACK, server, 0, client + 1);
    assert_eq!(state, FlowState::Closing);
    let state = talk.inject(Reply, FIN | ACK, server + 1, 0, client + 2);
    assert_eq!(state, FlowState::Closed);
}

// A SYN in the server's name makes the client answer; as long as it has not, nothing is known.
#[test]
fn a_forged_syn_of_the_server_opens_and_resets_nothing() {
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    talk.inject(Reply, SYN, u32::MAX, 0, 0);
    assert_eq!(talk.inject(Reply, RST, 0, 0, 0), FlowState::Opening);
    assert_eq!(talk.inject(Reply, ACK, 0, 0, 5), FlowState::Opening);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
}

// Of two segments under way the first is sent again, and acknowledges more than it did.
#[test]
fn a_repeated_segment_acknowledges_what_is_new() {
    let mut talk = Talk::open();
    let at = talk.peers[1].at;
    talk.send(Reply, ACK, 1000);
    talk.send(Reply, ACK, 1000);
    talk.send(Original, ACK, 100);
    let seen = talk.peers[1].seen;
    talk.inject(Reply, ACK, at, 1000, seen);
    // What comes after is lost, and the client with it.
    talk.send(Original, ACK, 100);
    assert_eq!(talk.inject(Original, RST, seen, 0, 0), FlowState::Closed);
}

#[test]
fn udp_is_established_by_an_answer() {
    let flow = flow(Protocol::Udp);
    flow.advance_udp(Original);
    assert_eq!(flow.state(), FlowState::Opening);
    assert!(!flow.is_plain(Original, None));
    flow.advance_udp(Reply);
    assert_eq!(flow.state(), FlowState::Established);
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
    assert_eq!(size_of::<PerDirection<[u64; 2]>>(), 64);
    assert_eq!(size_of::<Flow<[u64; 2]>>(), 128);
}

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

#[test]
fn a_direct_flow_is_known_from_both_sides_and_never_plain() {
    let tuple = to_port(Protocol::Udp, 53);
    let (keys, flow) = Flow::<()>::direct(&tuple, 7);
    assert_eq!(keys, [tuple, tuple.reverse()]);
    assert!(flow.is_direct() && !flow.is_plain_direct(Original, None));
    flow.advance_udp(Reply);
    assert!(flow.is_direct() && flow.state() == FlowState::Established);
    for direction in Direction::ALL {
        assert!(flow.is_plain_direct(direction, None) && !flow.is_plain(direction, None));
    }
    let redirected = self::flow(Protocol::Udp);
    redirected.advance_udp(Reply);
    assert!(!redirected.is_direct() && !redirected.is_plain_direct(Reply, None));
}

#[test]
fn a_direct_connection_is_closed_whatever_its_numbers() {
    let direct = || {
        let mut talk = Talk::new();
        talk.flow = Flow::direct(&to_port(Protocol::Tcp, 443), 0).1;
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 0);
        talk
    };
    let mut talk = direct();
    assert_eq!(
        talk.flow.timeout(&to_port(Protocol::Tcp, 443), &TIMEOUTS),
        432_000
    );
    // What passes is not followed.
    for _ in 0..100 {
        let segment = Segment::read(
            &[
                0, 0, 0, 0, 9, 9, 9, 9, 0, 0, 0, 0, 80, ACK, 0, 0, 0, 0, 0, 0,
            ],
            20,
        );
        assert!(talk.flow.is_plain_direct(Reply, Some(segment.flags)));
    }
    (talk.peers[0].at, talk.peers[1].at) = (77 << 20, 99 << 20);
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closing);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closed);
    assert!(talk.flow.is_direct());
}

#[test]
fn datagrams_last_once_they_go_on_for_two_seconds() {
    for (port, before) in [(53, 30), (1023, 30), (1024, 120), (40_000, 120)] {
        let tuple = to_port(Protocol::Udp, port);
        let start = u32::MAX - 500;
        let (_, flow) = Flow::<()>::direct(&tuple, start);
        let timeout = || flow.timeout(&tuple, &TIMEOUTS);
        assert_eq!(timeout(), before);
        // Nobody answers.
        flow.count(Original, 1, start.wrapping_add(10 * HZ));
        assert_eq!(timeout(), before);
        let (_, flow) = Flow::<()>::direct(&tuple, start);
        let timeout = || flow.timeout(&tuple, &TIMEOUTS);
        flow.advance_udp(Reply);
        flow.count(Original, 1, start.wrapping_add(2 * HZ - 1));
        assert_eq!(timeout(), before, "too soon");
        flow.count(
            Original,
            1,
            start.wrapping_add(2 * HZ + 2 * (1 << BIRTH_UNIT)),
        );
        assert_eq!(timeout(), 180);
        // However long ago it began.
        for hours in [1, 5, 24, 500] {
            flow.count(Original, 1, start.wrapping_add(hours * 3600 * HZ));
            assert_eq!(timeout(), 180, "{hours} hours");
        }
    }
}

#[test]
fn a_connection_that_its_client_does_not_confirm_counts_as_unanswered() {
    let mut talk = Talk::new();
    let tuple = to_port(Protocol::Tcp, 443);
    talk.send(Original, SYN, 0);
    assert_eq!(talk.send(Reply, SYN | ACK, 0), FlowState::Established);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 240);
    assert!(talk
        .flow
        .early_drop_rank(Protocol::Tcp, false, 0, HZ)
        .is_some());
    // Nor by somebody who does not know the server's number.
    talk.inject(Original, ACK, talk.peers[0].at, 0, 1 << 30);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 240);
    talk.send(Original, ACK, 0);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
    assert_eq!(
        talk.flow.early_drop_rank(Protocol::Tcp, false, 1 << 30, HZ),
        None
    );
}

// The classes in which flows are dropped early, and how long ago each was last seen.
fn rank_of(flow: &Flow<()>, protocol: Protocol, direct: bool, now: u32) -> Option<(u32, u32)> {
    let rank = flow.early_drop_rank(protocol, direct, now, HZ)?;
    Some((rank >> 29, rank & ((1 << 29) - 1)))
}

#[test]
fn what_is_closed_goes_first_and_what_lasts_never() {
    let now = 100 * HZ;
    let udp = |direct: bool, answered: bool, last: u32| {
        let tuple = to_port(Protocol::Udp, 53);
        let flow = match direct {
            true => Flow::direct(&tuple, 0).1,
            false => Flow::new(&tuple, &tuple.to(ip([3; 4]), 4), OWNER, 0).1,
        };
        if answered {
            flow.advance_udp(Reply);
        }
        flow.count(Original, 1, last);
        rank_of(&flow, Protocol::Udp, false, now)
    };
    for direct in [false, true] {
        assert_eq!(udp(direct, false, 10), Some((3, now - 10)));
        assert_eq!(udp(direct, true, 10), Some((1, now - 10)));
    }
    let tcp = |direct: bool, segments: &[(Direction, u8)], last: u32| {
        let mut talk = Talk::new();
        let tuple = to_port(Protocol::Tcp, 443);
        talk.flow = match direct {
            true => Flow::direct(&tuple, 0).1,
            false => Flow::new(&tuple, &tuple.to(ip([3; 4]), 4), OWNER, 0).1,
        };
        for &(direction, flags) in segments {
            talk.send(direction, flags, 0);
        }
        talk.flow.count(Reply, 1, last);
        rank_of(&talk.flow, Protocol::Tcp, false, now)
    };
    let open = [(Original, SYN), (Reply, SYN | ACK), (Original, ACK)];
    let then = |segments: &[(Direction, u8)]| [&open, segments].concat();
    let reset = then(&[(Original, RST)]);
    let finished = then(&[(Original, FIN | ACK), (Reply, FIN | ACK)]);
    let closing = then(&[(Original, FIN | ACK)]);
    assert_eq!(tcp(false, &reset, 1000), Some((4, now - 1000)));
    for direct in [false, true] {
        assert_eq!(tcp(direct, &finished, 1000), Some((4, now - 1000)));
        // Answered, but not confirmed.
        assert_eq!(tcp(direct, &open[..1], 1000), Some((3, now - 1000)));
        assert_eq!(tcp(direct, &open[..2], 1000), Some((3, now - 1000)));
        // An end that has closed may wait for the other one, for a while.
        let idle = 10 * HZ;
        assert_eq!(tcp(direct, &closing, now - idle - 1), Some((2, idle + 1)));
    }
    let lasts = |idle: u32| {
        [
            udp(false, true, now - idle),
            tcp(false, &open, now - idle),
            tcp(false, &closing, now - idle),
        ]
    };
    assert_eq!(lasts(0), [None; 3]);
    assert_eq!(lasts(10 * HZ), [None; 3]);
    // A direct one is not needed: less is lost than with any other.
    let lasts = |idle: u32| {
        [
            udp(true, true, now - idle),
            tcp(true, &open, now - idle),
            tcp(true, &closing, now - idle),
        ]
    };
    assert_eq!(lasts(0), [Some((0, 0)); 3]);
    assert_eq!(lasts(10 * HZ), [Some((0, 10 * HZ)); 3]);
}

#[test]
fn for_a_direct_flow_only_direct_ones_go() {
    let tuple = to_port(Protocol::Tcp, 443);
    let redirected = flow(Protocol::Tcp);
    let (_, direct) = Flow::<()>::direct(&tuple, 0);
    assert_eq!(rank_of(&redirected, Protocol::Tcp, true, 9), None);
    assert_eq!(rank_of(&direct, Protocol::Tcp, true, 9), Some((3, 9)));
}

// A SYN in the server's name hides the server's own, but not from the client, which acknowledges what it has got.
#[test]
fn the_syn_that_the_client_acknowledges_is_the_servers() {
    let [client, server] = [1000, 2000];
    for flags in [SYN | ACK, ACK] {
        let talk = Talk::new();
        talk.inject(Original, SYN, client, 0, 0);
        talk.inject(Reply, SYN, server, 0, 0);
        talk.inject(Reply, SYN, 77, 0, 0);
        let at = client + u32::from(flags & SYN == 0);
        talk.inject(Original, flags, at, 0, server + 1);
        assert_eq!(talk.inject(Reply, RST, 78, 0, 0), FlowState::Opening);
        let state = talk.inject(Reply, RST, server + 1, 0, 0);
        assert_eq!(state, FlowState::Closed, "{flags:x}");
    }
    // One who does not know the client's number acknowledges nothing.
    let talk = Talk::new();
    talk.inject(Original, SYN, client, 0, 0);
    talk.inject(Original, ACK, client + 2, 0, server + 1);
    assert_eq!(
        talk.inject(Reply, RST, server + 1, 0, 0),
        FlowState::Opening
    );
}

// The answer of a server that has crashed since never came; of the repeated SYN it knows nothing.
#[test]
fn a_new_server_answers_until_the_client_has_an_answer() {
    let talk = Talk::new();
    let client = talk.peers[0].at;
    let ack = client.wrapping_add(1);
    talk.inject(Original, SYN, client, 0, 0);
    talk.inject(Reply, SYN | ACK, 1 << 31, 0, ack);
    talk.inject(Original, SYN, client, 0, 0);
    let state = talk.inject(Reply, SYN | ACK, 5000, 0, ack);
    assert_eq!(state, FlowState::Established);
    talk.inject(Original, ACK, ack, 0, 5001);
    let tuple = to_port(Protocol::Tcp, 443);
    assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
    assert_eq!(talk.inject(Reply, RST, 5001, 0, 0), FlowState::Closed);
}

// Whoever guesses chooses the window, which is the larger of both, in its own SYN.
#[test]
fn guesses_confirm_no_half_open_connection() {
    let tuple = to_port(Protocol::Tcp, 443);
    let mut state = 1_u64;
    let mut confirmed = 0;
    for _ in 0..500 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let server = (state >> 32) as u32;
        for direct in [false, true] {
            let mut talk = Talk::new();
            if direct {
                talk.flow = Flow::direct(&tuple, 0).1;
            }
            talk.scales = [Some(14); 2];
            talk.inject(Original, SYN, 1000, 0, 0);
            talk.inject(Reply, SYN | ACK, server, 0, 1001);
            for ack in [0, 1 << 31, 1 << 30, 3 << 30] {
                talk.inject(Original, ACK, 1001, 0, ack);
                talk.inject(Original, 0, 1001, 0, server.wrapping_add(1));
            }
            confirmed += u32::from(talk.flow.timeout(&tuple, &TIMEOUTS) != 240);
            talk.inject(Original, ACK, 1001, 0, server.wrapping_add(1));
            assert_eq!(talk.flow.timeout(&tuple, &TIMEOUTS), 432_000);
        }
    }
    assert_eq!(confirmed, 0);
}

// RFC 9293, section 3.10.7.4; RFC 5961, section 5.
#[test]
fn a_fin_is_near_and_acknowledges_what_was_sent() {
    let open = || {
        let mut talk = Talk::new();
        talk.scales = [Some(14); 2];
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 1 << 20);
        talk.send(Reply, ACK, 1 << 20);
        talk
    };
    for (flags, off, beyond, state) in [
        (FIN | ACK, 0, 0, FlowState::Closing),
        (FIN | ACK, 65_535, 0, FlowState::Closing),
        (FIN | ACK, -65_535, -100_000, FlowState::Closing),
        (FIN | ACK, 65_536, 0, FlowState::Established),
        (FIN | ACK, -65_536, 0, FlowState::Established),
        (FIN | ACK, 0, 1, FlowState::Established),
        (FIN, 0, 0, FlowState::Established),
    ] {
        for direction in Direction::ALL {
            let mut talk = open();
            let peer = &talk.peers[direction as usize];
            let (at, seen) = (
                peer.at.wrapping_add_signed(off),
                peer.seen.wrapping_add_signed(beyond),
            );
            let got = talk.inject(direction, flags, at, 0, seen);
            assert_eq!(got, state, "{flags:x} {off} {beyond}");
            // What is refused leaves nothing behind.
            if state == FlowState::Established {
                assert_eq!(talk.send(direction, RST, 0), FlowState::Closed);
            }
        }
    }
}

// RFC 7323, section 2.2: both must have sent the option.
#[test]
fn windows_are_scaled_only_if_both_ends_scale() {
    for (scales, farthest) in [
        ([None, None], 65_535),
        ([Some(14), None], 65_535),
        ([None, Some(14)], 65_535),
        ([Some(0), Some(0)], 65_535),
        ([Some(3), Some(0)], (65_536 << 3) - 1),
        ([Some(8), Some(14)], (65_536 << 14) - 1),
    ] {
        // As the flow knows the client's SYN, or as one that was kept.
        for anew in [false, true] {
            for (off, state) in [
                (farthest, FlowState::Closed),
                (farthest + 1, FlowState::Established),
            ] {
                let mut talk = Talk::new();
                talk.scales = scales;
                if anew {
                    talk.inject(Original, SYN, 1 << 30, 0, 0);
                }
                talk.send(Original, SYN, 0);
                talk.send(Reply, SYN | ACK, 0);
                talk.send(Original, ACK, 0);
                let at = talk.peers[1].at.wrapping_add(off);
                talk.inject(Reply, ACK, at, 0, talk.peers[1].seen);
                let got = talk.inject(Reply, RST, at, 0, 0);
                assert_eq!(got, state, "{scales:?} {off}");
            }
        }
    }
}

#[test]
fn an_upstream_that_has_sent_anything_is_not_silent() {
    let talk = Talk::new();
    talk.inject(Original, SYN, 5, 0, 0);
    talk.flow.count(Original, 60, 1);
    assert!(talk.flow.is_unanswered());
    // A challenge (RFC 5961, section 4), say: it lives, whatever becomes of the connection.
    talk.inject(Reply, ACK, 77, 0, 99);
    talk.flow.count(Reply, 60, 2);
    assert_eq!(talk.flow.state(), FlowState::Opening);
    assert!(!talk.flow.is_unanswered());
    let talk = Talk::open();
    assert!(!talk.flow.is_unanswered());
}

// RFC 9293, section 3.10.7.4, TIME-WAIT; RFC 6191.
#[test]
fn only_a_newer_syn_replaces_a_flow_that_both_have_closed() {
    let syn = |seq: u32| segment(SYN, seq, 0, 0);
    let replaces = |talk: &Talk, off: i32| {
        let at = talk.peers[0].at.wrapping_add_signed(off);
        assert!(!talk.flow.is_replaced_by(Reply, &syn(at)));
        assert!(!talk
            .flow
            .is_replaced_by(Original, &segment(SYN | ACK, at, 0, 0)));
        talk.flow.is_replaced_by(Original, &syn(at))
    };
    let mut talk = Talk::open();
    for off in [-1, 0, 1 << 29] {
        assert!(!replaces(&talk, off));
    }
    talk.send(Original, FIN | ACK, 100);
    assert!(!replaces(&talk, 1 << 29));
    talk.send(Reply, FIN | ACK, 0);
    assert_eq!(talk.flow.state(), FlowState::Closed);
    for (off, newer) in [
        (0, true),
        (1, true),
        (1 << 29, true),
        (i32::MAX, true),
        (-1, false),
        (-100, false),
        (i32::MIN, false),
    ] {
        assert_eq!(replaces(&talk, off), newer, "{off}");
    }
    // One that is older is kept, and counts if it is answered.
    let at = talk.peers[0].at.wrapping_sub(1 << 29);
    talk.inject(Original, SYN, at, 0, 0);
    let state = talk.inject(Reply, SYN | ACK, 9, 0, at.wrapping_add(1));
    assert_eq!(state, FlowState::Established);
    // After a RST both ends have forgotten all.
    let mut talk = Talk::open();
    talk.send(Original, FIN | ACK, 100);
    talk.send(Reply, RST, 0);
    assert!(replaces(&talk, 0) && replaces(&talk, -1 << 29));
    // The numbers of a direct one are not known.
    let mut talk = Talk::new();
    talk.flow = Flow::direct(&to_port(Protocol::Tcp, 443), 0).1;
    for (direction, flags) in [
        (Original, SYN),
        (Reply, SYN | ACK),
        (Original, FIN | ACK),
        (Reply, FIN | ACK),
    ] {
        talk.send(direction, flags, 0);
    }
    assert!(replaces(&talk, 0) && replaces(&talk, -1 << 29));
}

// As with connection tracking, packets of either direction count.
#[test]
fn datagrams_of_a_server_alone_last() {
    let tuple = to_port(Protocol::Udp, 53);
    let (_, flow) = Flow::<()>::direct(&tuple, 0);
    flow.advance_udp(Reply);
    flow.count(Reply, 1, 10 * HZ);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 180);
}

// For how long nobody answered says nothing.
#[test]
fn datagrams_last_two_seconds_after_an_answer_that_came_late() {
    let tuple = to_port(Protocol::Udp, 53);
    let (_, flow) = Flow::<()>::direct(&tuple, 0);
    let mut now = 0;
    while now < 3 * 3600 * HZ {
        flow.count(Original, 1, now);
        assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
        now += 30 * HZ;
    }
    flow.count(Original, 1, now);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
    flow.advance_udp(Reply);
    flow.count(Reply, 1, now);
    assert_eq!(
        flow.timeout(&tuple, &TIMEOUTS),
        30,
        "an answer is no more than that"
    );
    flow.count(Original, 1, now + 3 * HZ);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 180);
}

// The clock of a CPU may be late.
#[test]
fn datagrams_are_no_older_than_their_flow() {
    let tuple = to_port(Protocol::Udp, 53);
    let born = 1 << 20;
    let (_, flow) = Flow::<()>::direct(&tuple, born);
    flow.advance_udp(Reply);
    for direction in Direction::ALL {
        flow.count(direction, 1, born - 300);
    }
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
}

// A moment of birth that would say that it lasts.
#[test]
fn no_flow_is_born_assured() {
    let tuple = to_port(Protocol::Udp, 53);
    let (_, flow) = Flow::<()>::direct(&tuple, u32::MAX);
    flow.advance_udp(Reply);
    assert_eq!(flow.timeout(&tuple, &TIMEOUTS), 30);
}

#[test]
fn a_flow_is_confirmed_by_a_second_packet_or_an_answer() {
    let flow = flow(Protocol::Udp);
    assert!(flow.is_unconfirmed());
    flow.count(Original, 1, 0);
    assert!(flow.is_unconfirmed());
    flow.count(Original, 1, 0);
    assert!(!flow.is_unconfirmed());
    let flow = self::flow(Protocol::Udp);
    flow.advance_udp(Reply);
    assert!(!flow.is_unconfirmed());
}

impl Talk {
    fn direct() -> Self {
        let mut talk = Self::new();
        talk.flow = Flow::direct(&to_port(Protocol::Tcp, 443), 0).1;
        talk
    }

    fn timeout(&self) -> u32 {
        self.flow.timeout(&to_port(Protocol::Tcp, 443), &TIMEOUTS)
    }
}

// The answers may take another way.
#[test]
fn a_direct_connection_of_which_only_one_direction_passes_is_plain() {
    let mut talk = Talk::direct();
    let is_plain = |talk: &Talk| talk.flow.is_plain_direct(Original, Some(Flags(ACK)));
    talk.send(Original, SYN, 0);
    talk.send(Original, SYN, 0);
    assert!(!is_plain(&talk));
    talk.inject(Original, ACK, 5, 0, 99);
    assert!(is_plain(&talk));
    // But nobody has said that its client exists.
    assert_eq!(talk.timeout(), 240);
    let rank = rank_of(&talk.flow, Protocol::Tcp, false, 9);
    assert_eq!(rank, Some((3, 9)));
    talk.inject(Original, FIN | ACK, 5, 0, 99);
    assert_eq!(talk.flow.state(), FlowState::Closing);
    // A redirected one waits for its answer.
    let mut talk = Talk::new();
    talk.send(Original, SYN, 0);
    talk.inject(Original, ACK, talk.peers[0].at, 0, 99);
    assert_eq!(talk.flow.state(), FlowState::Opening);
}

#[test]
fn a_direct_connection_that_is_answered_late_is_confirmed_by_its_client() {
    for kept in [false, true] {
        let mut talk = Talk::direct();
        talk.send(Original, SYN, 0);
        // Somebody who guesses.
        talk.inject(Original, ACK, 5, 0, 99);
        assert_eq!(talk.flow.state(), FlowState::Established);
        if kept {
            talk.inject(Original, SYN, 1 << 29, 0, 0);
        }
        talk.send(Reply, SYN | ACK, 0);
        assert_eq!(talk.timeout(), 240);
        talk.inject(Original, ACK, 5, 0, 99);
        assert_eq!(talk.timeout(), 240);
        talk.send(Original, ACK, 0);
        assert_eq!(talk.timeout(), 432_000);
    }
}

// Of a direct connection the numbers are not known: a RST may be forged.
#[test]
fn a_reset_ends_a_direct_connection_only_if_its_client_is_silent() {
    for direction in Direction::ALL {
        let mut talk = Talk::direct();
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 0);
        assert_eq!(talk.timeout(), 432_000);
        for _ in 0..2 {
            let state = talk.inject(direction, RST, 1 << 20, 0, 0);
            assert_eq!(state, FlowState::Established);
            assert_eq!(talk.timeout(), 240);
            talk.inject(Reply, ACK, 1 << 20, 0, 1 << 20);
            assert_eq!(talk.timeout(), 240);
            // Wherever it is meanwhile.
            talk.inject(Original, ACK, 7 << 20, 100, 9 << 20);
            assert_eq!(talk.timeout(), 432_000);
            assert!(talk.flow.is_plain_direct(Original, Some(Flags(ACK))));
        }
        // The ports are used anew.
        talk.inject(direction, RST, 1 << 20, 0, 0);
        talk.forget();
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        assert_eq!(talk.outcome.get(), Some(Outcome::Answered));
        talk.inject(Original, ACK, 5, 0, 99);
        assert_eq!(talk.timeout(), 240);
        talk.send(Original, ACK, 0);
        assert_eq!(talk.timeout(), 432_000);
    }
    // Who never was confirmed is not by a guess after a RST.
    let mut talk = Talk::direct();
    talk.send(Original, SYN, 0);
    talk.send(Reply, SYN | ACK, 0);
    talk.inject(Original, RST, 5, 0, 0);
    talk.inject(Original, ACK, 5, 0, 99);
    assert_eq!(talk.timeout(), 240);
}

// Of two SYNs the second is refused; the first may be answered yet.
#[test]
fn the_first_syn_is_kept_when_the_second_is_refused() {
    let talk = Talk::new();
    talk.inject(Original, SYN, 1000, 0, 0);
    talk.inject(Original, SYN, 1 << 20, 0, 0);
    let state = talk.inject(Reply, RST | ACK, 0, 0, (1 << 20) + 1);
    assert_eq!(state, FlowState::Closed);
    assert_eq!(talk.outcome.take(), Some(Outcome::Refused));
    let state = talk.inject(Reply, SYN | ACK, 9, 0, 1001);
    assert_eq!(state, FlowState::Established);
    assert_eq!(talk.outcome.take(), Some(Outcome::Answered));
}

proptest! {
    // A transfer of many windows, whatever their scale; and somebody who is near, but never right.
    #[test]
    fn a_forger_near_the_window_moves_nothing(
        scales in [8..15_u8, 8..15_u8],
        start in any::<[u32; 2]>(),
        steps in prop::collection::vec((any::<bool>(), 0..60_000_u32, any::<[u32; 2]>()), 1..80),
        last in any::<bool>(),
    ) {
        let mut talk = Talk::new();
        talk.scales = scales.map(Some);
        for (peer, at) in talk.peers.iter_mut().zip(start) {
            peer.at = at;
        }
        talk.send(Original, SYN, 0);
        talk.send(Reply, SYN | ACK, 0);
        talk.send(Original, ACK, 0);
        let reach = (65_536 << scales[0].max(scales[1])) - 1;
        for (reply, length, [some, other]) in steps {
            let direction = Direction::from_index(usize::from(reply));
            // More than a window that is not scaled is under way.
            for _ in 0..some % 8 {
                talk.send(direction, ACK, length);
            }
            let Peer { at, seen } = talk.peers[direction as usize];
            // Beyond the window on either side, by one number or the other.
            let off = reach + 2 + some % (u32::MAX - 2 * reach - 3);
            let within = other % 50_000;
            talk.inject(direction, ACK, at.wrapping_add(off), 0, seen);
            talk.inject(direction, ACK, at.wrapping_add(within), 0, seen.wrapping_add(off));
            // Within it a FIN has to be near, and a RST exact.
            let off = 65_536 + other % (u32::MAX - 2 * 65_536);
            talk.inject(direction, FIN | ACK, at.wrapping_add(off), 0, seen);
            let off = 1 + other % (u32::MAX - 2 * 65_536);
            talk.inject(direction, FIN | ACK, at, 0, seen.wrapping_add(off % (1 << 31)));
            let off = 1 + other % (u32::MAX - 1);
            let expected = talk.peers[1 - direction as usize].seen;
            if at.wrapping_add(off) != expected {
                talk.inject(direction, RST, at.wrapping_add(off), 0, seen);
            }
            prop_assert_eq!(talk.flow.state(), FlowState::Established);
            prop_assert_eq!(talk.timeout(), 432_000);
        }
        let direction = Direction::from_index(usize::from(last));
        let talked = talk.send(direction, RST, 0);
        prop_assert_eq!(talked, FlowState::Closed);
    }
}

// Up to a gigabyte is under way, and its last segment comes first; one byte more is too far.
#[test]
fn a_scaled_transfer_is_followed_over_its_whole_window() {
    for shift in 0..15_u8 {
        let reach = (65_536 << shift) - 1;
        for (off, state) in [
            (reach, FlowState::Closed),
            (reach + 1, FlowState::Established),
        ] {
            let mut talk = Talk::new();
            talk.scales = [Some(shift); 2];
            talk.send(Original, SYN, 0);
            talk.send(Reply, SYN | ACK, 0);
            talk.send(Original, ACK, 0);
            let Peer { at, seen } = talk.peers[1];
            let end = at.wrapping_add(off);
            talk.inject(Reply, ACK, end.wrapping_sub(1000), 1000, seen);
            talk.inject(Reply, ACK, at, 1000, seen);
            assert_eq!(talk.inject(Reply, RST, end, 0, 0), state, "{shift}");
        }
    }
}

// The server closes before its answer was confirmed, and the answer comes twice, after a repeated SYN.
#[test]
fn a_repeated_answer_takes_no_fin_back() {
    let mut talk = Talk::new();
    let client = talk.peers[0].at;
    talk.send(Original, SYN, 0);
    let server = talk.peers[1].at;
    talk.send(Reply, SYN | ACK, 0);
    talk.inject(Original, SYN, client, 0, 0);
    assert_eq!(talk.send(Reply, FIN | ACK, 0), FlowState::Closing);
    let ack = client.wrapping_add(1);
    let state = talk.inject(Reply, SYN | ACK, server, 0, ack);
    assert_eq!(state, FlowState::Closing);
    assert_eq!(talk.send(Original, FIN | ACK, 0), FlowState::Closed);
}

// What confirms the client's SYN may be sent after something that is lost.
#[test]
fn of_both_that_opened_at_once_the_client_expects_what_follows_the_syn() {
    let talk = Talk::new();
    talk.inject(Original, SYN, 1000, 0, 0);
    talk.inject(Reply, SYN, 2000, 0, 0);
    talk.inject(Original, SYN | ACK, 1000, 0, 2001);
    let state = talk.inject(Reply, ACK, 2101, 0, 1001);
    assert_eq!(state, FlowState::Established);
    assert_eq!(talk.inject(Reply, RST, 2001, 0, 0), FlowState::Closed);
}
