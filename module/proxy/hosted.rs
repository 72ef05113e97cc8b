// SPDX-License-Identifier: GPL-2.0

//! What a namespace with contexts has of the proxy: hooks, files, work on flows, and the configurations of its contexts. Which
//! namespaces have it is the registry's.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::abi::proxy::{MAX_ELEMENTS, MAX_RULES, MAX_SETS, MAX_UPSTREAMS};
use crate::datapath::configuration::Size;
use crate::datapath::sort::sort_by_key;
use crate::expiry;
use crate::instance::{self, Instance};
use crate::memory::Memory;
use crate::monitor;
use crate::redirect;
use crate::rule_set::{Configuration, Prepared, RuleSet};
use crate::slots::{place, reserve};
use crate::sys::hooks;
use crate::sys::net::Namespace;
use crate::sys::procfs::Directory;
use crate::sys::rcu;
use crate::sys::tasklet;

/// Names a context; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextId(pub(crate) u32);

impl ContextId {
    /// A number that another context has not, nor this one with another configuration, unless by a rare chance; not zero.
    pub(crate) fn with_generation(self, generation: u32) -> u32 {
        // Odd, near 2^32 divided by the golden ratio.
        const SPREAD: u32 = 0x9e37_79b9;
        self.0.wrapping_mul(SPREAD).wrapping_add(generation).max(1)
    }
}

/// Why a context was not opened or configured.
#[derive(Clone, Copy)]
pub(crate) enum NotConfigured {
    /// For want of memory, or because the module is being unloaded.
    Error(Error),
    /// Another call deletes it.
    Gone,
    /// A signal came while another call made or closed something that this one has to wait for.
    Interrupted,
    /// The namespace has [`MAX_CONTEXTS`] already.
    TooManyContexts,
    /// The namespace would have more than [`MAX_RULES`].
    TooManyRules,
    /// The namespace would have more than [`MAX_UPSTREAMS`].
    TooManyUpstreams,
    /// The namespace would have more than [`MAX_SETS`].
    TooManySets,
    /// Its sets would have more than [`MAX_ELEMENTS`].
    TooManyElements,
    /// It was configured by another call, or not often enough.
    OtherGeneration,
}

impl<E: Into<Error>> From<E> for NotConfigured {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// A context that was configured.
pub(crate) struct Context {
    id: ContextId,
    /// How often.
    pub(crate) generation: u32,
    /// How.
    pub(crate) configuration: Configuration,
    /// What its rules lead to, look into and count in.
    pub(crate) prepared: Prepared,
}

/// A namespace with at least one context: the proxy's hooks are in it.
pub(crate) struct Hosted {
    // In the order in which they are dropped: batching, then the hooks, the work on flows, and the rest. The
    // files come after the hooks: dropping them waits for readers, and until then no rule may hold any more.
    _batching: tasklet::Running<Instance>,
    _hooks: hooks::Registered<Instance>,
    _expiry: expiry::Running,
    _monitor: Directory,
    /// What all hooks share.
    pub(crate) instance: Arc<Instance>,
    /// Its contexts that were configured.
    pub(crate) configured: Pin<KBox<Mutex<KVVec<Option<Context>>>>>,
}

impl Hosted {
    /// Puts hooks and files into the namespace; flows will be in `memory`.
    pub(crate) fn new(net: &Namespace, memory: Arc<Memory>) -> Result<Self> {
        let instance = Arc::new(Instance::new(memory)?, GFP_KERNEL_ACCOUNT)?;
        let configured = KBox::pin_init(new_mutex!(KVVec::new()), GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            _hooks: redirect::register(net, instance.clone())?,
            _batching: tasklet::Running::new(instance.clone()),
            _expiry: expiry::start(instance.clone(), net.clone())?,
            // Last, when nothing can fail any more: dropping it waits for its readers.
            _monitor: monitor::publish(net, &instance)?,
            instance,
            configured,
        })
    }

