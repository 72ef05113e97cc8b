// SPDX-License-Identifier: GPL-2.0

//! A redirected connection.

use core::sync::atomic::{
    AtomicU16, AtomicU32, AtomicU64, AtomicU8,
    Ordering::{Relaxed, Release},
};

use super::abi::proxy::Protocol;
use super::checksum::Delta;
use super::order::SEEN_FIRST;
use super::reopenings::Reopenings;
use super::stack::FreePointer;
use super::state::{FlowState, Timeouts};
use super::tcp::{Flags, Opening, Segment, SeqState, Syn};
use super::tuple::{Address, Tuple};
use super::upstream::Outcome;

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
/// A datagram flow is assured once a packet of either direction comes so many seconds after it began, and at the most
/// two units of its birth later, as with connection tracking (nf_conntrack_proto_udp.c). It begins with what its client
/// sent last before the answer, as far as somebody asked for it since.
const ASSURED_AFTER: u32 = 2;

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
    pub upstream: u8,
}

impl Owner {
    /// No context.
    pub const NOBODY: Self = Self {
        context: 0,
        upstream: 0,
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
        let dir = |fixup, high, low| PerDirection {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            route: R::default(),
            seq: SeqState::default(),
            last_seen: AtomicU32::new(now),
            fixup,
            state_flags: AtomicU8::new(FlowState::Opening as u8 | kind),
            upstream: owner.upstream,
            high: AtomicU16::new(high),
            low: AtomicU32::new(low),
        };
        let dirs = [
            dir(fixup, birth(now), owner.context),
            dir(fixup.reverse(), 0, 0),
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
        let dir = self.dir(Direction::Original);
        Owner {
            context: dir.low.load(Relaxed),
            upstream: dir.upstream,
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
        self.pace(direction) == Pace::Direct && flags.is_none_or(Flags::is_plain)
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

    /// Moves the flow on by a segment of `direction` with TCP options `options`. Tells how the upstream
    /// takes the connection, if this segment decides it. `hash` is the flow's, of whichever direction,
    /// but always the same one.
    #[cold]
    pub fn advance_tcp(
        &self,
        direction: Direction,
        segment: &Segment,
        options: &[u8],
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let state_flags = self.dir(direction).state_flags.load(Relaxed);
        let (state, fins) = (
            FlowState::from_number(state_flags & STATE),
            state_flags & !STATE,
        );
        let mine = &self.dir(direction).seq;
        let other = &self.dir(direction.other()).seq;
        let flags = segment.flags;
        if flags.rst() {
            return self.reset(direction, segment, reopenings, hash);
        }
        match (state, direction, flags.syn()) {
            (_, Direction::Reply, true) if flags.ack() => {
                return self.answer(segment, options, reopenings, hash);
            }
            (FlowState::Opening, Direction::Original, true) => {
                let known = mine.begin(&Syn::read(segment, options));
                if !known && flags.opens() {
                    reopenings.keep(hash, &Syn::read(segment, options));
                } else if known && flags.ack() {
                    other.syn_is_acked(segment);
                }
            }
            (FlowState::Opening, Direction::Reply, true) => {
                let syn = Syn::read(segment, options);
                if !mine.begin(&syn) && !mine.is_syn_acked() {
                    mine.begin_anew(&syn);
                }
            }
            // Answers to a direct one may take another way.
            (FlowState::Opening, Direction::Original, false) if fins & DIRECT != 0 => {
                if flags.ack() {
                    self.finish(FlowState::Established, fins, direction, flags.fin());
                }
            }
            (FlowState::Opening, Direction::Original, false) => {
                // Both have opened at once.
                if flags.ack() && mine.is_next(segment) {
                    other.syn_is_acked(segment);
                    if flags.fin() {
                        mine.finish_early(segment);
                        self.set_state(FlowState::Opening, fins | FIN_OF[direction as usize]);
                    }
                }
            }
            (FlowState::Opening, Direction::Reply, false) => {
                if mine.confirm(other, segment) {
                    self.finish(FlowState::Established, fins, direction, flags.fin());
                    return Some(Outcome::Answered);
                }
            }
            // The client may have forgotten the connection: the answer will tell.
            (_, Direction::Original, true) if flags.opens() => {
                reopenings.keep(hash, &Syn::read(segment, options));
            }
            (_, _, true) => {}
            (FlowState::Established | FlowState::Closing | FlowState::Closed, _, false) => {
                let is_followed = fins & DIRECT == 0;
                if flags.fin() && !(flags.ack() && !is_followed || mine.closes(other, segment)) {
                    return None;
                }
                let half_open = fins & HALF_OPEN != 0;
                let confirms = direction == Direction::Original;
                if half_open && confirms && !mine.confirms(other, segment) {
                    return None;
                }
                if !is_followed && !half_open || mine.accept(segment) {
                    // What the client acknowledges it has got.
                    let fins = match direction {
                        Direction::Original => fins & !HALF_OPEN,
                        Direction::Reply => fins,
                    };
                    if flags.fin() {
                        self.finish(state, fins, direction, true);
                    } else if fins != state_flags & !STATE {
                        self.set_state(state, fins);
                    }
                }
            }
        }
        None
    }

    // A SYN of the upstream that acknowledges something.
    fn answer(
        &self,
        segment: &Segment,
        options: &[u8],
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let [client, server] = &self.dirs;
        let (client_seq, server_seq) = (&client.seq, &server.seq);
        let state_flags = server.state_flags.load(Relaxed);
        let (state, mut fins) = (
            FlowState::from_number(state_flags & STATE),
            state_flags & !STATE,
        );
        let opening = state == FlowState::Opening || self.is_one_way();
        let syn = client_seq.syn().filter(|_| opening);
        if !syn.is_some_and(|syn| syn.is_acked_by(segment)) {
            let anew = reopenings.take(hash, segment)?;
            match syn {
                // It may be answered yet.
                Some(syn) => reopenings.keep(hash, &syn),
                // Who has got no answer yet may get another one, of a server that has crashed since.
                None if client_seq.has_begun_with(segment)
                    && (fins & HALF_OPEN == 0 || client_seq.acks_end_of(segment)) =>
                {
                    return None;
                }
                None => {}
            }
            client_seq.begin_anew(&anew.up_to(segment));
            fins &= DIRECT;
        }
        server_seq.answer(client_seq, segment, options);
        self.finish(
            FlowState::Established,
            fins | HALF_OPEN,
            Direction::Reply,
            false,
        );
        Some(Outcome::Answered)
    }

    // A RST, which may be forged.
    fn reset(
        &self,
        direction: Direction,
        segment: &Segment,
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let mine = &self.dir(direction).seq;
        let other = &self.dir(direction.other()).seq;
        let state_flags = self.dir(direction).state_flags.load(Relaxed);
        let (state, fins) = (
            FlowState::from_number(state_flags & STATE),
            state_flags & !STATE,
        );
        let mut refuses = (state, direction) == (FlowState::Opening, Direction::Reply);
        let mut real = match (state, direction) {
            (FlowState::Opening, Direction::Original) => mine.takes_back(segment),
            (FlowState::Opening, Direction::Reply) => mine.refuses(other, segment),
            (FlowState::Closed, _) => false,
            // It may be forged: if the client lives, its next segment says so.
            _ if fins & DIRECT != 0 => {
                if !self.is_half_open() {
                    self.dir(Direction::Original).seq.forget();
                    self.set_state(state, fins | HALF_OPEN);
                }
                return None;
            }
            _ => mine.resets(other, segment),
        };
        // Or what is refused is another SYN than that of which the flow knows.
        if !real && direction == Direction::Reply && reopenings.take(hash, segment).is_some() {
            match state {
                FlowState::Opening => {
                    if let Some(syn) = other.syn() {
                        reopenings.keep(hash, &syn);
                    }
                    (refuses, real) = (true, true);
                }
                // Both may be forged by somebody who knows nothing of the connection: if its client lives, its
                // next segment says so.
                FlowState::Established | FlowState::Closing => {
                    self.set_state(state, fins | HALF_OPEN);
                }
                FlowState::Closed => {}
            }
        }
        if real {
            self.set_state(FlowState::Closed, fins);
        }
        (real && refuses).then_some(Outcome::Refused)
    }

    // In `state`, or after it: with `fins`, and one of `direction` if it `closes`.
    fn finish(&self, state: FlowState, fins: u8, direction: Direction, closes: bool) {
        let fins = fins
            | if closes {
                FIN_OF[direction as usize]
            } else {
                0
            };
        let state = match fins & FINS {
            _ if state == FlowState::Closed => FlowState::Closed,
            0 => state,
            FINS => FlowState::Closed,
            _ => FlowState::Closing,
        };
        self.set_state(state, fins);
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

    // Whether the client has not said that it knows of its connection of TCP: maybe it does not exist.
    fn is_half_open(&self) -> bool {
        let state_flags = self.dir(Direction::Original).state_flags.load(Relaxed);
        state_flags & HALF_OPEN != 0 || self.is_one_way()
    }

    // Whether it is a direct connection of TCP of which no answer has passed.
    fn is_one_way(&self) -> bool {
        self.is_direct() && !self.dir(Direction::Reply).seq.is_known()
    }

    /// Whether its upstream has sent nothing at all.
    pub fn is_unanswered(&self) -> bool {
        self.state() == FlowState::Opening && self.counted(Direction::Reply).0 == 0
    }

    /// Whether a segment of `direction` begins another connection of the same ports than one that is over. If that
    /// was closed by both ends, only a SYN with a number after the client's last does (RFC 9293, section 3.10.7.4, TIME-WAIT):
    /// any other is late or forged, or its answer will tell.
    pub fn is_replaced_by(&self, direction: Direction, segment: &Segment) -> bool {
        if !segment.flags.opens() || direction != Direction::Original {
            return false;
        }
        let dir = self.dir(Direction::Original);
        let state_flags = dir.state_flags.load(Relaxed);
        if FlowState::from_number(state_flags & STATE) != FlowState::Closed {
            return false;
        }
        // Of a direct one the numbers are not followed.
        state_flags & (FINS | DIRECT) != FINS || dir.seq.is_before(segment)
    }

    /// Whether nobody has answered, and no packet but one has passed: what connection tracking has not confirmed.
    pub fn is_unconfirmed(&self) -> bool {
        self.state() == FlowState::Opening && self.counted(Direction::Original).0 <= 1
    }

    // Whether a datagram flow is more than a question and an answer. Said once, it stays so. For who may
    // change the table, of a flow that is in it.
    fn is_assured(&self, hz: u32) -> bool {
        let dir = self.dir(Direction::Original);
        let born = dir.high.load(Relaxed);
        if born == ASSURED {
            return true;
        }
        // For how long nobody answered says nothing.
        if self.state() != FlowState::Established {
            dir.high.store(birth(dir.last_seen.load(Relaxed)), Relaxed);
            return false;
        }
        // Of whole units; a last packet before the first is one of another CPU, whose clock is late.
        let age =
            |dir: &PerDirection<R>| match birth(dir.last_seen.load(Relaxed)).wrapping_sub(born) {
                0 | 0x8000.. => 0,
                units => u32::from(units - 1) << BIRTH_UNIT,
            };
        let [original, reply] = &self.dirs;
        let assured = age(original).max(age(reply)) >= ASSURED_AFTER.wrapping_mul(hz);
        if assured {
            dir.high.store(ASSURED, Relaxed);
        }
        assured
    }

    /// How long it may be idle now; `original` is the key of its original direction. To be asked now and
    /// then, at least once in 2^22 units of the clock, by who may change the table that the flow is in: it
    /// takes note of what has lasted.
    pub fn timeout<A: Address>(&self, original: &Tuple<A>, timeouts: &Timeouts) -> u32 {
        let [short, transient, lasting] = timeouts.udp;
        let [opening, established, closing, closed] = timeouts.tcp;
        match (original.protocol, self.state()) {
            (Protocol::Udp, _) if self.is_assured(timeouts.hz) => lasting,
            (Protocol::Udp, _) if original.goes_to_well_known_port() => short,
            (Protocol::Udp, _) => transient,
            (Protocol::Tcp, FlowState::Opening) => opening,
            (Protocol::Tcp, FlowState::Established) if self.is_half_open() => opening,
            (Protocol::Tcp, FlowState::Established) => established,
            (Protocol::Tcp, FlowState::Closing) => closing,
            (Protocol::Tcp, FlowState::Closed) => closed,
        }
    }

    /// How much better it is to evict this flow than others when the table is full, for one that is to be `direct` or not:
    /// most of all what is closed, then what was never answered or is half open, what closes and is idle, a
    /// single exchange of datagrams, and any other direct flow, without which nothing goes elsewhere; of these what has been
    /// idle longest. `None`: it must stay, as a redirected one for a direct one. As for `timeout`.
    pub fn early_drop_rank(
        &self,
        protocol: Protocol,
        direct: bool,
        now: u32,
        hz: u32,
    ) -> Option<u32> {
        /// So long a connection that one end has closed is idle before it is taken for dead, in seconds.
        const HALF_CLOSED: u32 = 10;
        const CLASS: u32 = 1 << 29;
        if direct && !self.is_direct() {
            return None;
        }
        let idle = self.idle(now);
        let class = match (protocol, self.state()) {
            (_, FlowState::Closed) => 4,
            // Whoever floods the table must not push out who has only closed one direction.
            (_, FlowState::Opening) => 3,
            (Protocol::Tcp, _) if self.is_half_open() => 3,
            (_, FlowState::Closing) if idle > HALF_CLOSED.wrapping_mul(hz) => 2,
            (Protocol::Udp, _) if !self.is_assured(hz) => 1,
            _ if self.is_direct() => 0,
            _ => return None,
        };
        Some(CLASS.wrapping_mul(class) | idle.min(CLASS - 1))
    }

    /// How long ago the last packet came, in the unit of `now`.
    pub fn idle(&self, now: u32) -> u32 {
        let idle = |dir: &PerDirection<R>| {
            // A packet may come between reading the clock and this: that is no idle time.
            let idle = now.wrapping_sub(dir.last_seen.load(Relaxed));
            if idle > u32::MAX / 2 {
                0
            } else {
                idle
            }
        };
        let [original, reply] = &self.dirs;
        idle(original).min(idle(reply))
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
