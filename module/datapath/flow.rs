// SPDX-License-Identifier: GPL-2.0

//! A redirected connection.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};

use super::checksum::Delta;
use super::reopenings::Reopenings;
use super::stack::Spare;
use super::state::State;
use super::tcp::{Progress, Segment, Syn};
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
        segment.flags.is_plain() && half.progress.accept_in_order(segment)
    }

    /// Moves the flow on by a datagram of `side`.
    #[cold]
    pub fn advance_udp(&self, side: Side) {
        if side == Side::Reply {
            self.set_life(State::Established, 0);
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
        let (state, fins) = (State::from_number(life & !FINS), life & FINS);
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
                if mine.accept(segment) && flags.fin() {
                    self.finish(state, fins, side, true);
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
        let (state, mut fins) = (State::from_number(life & !FINS), life & FINS);
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
            fins = 0;
        }
        server_side.answer(client_side, segment, options);
        self.finish(State::Established, fins, Side::Reply, false);
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
        let (state, fins) = (State::from_number(life & !FINS), life & FINS);
        let mut refuses = (state, side) == (State::Opening, Side::Reply);
        let mut real = match (state, side) {
            (State::Opening, Side::Original) => mine.takes_back(segment),
            (State::Opening, Side::Reply) => mine.refuses(other, segment),
            (State::Closed, _) => false,
            _ => mine.resets(other, segment),
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
        (real && refuses).then_some(Outcome::Failed)
    }

    // In `state`, or after it: with `fins`, and one of `side` if it `closes`.
    fn finish(&self, state: State, fins: u8, side: Side, closes: bool) {
        let fins = fins | if closes { FIN_OF[side as usize] } else { 0 };
        let state = match fins {
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
mod model;
#[cfg(test)]
mod tests;
