// SPDX-License-Identifier: GPL-2.0

//! Which contexts there are, and in which network namespaces.

use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, Mutex};

use crate::abi::proxy::{Config, Stats};
use crate::expiry;
use crate::flows::Memory;
use crate::instance::Instance;
use crate::monitor;
use crate::redirect;
use crate::rule_set::{Configuration, RuleSet};
use crate::sys::hooks;
use crate::sys::net::Namespace;
use crate::sys::procfs::Directory;
use crate::sys::rcu;
use crate::sys::tasklet;

/// Names a context; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextId(u32);

struct Context {
    id: ContextId,
    // None until it is configured.
    configuration: Option<Configuration>,
}

/// A namespace with at least one context: the proxy's hooks are in it.
struct Hosted {
    // In the order in which they have to go: packets that wait, packets, then the work on flows, then the rest. Files
    // come late: that waits for readers, and rules must not hold as long as those like.
    _batching: tasklet::Running<Instance>,
    _hooks: hooks::Registered<Instance>,
    _expiry: expiry::Running,
    _monitor: Directory,
    instance: Arc<Instance>,
    contexts: KVec<Option<Context>>,
    net: Namespace,
}

impl Hosted {
    fn new(net: Namespace, memory: Arc<Memory>, first: Context) -> Result<Self> {
        let instance = Arc::new(Instance::new(memory)?, GFP_KERNEL)?;
        let mut contexts = KVec::new();
        contexts.push(Some(first), GFP_KERNEL)?;
        Ok(Self {
            _hooks: redirect::register(&net, instance.clone())?,
            _batching: tasklet::Running::new(instance.clone()),
            _expiry: expiry::start(instance.clone(), net.clone())?,
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

    fn context(&mut self, id: ContextId) -> Option<&mut Option<Context>> {
        self.contexts
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|context| context.id == id))
    }

    // The rules of all contexts, in the order in which those were opened, but of `id` those of
    // `changed`.
    fn rules(&self, id: ContextId, changed: Option<&Configuration>) -> Result<KBox<RuleSet>> {
        let mut all = RuleSet::new();
        for context in self.contexts.iter().flatten() {
            let configuration = if context.id == id {
                changed
            } else {
                context.configuration.as_ref()
            };
            if let Some(configuration) = configuration {
                all.push(configuration)?;
            }
        }
        Ok(KBox::new(all, GFP_KERNEL)?)
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
        let context = Context {
            id,
            configuration: None,
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

    /// Puts `config` in the place of the context's configuration; on an error that stays as it was.
    pub(crate) fn configure(&self, id: ContextId, config: &Config<'_>) -> Result {
        let configuration = Configuration::new(config, id.0)?;
        let mut inner = self.inner.lock();
        let hosted = inner.host_of(id).ok_or(EBADF)?;
        let rules = hosted.rules(id, Some(&configuration))?;
        // First the filter, so that no packet of a new flow is overlooked. Ports that no rule names
        // any more stay as long as flows may have them.
        hosted.instance.admit(config);
        hosted.instance.rules.replace(rules);
        if let Some(Some(context)) = hosted.context(id) {
            context.configuration = Some(configuration);
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
        if let Ok(rules) = hosted.rules(id, None) {
            hosted.instance.rules.replace(rules);
        }
        if let Some(context) = hosted.context(id) {
            *context = None;
        }
        compact(&mut hosted.contexts);
        hosted.instance.remove_flows_of(id.0);
    }
}
