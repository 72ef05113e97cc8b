// SPDX-License-Identifier: GPL-2.0

//! The rules and upstreams of contexts, in the form that hooks read; charged to the task that configures a
//! context.

use core::sync::atomic::AtomicU64;

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Family, Rule, Upstream};
use crate::datapath::allocate::Allocate;
use crate::datapath::configuration;
use crate::datapath::rules::{self, Matches, Rules};
use crate::datapath::set::Set;
use crate::datapath::tuple::{Address, V4, V6};
use crate::datapath::upstream::UpstreamPool;

/// The kernel's memory, from wherever there is some.
pub(crate) struct KernelHeap;

impl Allocate for KernelHeap {
    type Vec<T> = KVVec<T>;
    type Shared<T> = Arc<T>;
    type Error = Error;

    fn collect<T>(items: impl Iterator<Item = T>) -> Result<KVVec<T>> {
        let mut all = KVVec::with_capacity(items.size_hint().0, GFP_KERNEL_ACCOUNT)?;
        for item in items {
            all.push(item, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(all)
    }

    fn push<T>(items: &mut KVVec<T>, item: T) -> Result {
        Ok(items.push(item, GFP_KERNEL_ACCOUNT)?)
    }

    fn share<T>(value: T) -> Result<Arc<T>> {
        Ok(Arc::new(value, GFP_KERNEL_ACCOUNT)?)
    }
}

/// A context's configuration, as it was staged.
pub(crate) type Configuration = configuration::Configuration<KernelHeap>;

/// Rules of one IP version, and the pools of upstreams to which they lead.
pub(crate) type VersionRules<A> = Rules<A, KernelHeap, SharedPool<A>>;

/// The upstreams of a context.
///
/// They outlive the sets of rules: the health of upstreams stays when another context is
/// opened, configured or closed; and when this one is, unless its upstreams are others then.
#[derive(Clone)]
struct Pools {
    v4: Arc<UpstreamPool<V4, KernelHeap>>,
    v6: Arc<UpstreamPool<V6, KernelHeap>>,
}

impl Pools {
    /// Those of `configuration`, of the context `owner`.
    fn new(configuration: &Configuration, owner: u32) -> Result<Self> {
        Ok(Self {
            v4: pool(configuration, owner)?,
            v6: pool(configuration, owner)?,
        })
    }
}

fn pool<A: Address>(
    configuration: &Configuration,
    owner: u32,
) -> Result<Arc<UpstreamPool<A, KernelHeap>>> {
    let pool = UpstreamPool::new(owner, configuration.members())?;
    Ok(Arc::new(pool, GFP_KERNEL_ACCOUNT)?)
}

/// What the rules of a context lead to, look into and count in.
pub(crate) struct Prepared {
    pools: Pools,
    sets: KVVec<Arc<Set<KernelHeap>>>,
    /// How many connections each rule was the first to match.
    pub(crate) matches: Arc<Matches<KernelHeap>>,
}

impl Prepared {
    /// Of `configuration`, whose sets are whole, of the context `owner`; `before`: with the upstreams of an earlier one that
    /// had the same.
    pub(crate) fn new(
        configuration: &Configuration,
        owner: u32,
        before: Option<&Self>,
    ) -> Result<Self> {
        let rules = configuration.rules().iter();
        let matches = KernelHeap::collect(rules.map(|_| AtomicU64::new(0)))?;
        Ok(Self {
            pools: match before {
                Some(before) => before.pools.clone(),
                None => Pools::new(configuration, owner)?,
            },
            sets: KernelHeap::collect(configuration.whole_sets().cloned())?,
            matches: KernelHeap::share(matches)?,
        })
    }

    /// How many new connections went to this upstream, which has this place in its group.
    pub(crate) fn connections(&self, upstream: &Upstream, member: usize) -> u64 {
        let count = match upstream.family {
            Family::V4 => connections(&self.pools.v4, upstream.group, member),
            Family::V6 => connections(&self.pools.v6, upstream.group, member),
        };
        count.unwrap_or_default()
    }
}

fn connections<A: Address>(pool: &SharedPool<A>, group: u8, member: usize) -> Option<u64> {
    let group = pool.groups().get(usize::from(group))?;
    let mut all = group.connections();
    Some(all.find(|(number, _)| usize::from(*number) == member)?.1)
}

/// The rules of all contexts of a namespace.
pub(crate) struct RuleSet {
    /// Those of IPv4.
    pub(crate) v4: VersionRules<V4>,
    /// Those of IPv6.
    pub(crate) v6: VersionRules<V6>,
}

impl RuleSet {
    /// Of contexts that are so prepared, with their rules, which are asked in this order.
    pub(crate) fn new<'a, I>(contexts: impl Fn() -> I) -> Result<Self>
    where
        I: Iterator<Item = (&'a Prepared, &'a [Rule])>,
    {
        let v4 = contexts().map(|(prepared, rules)| (&prepared.pools.v4, prepared, rules));
        let v6 = contexts().map(|(prepared, rules)| (&prepared.pools.v6, prepared, rules));
        Ok(Self {
            v4: of_version(v4)?,
            v6: of_version(v6)?,
        })
    }

    /// Makes the rules of `owner` match nothing any more.
    pub(crate) fn disable(&self, owner: u32) {
        self.v4.disable(owner);
        self.v6.disable(owner);
    }
}

type SharedPool<A> = Arc<UpstreamPool<A, KernelHeap>>;

fn of_version<'a, A: Address>(
    contexts: impl Iterator<Item = (&'a SharedPool<A>, &'a Prepared, &'a [Rule])>,
) -> Result<VersionRules<A>> {
    Rules::new(contexts.map(|(pool, prepared, rules)| rules::Context {
        pool: pool.clone(),
        rules,
        sets: &prepared.sets,
        matches: prepared.matches.clone(),
    }))
}
