// SPDX-License-Identifier: GPL-2.0

//! Which contexts there are, and in which network namespaces.

use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::abi::proxy::{Rule, Stats};
use crate::expiry;
use crate::flows::Memory;
use crate::instance::{Instance, RuleSet};
use crate::redirect;
use crate::sys::hooks;
use crate::sys::net::Namespace;
use crate::sys::rcu;

/// Names a context; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextId(u32);

struct ContextRules {
    id: ContextId,
    rules: KVec<Rule>,
}

/// A namespace with at least one context: the proxy's hooks are in it.
struct Hosted {
    // In the order in which they have to go: packets, then the work on flows, then the rest.
    _hooks: hooks::Registered<Instance>,
    _expiry: expiry::Running,
    instance: Arc<Instance>,
    contexts: KVec<Option<ContextRules>>,
    net: Namespace,
}

impl Hosted {
    fn new(net: Namespace, memory: Arc<Memory>) -> Result<Self> {
        let instance = Arc::new(Instance::new(memory)?, GFP_KERNEL)?;
        Ok(Self {
            _hooks: redirect::register(&net, instance.clone())?,
            _expiry: expiry::start(instance.clone())?,
            instance,
            contexts: KVec::new(),
            net,
        })
    }

    fn has(&self, id: ContextId) -> bool {
        self.contexts
            .iter()
            .flatten()
            .any(|context| context.id == id)
    }

    fn context(&mut self, id: ContextId) -> Option<&mut Option<ContextRules>> {
        self.contexts
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|context| context.id == id))
    }

    // Gives hooks the rules of all contexts, in the order in which those were opened, but for
    // `id` the rules `changed`.
    fn publish(&self, id: ContextId, changed: &[Rule]) -> Result {
        let mut all = RuleSet::new();
        for context in self.contexts.iter().flatten() {
            let rules = if context.id == id {
                changed
            } else {
                &context.rules
            };
            for rule in rules {
                all.push(rule, context.id.0)?;
            }
        }
        let all = KBox::new(all, GFP_KERNEL)?;
        // First the filter, so that no packet of a new flow is overlooked. Ports that no rule names
        // any more stay as long as flows may have them.
        for rule in changed {
            self.instance.admit(rule);
        }
        self.instance.rules.replace(all);
        Ok(())
    }
}

struct Inner {
    hosted: KVec<Option<Hosted>>,
    next_id: u32,
}

/// All contexts.
pub(crate) struct Registry {
    inner: Pin<KBox<Mutex<Inner>>>,
    memory: Arc<Memory>,
}

impl Inner {
    fn host_of(&mut self, id: ContextId) -> Option<&mut Option<Hosted>> {
        self.hosted
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|hosted| hosted.has(id)))
    }
}

// Puts `value` into an empty slot or a new one.
fn place<T>(slots: &mut KVec<Option<T>>, value: T) -> Result {
    match slots.iter_mut().find(|slot| slot.is_none()) {
        Some(slot) => *slot = Some(value),
        None => slots.push(Some(value), GFP_KERNEL)?,
    }
    Ok(())
}

// Forgets empty slots and keeps the order, if there is memory for it.
fn compact<T>(slots: &mut KVec<Option<T>>) {
    let Ok(mut kept) = KVec::with_capacity(slots.len(), GFP_KERNEL) else {
        return;
    };
    for slot in slots.iter_mut().filter(|slot| slot.is_some()) {
        // Within the capacity.
        let _ = kept.push(slot.take(), GFP_KERNEL);
    }
    *slots = kept;
}

impl Registry {
    /// Without any context.
    pub(crate) fn new() -> Result<Self> {
        let inner = Inner {
            hosted: KVec::new(),
            next_id: 1,
        };
        Ok(Self {
            inner: KBox::pin_init(new_mutex!(inner), GFP_KERNEL)?,
            memory: Arc::new(Memory::new()?, GFP_KERNEL)?,
        })
    }

    /// Opens a context without rules in `net`.
    pub(crate) fn open(&self, net: Namespace) -> Result<ContextId> {
        let mut inner = self.inner.lock();
        let id = ContextId(inner.next_id);
        inner.next_id = inner.next_id.checked_add(1).ok_or(EMFILE)?;
        let context = ContextRules {
            id,
            rules: KVec::new(),
        };
        if let Some(hosted) = inner
            .hosted
            .iter_mut()
            .flatten()
            .find(|hosted| hosted.net == net)
        {
            // The last: rules are asked in the order in which their contexts were opened.
            hosted.contexts.push(Some(context), GFP_KERNEL)?;
        } else {
            let mut hosted = Hosted::new(net, self.memory.clone())?;
            hosted.contexts.push(Some(context), GFP_KERNEL)?;
            place(&mut inner.hosted, hosted)?;
        }
        Ok(id)
    }

    /// Puts `rules` in the place of the context's; on an error they stay as they were.
    pub(crate) fn configure(&self, id: ContextId, rules: KVec<Rule>) -> Result {
        let mut inner = self.inner.lock();
        let hosted = inner.host_of(id).and_then(Option::as_mut).ok_or(EBADF)?;
        hosted.publish(id, &rules)?;
        if let Some(Some(context)) = hosted.context(id) {
            context.rules = rules;
        }
        Ok(())
    }

    /// The counters of the context's namespace.
    pub(crate) fn stats(&self, id: ContextId) -> Result<Stats> {
        let mut inner = self.inner.lock();
        let hosted = inner.host_of(id).and_then(Option::as_mut).ok_or(EBADF)?;
        Ok(hosted.instance.stats())
    }

    /// Removes the context, its rules and its flows; with a namespace's last one, the hooks.
    pub(crate) fn close(&self, id: ContextId) {
        let mut inner = self.inner.lock();
        let Some(slot) = inner.host_of(id) else {
            return;
        };
        let Some(hosted) = slot else { return };
        if hosted.contexts.iter().flatten().nth(1).is_none() {
            *slot = None;
            return;
        }
        rcu::read(|guard| hosted.instance.rules.load(guard).disable(id.0));
        // Only tidies up: without memory for it, the rules stay where they are, disabled.
        let _ = hosted.publish(id, &[]);
        if let Some(context) = hosted.context(id) {
            *context = None;
        }
        compact(&mut hosted.contexts);
        hosted.instance.remove_flows_of(id.0);
    }
}
