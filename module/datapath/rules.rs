// SPDX-License-Identifier: GPL-2.0

//! Which new connections are redirected.

use core::ops::Deref;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::abi::proxy::{Action, Protocol, Rule, NAME_SIZE};
use super::allocate::Allocate;
use super::flow::Owner;
use super::range::Range;
use super::set::Set;
use super::tuple::{Address, Tuple};
use super::upstream::{Moment, UpstreamPool};

mod condition;
mod index;
mod places;

use condition::Condition;
pub use condition::Facts;
use index::Index;
use places::Places;

/// The name of an interface, filled up with zeros.
pub type Name = [u8; NAME_SIZE];

/// Addresses with the same first bits.
#[derive(Debug)]
struct Network<A> {
    bits: A,
    mask: A,
}

impl<A: Address> Network<A> {
    fn new(address: [u8; 16], prefix: u8) -> Self {
        let mask = A::mask(prefix);
        Self {
            bits: A::from_bytes(address).and(mask),
            mask,
        }
    }

    fn has(&self, address: A) -> bool {
        address.and(self.mask) == self.bits
    }

    fn range(&self) -> Range<A::Number> {
        Range {
            first: self.bits.number(),
            last: self.bits.or_not(self.mask).number(),
        }
    }
}

/// A rule, prepared for comparing with packets of its IP version.
#[derive(Debug)]
pub struct Compiled<A> {
    protocol: Option<Protocol>,
    hooks: u8,
    action: Action,
    group: u8,
    first_port: u16,
    last_port: u16,
    destination: Network<A>,
    source: Network<A>,
    interface: Name,
    // Its place among its context's rules.
    number: usize,
    // Where its conditions are, and behind the last.
    conditions: [usize; 2],
    // Where the pool of its context is.
    pool: usize,
}

impl<A: Address> Compiled<A> {
    // `rule`, the one of this number, of the context whose upstreams are the pool at `pool`; `None` if it is of the other IP
    // version.
    fn new(rule: &Rule, number: usize, pool: usize, conditions: [usize; 2]) -> Option<Self> {
        (rule.family == A::FAMILY).then(|| Self {
            protocol: rule.protocol,
            hooks: rule.hooks,
            action: rule.action,
            group: rule.group,
            first_port: rule.port_first,
            last_port: rule.port_last,
            destination: Network::new(rule.destination, rule.destination_prefix),
            source: Network::new(rule.source, rule.source_prefix),
            interface: rule.interface,
            number,
            conditions,
            pool,
        })
    }

    // Whether connections over this protocol that come up at this hook are the rule's.
    fn is_for(&self, hook: u8, protocol: Protocol) -> bool {
        self.hooks & hook != 0 && self.protocol.is_none_or(|one| one == protocol)
    }

    fn blocks(&self) -> bool {
        matches!(self.action, Action::Drop | Action::Reject)
    }

    // The places of its pool, and of its group in there.
    fn group_place(&self) -> (usize, usize) {
        (self.pool, self.group.into())
    }

    fn ports(&self) -> Range<u16> {
        Range {
            first: self.first_port,
            last: self.last_port,
        }
    }

    fn interfaces(&self) -> Range<u128> {
        match u128::from_be_bytes(self.interface) {
            0 => Range::ALL,
            name => Range::one(name),
        }
    }

    fn matches(&self, hook: u8, tuple: &Tuple<A>, interface: impl Fn() -> Name) -> bool {
        let port = u16::from_be(tuple.ports.destination());
        self.is_for(hook, tuple.protocol)
            && (self.first_port..=self.last_port).contains(&port)
            && self.destination.has(tuple.destination())
            && self.source.has(tuple.source())
            && (self.interface == Name::default() || self.interface == interface())
    }
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<A: Address> {
    /// It is redirected.
    Redirect(Choice<A>),
    /// It goes where it goes.
    Direct,
    /// Its packets are dropped.
    Block {
        /// Whether their sender is told.
        tells: bool,
    },
}

impl<A: Address> Decision<A> {
    /// Where it is redirected, if it is.
    pub fn redirected(self) -> Option<Choice<A>> {
        match self {
            Self::Redirect(choice) => Some(choice),
            Self::Direct | Self::Block { .. } => None,
        }
    }
}

/// What the rules may do to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Whatever they say.
    All,
    /// Only block it: what goes to more than one host is never redirected, and the flow of what is there already stays.
    Block,
    /// Only redirect it: they were asked about it at another hook, which knew whose it is, and let it by.
    Redirect,
}

