// SPDX-License-Identifier: GPL-2.0

//! A redirected connection.

use core::sync::atomic::{
    AtomicU16, AtomicU32, AtomicU64, AtomicU8,
    Ordering::{Relaxed, Release},
};

use super::checksum::Delta;
use super::order::SEEN_FIRST;
use super::stack::FreePointer;
use super::state::FlowState;
use super::tcp::{Flags, Opening, Segment, SeqState};
use super::tuple::{Address, Tuple};
use super::upstream::UpstreamNumber;

mod lifetime;
mod steps;

/// What the state of a flow asks for a packet that changes nothing in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// To be translated and counted: the flow is established.
    Translated,
    /// To be counted: it is a direct one.
    Direct,
    /// To be looked at.
    Slow,
}

/// Which way a packet of a flow goes, as IP_CT_DIR_ORIGINAL and IP_CT_DIR_REPLY tell of connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client, towards what it believes to be its server.
    Original = 0,
    /// From the upstream, towards the client.
    Reply = 1,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Original, Self::Reply];

    /// From that of an entry in the table.
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
pub struct ChecksumFixup {
    /// The addresses: the IPv4 header's checksum, and the pseudo header of the transport's.
    pub addresses: Delta,
    /// Addresses and ports: the transport's checksum.
    pub transport: Delta,
}

impl ChecksumFixup {
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

/// What belongs to the packets of one direction: 64 bytes, which only they write, so that two CPUs
/// that each handle one direction share no line that is written, if it begins one.
#[derive(Debug)]
#[repr(C)]
pub struct PerDirection<R> {
    packets: AtomicU64,
    bytes: AtomicU64,
    route: R,
    seq: SeqState,
    last_seen: AtomicU32,
    fixup: ChecksumFixup,
    // The flow's state, the directions whose FIN was seen, and of what kind it is; the same in both directions.
    state_flags: AtomicU8,
    // The original direction: the group of the upstream. The reply direction: its place in there.
    upstream: u8,
    // The original direction: when the flow was made; written only by who may change the table, while the flow
    // is in it, and to spare after that. The reply direction: to spare.
    high: AtomicU16,
    // The original direction: the context that the flow is of. The reply direction: to spare.
    low: AtomicU32,
}

impl<R> PerDirection<R> {
    /// See [`Flow::count`].
    #[inline(always)]
    pub fn count(&self, length: u32, now: u32) {
        let add = |counter: &AtomicU64, by: u64| {
            counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
        };
        add(&self.packets, 1);
        add(&self.bytes, length.into());
        self.last_seen.store(now, Relaxed);
    }

    /// See [`Flow::pace`].
    #[inline(always)]
    pub fn pace(&self) -> Pace {
        const ESTABLISHED: u8 = FlowState::Established as u8;
        const DIRECT_ESTABLISHED: u8 = ESTABLISHED | DIRECT;
        let state_flags = &self.state_flags;
        // A CPU that sees this sees the numbers from which its segments go on: see `SEEN_FIRST`. Read twice, since of
        // two comparisons of one value the compiler makes a switch, and chooses which comes first: it is to be the one of
        // most packets. A flow that becomes established in between is left to the slow path. Of a direct flow nothing
        // else is read.
        if state_flags.load(SEEN_FIRST) == ESTABLISHED {
            Pace::Translated
        } else if state_flags.load(Relaxed) == DIRECT_ESTABLISHED {
            Pace::Direct
        } else {
            Pace::Slow
        }
    }

    /// See [`Flow::accept_plain`].
    #[inline(always)]
    pub fn accept_plain(&self, segment: &Segment) -> bool {
        segment.flags.is_plain() && self.seq.accept_in_order(segment)
    }

    /// See [`Flow::checksum_fixup`].
    #[inline(always)]
    pub fn checksum_fixup(&self) -> ChecksumFixup {
        self.fixup
    }

