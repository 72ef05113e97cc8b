// SPDX-License-Identifier: GPL-2.0

//! A redirected connection.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};

use super::checksum::Delta;
use super::stack::Spare;
use super::state::State;
use super::tcp::{Progress, Segment};
use super::tuple::{Address, Tuple};
use super::upstream::Outcome;

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the client, towards what it believes to be its server.
    Original = 0,
    /// From the upstream, towards the client.
    Reply = 1,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Original, Self::Reply];

    /// From the side of an entry in the table.
    #[inline(always)]
    pub const fn from_index(index: usize) -> Self {
        if index == 0 {
            Self::Original
        } else {
            Self::Reply
        }
    }

    /// The other.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// What translating a packet changes in its checksums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// The addresses: the IPv4 header's checksum, and the pseudo header of the transport's.
    pub addresses: Delta,
    /// Addresses and ports: the transport's checksum.
    pub transport: Delta,
}

impl Change {
    /// What changes when packets of `old` become packets of `new`.
    pub fn between<A: Address>(old: &Tuple<A>, new: &Tuple<A>) -> Self {
        let ((old, old_ports), (new, new_ports)) = (old.sums(), new.sums());
        Self {
            addresses: Delta::between(old, new),
            transport: Delta::between(old.and(old_ports), new.and(new_ports)),
        }
    }

    /// What changes back, also when both are seen from their other ends.
    #[must_use]
    pub const fn reverse(self) -> Self {
        Self {
            addresses: self.addresses.reverse(),
            transport: self.transport.reverse(),
        }
    }
}

/// What belongs to the packets of one side: 64 bytes, which only they write, so that two CPUs
/// that each handle one direction share no line that is written, if it begins one.
#[derive(Debug)]
#[repr(C)]
struct Half<R> {
    packets: AtomicU64,
    bytes: AtomicU64,
    route: R,
    progress: Progress,
    last_seen: AtomicU32,
    change: Change,
    // The flow's state and the sides whose FIN was seen; the same in both halves.
    life: AtomicU8,
    upstream: u8,
    // The original side: the context that the flow is of. The reply side: bits to spare.
    high: AtomicU16,
    low: AtomicU32,
}

const FIN_OF: [u8; 2] = [1 << 4, 1 << 5];
const FINS: u8 = FIN_OF[0] | FIN_OF[1];

/// A connection from a client to an original destination, and from the same client, as the
/// upstream sees it, to the upstream. What its packets look like is the key of its node.
///
/// `R` is what the kernel keeps to send packets of one side on.
#[derive(Debug)]
#[repr(C)]
pub struct Flow<R> {
    halves: [Half<R>; 2],
}

/// Whose a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The context whose rule made it.
    pub context: u32,
    /// Which of the context's upstreams it goes to.
    pub upstream: u8,
}

impl<R: Default> Flow<R> {
    /// A flow whose packets look like `original` when they come from the client, and like
    /// `upstream` when they leave for the upstream; with what packets of either side look like on
    /// arrival.
    #[inline(always)]
    pub fn new<A: Address>(
        original: &Tuple<A>,
        upstream: &Tuple<A>,
        owner: Owner,
        now: u32,
    ) -> ([Tuple<A>; 2], Self) {
        let keys = [*original, upstream.reverse()];
        let half = |change| Half {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            route: R::default(),
            progress: Progress::default(),
            last_seen: AtomicU32::new(now),
            change,
            life: AtomicU8::new(State::Opening as u8),
            upstream: owner.upstream,
            high: AtomicU16::new(0),
            low: AtomicU32::new(owner.context),
        };
        let change = Change::between(original, upstream);
        let halves = [half(change), half(change.reverse())];
        (keys, Self { halves })
    }
}

impl<R: Send + Sync> Spare for Flow<R> {
    fn spare(&self) -> u64 {
        let half = self.half(Side::Reply);
        u64::from(half.high.load(Relaxed)) << 32 | u64::from(half.low.load(Relaxed))
    }

    fn set_spare(&self, bits: u64) {
        let half = self.half(Side::Reply);
        half.high.store((bits >> 32) as u16, Relaxed);
        half.low.store(bits as u32, Relaxed);
    }
}

impl<R> Flow<R> {
    #[inline(always)]
    fn half(&self, side: Side) -> &Half<R> {
        &self.halves[side as usize]
    }

    /// Where what belongs to packets of `side` begins.
    #[inline(always)]
    pub fn start(&self, side: Side) -> &AtomicU64 {
        &self.half(side).packets
    }

