// SPDX-License-Identifier: GPL-2.0

//! Where upstreams are: which packets are on their way to one.
//!
//! A packet is if it goes to an upstream's address and port; where an upstream keeps the destination's port, to one that a rule has
//! for its group.

use core::ops::Deref;

use super::super::abi::proxy::{Action, Protocol};
use super::super::allocate::Allocate;
use super::super::range::Range;
use super::super::sort::sort_by_key;
use super::super::tuple::{Address, Tuple};
use super::super::upstream::{Group, UpstreamPool};
use super::Compiled;

/// A group of a context: the place of its pool, and its own in there.
type GroupPlace = (usize, usize);

/// An upstream.
struct Place<A: Address> {
    address: A::Number,
    group: GroupPlace,
    // Network byte order; zero keeps the destination's.
    port: u16,
}

/// Ports that rules have for a group, of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    group: GroupPlace,
    // Its number.
    protocol: u8,
    first: u16,
    last: u16,
}

impl Kept {
    fn whose(&self) -> (GroupPlace, u8) {
        (self.group, self.protocol)
    }
}

/// The upstreams of one IP version of all contexts.
pub struct Places<A: Address, M: Allocate> {
    // By address.
    upstreams: M::Vec<Place<A>>,
    // Of groups with upstreams that keep ports: in order, without two that have a port in common.
    kept: M::Vec<Kept>,
    // How many of these there are; what is behind is of no meaning.
    kept_count: usize,
}

impl<A: Address, M: Allocate> Places<A, M> {
    /// Of these pools, whose places these rules name.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new<P>(rules: &[Compiled<A>], pools: &[P]) -> Result<Self, M::Error>
    where
        P: Deref<Target = UpstreamPool<A, M>>,
    {
        let groups = pools.iter().enumerate().flat_map(|(pool, of)| {
            let groups = of.groups().iter().enumerate();
            groups.map(move |(group, of)| ((pool, group), of))
        });
        let each = groups.flat_map(|(place, group)| {
            group.places().map(move |(address, port)| Place::<A> {
                address: address.number(),
                group: place,
                port,
            })
        });
        let mut upstreams = M::collect(each)?;
        sort_by_key(&mut upstreams, |place| place.address);
        let keeps = |(pool, group): GroupPlace| {
            let group = pools.get(pool).and_then(|pool| pool.groups().get(group));
            group.is_some_and(Group::keeps_ports)
        };
        let redirects = rules
            .iter()
            .filter(|rule| rule.action == Action::Redirect && keeps(rule.group_place()));
        let of_rule = |rule: &Compiled<A>| {
            let Range { first, last } = rule.ports();
            let (group, only) = (rule.group_place(), rule.protocol);
            let protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
            let protocols = protocols.filter(move |&one| only.is_none_or(|only| only == one));
            protocols.map(move |protocol| Kept {
                group,
                protocol: protocol as u8,
                first,
                last,
            })
        };
        let mut kept = M::collect(redirects.flat_map(of_rule))?;
        sort_by_key(&mut kept, |kept| *kept);
        let kept_count = join(&mut kept);
        Ok(Self {
            upstreams,
            kept,
            kept_count,
        })
    }

    /// Whether a packet of `tuple` goes to an upstream of a pool that `counts`, by its place.
    pub fn have(&self, tuple: &Tuple<A>, counts: impl Fn(usize) -> bool) -> bool {
        let address = tuple.destination().number();
        let first = self
            .upstreams
            .partition_point(|place| place.address < address);
        let behind = self.upstreams.get(first..).unwrap_or_default();
        let port = tuple.ports.destination();
        let mut there = behind.iter().take_while(|place| place.address == address);
        there.any(|place| {
            let (pool, _) = place.group;
            counts(pool)
                && (place.port == port || place.port == 0 && self.keeps(place.group, tuple))
        })
    }

    // Whether a rule for the group has the packet's protocol and port.
    fn keeps(&self, group: GroupPlace, tuple: &Tuple<A>) -> bool {
        let port = u16::from_be(tuple.ports.destination());
        let whose = (group, tuple.protocol as u8);
        let kept = self.kept.get(..self.kept_count).unwrap_or_default();
        // The last that begins no later.
        let behind = kept.partition_point(|one| (one.whose(), one.first) <= (whose, port));
        let last = kept.get(behind.wrapping_sub(1));
        last.is_some_and(|one| one.whose() == whose && port <= one.last)
    }
}

// Joins those of the same group and protocol, in order, that have ports in common. Gives how many are left.
fn join(all: &mut [Kept]) -> usize {
    let mut count = 0_usize;
    for at in 0..all.len() {
        let Some(&next) = all.get(at) else { break };
        let before = all.get_mut(..count).and_then(|joined| joined.last_mut());
        match before {
            Some(before) if before.whose() == next.whose() && next.first <= before.last => {
                before.last = before.last.max(next.last);
            }
            _ => {
                if let Some(place) = all.get_mut(count) {
                    *place = next;
                }
                count = count.wrapping_add(1);
            }
        }
    }
    count
}
