// SPDX-License-Identifier: GPL-2.0

//! Which contexts there are, and in which network namespaces.
//!
//! There are two sorts of locks. The registry's guards which contexts each namespace has; it is never held
//! while anything is made, rebuilt or waited for, so that no namespace holds up another. Each namespace has a
//! lock for its rules, under which they are rebuilt and replaced, which takes a grace period. The
//! registry's lock is not taken under a rules' lock.
//!
//! What holds where a namespace changes hands:
//!
//! * [`Registry::open`] fails: the context is on no list, and the namespace is as it was; if it was to
//!   be the first one there, its hooks are gone again.
//! * [`Registry::configure`] fails: the context's rules are as they were.
//! * [`Registry::close`] returns: no rule of the context matches, and none of its flows is left. If it
//!   was the namespace's last, nothing of the proxy refers to the namespace any more: not a hook, not
//!   a file, not the route of a flow, even of one that was removed before. Only then is the namespace put,
//!   which may end it: routes of IPv6 are counted in it (ip6_dst_ops in struct net), and must be gone
//!   before that (ip6_route_net_exit()).
//!
//! What a context needs is charged to the control group of the task that opens or configures it; flows are
//! not (see `sys/pool.rs`).

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, Mutex};

use crate::abi::proxy::{
    Config, Connection, Family, Stats, MAX_CONTEXTS, MAX_RULES, MAX_UPSTREAMS,
};
use crate::datapath::sort::sort_by_key;
use crate::datapath::tuple::{V4, V6};
use crate::expiry;
use crate::instance::{self, Instance};
use crate::memory::Memory;
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

/// A context that was configured.
struct Context {
    id: ContextId,
    configuration: Configuration,
}

/// A namespace with at least one context: the proxy's hooks are in it.
struct Hosted {
    // In the order in which they are dropped: batching, then the hooks, the work on flows, and the rest. The
    // files come after the hooks: dropping them waits for readers, and until then no rule may hold any more.
    _batching: tasklet::Running<Instance>,
    _hooks: hooks::Registered<Instance>,
    _expiry: expiry::Running,
    _monitor: Directory,
    instance: Arc<Instance>,
    configured: Pin<KBox<Mutex<KVVec<Option<Context>>>>>,
}