    /// How translating a packet of `side` changes its checksums.
    #[inline(always)]
    pub fn change(&self, side: Side) -> Change {
        self.half(side).change
    }

    /// What the kernel keeps for packets of `side`.
    #[inline(always)]
    pub fn route(&self, side: Side) -> &R {
        &self.half(side).route
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        let half = self.half(Side::Original);
        Owner {
            context: half.low.load(Relaxed),
            upstream: half.upstream,
        }
    }

    /// Counts a packet: of `length` bytes, at time `now`.
    ///
    /// Without a locked instruction: of two packets of one side that two CPUs handle at the same
    /// moment, one may be left out.
    #[inline(always)]
    pub fn count(&self, side: Side, length: u32, now: u32) {
        let half = self.half(side);
        let add = |counter: &AtomicU64, by: u64| {
            counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
        };
        add(&half.packets, 1);
        add(&half.bytes, length.into());
        half.last_seen.store(now, Relaxed);
    }

    /// Packets and bytes of `side`.
    pub fn counted(&self, side: Side) -> (u64, u64) {
        let half = self.half(side);
        (half.packets.load(Relaxed), half.bytes.load(Relaxed))
    }

    /// Whether a packet of `side` needs no more than to be counted and translated: the flow is
    /// established, and the packet, if it is of TCP, an ordinary one that follows on the last,
    /// which then is taken note of.
    #[inline(always)]
    pub fn is_plain(&self, side: Side, segment: Option<&Segment>) -> bool {
        let half = self.half(side);
        if half.life.load(Relaxed) != State::Established as u8 {
            return false;
        }
        let Some(segment) = segment else {
            return true;
        };
        segment.flags.is_plain() && half.progress.note(segment)
    }

    /// Moves the flow on by a datagram of `side`.
    #[cold]
    pub fn advance_udp(&self, side: Side) {
        if side == Side::Reply {
            self.set_life(State::Established, 0);
        }
    }

    /// Moves the flow on by a segment of `side` with TCP options `options`. Tells how the upstream
    /// takes the connection, if this segment decides it.
    #[cold]
    pub fn advance_tcp(&self, side: Side, segment: &Segment, options: &[u8]) -> Option<Outcome> {
        let life = self.half(side).life.load(Relaxed);
        let (state, fins) = (State::from_number(life & !FINS), life & FINS);
        let mine = &self.half(side).progress;
        let other = &self.half(side.other()).progress;
        let flags = segment.flags;
        if flags.rst() {
            let refusal = (state, side) == (State::Opening, Side::Reply);
            let real = if refusal {
                Progress::refuses(other, segment)
            } else {
                mine.resets(other, segment)
            };
            if real {
                self.set_life(State::Closed, fins);
            }
            return (real && refusal).then_some(Outcome::Failed);
        }
        match (state, side, flags.syn()) {
            (State::Opening, Side::Original, true) => mine.begin(segment, options),
            (State::Opening, Side::Reply, true) if Progress::refuses(other, segment) => {
                mine.answer(other, segment, options);
                self.set_life(State::Established, fins);
                return Some(Outcome::Answered);
            }
            (State::Opening, ..) | (_, _, true) => {}
            (State::Established | State::Closing | State::Closed, ..) => {
                if mine.takes(segment) && flags.fin() {
                    let fins = fins | FIN_OF[side as usize];
                    let closed = fins == FINS || state == State::Closed;
                    let state = if closed {
                        State::Closed
                    } else {
                        State::Closing
                    };
                    self.set_life(state, fins);
                }
            }
        }
        None
    }

    // Two CPUs that move a flow on at once may lose one step; a retransmission or the time-out
    // makes up for it.
    fn set_life(&self, state: State, fins: u8) {
        for half in &self.halves {
            half.life.store(fins | state as u8, Relaxed);
        }
    }

    /// Where the flow is in its life.
    pub fn state(&self) -> State {
        State::from_number(self.half(Side::Original).life.load(Relaxed) & !FINS)
    }

    /// How long ago the last packet came, in the unit of `now`.
    pub fn idle(&self, now: u32) -> u32 {
        let idle = |half: &Half<R>| {
            // A packet may come between reading the clock and this: that is no idle time.
            let idle = now.wrapping_sub(half.last_seen.load(Relaxed));
            if idle > u32::MAX / 2 {
                0
            } else {
                idle
            }
        };
        let [original, reply] = &self.halves;
        idle(original).min(idle(reply))
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(talk.outcome.get(), Some(Outcome::Failed));
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
}
