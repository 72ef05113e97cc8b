// SPDX-License-Identifier: GPL-2.0

//! The rules and upstreams of contexts, in the form that hooks read; charged to the task that configures a
//! context.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Config, Rule};
use crate::datapath::allocate::Allocate;
use crate::datapath::rules::{Compiled, Rules};
use crate::datapath::tuple::{Address, V4, V6};
use crate::datapath::upstream::UpstreamPool;

/// The kernel's memory, from wherever there is some.
pub(crate) struct KernelHeap;

impl Allocate for KernelHeap {
    type Vec<T> = KVVec<T>;
    type Error = Error;

    fn collect<T>(items: impl Iterator<Item = T>) -> Result<KVVec<T>> {
        let mut all = KVVec::with_capacity(items.size_hint().0, GFP_KERNEL_ACCOUNT)?;
        for item in items {
            all.push(item, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(all)
    }
}

/// Rules of one IP version, and the pools of upstreams to which they lead.
pub(crate) type VersionRules<A> = Rules<A, KernelHeap, Arc<UpstreamPool<A, KernelHeap>>>;

/// A context's configuration.
///
/// The pools outlive the sets of rules: the health of upstreams stays when another context is
/// opened, configured or closed.
pub(crate) struct Configuration {
    rules: KVVec<Rule>,
    upstreams: usize,
    v4: Arc<UpstreamPool<V4, KernelHeap>>,
    v6: Arc<UpstreamPool<V6, KernelHeap>>,
}

impl Configuration {
    /// What `config` says, of the context `owner`.
    pub(crate) fn new(config: &Config<'_>, owner: u32) -> Result<Self> {
        let mut rules = KVVec::new();
        for rule in config.rules() {
            rules.push(rule, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            rules,
            upstreams: config.upstreams().count(),
            v4: pool(config, owner)?,
            v6: pool(config, owner)?,
        })
    }

    /// How many rules it has, and how many upstreams.
    pub(crate) fn size(&self) -> [usize; 2] {
        [self.rules.len(), self.upstreams]
    }
}

fn pool<A: Address>(config: &Config<'_>, owner: u32) -> Result<Arc<UpstreamPool<A, KernelHeap>>> {
    let pool = UpstreamPool::new(owner, config.members())?;
    Ok(Arc::new(pool, GFP_KERNEL_ACCOUNT)?)
}

/// The rules of all contexts of a namespace.
pub(crate) struct RuleSet {
    /// Those of IPv4.
    pub(crate) v4: VersionRules<V4>,
    /// Those of IPv6.
    pub(crate) v6: VersionRules<V6>,
}

impl RuleSet {
    /// Of contexts with these configurations, whose rules are asked in this order.
    pub(crate) fn new<'a, I>(configurations: impl Fn() -> I) -> Result<Self>
    where
        I: Iterator<Item = &'a Configuration>,
    {
        let v4 = configurations().map(|one| (&one.v4, &one.rules));
        let v6 = configurations().map(|one| (&one.v6, &one.rules));
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

fn of_version<'a, A: Address>(
    contexts: impl Iterator<Item = (&'a Arc<UpstreamPool<A, KernelHeap>>, &'a KVVec<Rule>)>,
) -> Result<VersionRules<A>> {
    let (mut all, mut pools) = (KVVec::new(), KVVec::new());
    for (pool, rules) in contexts {
        let place = pools.len();
        pools.push(pool.clone(), GFP_KERNEL_ACCOUNT)?;
        for rule in rules.iter().filter_map(|rule| Compiled::new(rule, place)) {
            all.push(rule, GFP_KERNEL_ACCOUNT)?;
        }
    }
    Rules::new(all, pools)
}