    /// See [`Flow::route`].
    #[inline(always)]
    pub fn route(&self) -> &R {
        &self.route
    }
}

// In `state_flags`.
const STATE: u8 = 3;
const FIN_OF: [u8; 2] = [1 << 4, 1 << 5];
const FINS: u8 = FIN_OF[0] | FIN_OF[1];
const DIRECT: u8 = 1 << 6;
// The client has not yet said that it knows of the connection of TCP, since the upstream has accepted it, or refused another
// SYN, or a direct one was reset: it acknowledges what was sent.
const HALF_OPEN: u8 = 1 << 7;

/// When a flow was made, in units of this power of two of the clock's, and in 16 bits.
const BIRTH_UNIT: u32 = 8;
/// In its place: the flow is assured, however long ago that was.
const ASSURED: u16 = u16::MAX;

/// A connection from a client to an original destination, and from the same client, as the
/// upstream sees it, to the upstream. What its packets look like is the key of its node.
///
/// A *direct* one is not redirected: its packets pass as they are.
///
/// `R` is what the kernel keeps to send packets of one direction on.
#[derive(Debug)]
#[repr(C)]
pub struct Flow<R> {
    dirs: [PerDirection<R>; 2],
}

/// Whose a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The context whose rule made it.
    pub context: u32,
    /// Which of the context's upstreams it goes to.
    pub upstream: UpstreamNumber,
}

impl Owner {
    /// No context.
    pub const NOBODY: Self = Self {
        context: 0,
        upstream: UpstreamNumber {
            group: 0,
            member: 0,
        },
    };
}

impl<R: Default> Flow<R> {
    /// A flow whose packets look like `original` when they come from the client, and like
    /// `upstream` when they leave for the upstream; with what packets of either direction look like on
    /// arrival.
    #[inline(always)]
    pub fn new<A: Address>(
        original: &Tuple<A>,
        upstream: &Tuple<A>,
        owner: Owner,
        now: u32,
    ) -> ([Tuple<A>; 2], Self) {
        let fixup = ChecksumFixup::between(original, upstream);
        let keys = [*original, upstream.reverse()];
        (keys, Self::begin(fixup, owner, now, 0))
    }

    /// A flow whose packets look like `original` and pass as they are.
    #[inline(always)]
    pub fn direct<A: Address>(original: &Tuple<A>, now: u32) -> ([Tuple<A>; 2], Self) {
        let keys = [*original, original.reverse()];
        let flow = Self::begin(ChecksumFixup::default(), Owner::NOBODY, now, DIRECT);
        (keys, flow)
    }

    /// The same flow, of a client that begins it so.
    #[inline(always)]
    #[must_use]
    pub fn opened(self, opening: Opening) -> Self {
        let [original, reply] = self.dirs;
        let original = PerDirection {
            seq: opening.into(),
            ..original
        };
        Self {
            dirs: [original, reply],
        }
    }

    #[inline(always)]
    fn begin(fixup: ChecksumFixup, owner: Owner, now: u32, kind: u8) -> Self {
        let dir = |fixup, upstream, high, low| PerDirection {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            route: R::default(),
            seq: SeqState::default(),
            last_seen: AtomicU32::new(now),
            fixup,
            state_flags: AtomicU8::new(FlowState::Opening as u8 | kind),
            upstream,
            high: AtomicU16::new(high),
            low: AtomicU32::new(low),
        };
        let dirs = [
            dir(fixup, owner.upstream.group, birth(now), owner.context),
            dir(fixup.reverse(), owner.upstream.member, 0, 0),
        ];
        Self { dirs }
    }
}

// A time as it is kept in a flow.
const fn birth(now: u32) -> u16 {
    match (now >> BIRTH_UNIT) as u16 {
        ASSURED => ASSURED - 1,
        birth => birth,
    }
}

impl<R: Send + Sync> FreePointer for Flow<R> {
    fn free_pointer(&self) -> u64 {
        let [original, reply] = &self.dirs;
        let high = [original, reply].map(|dir| u64::from(dir.high.load(Relaxed)));
        high[0] << 48 | high[1] << 32 | u64::from(reply.low.load(Relaxed))
    }

    fn set_free_pointer(&self, bits: u64) {
        let [original, reply] = &self.dirs;
        original.high.store((bits >> 48) as u16, Relaxed);
        reply.high.store((bits >> 32) as u16, Relaxed);
        reply.low.store(bits as u32, Relaxed);
    }
}

impl<R> Flow<R> {
    /// What belongs to packets of `direction`.
    #[inline(always)]
    pub fn dir(&self, direction: Direction) -> &PerDirection<R> {
        &self.dirs[direction as usize]
    }