impl Hosted {
    fn new(net: &Namespace, memory: Arc<Memory>) -> Result<Self> {
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

    fn configure(&self, id: ContextId, config: &Config<'_>) -> Result {
        let configuration = Configuration::new(config, id.0)?;
        let mut ports = instance::ports(config)?;
        let mut configured = self.configured.lock();
        // Before anything is changed.
        reserve(&mut configured)?;
        let rules = rules(&configured, id, Some(&configuration))?;
        // First the filter, so that no packet of a new flow is overlooked. Ports that no rule names
        // any more stay in it, since flows may have them.
        self.instance.admit(&mut ports);
        self.instance.rules.replace(rules);
        let new = Context { id, configuration };
        match context(&mut configured, id) {
            Some(slot) => *slot = Some(new),
            // There is room.
            None => place(&mut configured, new)?,
        }
        Ok(())
    }

    // Removes the rules and flows of a context that is not the namespace's last.
    fn forget(&self, id: ContextId) {
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

fn context(slots: &mut [Option<Context>], id: ContextId) -> Option<&mut Option<Context>> {
    slots
        .iter_mut()
        .find(|slot| slot.as_ref().is_some_and(|context| context.id == id))
}

// The rules of all contexts, in the order in which these were opened, which is that of their numbers; for
// `id`, those of `changed`. ENOSPC: they are too many.
fn rules(
    contexts: &[Option<Context>],
    id: ContextId,
    changed: Option<&Configuration>,
) -> Result<KBox<RuleSet>> {
    let mut all = KVVec::new();
    let others = contexts.iter().flatten().filter(|context| context.id != id);
    for Context { id, configuration } in others {
        all.push((id.0, configuration), GFP_KERNEL)?;
    }
    if let Some(configuration) = changed {
        all.push((id.0, configuration), GFP_KERNEL)?;
    }
    let sum = |[a, b]: [usize; 2], [c, d]: [usize; 2]| [a.wrapping_add(c), b.wrapping_add(d)];
    let sizes = all.iter().map(|(_, configuration)| configuration.size());
    let [rules, upstreams] = sizes.fold([0, 0], sum);
    if rules > MAX_RULES || upstreams > MAX_UPSTREAMS {
        return Err(ENOSPC);
    }
    sort_by_key(&mut all, |&(number, _)| number);
    let in_order = || all.iter().map(|&(_, configuration)| configuration);
    Ok(KBox::new(RuleSet::new(in_order)?, GFP_KERNEL_ACCOUNT)?)
}

// Makes sure that there is an empty slot, or room for one.
fn reserve<T>(slots: &mut KVVec<Option<T>>) -> Result {
    if slots.iter().all(Option::is_some) {
        slots.reserve(1, GFP_KERNEL_ACCOUNT)?;
    }
    Ok(())
}

// Puts `value` into an empty slot or a new one.
fn place<T>(slots: &mut KVVec<Option<T>>, value: T) -> Result {
    match slots.iter_mut().find(|slot| slot.is_none()) {
        Some(slot) => *slot = Some(value),
        None => slots.push(Some(value), GFP_KERNEL_ACCOUNT)?,
    }
    Ok(())
}

/// A namespace in the registry.
struct Host {
    net: Namespace,
    // None while it is being made or dropped: the latter waits for readers of its files, which may take long.
    hosted: Option<Arc<Hosted>>,
    // Its contexts. One that is closing stays among them until all of it has gone; the last one leaves first.
    contexts: KVVec<Option<ContextId>>,
}

struct Inner {
    hosts: KVVec<Option<Host>>,
    next_id: u32,
}

/// All contexts.
pub(crate) struct Registry {
    inner: Pin<KBox<Mutex<Inner>>>,
    // Signalled when a namespace was made, or has left.
    changed: Pin<KBox<CondVar>>,
    memory: Arc<Memory>,
}

impl Host {
    fn has(&self, id: ContextId) -> bool {
        self.contexts.contains(&Some(id))
    }

    fn count(&self) -> usize {
        self.contexts.iter().flatten().count()
    }
}

impl Inner {
    fn host_in(&mut self, net: &Namespace) -> Option<&mut Host> {
        let mut hosts = self.hosts.iter_mut().flatten();
        hosts.find(|host| host.net == *net)
    }

    fn host_of(&mut self, id: ContextId) -> Option<&mut Host> {
        self.hosts.iter_mut().flatten().find(|host| host.has(id))
    }

    // What the context's namespace has; it is there as long as the context is on the list.
    fn hosted(&mut self, id: ContextId) -> Result<Arc<Hosted>> {
        let hosted = self.host_of(id).and_then(|host| host.hosted.clone());
        hosted.ok_or(EBADF)
    }

    fn forget(&mut self, net: &Namespace) {
        let mut hosts = self.hosts.iter_mut();
        let is_it = |slot: &&mut Option<Host>| slot.as_ref().is_some_and(|host| host.net == *net);
        if let Some(slot) = hosts.find(is_it) {
            *slot = None;
        }
    }

    // Takes the context off the list. If it was the namespace's last, returns what the namespace has, and the
    // namespace; that stays in the registry until `forget`.
    fn leave(&mut self, id: ContextId) -> Option<(Option<Arc<Hosted>>, Namespace)> {
        let host = self.host_of(id)?;
        for slot in host.contexts.iter_mut().filter(|slot| **slot == Some(id)) {
            *slot = None;
        }
        (host.count() == 0).then(|| (host.hosted.take(), host.net.clone()))
    }

    // Whether the context is the only one in its namespace.
    fn is_alone(&mut self, id: ContextId) -> bool {
        self.host_of(id).is_some_and(|host| host.count() == 1)
    }
}

impl Registry {
    /// Without any context.
    pub(crate) fn new() -> Result<Self> {
        let inner = Inner {
            hosts: KVVec::new(),
            next_id: 1,
        };
        Ok(Self {
            inner: KBox::pin_init(new_mutex!(inner), GFP_KERNEL)?,
            changed: KBox::pin_init(new_condvar!(), GFP_KERNEL)?,
            memory: Arc::new(Memory::new()?, GFP_KERNEL)?,
        })
    }

    /// Opens a context without rules in `net`.
    pub(crate) fn open(&self, net: Namespace) -> Result<ContextId> {
        let mut inner = self.inner.lock();
        // While another call makes the namespace's host or drops it.
        while inner
            .host_in(&net)
            .is_some_and(|host| host.hosted.is_none())
        {
            if self.changed.wait_interruptible(&mut inner) {
                return Err(ERESTARTSYS);
            }
        }
        let id = ContextId(inner.next_id);
        let next_id = inner.next_id.checked_add(1).ok_or(EMFILE)?;
        if let Some(host) = inner.host_in(&net) {
            if host.count() >= MAX_CONTEXTS {
                return Err(ENOSPC);
            }
            place(&mut host.contexts, id)?;
            inner.next_id = next_id;
            return Ok(id);
        }
        let mut contexts = KVVec::new();
        place(&mut contexts, id)?;
        let host = Host {
            net: net.clone(),
            hosted: None,
            contexts,
        };
        place(&mut inner.hosts, host)?;
        inner.next_id = next_id;
        drop(inner);
        // Other calls that open a context in this namespace wait meanwhile. Without rules there are no flows,
        // so on an error no flow has a route.
        let made = Hosted::new(&net, self.memory.clone())
            .and_then(|hosted| Ok(Arc::new(hosted, GFP_KERNEL_ACCOUNT)?));
        let mut inner = self.inner.lock();
        let result = match (made, inner.host_in(&net)) {
            (Ok(hosted), Some(host)) => {
                host.hosted = Some(hosted);
                Ok(id)
            }
            (Err(error), _) => {
                inner.forget(&net);
                Err(error)
            }
            // Does not happen: only this call, or the close of a context, removes the host.
            (Ok(_), None) => Err(EBADF),
        };
        drop(inner);
        self.changed.notify_all();
        result
    }

    /// Puts `config` in the place of the context's configuration; on an error that stays as it was.
    pub(crate) fn configure(&self, id: ContextId, config: &Config<'_>) -> Result {
        let hosted = self.inner.lock().hosted(id)?;
        hosted.configure(id, config)
    }

    /// The counters of the context's namespace.
    pub(crate) fn stats(&self, id: ContextId) -> Result<Stats> {
        let hosted = self.inner.lock().hosted(id)?;
        Ok(hosted.instance.stats())
    }

    /// The connection, with the original destination that it had before it was redirected in the context's
    /// namespace.
    pub(crate) fn original(&self, id: ContextId, connection: &Connection) -> Result<Connection> {
        let hosted = self.inner.lock().hosted(id)?;
        let instance = &hosted.instance;
        let local = match connection.family {
            Family::V4 => instance.original::<V4>(connection),
            Family::V6 => instance.original::<V6>(connection),
        };
        Ok(Connection {
            local: local.ok_or(ENOENT)?,
            ..*connection
        })
    }

    /// Removes the context, its rules and its flows; with a namespace's last one, the hooks. The context must
    /// not be used any more.
    pub(crate) fn close(&self, id: ContextId) {
        let mut inner = self.inner.lock();
        let mut last = None;
        if inner.is_alone(id) {
            // All of it goes at once.
            last = inner.leave(id);
        } else if let Ok(hosted) = inner.hosted(id) {
            drop(inner);
            hosted.forget(id);
            // Before the context is off the list: the call that closes the last one must have the last
            // reference.
            drop(hosted);
            inner = self.inner.lock();
            last = inner.leave(id);
        }
        drop(inner);
        let Some((hosted, net)) = last else {
            return;
        };
        // The last reference: all others belong to calls for a context that is on the list.
        drop(hosted);
        // That removed all flows that were left, and no hook caches a route any more: so after the drain
        // no flow has a route. Until then `net` keeps the namespace.
        self.memory.drain();
        self.inner.lock().forget(&net);
        self.changed.notify_all();
    }
}
