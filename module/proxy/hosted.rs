// SPDX-License-Identifier: GPL-2.0

//! What a namespace with contexts has of the proxy: hooks, work on flows, and the configurations of its contexts. When it has
//! that is the registry's.

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::abi::proxy::{MAX_ELEMENTS, MAX_RULES, MAX_SETS, MAX_UPSTREAMS};
use crate::datapath::configuration::Size;
use crate::datapath::sort::sort_by_key;
use crate::expiry;
use crate::instance::{self, Instance};
use crate::memory::Memory;
use crate::redirect;
use crate::rule_set::{Configuration, Prepared, RuleSet};
use crate::slots::{place, reserve};
use crate::sys::hooks;
use crate::sys::net::Namespace;
use crate::sys::rcu;
use crate::sys::tasklet;

/// Names a context of a namespace; never used twice there. Those that were opened later have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContextId(u64);

impl ContextId {
    /// The first one's.
    pub(crate) const FIRST: Self = Self(1);
    /// Of one that is not made: after all others.
    pub(crate) const TRIAL: Self = Self(u64::MAX);

    /// The next one. At a million a second they last for half a million years.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// What its flows and upstreams know of it: contexts that are there at the same time differ by it, and it is not zero.
    pub(crate) fn owner(self) -> u32 {
        self.0 as u32
    }

    /// A number that another context has not, nor this one with another configuration, unless by a rare chance; not zero.
    pub(crate) fn with_generation(self, generation: u32) -> u32 {
        // Odd, near 2^32 divided by the golden ratio.
        const SPREAD: u32 = 0x9e37_79b9;
        let spread = self.owner().wrapping_mul(SPREAD);
        spread.wrapping_add(generation).max(1)
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
    // In the order in which they are dropped: batching, then the hooks and the work on flows, and then flows are neither made nor
    // moved any more, and can be removed.
    _batching: tasklet::Running<Instance>,
    _hooks: hooks::Registered<Instance>,
    _expiry: expiry::Running,
    _flows: FlowsOf,
    /// What all hooks share.
    pub(crate) instance: Arc<Instance>,
    /// Its contexts that were configured.
    pub(crate) configured: Pin<KBox<Mutex<KVVec<Option<Context>>>>>,
    /// What hooks and routes are in.
    pub(crate) net: Namespace,
}

/// The flows of an instance, which readers of files may keep longer. Dropping this removes them, and waits until none of
/// them has a route.
struct FlowsOf {
    instance: Arc<Instance>,
    memory: Arc<Memory>,
}

impl Drop for FlowsOf {
    fn drop(&mut self) {
        self.instance.remove_flows();
        // No hook caches a route any more: so after this no flow has one.
        self.memory.drain();
    }
}

/// What a configuration would make of the rules.
struct Judged {
    prepared: Prepared,
    rules: KBox<RuleSet>,
    /// The context's generation before.
    before: u32,
}

impl Hosted {
    /// Puts hooks into the namespace; flows will be in `memory`.
    pub(crate) fn new(net: &Namespace, memory: Arc<Memory>) -> Result<Self> {
        let instance = Arc::new(Instance::new(memory.clone())?, GFP_KERNEL_ACCOUNT)?;
        let configured = KBox::pin_init(new_mutex!(KVVec::new()), GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            _hooks: redirect::register(net, instance.clone())?,
            _batching: tasklet::Running::new(instance.clone()),
            _expiry: expiry::start(instance.clone(), net.clone())?,
            _flows: FlowsOf {
                instance: instance.clone(),
                memory,
            },
            instance,
            configured,
            net: net.clone(),
        })
    }

    /// Takes what is staged, unless there is an error; the generation after that.
    pub(crate) fn configure(
        &self,
        id: ContextId,
        staged: &mut Option<Configuration>,
        expected: Option<u32>,
    ) -> Result<u32, NotConfigured> {
        let mut ports = instance::ports(finished(staged)?)?;
        let mut configured = self.configured.lock();
        // Before anything is changed.
        reserve(&mut configured)?;
        let Judged {
            prepared,
            rules,
            before,
        } = judge(&mut configured, id, finished(staged)?, expected)?;
        let generation = before.checked_add(1).unwrap_or(1);
        let configuration = staged.take().ok_or(EINVAL)?;
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

    /// What [`Self::configure`] would say, but the generation before.
    pub(crate) fn judge(
        &self,
        id: ContextId,
        staged: &mut Option<Configuration>,
        expected: Option<u32>,
    ) -> Result<u32, NotConfigured> {
        let configuration = finished(staged)?;
        let judged = judge(&mut self.configured.lock(), id, configuration, expected)?;
        Ok(judged.before)
    }

    /// Removes the rules and flows of a context that is not the namespace's last.
    pub(crate) fn forget(&self, id: ContextId) {
        self.instance.forget_name(id.owner());
        let mut configured = self.configured.lock();
        if context(&mut configured, id).is_none() {
            // Without rules it has no flows.
            return;
        }
        rcu::read(|guard| self.instance.rules.load(guard).disable(id.owner()));
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
        self.instance.remove_flows_of(id.owner());
    }
}

/// As [`Hosted::judge`], of a namespace without contexts.
pub(crate) fn judge_alone(
    staged: &mut Option<Configuration>,
    expected: Option<u32>,
) -> Result<u32, NotConfigured> {
    let judged = judge(&mut [], ContextId::TRIAL, finished(staged)?, expected)?;
    Ok(judged.before)
}

// What is staged, with all that it needs. It stays if something is missing.
fn finished(staged: &mut Option<Configuration>) -> Result<&Configuration, NotConfigured> {
    let configuration = staged.as_mut().ok_or(NotConfigured::Error(EINVAL))?;
    configuration.finish()?;
    Ok(configuration)
}

fn judge(
    configured: &mut [Option<Context>],
    id: ContextId,
    configuration: &Configuration,
    expected: Option<u32>,
) -> Result<Judged, NotConfigured> {
    let old = context(configured, id).and_then(|slot| slot.as_ref());
    let before = old.map(|old| old.generation).unwrap_or_default();
    if expected.is_some_and(|expected| expected != before) {
        return Err(NotConfigured::OtherGeneration);
    }
    let same = old.filter(|old| configuration.has_upstreams_of(&old.configuration));
    let before_it = same.map(|same| &same.prepared);
    let prepared = Prepared::new(configuration, id.owner(), before_it)?;
    let rules = rules(configured, id, Some((configuration, &prepared)))?;
    Ok(Judged {
        prepared,
        rules,
        before,
    })
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
            (context.id, &context.configuration, &context.prepared),
            GFP_KERNEL,
        )?;
    }
    if let Some((configuration, prepared)) = changed {
        all.push((id, configuration, prepared), GFP_KERNEL)?;
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
