// SPDX-License-Identifier: GPL-2.0

//! Which of a context's upstreams a new flow goes to, and which of them seem to be out of order.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::abi::proxy::{Protocol, Selection, Upstream, MAX_UPSTREAMS};
use super::tuple::{Address, Tuple};

/// How an upstream takes a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Answered,
    /// It refuses, or says nothing.
    Failed,
}

/// What a selection may depend on beside the upstreams.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time; it may wrap.
    pub now: u32,
    /// How long after it failed an upstream is tried again, in the unit of `now`.
    pub retry: u32,
    /// Any number, for [`Selection::Random`].
    pub random: u32,
}

/// When an upstream was last found out of order, or last tried since; zero if it is in order.
#[derive(Debug, Default)]
struct Failure(AtomicU64);

// Above the time.
const FAILED: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// It failed so long ago that a flow may try it.
    Due(u64),
    Failed,
}

impl Failure {
    fn mark(now: u32) -> u64 {
        FAILED | u64::from(now)
    }

    fn is_none(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    fn health(&self, moment: &Moment) -> Health {
        match self.0.load(Relaxed) {
            0 => Health::Good,
            word if moment.now.wrapping_sub(word as u32) >= moment.retry => Health::Due(word),
            _ => Health::Failed,
        }
    }

    // Whether a flow may go here. Of those that could try a failed one, the first one does; if
    // nobody answers that, the next does after as long again.
    fn admits(&self, moment: &Moment) -> bool {
        match self.health(moment) {
            Health::Good => true,
            Health::Due(word) => {
                let mark = Self::mark(moment.now);
                self.0
                    .compare_exchange(word, mark, Relaxed, Relaxed)
                    .is_ok()
            }
            Health::Failed => false,
        }
    }

    // A write only when something changes: it may be a line that all CPUs read.
    fn report(&self, outcome: Outcome, now: u32) {
        match (outcome, self.0.load(Relaxed)) {
            (Outcome::Answered, 0) => {}
            (Outcome::Answered, _) => self.0.store(0, Relaxed),
            // Flows that failed late, of those that began before it was marked, must not keep it
            // marked.
            (Outcome::Failed, FAILED..) => {}
            (Outcome::Failed, _) => self.0.store(Self::mark(now), Relaxed),
        }
    }
}

#[derive(Debug)]
struct Member<A> {
    address: A,
    // Network byte order; zero keeps the destination's.
    port: u16,
    priority: u8,
    failure: Failure,
}

impl<A: Address> Member<A> {
    fn new(upstream: &Upstream) -> Option<Self> {
        (upstream.family == A::FAMILY).then(|| Self {
            address: A::from_bytes(upstream.address),
            port: upstream.port.to_be(),
            priority: upstream.priority,
            failure: Failure::default(),
        })
    }

    fn is_at(&self, address: A, port: u16) -> bool {
        self.address == address && (self.port == port || self.port == 0)
    }

    // What packets of `tuple` look like on their way here.
    fn lead(&self, tuple: &Tuple<A>) -> Tuple<A> {
        let port = match self.port {
            0 => tuple.ports.destination(),
            port => port,
        };
        tuple.to(self.address, port)
    }
}

/// Some members of a pool, in the order of their numbers.
struct Members<'a, A> {
    pool: &'a Pool<A>,
    left: u8,
}

impl<'a, A> Iterator for Members<'a, A> {
    type Item = (u8, &'a Member<A>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let number = self.left.trailing_zeros() as u8;
        self.left &= self.left.wrapping_sub(1);
        let member = self.pool.members.get(usize::from(number))?.as_ref()?;
        Some((number, member))
    }
}

/// The upstreams of one IP version of a context. Their numbers are those of the configuration,
/// where those of the other version are counted, too.
#[derive(Debug)]
pub struct Pool<A> {
    /// The context.
    pub owner: u32,
    closed: AtomicBool,
    selection: Selection,
    // Written once for each new flow.
    turn: AtomicU32,
    members: [Option<Member<A>>; MAX_UPSTREAMS],
    // Which members there are, and which of them keep the destination's port.
    present: u8,
    keeping: u8,
}

