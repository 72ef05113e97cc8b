// SPDX-License-Identifier: GPL-2.0

//! Which of a context's upstreams a new flow goes to, and which of them seem to be out of order.

use core::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::abi::proxy::{Protocol, Selection, Upstream, MAX_UPSTREAMS};
use super::tuple::{Address, Tuple};

/// How an upstream took a new connection of TCP whose first packet left for it. A packet that was
/// dropped on the way says nothing about the upstream: its flow goes without a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It accepted.
    Answered,
    /// It sent a RST.
    Refused,
    /// It said nothing until the flow was forgotten.
    Unanswered,
}

/// What became of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// How its upstream took it.
    pub outcome: Outcome,
    /// As [`Moment::client`].
    pub client: u32,
    /// When its client sent last, in the unit of `now`; if it had an answer, `now`.
    pub sent: u32,
    /// The time; it may wrap.
    pub now: u32,
}

/// What a selection may depend on beside the upstreams.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time; it may wrap.
    pub now: u32,
    /// A second, in the unit of `now`.
    pub second: u32,
    /// How long after it failed an upstream is tried again, in the unit of `now`.
    pub retry: u32,
    /// Any number, for [`Selection::Random`].
    pub random: u32,
    /// A keyed hash of the client's address: nobody can choose an address that is taken for another.
    pub client: u32,
}

impl Moment {
    // How long after a try that was not answered another client may try: a probe by a client that
    // itself is at fault must not cost everybody a whole `retry`.
    fn soon(&self) -> u32 {
        (self.retry / 8).max(self.second).min(self.retry)
    }
}

// The time from `then` to `now`; another CPU may have read `then` off a clock that was ahead of
// this one's.
fn elapsed(then: u32, now: u32) -> u32 {
    match now.wrapping_sub(then) {
        AHEAD.. => 0,
        elapsed => elapsed,
    }
}

// From here on a difference of two times is one of clocks read late: at most 65,535 ticks, 65 s at
// 1000 Hz. Half the range would keep an upstream failed for weeks that nobody tried for weeks.
const AHEAD: u32 = u32::MAX - 0xffff;

/// What is known of an upstream. Failures count in a row: any answer to anybody makes it `Good`.
///
/// Two failures of one client are taken for that client's trouble, or for the upstream's as far as
/// that client is concerned, and failures of two clients for the upstream's.
///
/// nginx takes one failure (`max_fails=1`) within `fail_timeout`, 10 s; HAProxy takes three checks of
/// its own (`fall`), or ten errors in a row of its traffic (`observe`, `error-limit`). One would let
/// a single SYN decide. Ten would cost ten connections, each of which has already been sent again
/// several times if it was left unanswered; and ten of one client say less than two of two. Two is
/// the least that tells clients apart. There is no window of time, as in HAProxy and unlike nginx:
/// failures by silence of a lone client are `tcp_syn_timeout` apart, by default longer than
/// `upstream_retry`.
/// One answer is enough to be good again (HAProxy's `rise` is two), since it is an answer to a
/// client, not to a check.
///
/// An answer that clears failures also clears those that are still to come of packets sent before:
/// of silence one is told only when the flow is forgotten, after `tcp_syn_timeout`.
///
/// Whoever has two addresses, and SYNs that the upstream does not answer (damaged, or filtered
/// there), can have an upstream marked whenever two of these are reported with no answer to others in
/// between. The next answer to anybody clears it: at once if a connection was under way, else that
/// of the first honest connection that gets a probe; and then for `tcp_syn_timeout` at least no SYN
/// left unanswered counts. Each probe goes to who asks first, so with `a` bad and `h` honest
/// connections a second, honest ones are kept away for about `retry + soon * a / h` of every
/// `tcp_syn_timeout + retry + soon * a / h`. They are not kept from service: they go to the others,
/// and if those are marked as well, none is passed over. An IPv6 host has as many addresses as it
/// likes. The price: an upstream that answers a few of many SYNs is used for as long again.
///
/// That bound is not one for refusals, which are told at once: two addresses that the upstream itself
/// refuses, as by a rule of its own that answers with RST, keep others away for as long as they go on,
/// but for the time from each answer to the next two refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Good,
    /// A connection of this client failed. Good for everybody.
    Suspected {
        client: u32,
    },
    /// Another one of the same client failed, or that client tried: failed for it alone.
    FailedFor {
        client: u32,
        since: u32,
    },
    /// Those of two clients failed.
    Failed {
        since: u32,
    },
    /// As `Failed`, and a connection of this client tried since.
    Tried {
        client: u32,
        since: u32,
    },
}

use Condition::{Failed, FailedFor, Good, Suspected, Tried};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// It failed so long ago that a flow may try it.
    Due,
    Failed,
}

// A word is, from the lowest bit on: a time, a client, and which condition it is. Of the hash of a
// client 29 bits are left: one pair of 2^29 is taken for one client.
const CLIENT_SHIFT: u32 = 32;
const KIND_SHIFT: u32 = 61;
const SPARED: u32 = 3;

