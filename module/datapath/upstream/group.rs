// SPDX-License-Identifier: GPL-2.0

//! Upstreams of which a new flow goes to one.

use core::num::NonZeroU8;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::super::abi::proxy::{Protocol, Selection, Upstream, MAX_MEMBERS};
use super::super::allocate::Allocate;
use super::super::tuple::{Address, Tuple};
use super::health::{Health, Outcome, Record, Report};
use super::moment::Moment;
use super::rendezvous::Draw;
use super::spread;

/// An upstream of a group.
#[derive(Debug)]
pub(super) struct Member<A> {
    address: A,
    // Network byte order; zero keeps the destination's.
    port: u16,
    priority: u8,
    weight: NonZeroU8,
    // Its place among those of either IP version.
    number: u8,
    pub(super) record: Record,
    // How often it was selected.
    connections: AtomicU64,
}

impl<A: Address> Member<A> {
    fn new(number: u8, upstream: &Upstream) -> Option<Self> {
        (upstream.family == A::FAMILY).then(|| Self {
            address: A::from_bytes(upstream.address),
            port: upstream.port.to_be(),
            priority: upstream.priority,
            weight: upstream.weight,
            number,
            record: Record::default(),
            connections: AtomicU64::new(0),
        })
    }

    // As it was configured, in this group.
    fn upstream(&self, group: u8) -> Upstream {
        Upstream {
            family: A::FAMILY,
            priority: self.priority,
            weight: self.weight,
            port: u16::from_be(self.port),
            group,
            address: self.address.to_bytes(),
        }
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

/// Some members of a group, by their places.
#[derive(Clone, Copy, Default)]
struct Places([u64; MAX_MEMBERS / 64]);

impl Places {
    fn change(&mut self, place: usize, to: impl FnOnce(u64, u64) -> u64) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word = to(*word, 1_u64.wrapping_shl(place as u32));
        }
    }

    fn insert(&mut self, place: usize) {
        self.change(place, |word, bit| word | bit);
    }

    fn remove(&mut self, place: usize) {
        self.change(place, |word, bit| word & !bit);
    }

    fn has(&self, place: usize) -> bool {
        let word = self.0.get(place / 64).copied().unwrap_or_default();
        word & 1_u64.wrapping_shl(place as u32) != 0
    }

    fn count(&self) -> u32 {
        self.0
            .iter()
            .map(|word| word.count_ones())
            .fold(0, u32::wrapping_add)
    }
}

/// A group's upstreams of one IP version.
pub struct Group<A, M: Allocate> {
    selection: Selection,
    // Written once for each new flow.
    turn: AtomicU32,
    pub(super) members: M::Vec<Member<A>>,
}

/// Of connections that want to try a failed upstream each at the same time, one more is asked to so often.
const ATTEMPTS: usize = 8;