impl<A: Address> Pool<A> {
    /// The upstreams of the context `owner`, all of them in order.
    pub fn new(
        owner: u32,
        selection: Selection,
        mut upstreams: impl Iterator<Item = Upstream>,
    ) -> Self {
        let members: [Option<Member<A>>; MAX_UPSTREAMS] =
            core::array::from_fn(|_| upstreams.next().and_then(|one| Member::new(&one)));
        let which = |is: fn(&Member<A>) -> bool| {
            let numbers = (0..).zip(&members);
            let those = numbers.filter(|(_, member)| member.as_ref().is_some_and(is));
            those.fold(0, |set, (number, _)| set | bit(number))
        };
        Self {
            owner,
            closed: AtomicBool::new(false),
            selection,
            turn: AtomicU32::new(0),
            present: which(|_| true),
            keeping: which(|member| member.port == 0),
            members,
        }
    }

    /// The spots of all upstreams' addresses.
    pub fn spots(&self) -> u64 {
        self.members(u8::MAX)
            .fold(0, |spots, (_, member)| spots | member.address.spot())
    }

    /// Whether a selection takes a random number.
    pub fn is_random(&self) -> bool {
        self.selection == Selection::Random && !self.present.is_power_of_two()
    }

    /// Whether any upstream of `set` keeps the destination's port.
    pub fn keeps_ports(&self, set: u8) -> bool {
        self.keeping & set != 0
    }

    /// From now on the context's rules match nothing any more.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Whether the context has closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    // The members of `set` with their numbers.
    fn members(&self, set: u8) -> Members<'_, A> {
        Members {
            pool: self,
            left: set & self.present,
        }
    }

    /// Whether an upstream is at this address and has this very port, in network byte order.
    pub fn is_at(&self, address: A, port: u16) -> bool {
        self.members(u8::MAX)
            .any(|(_, member)| member.address == address && member.port == port)
    }

    /// Whether an upstream of `set` is at this address and keeps the destination's port.
    pub fn keeps_ports_at(&self, set: u8, address: A) -> bool {
        self.members(set & self.keeping)
            .any(|(_, member)| member.address == address)
    }

    /// The number of the upstream of `candidates` to which a new flow like `tuple` goes, and what
    /// its packets look like when they leave. `None` if no upstream is among them.
    #[inline(always)]
    pub fn select(
        &self,
        candidates: u8,
        tuple: &Tuple<A>,
        moment: impl FnOnce() -> Moment,
    ) -> Option<(u8, Tuple<A>)> {
        // There is nothing to choose, whatever its health.
        let usable = candidates & self.present;
        if usable.is_power_of_two() {
            let (number, member) = self.members(usable).next()?;
            if tuple.protocol == Protocol::Tcp && !member.failure.is_none() {
                member.failure.admits(&moment());
            }
            return Some((number, member.lead(tuple)));
        }
        self.select_among(candidates, tuple, &moment())
    }

    #[cold]
    #[inline(never)]
    fn select_among(
        &self,
        candidates: u8,
        tuple: &Tuple<A>,
        moment: &Moment,
    ) -> Option<(u8, Tuple<A>)> {
        let turn = match self.selection {
            Selection::RoundRobin => self.turn.fetch_add(1, Relaxed),
            Selection::Random => moment.random,
            Selection::Failover => 0,
        };
        let mut usable = 0;
        for (number, member) in self.members(candidates) {
            if member.failure.health(moment) != Health::Failed {
                usable |= bit(number);
            }
        }
        // Each round takes one away.
        let (number, member) = loop {
            let set = if usable == 0 { candidates } else { usable };
            let (number, member) = self.pick(set, turn)?;
            // What becomes of a datagram nobody is told: it neither tries an upstream nor marks it.
            if usable == 0 || tuple.protocol == Protocol::Udp || member.failure.admits(moment) {
                break (number, member);
            }
            usable &= !bit(number);
        };
        Some((number, member.lead(tuple)))
    }

    fn pick(&self, set: u8, turn: u32) -> Option<(u8, &Member<A>)> {
        let mut members = self.members(set);
        if self.selection == Selection::Failover {
            return members.min_by_key(|(_, member)| member.priority);
        }
        let count = (set & self.present).count_ones();
        members.nth(turn.checked_rem(count)? as usize)
    }

    /// Takes note of what became of a connection to the upstream `number`, if that still is the
    /// one at this address and port, in network byte order.
    pub fn report(&self, number: u8, address: A, port: u16, outcome: Outcome, now: u32) {
        let mut members = self.members(bit(number));
        if let Some((_, member)) = members.next().filter(|(_, one)| one.is_at(address, port)) {
            member.failure.report(outcome, now);
        }
    }
}

fn bit(number: u8) -> u8 {
    1_u32.wrapping_shl(number.into()) as u8
}

#[cfg(test)]
mod tests;
