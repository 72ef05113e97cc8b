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
//!   a file, not the route of a flow, even of one that was removed before. Routes of IPv6 are counted in the namespace
//!   (ip6_dst_ops in struct net), and must be gone before that ends (ip6_route_net_exit()). So a namespace's exit, of
//!   which [`Registry::leave`] is a part, comes first: netlink.c has it as `pre_exit`.
//!
//! A context with a name can be used by one call while another one closes it: that waits for those that are under way.
//!
//! What a context needs is charged to the control group of the task that opens or configures it; flows are
//! not (see `sys/pool.rs`).

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, Mutex};

use crate::abi::netlink::context::ContextName;
use crate::abi::proxy::{Connection, Family, Stats, MAX_CONTEXTS};
use crate::datapath::tuple::{V4, V6};
use crate::hosted::{context, Context, ContextId, Hosted, NotConfigured};
use crate::memory::Memory;
use crate::rule_set::Configuration;
use crate::slots::place;
use crate::sys::net::Namespace;
use crate::sys::netlink::ModuleInUse;

/// A context on a namespace's list.
struct Listed {
    id: ContextId,
    name: Option<ContextName>,
    // Whether it was ever configured.
    configured: bool,
    // Calls that use it.
    calls: usize,
    // No call may begin to use it any more.
    closing: bool,
    _module: ModuleInUse,
}

/// A namespace in the registry.
struct Host {
    net: Namespace,
    // None while it is being made or dropped: the latter waits for readers of its files, which may take long.
    hosted: Option<Arc<Hosted>>,
    // Its contexts. One that is closing stays among them until all of it has gone; the last one leaves first.
    contexts: KVVec<Option<Listed>>,
}

struct Inner {
    hosts: KVVec<Option<Host>>,
    next_id: u32,
}

/// All contexts.
pub(crate) struct Registry {
    inner: Pin<KBox<Mutex<Inner>>>,
    // Signalled when a namespace was made, or has left, and when a context is not used any more.
    changed: Pin<KBox<CondVar>>,
    memory: Arc<Memory>,
}

impl Host {
    fn has(&self, id: ContextId) -> bool {
        self.contexts.iter().flatten().any(|one| one.id == id)
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

    fn listed(&mut self, id: ContextId) -> Option<&mut Listed> {
        let contexts = &mut self.host_of(id)?.contexts;
        contexts.iter_mut().flatten().find(|one| one.id == id)
    }

    // Uses a context, if no call makes or closes it.
    fn enter(&mut self, id: ContextId) -> Option<Arc<Hosted>> {
        let hosted = self.host_of(id)?.hosted.clone()?;
        let listed = self.listed(id).filter(|one| !one.closing)?;
        listed.calls = listed.calls.wrapping_add(1);
        Some(hosted)
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
        let is_it = |slot: &&mut Option<Listed>| slot.as_ref().is_some_and(|one| one.id == id);
        if let Some(slot) = host.contexts.iter_mut().find(is_it) {
            *slot = None;
        }
        (host.count() == 0).then(|| (host.hosted.take(), host.net.clone()))
    }

    // Whether the context is the only one in its namespace.
    fn is_alone(&mut self, id: ContextId) -> bool {
        self.host_of(id).is_some_and(|host| host.count() == 1)
    }
}

/// A call that uses a context: until it is dropped, that is not closed. One that was opened in vain is closed then, unless another
/// call uses it, too.
pub(crate) struct Call<'a> {
    registry: &'a Registry,
    id: ContextId,
    // Dropped before the registry hears of it: who closes a namespace's last context must have the last reference.
    hosted: Option<Arc<Hosted>>,
}