/// Where a new connection is redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<A: Address> {
    /// The context, and which of its upstreams.
    pub owner: Owner,
    /// What the connection's packets look like when they leave.
    pub upstream: Tuple<A>,
}

/// How many connections each rule of a context was the first to match.
pub type Matches<M> = <M as Allocate>::Vec<AtomicU64>;

/// What a context has for one IP version.
pub struct Context<'a, M: Allocate, P> {
    /// Its upstreams.
    pub pool: P,
    /// Its rules, of either version, in the order in which they are asked.
    pub rules: &'a [Rule],
    /// Its sets, which the rules name by their places.
    pub sets: &'a [M::Shared<Set<M>>],
    /// A counter for each of the rules.
    pub matches: M::Shared<Matches<M>>,
}

/// Rules of one IP version in the order in which they are asked, and the pools of upstreams to
/// which they lead.
pub struct Rules<A: Address, M: Allocate, P> {
    rules: M::Vec<Compiled<A>>,
    // None of so few rules that asking them takes less.
    index: Option<Index<A, M>>,
    // Those of a rule one behind the other.
    conditions: M::Vec<Condition>,
    // Of all contexts.
    sets: M::Vec<M::Shared<Set<M>>>,
    places: Places<A, M>,
    // One for each context.
    pools: M::Vec<P>,
    // Likewise.
    matches: M::Vec<M::Shared<Matches<M>>>,
    // A Bloom filter of upstreams' addresses.
    bloom: u64,
    // Whether any blocks.
    blocks: bool,
}

/// Rules of which one after the other is asked in less time than it takes to look them up.
const FEW: usize = 8;

/// How the first rule that matches a connection is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// By the index, if there are more than a few rules.
    Indexed,
    /// One rule after the other.
    Linear,
}

