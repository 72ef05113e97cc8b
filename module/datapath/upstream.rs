// SPDX-License-Identifier: GPL-2.0

//! Which of a context's upstreams a new flow goes to, and which of them seem to be out of order.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::abi::proxy::{Protocol, Selection, Upstream, MAX_UPSTREAMS};
use super::tuple::{Address, Tuple};

mod health;
mod moment;

use health::{Health, Record};

pub use health::{Outcome, Report};
pub use moment::Moment;

#[derive(Debug)]
struct Member<A> {
    address: A,
    // Network byte order; zero keeps the destination's.
    port: u16,
    priority: u8,
    record: Record,
}

impl<A: Address> Member<A> {
    fn new(upstream: &Upstream) -> Option<Self> {
        (upstream.family == A::FAMILY).then(|| Self {
            address: A::from_bytes(upstream.address),
            port: upstream.port.to_be(),
            priority: upstream.priority,
            record: Record::default(),
        })
    }

    fn is_at(&self, address: A, port: u16) -> bool {
        self.address == address && (self.port == port || self.port == 0)
    }

    // What packets of `tuple` look like on their way here.
    fn dnat(&self, tuple: &Tuple<A>) -> Tuple<A> {
        let port = match self.port {
            0 => tuple.ports.destination(),
            port => port,
        };
        tuple.to(self.address, port)
    }
}

/// Some members of a pool, in the order of their numbers.
struct Members<'a, A> {
    pool: &'a UpstreamPool<A>,
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
pub struct UpstreamPool<A> {
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

impl<A: Address> UpstreamPool<A> {
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

    /// A Bloom filter of all upstreams' addresses.
    pub fn bloom(&self) -> u64 {
        self.members(u8::MAX)
            .fold(0, |bloom, (_, member)| bloom | member.address.bloom_bit())
    }

    /// Whether a selection takes a random number.
    pub fn is_random(&self) -> bool {
        self.selection == Selection::Random && !self.present.is_power_of_two()
    }

    /// The upstreams of `set` that keep the destination's port.
    pub fn keeping(&self, set: u8) -> u8 {
        self.keeping & set
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

    /// The numbers of the upstreams at this address that keep the destination's port.
    pub fn keeping_at(&self, address: A) -> impl Iterator<Item = u8> + '_ {
        let there = self
            .members(self.keeping)
            .filter(move |(_, member)| member.address == address);
        there.map(|(number, _)| number)
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
        let (number, member) = if usable.is_power_of_two() {
            let (number, member) = self.members(usable).next()?;
            if tuple.protocol == Protocol::Tcp && !member.record.is_good() {
                member.record.try_alone(moment);
            }
            (number, member)
        } else {
            self.select_among(candidates, tuple.protocol, moment)?
        };
        Some((number, member.dnat(tuple)))
    }

    #[cold]
    #[inline(never)]
    fn select_among(
        &self,
        candidates: u8,
        protocol: Protocol,
        moment: impl FnOnce() -> Moment,
    ) -> Option<(u8, &Member<A>)> {
        let moment = &moment();
        let turn = match self.selection {
            Selection::RoundRobin => self.turn.fetch_add(1, Relaxed),
            Selection::Random => moment.random,
            Selection::Failover => 0,
        };
        // What becomes of a datagram nobody is told: it neither tries an upstream nor marks it, and so
        // it must not go to one that waits to be tried.
        let tries = protocol == Protocol::Tcp;
        let mut usable = 0;
        for (number, member) in self.members(candidates) {
            match member.record.health(moment) {
                Health::Good => usable |= bit(number),
                Health::Due if tries => usable |= bit(number),
                Health::Due | Health::Failed => {}
            }
        }
        // Each round takes one away.
        loop {
            let set = if usable == 0 { candidates } else { usable };
            let (number, member) = self.pick(set, turn)?;
            if usable == 0 || !tries || member.record.admits(moment) {
                return Some((number, member));
            }
            usable &= !bit(number);
        }
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
    pub fn report(&self, number: u8, address: A, port: u16, report: &Report) {
        let mut members = self.members(bit(number));
        let Some((_, member)) = members.next().filter(|(_, one)| one.is_at(address, port)) else {
            return;
        };
        match report.outcome {
            Outcome::Answered => member.record.answered(report.now),
            // One port of many that is closed: the host lives, and nothing follows for the others.
            Outcome::Refused if member.port == 0 => {}
            Outcome::Refused | Outcome::Unanswered => member.record.failed(report),
        }
    }
}

fn bit(number: u8) -> u8 {
    1_u32.wrapping_shl(number.into()) as u8
}

#[cfg(test)]
mod tests;