impl Call<'_> {
    /// Which context.
    pub(crate) fn id(&self) -> ContextId {
        self.id
    }

    fn hosted(&self) -> Option<&Hosted> {
        self.hosted.as_deref()
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.hosted = None;
        let mut inner = self.registry.inner.lock();
        let (mut waited_for, mut in_vain) = (false, false);
        if let Some(listed) = inner.listed(self.id) {
            listed.calls = listed.calls.wrapping_sub(1);
            if listed.calls == 0 {
                waited_for = listed.closing;
                in_vain = !listed.closing && !listed.configured;
                listed.closing |= in_vain;
            }
        }
        drop(inner);
        if waited_for {
            self.registry.changed.notify_all();
        }
        if in_vain {
            self.registry.remove(self.id);
        }
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

    fn call(&self, id: ContextId) -> Option<Call<'_>> {
        let hosted = self.inner.lock().enter(id)?;
        Some(Call {
            registry: self,
            id,
            hosted: Some(hosted),
        })
    }

    // A call that uses any context of the namespace.
    fn call_in(&self, net: &Namespace) -> Option<Call<'_>> {
        let mut inner = self.inner.lock();
        let contexts = &inner.host_in(net)?.contexts;
        let id = contexts.iter().flatten().find(|one| !one.closing)?.id;
        let hosted = inner.enter(id)?;
        Some(Call {
            registry: self,
            id,
            hosted: Some(hosted),
        })
    }

    /// Uses a context of `net`: one that is there, `known` or with this name, or a new one without rules.
    pub(crate) fn open(
        &self,
        net: Namespace,
        name: Option<ContextName>,
        known: Option<ContextId>,
    ) -> Result<Call<'_>, NotConfigured> {
        if let Some(id) = known {
            return self.call(id).ok_or(NotConfigured::Gone);
        }
        let module = ModuleInUse::new()?;
        let mut inner = self.inner.lock();
        // While another call makes the namespace's host or drops it, or closes the context of this name.
        loop {
            let Some(host) = inner.host_in(&net) else {
                break;
            };
            let mut contexts = host.contexts.iter().flatten();
            let named = contexts.find(|one| name.is_some() && one.name == name);
            match named.map(|one| (one.id, one.closing)) {
                _ if host.hosted.is_none() => {}
                None => break,
                Some((_, true)) => {}
                Some((id, false)) => {
                    let hosted = inner.enter(id).ok_or(NotConfigured::Gone)?;
                    drop(inner);
                    return Ok(Call {
                        registry: self,
                        id,
                        hosted: Some(hosted),
                    });
                }
            }
            if self.changed.wait_interruptible(&mut inner) {
                return Err(NotConfigured::Interrupted);
            }
        }
        let id = ContextId(inner.next_id);
        let next_id = inner.next_id.checked_add(1).ok_or(EMFILE)?;
        let listed = Listed {
            id,
            name,
            configured: false,
            // This one.
            calls: 1,
            closing: false,
            _module: module,
        };
        if let Some(host) = inner.host_in(&net) {
            if host.count() >= MAX_CONTEXTS {
                return Err(NotConfigured::TooManyContexts);
            }
            let hosted = host.hosted.clone();
            place(&mut host.contexts, listed)?;
            inner.next_id = next_id;
            drop(inner);
            return Ok(Call {
                registry: self,
                id,
                hosted,
            });
        }
        let mut contexts = KVVec::new();
        place(&mut contexts, listed)?;
        let host = Host {
            net: net.clone(),
            hosted: None,
            contexts,
        };
        place(&mut inner.hosts, host)?;
        inner.next_id = next_id;
        drop(inner);
        // Other calls that open a context in this namespace wait meanwhile, and so does who would close this one. Without rules
        // there are no flows, so on an error no flow has a route.
        let made = Hosted::new(&net, self.memory.clone())
            .and_then(|hosted| Ok(Arc::new(hosted, GFP_KERNEL_ACCOUNT)?));
        let mut inner = self.inner.lock();
        let result = match &made {
            Ok(hosted) => {
                if let Some(host) = inner.host_in(&net) {
                    host.hosted = Some(hosted.clone());
                }
                Ok(())
            }
            Err(error) => {
                inner.forget(&net);
                Err(NotConfigured::Error(*error))
            }
        };
        drop(inner);
        self.changed.notify_all();
        result.map(|()| Call {
            registry: self,
            id,
            hosted: made.ok(),
        })
    }

    /// The context with this name.
    pub(crate) fn named(&self, net: &Namespace, name: &ContextName) -> Option<ContextId> {
        let mut inner = self.inner.lock();
        let mut contexts = inner.host_in(net)?.contexts.iter().flatten();
        let found = contexts.find(|one| one.name == Some(*name) && !one.closing);
        found.map(|one| one.id)
    }

    /// The first context with a name from this place of the namespace's list on, and its place there.
    pub(crate) fn next_named(
        &self,
        net: &Namespace,
        from: usize,
    ) -> Option<(usize, ContextId, ContextName)> {
        let mut inner = self.inner.lock();
        let slots = inner.host_in(net)?.contexts.iter().enumerate();
        let mut named = slots.skip(from).filter_map(|(at, slot)| {
            let listed = slot.as_ref().filter(|one| one.configured)?;
            Some((at, listed.id, listed.name?))
        });
        named.next()
    }

    /// Puts what is staged in the place of the configuration of the call's context, and returns how often that makes it. On an error,
    /// and if this is only a trial, both stay as they were.
    pub(crate) fn configure(
        &self,
        call: &Call<'_>,
        staged: &mut Option<Configuration>,
        expected: Option<u32>,
        dry_run: bool,
    ) -> Result<u32, NotConfigured> {
        let hosted = call.hosted().ok_or(NotConfigured::Gone)?;
        let generation = hosted.configure(call.id, staged, expected, dry_run)?;
        if !dry_run {
            if let Some(listed) = self.inner.lock().listed(call.id) {
                listed.configured = true;
            }
        }
        Ok(generation)
    }

    /// What `read` makes of a context; `None` if it never was configured.
    pub(crate) fn with<R>(&self, id: ContextId, read: impl FnOnce(&Context) -> R) -> Option<R> {
        let call = self.call(id)?;
        let mut configured = call.hosted()?.configured.lock();
        let context = context(&mut configured, id)?.as_ref()?;
        Some(read(context))
    }

    /// The counters of a namespace; `None` if it has no context.
    pub(crate) fn stats(&self, net: &Namespace) -> Option<Stats> {
        let call = self.call_in(net)?;
        Some(call.hosted()?.instance.stats())
    }

    /// The connection, with the original destination that it had before it was redirected in the namespace.
    pub(crate) fn original(&self, net: &Namespace, connection: &Connection) -> Option<Connection> {
        let call = self.call_in(net)?;
        let instance = &call.hosted()?.instance;
        let local = match connection.family {
            Family::V4 => instance.original::<V4>(connection),
            Family::V6 => instance.original::<V6>(connection),
        };
        Some(Connection {
            local: local?,
            ..*connection
        })
    }

    /// Removes the context, its rules and its flows; with a namespace's last one, the hooks. `false`: another call does so.
    pub(crate) fn close(&self, id: ContextId) -> bool {
        let mut inner = self.inner.lock();
        let Some(listed) = inner.listed(id).filter(|one| !one.closing) else {
            return false;
        };
        listed.closing = true;
        while inner.listed(id).is_some_and(|one| one.calls > 0) {
            self.changed.wait(&mut inner);
        }
        drop(inner);
        self.remove(id);
        true
    }

    // Removes a context that is closing and that no call uses.
    fn remove(&self, id: ContextId) {
        let mut inner = self.inner.lock();
        let mut last = None;
        if inner.is_alone(id) {
            // All of it goes at once.
            last = inner.leave(id);
        } else if let Some(hosted) = inner.host_of(id).and_then(|host| host.hosted.clone()) {
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
            // Who opens one of that name waits.
            self.changed.notify_all();
            return;
        };
        // The last reference: all others belong to calls for a context that is on the list.
        drop(hosted);
        // That removed all flows that were left, and no hook caches a route any more: so after the drain
        // no flow has a route. Until then `net` keeps the namespace.
        self.memory.drain();
        // Until now, calls that open a context there have waited.
        self.inner.lock().forget(&net);
        drop(net);
        self.changed.notify_all();
    }

    /// Closes all contexts of a namespace that ends: those with names, since no socket is in it any more.
    pub(crate) fn leave(&self, net: &Namespace) {
        loop {
            let mut inner = self.inner.lock();
            let host = inner.host_in(net);
            let left = host.and_then(|host| Some(host.contexts.iter().flatten().next()?.id));
            drop(inner);
            match left {
                Some(id) => {
                    self.close(id);
                }
                None => return,
            }
        }
    }
}