impl Condition {
    fn from_word(word: u64) -> Self {
        let since = word as u32;
        let client = (word >> CLIENT_SHIFT) as u32 & u32::MAX >> SPARED;
        match word >> KIND_SHIFT {
            0 => Good,
            1 => Suspected { client },
            2 => FailedFor { client, since },
            3 => Failed { since },
            _ => Tried { client, since },
        }
    }

    fn word(self) -> u64 {
        let (kind, client, since) = match self {
            Good => (0, 0, 0),
            Suspected { client } => (1, client, 0),
            FailedFor { client, since } => (2, client, since),
            Failed { since } => (3, 0, since),
            Tried { client, since } => (4, client, since),
        };
        kind << KIND_SHIFT | u64::from(client) << CLIENT_SHIFT | u64::from(since)
    }

    fn health(self, moment: &Moment) -> Health {
        let me = short(moment.client);
        let (since, wait) = match self {
            Good | Suspected { .. } => return Health::Good,
            FailedFor { client, .. } if client != me => return Health::Good,
            Tried { client, since } if client != me => (since, moment.soon()),
            FailedFor { since, .. } | Failed { since } | Tried { since, .. } => {
                (since, moment.retry)
            }
        };
        if elapsed(since, moment.now) >= wait {
            Health::Due
        } else {
            Health::Failed
        }
    }

    // After a flow of this moment tries it.
    fn tried(self, moment: &Moment) -> Self {
        let (client, since) = (short(moment.client), moment.now);
        match self {
            Good | Suspected { .. } => self,
            FailedFor { .. } => FailedFor { client, since },
            Failed { .. } | Tried { .. } => Tried { client, since },
        }
    }

    // After a connection of `client` failed. Where it has failed already, late failures of flows that
    // began before must not keep it so.
    fn failed(self, client: u32, now: u32) -> Self {
        let me = short(client);
        match self {
            Good => Suspected { client: me },
            Suspected { client } if client == me => FailedFor { client, since: now },
            FailedFor { client, .. } if client == me => self,
            Suspected { .. } | FailedFor { .. } => Failed { since: now },
            Failed { .. } | Tried { .. } => self,
        }
    }
}

fn short(client: u32) -> u32 {
    client >> SPARED
}

/// What is known of a member. All CPUs read its line: only a change is written.
///
/// The condition needs no order with other memory, and the changes of one word have one order on
/// every CPU: who reads an older value passes an upstream over, or goes there, a moment longer. A
/// failure looks at both words; who sees the condition that an answer left sees when that was.
#[derive(Debug, Default)]
struct Record {
    // The word of a [`Condition`]; zero if it is good.
    condition: AtomicU64,
    // When an answer last cleared failures, above it RECOVERED; zero if none did.
    recovered: AtomicU64,
}

const RECOVERED: u64 = 1 << 32;
/// No packet waits so long for its flow to be forgotten.
const LONG_AGO: u32 = 1 << 31;

impl Record {
    #[inline(always)]
    fn is_good(&self) -> bool {
        self.condition.load(Relaxed) == 0
    }

    fn health(&self, moment: &Moment) -> Health {
        Condition::from_word(self.condition.load(Relaxed)).health(moment)
    }

    // Whether a connection may go here. Of those that could try a failed one, one does.
    fn admits(&self, moment: &Moment) -> bool {
        let word = self.condition.load(Relaxed);
        let condition = Condition::from_word(word);
        match condition.health(moment) {
            Health::Good => true,
            Health::Due => {
                let next = condition.tried(moment).word();
                let old = self
                    .condition
                    .compare_exchange(word, next, Relaxed, Relaxed);
                old.is_ok()
            }
            Health::Failed => false,
        }
    }

    // The only one there is: the connection goes here, whatever is known of it.
    #[cold]
    #[inline(never)]
    fn try_alone(&self, moment: impl FnOnce() -> Moment) {
        self.admits(&moment());
    }

    fn answered(&self, now: u32) {
        if !self.is_good() {
            self.recovered.store(RECOVERED | u64::from(now), Relaxed);
            self.condition.store(0, Release);
        } else {
            self.forget_recovery(now);
        }
    }

    // When an answer came so long ago that nothing sent before is still to be told of: the time wraps, and must not seem
    // to be a late one again.
    fn forget_recovery(&self, now: u32) {
        let word = self.recovered.load(Relaxed);
        if word != 0 && (LONG_AGO..AHEAD).contains(&now.wrapping_sub(word as u32)) {
            // Another CPU may have found a later one.
            let _ = self.recovered.compare_exchange(word, 0, Relaxed, Relaxed);
        }
    }

    fn failed(&self, report: &Report) {
        self.forget_recovery(report.now);
        let mut word = self.condition.load(Acquire);
        // A failure leads at most two changes on; more than a few come only of answers in between.
        for _ in 0..ATTEMPTS {
            let next = Condition::from_word(word).failed(report.client, report.now);
            if next.word() == word || self.has_recovered_since(report) {
                return;
            }
            match self
                .condition
                .compare_exchange(word, next.word(), Relaxed, Acquire)
            {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    fn has_recovered_since(&self, report: &Report) -> bool {
        let word = self.recovered.load(Relaxed);
        word != 0 && elapsed(word as u32, report.now) < elapsed(report.sent, report.now)
    }
}

/// How often a failure is noted that others interfere with.
const ATTEMPTS: usize = 8;

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
