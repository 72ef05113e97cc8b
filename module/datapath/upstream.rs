// SPDX-License-Identifier: GPL-2.0

//! The upstreams of a context, in groups, and which of them a new flow goes to.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::abi::proxy::{Group as GroupRecord, Upstream};
use super::allocate::Allocate;
use super::tuple::{Address, Tuple};

mod group;
mod health;
mod moment;
mod rendezvous;
mod spread;

pub use group::Group;
pub use health::{Outcome, Report};
pub use moment::Moment;

/// Which upstream of a context: its group, and its place among those of the group, of either IP version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamNumber {
    /// The group's place in the configuration.
    pub group: u8,
    /// The upstream's place in the group.
    pub member: u8,
}

/// The upstreams of one IP version of a context.
pub struct UpstreamPool<A, M: Allocate> {
    /// The context.
    pub owner: u32,
    closed: AtomicBool,
    groups: M::Vec<Group<A, M>>,
}

impl<A: Address, M: Allocate> UpstreamPool<A, M> {
    /// The upstreams of the context `owner`, in its groups.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new<'a>(
        owner: u32,
        groups: impl Iterator<Item = (GroupRecord, &'a [Upstream])>,
    ) -> Result<Self, M::Error> {
        let mut failed = None;
        let made = groups.map_while(|(group, upstreams)| {
            let made = Group::new(group.selection, upstreams);
            made.map_err(|error| failed = Some(error)).ok()
        });
        let groups = M::collect(made)?;
        match failed {
            Some(error) => Err(error),
            None => Ok(Self {
                owner,
                closed: AtomicBool::new(false),
                groups,
            }),
        }
    }

    /// The groups, in the order of their numbers.
    pub fn groups(&self) -> &[Group<A, M>] {
        &self.groups
    }

    /// Upstreams of which it is news whether they work: see [`Group::news`].
    pub fn news(&self) -> impl Iterator<Item = (Upstream, bool)> + '_ {
        let groups = (0..=u8::MAX).zip(&*self.groups);
        groups.flat_map(|(number, group)| group.news(number))
    }

    /// A Bloom filter of all upstreams' addresses.
    pub fn bloom(&self) -> u64 {
        let addresses = self.groups.iter().flat_map(Group::places);
        addresses.fold(0, |bloom, (address, _)| bloom | address.bloom_bit())
    }

    /// From now on the context's rules match nothing any more.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Whether the context has closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// The number of the upstream of this group to which a new flow like `tuple` goes, and what its packets look like when they
    /// leave; `moment` is told whether its random number is used. `None` if the group has no upstream of this IP version.
    #[inline(always)]
    pub fn select(
        &self,
        group: u8,
        tuple: &Tuple<A>,
        moment: impl FnOnce(bool) -> Moment,
    ) -> Option<(UpstreamNumber, Tuple<A>)> {
        let (member, to) = self.groups.get(usize::from(group))?.select(tuple, moment)?;
        Some((UpstreamNumber { group, member }, to))
    }

    /// Takes note of what became of a connection to this upstream, if that still is the
    /// one at this address and port, in network byte order.
    pub fn report(&self, number: UpstreamNumber, address: A, port: u16, report: &Report) {
        if let Some(group) = self.groups.get(usize::from(number.group)) {
            group.report(number.member, address, port, report);
        }
    }
}

#[cfg(test)]
mod tests;
