// SPDX-License-Identifier: GPL-2.0

//! Which ports of an upstream are on the way to it that keeps the destination's: those of the rules that may select it.

use core::ops::Deref;

use super::super::abi::proxy::Protocol;
use super::super::allocate::Allocate;
use super::super::range::Range;
use super::super::tuple::{Address, Tuple};
use super::super::upstream::UpstreamPool;
use super::Compiled;

/// Ports at which one protocol reaches an upstream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    pool: usize,
    upstream: u8,
    // Its number.
    protocol: u8,
    first: u16,
    last: u16,
}

impl Kept {
    fn whose(&self) -> (usize, u8, u8) {
        (self.pool, self.upstream, self.protocol)
    }
}

/// The ports of all upstreams of one IP version.
pub struct KeptPorts<M: Allocate> {
    // In order, without two that have a port in common.
    all: M::Vec<Kept>,
    // How many of them there are; what is behind is of no meaning.
    count: usize,
}

impl<M: Allocate> KeptPorts<M> {
    /// Of these rules and the pools that they name by their places.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new<A: Address, P>(rules: &[Compiled<A>], pools: &[P]) -> Result<Self, M::Error>
    where
        P: Deref<Target = UpstreamPool<A>>,
    {
        let of_rule = |rule: &Compiled<A>| {
            let pool = rule.pool;
            let keeping = pools
                .get(pool)
                .map_or(0, |pool| pool.keeping(rule.upstreams));
            let Range { first, last } = rule.ports();
            let protocols = [Protocol::Tcp, Protocol::Udp];
            let protocols = protocols.into_iter().filter({
                let only = rule.protocol;
                move |&protocol| only.is_none_or(|only| only == protocol)
            });
            protocols.flat_map(move |protocol| {
                let upstreams = (0..8).filter(move |number| keeping >> number & 1 != 0);
                upstreams.map(move |upstream| Kept {
                    pool,
                    upstream,
                    protocol: protocol as u8,
                    first,
                    last,
                })
            })
        };
        let each = || rules.iter().flat_map(of_rule);
        let placeholder = Kept {
            pool: 0,
            upstream: 0,
            protocol: 0,
            first: 0,
            last: 0,
        };
        let mut all = M::repeated(placeholder, each().count())?;
        for (place, kept) in all.iter_mut().zip(each()) {
            *place = kept;
        }
        all.sort_unstable();
        let count = join(&mut all);
        Ok(Self { all, count })
    }

    /// Whether a packet is on its way to the upstream of this pool that is at its destination.
    pub fn have<A: Address>(&self, pool: usize, upstream: u8, tuple: &Tuple<A>) -> bool {
        let port = u16::from_be(tuple.ports.destination());
        let whose = (pool, upstream, tuple.protocol as u8);
        let all = self.all.get(..self.count).unwrap_or_default();
        // The last that begins no later.
        let behind = all.partition_point(|kept| (kept.whose(), kept.first) <= (whose, port));
        let last = all.get(behind.wrapping_sub(1));
        last.is_some_and(|kept| kept.whose() == whose && port <= kept.last)
    }
}

// Joins those of the same upstream, in order, that have ports in common. Gives how many are left.
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
