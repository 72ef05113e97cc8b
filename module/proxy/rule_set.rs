// SPDX-License-Identifier: GPL-2.0

//! The rules and upstreams of contexts, in the form that hooks read; charged to the task that configures a
//! context.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::Rule;
use crate::datapath::allocate::Allocate;
use crate::datapath::configuration;
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

    fn push<T>(items: &mut KVVec<T>, item: T) -> Result {
        Ok(items.push(item, GFP_KERNEL_ACCOUNT)?)
    }
}

/// A context's configuration, as it was staged.
pub(crate) type Configuration = configuration::Configuration<KernelHeap>;

/// Rules of one IP version, and the pools of upstreams to which they lead.
pub(crate) type VersionRules<A> = Rules<A, KernelHeap, Arc<UpstreamPool<A, KernelHeap>>>;

/// The upstreams of a context.
///
/// They outlive the sets of rules: the health of upstreams stays when another context is
/// opened, configured or closed; and when this one is, unless its upstreams are others then.
#[derive(Clone)]
pub(crate) struct Pools {
    v4: Arc<UpstreamPool<V4, KernelHeap>>,
    v6: Arc<UpstreamPool<V6, KernelHeap>>,
}

impl Pools {
    /// Those of `configuration`, of the context `owner`.
    pub(crate) fn new(configuration: &Configuration, owner: u32) -> Result<Self> {
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

/// The rules of all contexts of a namespace.
pub(crate) struct RuleSet {
    /// Those of IPv4.
    pub(crate) v4: VersionRules<V4>,
    /// Those of IPv6.
    pub(crate) v6: VersionRules<V6>,
}

impl RuleSet {
    /// Of contexts with these upstreams and rules, which are asked in this order.
    pub(crate) fn new<'a, I>(contexts: impl Fn() -> I) -> Result<Self>
    where
        I: Iterator<Item = (&'a Pools, &'a [Rule])>,
    {
        let v4 = contexts().map(|(pools, rules)| (&pools.v4, rules));
        let v6 = contexts().map(|(pools, rules)| (&pools.v6, rules));
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
    contexts: impl Iterator<Item = (&'a Arc<UpstreamPool<A, KernelHeap>>, &'a [Rule])>,
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
