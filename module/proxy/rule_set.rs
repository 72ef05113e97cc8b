// SPDX-License-Identifier: GPL-2.0

//! The rules and upstreams of contexts, in the form that hooks read; charged to the task that configures a
//! context.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Config, Rule};
use crate::datapath::rules::{Compiled, Rules};
use crate::datapath::tuple::{Address, V4, V6};
use crate::datapath::upstream::UpstreamPool;

/// Rules of one IP version, and the pools of upstreams to which they lead.
pub(crate) type VersionRules<A> = Rules<KVVec<Compiled<A>>, KVVec<Arc<UpstreamPool<A>>>>;

/// A context's configuration.
///
/// The pools outlive the sets of rules: the health of upstreams stays when another context is
/// opened, configured or closed.
pub(crate) struct Configuration {
    rules: KVec<Rule>,
    v4: Arc<UpstreamPool<V4>>,
    v6: Arc<UpstreamPool<V6>>,
}

impl Configuration {
    /// What `config` says, of the context `owner`.
    pub(crate) fn new(config: &Config<'_>, owner: u32) -> Result<Self> {
        let mut rules = KVec::new();
        for rule in config.rules() {
            rules.push(rule, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            rules,
            v4: pool(config, owner)?,
            v6: pool(config, owner)?,
        })
    }
}

fn pool<A: Address>(config: &Config<'_>, owner: u32) -> Result<Arc<UpstreamPool<A>>> {
    let pool = UpstreamPool::new(owner, config.selection, config.upstreams());
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
    /// Without rules.
    pub(crate) const fn new() -> Self {
        Self {
            v4: empty(),
            v6: empty(),
        }
    }

    /// Adds a context, whose rules are asked after those before.
    pub(crate) fn push(&mut self, configuration: &Configuration) -> Result {
        push(&mut self.v4, &configuration.v4, &configuration.rules)?;
        push(&mut self.v6, &configuration.v6, &configuration.rules)
    }

    /// Makes the rules of `owner` match nothing any more.
    pub(crate) fn disable(&self, owner: u32) {
        self.v4.disable(owner);
        self.v6.disable(owner);
    }
}

const fn empty<A>() -> VersionRules<A> {
    Rules {
        rules: KVVec::new(),
        pools: KVVec::new(),
        bloom: 0,
    }
}

fn push<A: Address>(
    all: &mut VersionRules<A>,
    pool: &Arc<UpstreamPool<A>>,
    rules: &[Rule],
) -> Result {
    let place = all.pools.len();
    all.pools.push(pool.clone(), GFP_KERNEL_ACCOUNT)?;
    all.bloom |= pool.bloom();
    for rule in rules.iter().filter_map(|rule| Compiled::new(rule, place)) {
        all.rules.push(rule, GFP_KERNEL_ACCOUNT)?;
    }
    Ok(())
}
