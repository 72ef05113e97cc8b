// SPDX-License-Identifier: GPL-2.0

//! A redirected connection.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};

use super::abi::proxy::Protocol;
use super::checksum::Delta;
use super::reopenings::Reopenings;
use super::stack::Spare;
use super::state::{State, Timeouts};
use super::tcp::{Flags, Progress, Segment, Syn};
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
    // The flow's state, the sides whose FIN was seen, and of what kind it is; the same in both halves.
    life: AtomicU8,
    upstream: u8,
    // The original side: when the flow was made; written only by who may change the table, while the flow
    // is in it, and to spare after that. The reply side: to spare.
    high: AtomicU16,
    // The original side: the context that the flow is of. The reply side: to spare.
    low: AtomicU32,
}

// In `life`.
const STATE: u8 = 3;
const FIN_OF: [u8; 2] = [1 << 4, 1 << 5];
const FINS: u8 = FIN_OF[0] | FIN_OF[1];
const DIRECT: u8 = 1 << 6;
// The upstream has accepted a connection of TCP, and the client not yet said that it knows.
const HALF_OPEN: u8 = 1 << 7;

/// When a flow was made, in units of this power of two of the clock's, and in 16 bits.
const BIRTH_UNIT: u32 = 8;
/// In its place: the flow is assured, however long ago that was.
const ASSURED: u16 = u16::MAX;
/// A datagram flow is assured once its client still sends so many seconds after it began, and at the most
/// two units of its birth later, as with connection tracking (nf_conntrack_proto_udp.c).
const ASSURED_AFTER: u32 = 2;

/// A connection from a client to an original destination, and from the same client, as the
/// upstream sees it, to the upstream. What its packets look like is the key of its node.
///
/// A *direct* one is not redirected: its packets pass as they are.
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

impl Owner {
    /// No context.
    pub const NOBODY: Self = Self {
        context: 0,
        upstream: 0,
    };
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
        let change = Change::between(original, upstream);
        let keys = [*original, upstream.reverse()];
        (keys, Self::begin(change, owner, now, 0))
    }

    /// A flow whose packets look like `original` and pass as they are.
    #[inline(always)]
    pub fn direct<A: Address>(original: &Tuple<A>, now: u32) -> ([Tuple<A>; 2], Self) {
        let keys = [*original, original.reverse()];
        let flow = Self::begin(Change::default(), Owner::NOBODY, now, DIRECT);
        (keys, flow)
    }

    #[inline(always)]
    fn begin(change: Change, owner: Owner, now: u32, kind: u8) -> Self {
        let half = |change, high, low| Half {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            route: R::default(),
            progress: Progress::default(),
            last_seen: AtomicU32::new(now),
            change,
            life: AtomicU8::new(State::Opening as u8 | kind),
            upstream: owner.upstream,
            high: AtomicU16::new(high),
            low: AtomicU32::new(low),
        };
        let halves = [
            half(change, birth(now), owner.context),
            half(change.reverse(), 0, 0),
        ];
        Self { halves }
    }
}

// A time as it is kept in a flow.
const fn birth(now: u32) -> u16 {
    match (now >> BIRTH_UNIT) as u16 {
        ASSURED => ASSURED - 1,
        birth => birth,
    }
}

impl<R: Send + Sync> Spare for Flow<R> {
    fn spare(&self) -> u64 {
        let [original, reply] = &self.halves;
        let high = [original, reply].map(|half| u64::from(half.high.load(Relaxed)));
        high[0] << 48 | high[1] << 32 | u64::from(reply.low.load(Relaxed))
    }

    fn set_spare(&self, bits: u64) {
        let [original, reply] = &self.halves;
        original.high.store((bits >> 48) as u16, Relaxed);
        reply.high.store((bits >> 32) as u16, Relaxed);
        reply.low.store(bits as u32, Relaxed);
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
        self.is_established(side) && segment.is_none_or(|segment| self.accept_plain(side, segment))
    }

    /// The first half of `is_plain`, for who reads a segment only then.
    #[inline(always)]
    pub fn is_established(&self, side: Side) -> bool {
        self.half(side).life.load(Relaxed) == State::Established as u8
    }

    /// The second half, of TCP.
    #[inline(always)]
    pub fn accept_plain(&self, side: Side, segment: &Segment) -> bool {
        segment.flags.is_plain() && self.half(side).progress.accept_in_order(segment)
    }