impl<A, M, P> Rules<A, M, P>
where
    A: Address,
    M: Allocate,
    P: Deref<Target = UpstreamPool<A, M>> + 'static,
{
    /// The rules of these contexts.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new<'a>(contexts: impl Iterator<Item = Context<'a, M, P>>) -> Result<Self, M::Error>
    where
        M: 'a,
    {
        let mut rules = M::collect(core::iter::empty())?;
        let mut conditions = M::collect(core::iter::empty())?;
        let mut sets = M::collect(core::iter::empty())?;
        let mut pools = M::collect(core::iter::empty())?;
        let mut matches = M::collect(core::iter::empty())?;
        for context in contexts {
            let first_set = sets.len();
            for set in context.sets {
                M::push(&mut sets, set.clone())?;
            }
            for (number, rule) in context.rules.iter().enumerate() {
                let begin = conditions.len();
                let end = begin.wrapping_add(rule.conditions.iter().count());
                let Some(compiled) = Compiled::new(rule, number, pools.len(), [begin, end]) else {
                    continue;
                };
                for condition in rule.conditions.iter() {
                    M::push(&mut conditions, Condition::new(&condition, first_set))?;
                }
                M::push(&mut rules, compiled)?;
            }
            M::push(&mut pools, context.pool)?;
            M::push(&mut matches, context.matches)?;
        }
        Ok(Self {
            index: match rules.len() {
                ..=FEW => None,
                _ => Some(Index::new(&rules)?),
            },
            places: Places::new(&rules, &pools)?,
            bloom: pools.iter().fold(0, |bloom, pool| bloom | pool.bloom()),
            blocks: rules.iter().any(Compiled::blocks),
            rules,
            conditions,
            sets,
            pools,
            matches,
        })
    }

    /// The upstreams of each context.
    pub fn pools(&self) -> &[P] {
        &self.pools
    }

    /// Whether any rule blocks.
    #[inline(always)]
    pub fn block(&self) -> bool {
        self.blocks
    }

    /// What becomes of a new connection of `tuple`, seen at `hook`, as far as the rules may; `facts` are asked only for what a rule
    /// names, and `moment` is told whether its random number is used.
    ///
    /// The first rule that matches decides. A packet on its way to an upstream, of whatever
    /// context, is not redirected: a proxy's own connections do not come back to a proxy. Nor is a
    /// datagram that comes from there, which may be an answer to what was sent before there was a rule.
    pub fn choose(
        &self,
        search: Search,
        hook: u8,
        scope: Scope,
        tuple: &Tuple<A>,
        facts: &impl Facts,
        moment: impl FnOnce(bool) -> Moment,
    ) -> Decision<A> {
        let index = self.index.as_ref();
        let found = match index.filter(|_| search == Search::Indexed) {
            Some(index) => {
                let accepted = |number| {
                    let rule = self.rules.get(number)?;
                    let pool = self.pool_of(rule)?;
                    self.meets(rule, tuple, facts).then_some((rule, pool))
                };
                index.find(hook, tuple, || facts.interface(), accepted)
            }
            None => {
                let matching = |(rule, _): &(&Compiled<A>, _)| {
                    rule.matches(hook, tuple, || facts.interface())
                        && self.meets(rule, tuple, facts)
                };
                self.open().find(matching)
            }
        };
        let Some((rule, pool)) = found else {
            return Decision::Direct;
        };
        let counts = match scope {
            Scope::All => true,
            Scope::Block => rule.blocks(),
            Scope::Redirect => rule.action == Action::Redirect,
        };
        if !counts {
            return Decision::Direct;
        }
        let matches = self.matches.get(rule.pool);
        if let Some(count) = matches.and_then(|matches| matches.get(rule.number)) {
            count.fetch_add(1, Relaxed);
        }
        match rule.action {
            Action::Redirect => {}
            Action::Direct => return Decision::Direct,
            Action::Drop => return Decision::Block { tells: false },
            Action::Reject => return Decision::Block { tells: true },
        }
        if self.leads_to_upstream(tuple)
            || tuple.protocol == Protocol::Udp && self.comes_from_upstream(tuple)
        {
            return Decision::Direct;
        }
        let Some((number, upstream)) = pool.select(rule.group, tuple, moment) else {
            return Decision::Direct;
        };
        let owner = Owner {
            context: pool.owner,
            upstream: number,
        };
        Decision::Redirect(Choice { owner, upstream })
    }

    // Whether the rule's conditions hold.
    #[inline(always)]
    fn meets(&self, rule: &Compiled<A>, tuple: &Tuple<A>, facts: &impl Facts) -> bool {
        let [begin, end] = rule.conditions;
        begin == end || self.all_hold(begin, end, tuple, facts)
    }

    #[cold]
    #[inline(never)]
    fn all_hold(&self, begin: usize, end: usize, tuple: &Tuple<A>, facts: &impl Facts) -> bool {
        let mut conditions = self.conditions.get(begin..end).unwrap_or_default().iter();
        conditions.all(|condition| condition.holds::<A, M, _>(tuple, facts, &self.sets))
    }

    // The rules of contexts that have not closed.
    fn open(&self) -> impl Iterator<Item = (&Compiled<A>, &UpstreamPool<A, M>)> {
        let rules = self.rules.iter();
        rules.filter_map(|rule| Some((rule, self.pool_of(rule)?)))
    }

    // A rule's upstreams, unless its context has closed.
    fn pool_of(&self, rule: &Compiled<A>) -> Option<&UpstreamPool<A, M>> {
        let pool: &UpstreamPool<A, M> = self.pools.get(rule.pool)?;
        (!pool.is_closed()).then_some(pool)
    }

    // Whether the packet goes to an upstream.
    #[inline(always)]
    fn leads_to_upstream(&self, tuple: &Tuple<A>) -> bool {
        // Nearly always the end of it.
        self.bloom & tuple.destination().bloom_bit() != 0 && self.is_upstream(tuple)
    }

    // Whether one of the other direction would.
    #[inline(always)]
    fn comes_from_upstream(&self, tuple: &Tuple<A>) -> bool {
        self.bloom & tuple.source().bloom_bit() != 0 && self.is_upstream(&tuple.reverse())
    }

    // Whether it goes to an upstream: to its very port or, if that keeps ports, to one that a rule leaves it.
    #[cold]
    #[inline(never)]
    fn is_upstream(&self, tuple: &Tuple<A>) -> bool {
        let is_open = |pool: usize| self.pools.get(pool).is_some_and(|pool| !pool.is_closed());
        self.places.have(tuple, is_open)
    }

    /// The upstreams of the context `owner`.
    pub fn pool(&self, owner: u32) -> Option<&UpstreamPool<A, M>> {
        let mut pools = self.pools.iter();
        pools.find(|pool| pool.owner == owner).map(|pool| &**pool)
    }

    /// Makes the rules of `owner` match nothing any more, from now on and without any memory.
    pub fn disable(&self, owner: u32) {
        if let Some(pool) = self.pool(owner) {
            pool.close();
        }
    }
}

#[cfg(test)]
mod tests;
