// SPDX-License-Identifier: GPL-2.0

//! Which contexts there are, and in which network namespaces.

use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, Mutex};

use crate::abi::proxy::{Rule, Stats};
use crate::expiry;
use crate::flows::Memory;
use crate::instance::{Instance, RuleSet};
use crate::monitor;
use crate::redirect;
use crate::sys::hooks;
use crate::sys::net::Namespace;
use crate::sys::procfs::Directory;
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
    // In the order in which they have to go: packets, then the work on flows, then the rest. Files
    // come late: that waits for readers, and rules must not hold as long as those like.
    _hooks: hooks::Registered<Instance>,
    _expiry: expiry::Running,
    _monitor: Directory,
    instance: Arc<Instance>,
    contexts: KVec<Option<ContextRules>>,
    net: Namespace,
}

impl Hosted {
    fn new(net: Namespace, memory: Arc<Memory>, first: ContextRules) -> Result<Self> {
        let instance = Arc::new(Instance::new(memory)?, GFP_KERNEL)?;
        let mut contexts = KVec::new();
        contexts.push(Some(first), GFP_KERNEL)?;
        Ok(Self {
            _hooks: redirect::register(&net, instance.clone())?,
            _expiry: expiry::start(instance.clone())?,
            // When nothing can fail any more: to take it back is to wait for its readers.
            _monitor: monitor::publish(&net, &instance)?,
            instance,
            contexts,
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

/// A namespace in the registry.
enum Host {
    Open(Hosted),
    /// Its last context has closed, and what belonged to it is about to go: that waits for readers
    /// of its files, which may take their time, and so must not hold up any other namespace.
    Leaving(Namespace),
}

struct Inner {
    hosts: KVec<Option<Host>>,
    next_id: u32,
}

/// All contexts.
pub(crate) struct Registry {
    inner: Pin<KBox<Mutex<Inner>>>,
    // A namespace has left.
    left: Pin<KBox<CondVar>>,
    memory: Arc<Memory>,
}

impl Inner {
    // The open namespaces.
    fn open(&mut self) -> impl Iterator<Item = &mut Hosted> {
        self.hosts
            .iter_mut()
            .flatten()
            .filter_map(|host| match host {
                Host::Open(hosted) => Some(hosted),
                Host::Leaving(_) => None,
            })
    }

    fn host_of(&mut self, id: ContextId) -> Option<&mut Hosted> {
        self.open().find(|hosted| hosted.has(id))
    }

    // The slot of a namespace that is about to go.
    fn leaving(&mut self, net: &Namespace) -> Option<&mut Option<Host>> {
        self.hosts
            .iter_mut()
            .find(|slot| matches!(slot, Some(Host::Leaving(leaving)) if leaving == net))
    }

    // Takes an open namespace out and leaves a mark in its place.
    fn take(&mut self, net: &Namespace) -> Option<Hosted> {
        let slot = self
            .hosts
            .iter_mut()
            .find(|slot| matches!(slot, Some(Host::Open(hosted)) if hosted.net == *net))?;
        match slot.replace(Host::Leaving(net.clone())) {
            Some(Host::Open(hosted)) => Some(hosted),
            _ => None,
        }
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
            hosts: KVec::new(),
            next_id: 1,
        };
        Ok(Self {
            inner: KBox::pin_init(new_mutex!(inner), GFP_KERNEL)?,
            left: KBox::pin_init(new_condvar!(), GFP_KERNEL)?,
            memory: Arc::new(Memory::new()?, GFP_KERNEL)?,
        })
    }

    /// Opens a context without rules in `net`.
    pub(crate) fn open(&self, net: Namespace) -> Result<ContextId> {
        let mut inner = self.inner.lock();
        while inner.leaving(&net).is_some() {
            if self.left.wait_interruptible(&mut inner) {
                return Err(ERESTARTSYS);
            }
        }
        let id = ContextId(inner.next_id);
        inner.next_id = inner.next_id.checked_add(1).ok_or(EMFILE)?;
        let context = ContextRules {
            id,
            rules: KVec::new(),
        };
        let found = inner.open().find(|hosted| hosted.net == net);
        if let Some(hosted) = found {
            // The last: rules are asked in the order in which their contexts were opened.
            hosted.contexts.push(Some(context), GFP_KERNEL)?;
        } else {
            inner.hosts.reserve(1, GFP_KERNEL)?;
            let hosted = Hosted::new(net, self.memory.clone(), context)?;
            // The memory is there.
            place(&mut inner.hosts, Host::Open(hosted))?;
        }
        Ok(id)
    }

    /// Puts `rules` in the place of the context's; on an error they stay as they were.
    pub(crate) fn configure(&self, id: ContextId, rules: KVec<Rule>) -> Result {
        let mut inner = self.inner.lock();
        let hosted = inner.host_of(id).ok_or(EBADF)?;
        hosted.publish(id, &rules)?;
        if let Some(Some(context)) = hosted.context(id) {
            context.rules = rules;
        }
        Ok(())
    }

    /// The counters of the context's namespace.
    pub(crate) fn stats(&self, id: ContextId) -> Result<Stats> {
        let mut inner = self.inner.lock();
        let hosted = inner.host_of(id).ok_or(EBADF)?;
        Ok(hosted.instance.stats())
    }

    /// Removes the context, its rules and its flows; with a namespace's last one, the hooks.
    pub(crate) fn close(&self, id: ContextId) {
        let mut inner = self.inner.lock();
        let Some(hosted) = inner.host_of(id) else {
            return;
        };
        if hosted.contexts.iter().flatten().nth(1).is_none() {
            let net = Namespace::clone(&hosted.net);
            let last = inner.take(&net);
            drop(inner);
            drop(last);
            if let Some(slot) = self.inner.lock().leaving(&net) {
                *slot = None;
            }
            self.left.notify_all();
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