    /// As `is_plain`, of a direct flow: whether a packet needs no more than to be counted. Of TCP its
    /// numbers are not followed: that a forger may end such a flow harms nobody, as packets of none pass
    /// as well.
    #[inline(always)]
    pub fn is_plain_direct(&self, side: Side, flags: Option<Flags>) -> bool {
        self.half(side).life.load(Relaxed) == State::Established as u8 | DIRECT
            && flags.is_none_or(Flags::is_plain)
    }

    /// Whether its packets pass as they are.
    pub fn is_direct(&self) -> bool {
        self.half(Side::Original).life.load(Relaxed) & DIRECT != 0
    }

    /// Moves the flow on by a datagram of `side`.
    #[cold]
    pub fn advance_udp(&self, side: Side) {
        if side == Side::Reply {
            let life = self.half(side).life.load(Relaxed);
            self.set_life(State::Established, life & !STATE);
        }
    }

    /// Moves the flow on by a segment of `side` with TCP options `options`. Tells how the upstream
    /// takes the connection, if this segment decides it. `hash` is the flow's, of whichever side,
    /// but always the same one.
    #[cold]
    pub fn advance_tcp(
        &self,
        side: Side,
        segment: &Segment,
        options: &[u8],
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let life = self.half(side).life.load(Relaxed);
        let (state, fins) = (State::from_number(life & STATE), life & !STATE);
        let mine = &self.half(side).progress;
        let other = &self.half(side.other()).progress;
        let flags = segment.flags;
        if flags.rst() {
            return self.reset(side, segment, reopenings, hash);
        }
        match (state, side, flags.syn()) {
            (_, Side::Reply, true) if flags.ack() => {
                return self.answer(segment, options, reopenings, hash);
            }
            (State::Opening, Side::Original, true) => {
                let known = mine.begin(&Syn::read(segment, options));
                if !known && flags.opens() {
                    reopenings.keep(hash, &Syn::read(segment, options));
                } else if known && other.syn().is_some_and(|syn| syn.is_acked_by(segment)) {
                    other.set_syn_acked();
                }
            }
            (State::Opening, Side::Reply, true) => {
                let syn = Syn::read(segment, options);
                if !mine.begin(&syn) && !mine.is_syn_acked() {
                    mine.begin_anew(&syn);
                }
            }
            (State::Opening, Side::Original, false) => {
                if flags.fin() && mine.finish_early(other, segment) {
                    self.set_life(State::Opening, fins | FIN_OF[side as usize]);
                }
            }
            (State::Opening, Side::Reply, false) => {
                if mine.confirm(other, segment) {
                    self.finish(State::Established, fins, side, flags.fin());
                    return Some(Outcome::Answered);
                }
            }
            // The client may have forgotten the connection: the answer will tell.
            (_, Side::Original, true) if flags.opens() => {
                reopenings.keep(hash, &Syn::read(segment, options));
            }
            (_, _, true) => {}
            (State::Established | State::Closing | State::Closed, _, false) => {
                if fins & DIRECT != 0 || mine.accept(segment) {
                    // What the client acknowledges it has got.
                    let fins = match side {
                        Side::Original => fins & !HALF_OPEN,
                        Side::Reply => fins,
                    };
                    if flags.fin() {
                        self.finish(state, fins, side, true);
                    } else if fins != life & !STATE {
                        self.set_life(state, fins);
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
        let [client, server] = &self.halves;
        let (client_side, server_side) = (&client.progress, &server.progress);
        let life = server.life.load(Relaxed);
        let (state, mut fins) = (State::from_number(life & STATE), life & !STATE);
        let syn = client_side.syn().filter(|_| state == State::Opening);
        if !syn.is_some_and(|syn| syn.is_acked_by(segment)) {
            let anew = reopenings.take(hash, segment)?;
            match syn {
                // It may be answered yet.
                Some(syn) => reopenings.keep(hash, &syn),
                None if client_side.has_begun_with(segment) => return None,
                None => {}
            }
            client_side.begin_anew(&anew.up_to(segment));
            fins &= DIRECT;
        }
        server_side.answer(client_side, segment, options);
        self.finish(State::Established, fins | HALF_OPEN, Side::Reply, false);
        Some(Outcome::Answered)
    }

    // A RST, which may be forged.
    fn reset(
        &self,
        side: Side,
        segment: &Segment,
        reopenings: &Reopenings,
        hash: u32,
    ) -> Option<Outcome> {
        let mine = &self.half(side).progress;
        let other = &self.half(side.other()).progress;
        let life = self.half(side).life.load(Relaxed);
        let (state, fins) = (State::from_number(life & STATE), life & !STATE);
        let mut refuses = (state, side) == (State::Opening, Side::Reply);
        let mut real = match (state, side) {
            (State::Opening, Side::Original) => mine.takes_back(segment),
            (State::Opening, Side::Reply) => mine.refuses(other, segment),
            (State::Closed, _) => false,
            _ => fins & DIRECT != 0 || mine.resets(other, segment),
        };
        // Or what is refused is another SYN than that of which the flow knows.
        if !real && side == Side::Reply && reopenings.take(hash, segment).is_some() {
            if let (State::Opening, Some(syn)) = (state, other.syn()) {
                reopenings.keep(hash, &syn);
            }
            (refuses, real) = (true, true);
        }
        if real {
            self.set_life(State::Closed, fins);
        }
        (real && refuses).then_some(Outcome::Refused)
    }

    // In `state`, or after it: with `fins`, and one of `side` if it `closes`.
    fn finish(&self, state: State, fins: u8, side: Side, closes: bool) {
        let fins = fins | if closes { FIN_OF[side as usize] } else { 0 };
        let state = match fins & FINS {
            _ if state == State::Closed => State::Closed,
            0 => state,
            FINS => State::Closed,
            _ => State::Closing,
        };
        self.set_life(state, fins);
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
        State::from_number(self.half(Side::Original).life.load(Relaxed) & STATE)
    }

    // Whether a client that never says so was told that its connection of TCP is accepted: maybe it
    // does not exist.
    fn is_half_open(&self) -> bool {
        self.half(Side::Original).life.load(Relaxed) & HALF_OPEN != 0
    }

    /// Whether nobody has answered, and no packet but one has passed.
    pub fn is_alone(&self) -> bool {
        self.state() == State::Opening && self.counted(Side::Original).0 <= 1
    }

    // Whether a datagram flow is more than a question and an answer. Said once, it stays so. For who may
    // change the table, of a flow that is in it.
    fn is_assured(&self, hz: u32) -> bool {
        let half = self.half(Side::Original);
        let born = half.high.load(Relaxed);
        if born == ASSURED {
            return true;
        }
        let last = birth(half.last_seen.load(Relaxed));
        // Of whole units; a last packet before the first is one of another CPU, whose clock is late.
        let age = match last.wrapping_sub(born) {
            0 | 0x8000.. => 0,
            units => u32::from(units - 1) << BIRTH_UNIT,
        };
        let assured = self.state() == State::Established && age >= ASSURED_AFTER.wrapping_mul(hz);
        if assured {
            half.high.store(ASSURED, Relaxed);
        }
        assured
    }

    /// How long it may be idle now; `original` is the key of its original side. To be asked now and
    /// then, at least once in 2^22 units of the clock, by who may change the table that the flow is in: it
    /// takes note of what has lasted.
    pub fn timeout<A: Address>(&self, original: &Tuple<A>, timeouts: &Timeouts) -> u32 {
        let [short, transient, lasting] = timeouts.udp;
        let [opening, established, closing, closed] = timeouts.tcp;
        match (original.protocol, self.state()) {
            (Protocol::Udp, _) if self.is_assured(timeouts.hz) => lasting,
            (Protocol::Udp, _) if original.goes_to_well_known_port() => short,
            (Protocol::Udp, _) => transient,
            (Protocol::Tcp, State::Opening) => opening,
            (Protocol::Tcp, State::Established) if self.is_half_open() => opening,
            (Protocol::Tcp, State::Established) => established,
            (Protocol::Tcp, State::Closing) => closing,
            (Protocol::Tcp, State::Closed) => closed,
        }
    }

    /// How much better it is to evict this flow than others when the table is full: most of all what is
    /// closed, then what closes and is idle, what was never answered, and a single exchange of
    /// datagrams; of these what has been idle longest. `None`: it must stay. As for `timeout`.
    pub fn eviction_rank(&self, protocol: Protocol, now: u32, hz: u32) -> Option<u32> {
        /// So long a connection that one end has closed is idle before it is taken for dead, in seconds.
        const HALF_CLOSED: u32 = 10;
        const CLASS: u32 = 1 << 29;
        let idle = self.idle(now);
        let class = match (protocol, self.state()) {
            (_, State::Closed) => 4,
            (_, State::Closing) if idle > HALF_CLOSED.wrapping_mul(hz) => 3,
            (_, State::Opening) => 2,
            (Protocol::Tcp, _) if self.is_half_open() => 2,
            (Protocol::Udp, _) if !self.is_assured(hz) => 1,
            _ => return None,
        };
        Some(CLASS.wrapping_mul(class) | idle.min(CLASS - 1))
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
mod model;
#[cfg(test)]
mod tests;