impl<A: Address, M: Allocate> Group<A, M> {
    /// Of these upstreams, those of the other IP version counted, too.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(selection: Selection, upstreams: &[Upstream]) -> Result<Self, M::Error> {
        let members = (0..=u8::MAX).zip(upstreams);
        Ok(Self {
            selection,
            turn: AtomicU32::new(0),
            members: M::collect(members.filter_map(|(number, one)| Member::new(number, one)))?,
        })
    }

    /// Address and port, in network byte order, of each upstream; a port of zero is the destination's.
    pub fn places(&self) -> impl Iterator<Item = (A, u16)> + '_ {
        self.members
            .iter()
            .map(|member| (member.address, member.port))
    }

    /// Whether an upstream keeps the destination's port.
    pub fn keeps_ports(&self) -> bool {
        self.places().any(|(_, port)| port == 0)
    }

    /// See [`UpstreamPool::select`](super::UpstreamPool::select).
    #[inline(always)]
    pub fn select(
        &self,
        tuple: &Tuple<A>,
        moment: impl FnOnce(bool) -> Moment,
    ) -> Option<(u8, Tuple<A>)> {
        let member = match &*self.members {
            // There is nothing to choose, whatever its health.
            [only] => {
                if tuple.protocol == Protocol::Tcp && !only.record.is_good() {
                    only.record.try_alone(|| moment(false));
                }
                only
            }
            _ => self.select_among(tuple, moment)?,
        };
        member.connections.fetch_add(1, Relaxed);
        Some((member.number, member.dnat(tuple)))
    }

    #[cold]
    #[inline(never)]
    fn select_among(
        &self,
        tuple: &Tuple<A>,
        moment: impl FnOnce(bool) -> Moment,
    ) -> Option<&Member<A>> {
        let moment = &moment(self.selection == Selection::Random);
        let turn = match self.selection {
            Selection::RoundRobin => self.turn.fetch_add(1, Relaxed),
            Selection::Random => moment.random,
            Selection::Failover | Selection::SourceHash => 0,
        };
        let client = tuple.source();
        // What becomes of a datagram nobody is told: it neither tries an upstream nor marks it, and so
        // it must not go to one that waits to be tried.
        let tries = tuple.protocol == Protocol::Tcp;
        let mut usable = Places::default();
        for (place, member) in self.members.iter().enumerate() {
            match member.record.health(moment) {
                Health::Good => usable.insert(place),
                Health::Due if tries => usable.insert(place),
                Health::Due | Health::Failed => {}
            }
        }
        for _ in 0..ATTEMPTS {
            let Some((place, member)) = self.pick(&usable, turn, client) else {
                break;
            };
            if !tries || member.record.admits(moment) {
                return Some(member);
            }
            usable.remove(place);
        }
        // None works: as if all did.
        let mut all = Places::default();
        (0..self.members.len()).for_each(|place| all.insert(place));
        self.pick(&all, turn, client).map(|(_, member)| member)
    }

    fn pick(&self, set: &Places, turn: u32, client: A) -> Option<(usize, &Member<A>)> {
        let members = self.members.iter().enumerate();
        let members = members.filter(|(place, _)| set.has(*place));
        match self.selection {
            Selection::Failover => members.min_by_key(|(_, member)| member.priority),
            Selection::SourceHash => {
                let draws = members.map(|(place, member)| {
                    let port = u16::from_be(member.port);
                    let draw = Draw::of(client, member.address, port, member.weight.get());
                    (draw, (place, member))
                });
                let least = draws.min_by(|(one, _), (other, _)| one.compare(other));
                least.map(|(_, found)| found)
            }
            Selection::RoundRobin | Selection::Random => self.take_turn(set, turn),
        }
    }

    fn take_turn(&self, set: &Places, turn: u32) -> Option<(usize, &Member<A>)> {
        let all = self.members.iter().enumerate();
        let mut members = all.filter(|(place, _)| set.has(*place));
        let weights = || {
            let all = self.members.iter().enumerate();
            all.filter(|(place, _)| set.has(*place))
                .map(|(_, member)| u32::from(member.weight.get()))
        };
        let first = weights().next()?;
        if weights().all(|weight| weight == first) {
            return members.nth(turn.checked_rem(set.count())? as usize);
        }
        let total = weights().fold(0, u32::wrapping_add);
        let mut place = match self.selection {
            Selection::RoundRobin => spread::place(turn, total),
            _ => turn.checked_rem(total)?,
        };
        members.find(
            |(_, member)| match place.checked_sub(member.weight.get().into()) {
                Some(left) => {
                    place = left;
                    false
                }
                None => true,
            },
        )
    }

    /// Upstreams of which it is news whether they work, and whether they do, of a group of this number; those that this gives are none
    /// any more. To be asked by one task at a time.
    pub fn news(&self, group: u8) -> impl Iterator<Item = (Upstream, bool)> + '_ {
        let members = self.members.iter();
        members.filter_map(move |member| Some((member.upstream(group), member.record.news()?)))
    }

    /// How often each upstream was selected, with its place among those of either IP version.
    pub fn connections(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        self.members
            .iter()
            .map(|member| (member.number, member.connections.load(Relaxed)))
    }

    /// See [`UpstreamPool::report`](super::UpstreamPool::report).
    pub fn report(&self, number: u8, address: A, port: u16, report: &Report) {
        let mut members = self.members.iter();
        let member = members.find(|one| one.number == number && one.is_at(address, port));
        let Some(member) = member else { return };
        match report.outcome {
            Outcome::Answered => member.record.answered(report.now),
            // One port of many that is closed: the host lives, and nothing follows for the others.
            Outcome::Refused if member.port == 0 => {}
            Outcome::Refused | Outcome::Unanswered => member.record.failed(report),
        }
    }
}