    /// Where what belongs to packets of `direction` begins.
    #[inline(always)]
    pub fn start(&self, direction: Direction) -> &AtomicU64 {
        &self.dir(direction).packets
    }

    /// How translating a packet of `direction` changes its checksums.
    #[inline(always)]
    pub fn checksum_fixup(&self, direction: Direction) -> ChecksumFixup {
        self.dir(direction).fixup
    }

    /// What the kernel keeps for packets of `direction`.
    #[inline(always)]
    pub fn route(&self, direction: Direction) -> &R {
        &self.dir(direction).route
    }

    /// Whose it is.
    pub fn owner(&self) -> Owner {
        let [original, reply] = &self.dirs;
        Owner {
            context: original.low.load(Relaxed),
            upstream: UpstreamNumber {
                group: original.upstream,
                member: reply.upstream,
            },
        }
    }

    /// Counts a packet: of `length` bytes, at time `now`.
    ///
    /// Without a locked instruction: of two packets of one direction that two CPUs handle at the same
    /// moment, one may be left out.
    #[inline(always)]
    pub fn count(&self, direction: Direction, length: u32, now: u32) {
        self.dir(direction).count(length, now);
    }

    /// Packets and bytes of `direction`.
    pub fn counted(&self, direction: Direction) -> (u64, u64) {
        let dir = self.dir(direction);
        (dir.packets.load(Relaxed), dir.bytes.load(Relaxed))
    }

    /// Whether a packet of `direction` needs no more than to be counted and translated: the flow is
    /// established, and the packet, if it is of TCP, an ordinary one that follows on the last,
    /// which then is taken note of.
    #[inline(always)]
    pub fn is_plain(&self, direction: Direction, segment: Option<&Segment>) -> bool {
        self.pace(direction) == Pace::Translated
            && segment.is_none_or(|segment| self.accept_plain(direction, segment))
    }

    /// The first part of `is_plain` and `is_plain_direct`, for a caller that reads a segment only then.
    #[inline(always)]
    pub fn pace(&self, direction: Direction) -> Pace {
        self.dir(direction).pace()
    }

    /// The second part, of TCP.
    #[inline(always)]
    pub fn accept_plain(&self, direction: Direction, segment: &Segment) -> bool {
        self.dir(direction).accept_plain(segment)
    }

    /// As `is_plain`, of a direct flow: whether a packet needs no more than to be counted. Of TCP its
    /// numbers are not followed. A forger may close such a flow by FINs; without it packets pass as well, but its port
    /// at an upstream is another's to have.
    #[inline(always)]
    pub fn is_plain_direct(&self, direction: Direction, flags: Option<Flags>) -> bool {
        self.pace(direction) == Pace::Direct && flags.is_none_or(|flags| !flags.may_change_state())
    }

    /// Whether its packets pass as they are.
    pub fn is_direct(&self) -> bool {
        self.dir(Direction::Original).state_flags.load(Relaxed) & DIRECT != 0
    }

    /// Moves the flow on by a datagram of `direction`.
    #[cold]
    pub fn advance_udp(&self, direction: Direction) {
        if direction == Direction::Reply {
            let state_flags = self.dir(direction).state_flags.load(Relaxed);
            self.set_state(FlowState::Established, state_flags & !STATE);
        }
    }

    // Two CPUs that move a flow on at once may lose one step; a retransmission or the time-out
    // makes up for it.
    fn set_state(&self, state: FlowState, fins: u8) {
        for dir in &self.dirs {
            dir.state_flags.store(fins | state as u8, Release);
        }
    }

    /// The state of the flow.
    pub fn state(&self) -> FlowState {
        FlowState::from_number(self.dir(Direction::Original).state_flags.load(Relaxed) & STATE)
    }

    /// Whether its upstream has sent nothing at all.
    pub fn is_unanswered(&self) -> bool {
        self.state() == FlowState::Opening && self.counted(Direction::Reply).0 == 0
    }

    /// Whether nobody has answered, and no packet but one has passed: what connection tracking has not confirmed.
    pub fn is_unconfirmed(&self) -> bool {
        self.state() == FlowState::Opening && self.counted(Direction::Original).0 <= 1
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