    /// Takes what is staged, unless there is an error or nothing is to be changed; the generation after that.
    pub(crate) fn configure(
        &self,
        id: ContextId,
        staged: &mut Option<Configuration>,
        expected: Option<u32>,
        dry_run: bool,
    ) -> Result<u32, NotConfigured> {
        let Some(configuration) = staged.as_mut() else {
            return Err(NotConfigured::Error(EINVAL));
        };
        configuration.finish()?;
        let configuration = &*configuration;
        let mut ports = instance::ports(configuration)?;
        let mut configured = self.configured.lock();
        let old = context(&mut configured, id).and_then(|slot| slot.as_ref());
        let before = old.map(|old| old.generation).unwrap_or_default();
        let same = old.filter(|old| configuration.has_upstreams_of(&old.configuration));
        let before_it = same.map(|same| &same.prepared);
        let prepared = Prepared::new(configuration, id.0, before_it)?;
        if expected.is_some_and(|expected| expected != before) {
            return Err(NotConfigured::OtherGeneration);
        }
        // Before anything is changed.
        reserve(&mut configured)?;
        let rules = rules(&configured, id, Some((configuration, &prepared)))?;
        let generation = before.checked_add(1).unwrap_or(1);
        let taken = match dry_run {
            true => None,
            false => staged.take(),
        };
        let Some(configuration) = taken else {
            return Ok(before);
        };
        // First the filter, so that no packet of a new flow is overlooked. Ports that no rule names
        // any more stay in it, since flows may have them.
        self.instance.admit(&mut ports);
        self.instance.rules.replace(rules);
        let new = Context {
            id,
            generation,
            configuration,
            prepared,
        };
        match context(&mut configured, id) {
            Some(slot) => *slot = Some(new),
            // There is room.
            None => place(&mut configured, new)?,
        }
        Ok(generation)
    }

    /// Removes the rules and flows of a context that is not the namespace's last.
    pub(crate) fn forget(&self, id: ContextId) {
        let mut configured = self.configured.lock();
        if context(&mut configured, id).is_none() {
            // Without rules it has no flows.
            return;
        }
        rcu::read(|guard| self.instance.rules.load(guard).disable(id.0));
        match rules(&configured, id, None) {
            // Waits for a grace period.
            Ok(rules) => self.instance.rules.replace(rules),
            // Without memory for a new set the rules stay in the old one, disabled. Hooks that asked them
            // before that are waited for.
            Err(_) => rcu::synchronize(),
        }
        if let Some(slot) = context(&mut configured, id) {
            *slot = None;
        }
        drop(configured);
        // No hook makes a flow of the context any more.
        self.instance.remove_flows_of(id.0);
    }
}

/// The slot of a context.
pub(crate) fn context(
    slots: &mut [Option<Context>],
    id: ContextId,
) -> Option<&mut Option<Context>> {
    slots
        .iter_mut()
        .find(|slot| slot.as_ref().is_some_and(|context| context.id == id))
}

// The rules of all contexts, in the order in which these were opened, which is that of their numbers; for
// `id`, those of `changed`.
fn rules(
    contexts: &[Option<Context>],
    id: ContextId,
    changed: Option<(&Configuration, &Prepared)>,
) -> Result<KBox<RuleSet>, NotConfigured> {
    let mut all = KVVec::new();
    for context in contexts.iter().flatten().filter(|one| one.id != id) {
        all.push(
            (context.id.0, &context.configuration, &context.prepared),
            GFP_KERNEL,
        )?;
    }
    if let Some((configuration, prepared)) = changed {
        all.push((id.0, configuration, prepared), GFP_KERNEL)?;
    }
    let sizes = all
        .iter()
        .map(|(_, configuration, _)| configuration.size());
    let size = sizes.fold(Size::default(), Size::plus);
    for (count, most, error) in [
        (size.rules, MAX_RULES, NotConfigured::TooManyRules),
        (size.upstreams, MAX_UPSTREAMS, NotConfigured::TooManyUpstreams),
        (size.sets, MAX_SETS, NotConfigured::TooManySets),
        (size.elements, MAX_ELEMENTS, NotConfigured::TooManyElements),
    ] {
        if count > most {
            return Err(error);
        }
    }
    sort_by_key(&mut all, |&(number, ..)| number);
    let in_order = || {
        all.iter()
            .map(|&(_, configuration, prepared)| (prepared, configuration.rules()))
    };
    Ok(KBox::new(RuleSet::new(in_order)?, GFP_KERNEL_ACCOUNT)?)
}
