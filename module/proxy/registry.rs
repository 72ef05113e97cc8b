// SPDX-License-Identifier: GPL-2.0

//! Which contexts a network namespace has.
//!
//! There are two sorts of locks in a namespace. The registry's guards which contexts there are; it is never held
//! while anything is made, rebuilt or waited for. The other is for the rules, under which they are rebuilt and
//! replaced, which takes a grace period. The registry's lock is not taken under the rules' lock. Namespaces share
//! nothing of this.
//!
//! What holds where a namespace changes hands:
//!
//! * [`Registry::open`] fails: the context is on no list, and the namespace is as it was; if it was to
//!   be the first one there, its hooks are gone again.
//! * [`Registry::configure`] fails: the context's rules are as they were.
//! * [`Registry::close`] returns: no rule of the context matches, and none of its flows is left. If it
//!   was the namespace's last, nothing of the proxy refers to the namespace any more: not a hook, not
//!   the route of a flow, even of one that was removed before. Routes of IPv6 are counted in the namespace
//!   (ip6_dst_ops in struct net), and must be gone before that ends (ip6_route_net_exit()). So a namespace's exit, of
//!   which [`Registry::leave`] is a part, comes first: netlink.c has it as `pre_exit`.
//!
//! A reader of the namespace's files may still have a reference to the [`Instance`] then, which refers to neither flows nor
//! namespace any more: nobody waits for readers, who take their time as they like, before the namespace's files go.
//!
//! A context with a name can be used by one call while another one closes it: that waits for those that are under way.
//!
//! What a context needs is charged to the control group of the task that opens or configures it; flows are
//! not (see `sys/pool.rs`).

use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, Mutex};

use crate::abi::netlink::context::ContextName;
use crate::abi::netlink::flow::ToldFlow;
use crate::abi::proxy::{Connection, Family, Stats, MAX_CONTEXTS};
use crate::datapath::tuple::{V4, V6};
use crate::events;
use crate::hosted::{self, context, Context, ContextId, Hosted, NotConfigured};
use crate::instance::Instance;
use crate::memory::Memory;
use crate::rule_set::Configuration;
use crate::slots::place;
use crate::sys::net::Namespace;
use crate::sys::netlink::{ModuleInUse, Position};
use crate::told::{self, Meant};

/// A context on the list.
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

/// What the contexts share.
enum Host {
    /// Nothing: there are none.
    Absent,
    /// It is being made for the first context, or dropped with the last one.
    Changing,
    Present(Arc<Hosted>),
}

struct Inner {
    host: Host,
    // One that is closing stays among them until all of it has gone.
    contexts: KVVec<Option<Listed>>,
    next_id: ContextId,
}

/// The contexts of a namespace.
pub(crate) struct Registry {
    inner: Pin<KBox<Mutex<Inner>>>,
    // Signalled when the host was made or dropped, and when a context is not used any more, or is gone.
    changed: Pin<KBox<CondVar>>,
    memory: Arc<Memory>,
}

impl Inner {
    fn count(&self) -> usize {
        self.contexts.iter().flatten().count()
    }

    fn listed(&mut self, id: ContextId) -> Option<&mut Listed> {
        let mut contexts = self.contexts.iter_mut().flatten();
        contexts.find(|one| one.id == id)
    }

    fn named(&self, name: &ContextName) -> Option<&Listed> {
        let mut contexts = self.contexts.iter().flatten();
        contexts.find(|one| one.name.as_ref() == Some(name))
    }

    fn hosted(&self) -> Option<Arc<Hosted>> {
        match &self.host {
            Host::Present(hosted) => Some(hosted.clone()),
            Host::Absent | Host::Changing => None,
        }
    }

    // Uses a context, if no call makes or closes it.
    fn enter(&mut self, id: ContextId) -> Option<Arc<Hosted>> {
        let hosted = self.hosted()?;
        let listed = self.listed(id).filter(|one| !one.closing)?;
        listed.calls = listed.calls.wrapping_add(1);
        Some(hosted)
    }

    // A number for one more context. There are not so many contexts that none is left.
    fn unused_id(&mut self) -> ContextId {
        let mut id = self.next_id;
        while id.owner() == 0 || self.has_owner(id.owner()) {
            id = id.next();
        }
        self.next_id = id.next();
        id
    }

    fn has_owner(&self, owner: u32) -> bool {
        let mut contexts = self.contexts.iter().flatten();
        contexts.any(|one| one.id.owner() == owner)
    }

    fn unlist(&mut self, id: ContextId) {
        let is_it = |slot: &&mut Option<Listed>| slot.as_ref().is_some_and(|one| one.id == id);
        if let Some(slot) = self.contexts.iter_mut().find(is_it) {
            *slot = None;
        }
    }

    // Whether the context is the only one.
    fn is_alone(&mut self, id: ContextId) -> bool {
        self.count() == 1 && self.listed(id).is_some()
    }

    // No context is left.
    fn end(&mut self) {
        self.host = Host::Absent;
        self.contexts = KVVec::new();
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
    /// Without any context; flows will be in `memory`. Charged to the task that makes the namespace.
    pub(crate) fn new(memory: Arc<Memory>) -> Result<Self> {
        let inner = Inner {
            host: Host::Absent,
            contexts: KVVec::new(),
            next_id: ContextId::FIRST,
        };
        Ok(Self {
            inner: KBox::pin_init(new_mutex!(inner), GFP_KERNEL_ACCOUNT)?,
            changed: KBox::pin_init(new_condvar!(), GFP_KERNEL_ACCOUNT)?,
            memory,
        })
    }

    fn using(&self, id: ContextId, hosted: Arc<Hosted>) -> Call<'_> {
        Call {
            registry: self,
            id,
            hosted: Some(hosted),
        }
    }

    fn call(&self, id: ContextId) -> Option<Call<'_>> {
        let hosted = self.inner.lock().enter(id)?;
        Some(self.using(id, hosted))
    }

    // A call that uses any context.
    fn call_any(&self) -> Option<Call<'_>> {
        let mut inner = self.inner.lock();
        let mut contexts = inner.contexts.iter().flatten();
        let id = contexts.find(|one| !one.closing)?.id;
        let hosted = inner.enter(id)?;
        Some(self.using(id, hosted))
    }

    /// Uses a context: one that is there, `known` or with this name, or a new one without rules. `net`: the registry's.
    pub(crate) fn open(
        &self,
        net: &Namespace,
        name: Option<ContextName>,
        known: Option<ContextId>,
    ) -> Result<Call<'_>, NotConfigured> {
        if let Some(id) = known {
            return self.call(id).ok_or(NotConfigured::Gone);
        }
        let module = ModuleInUse::new()?;
        let mut inner = self.inner.lock();
        // While another call makes the host or drops it, or closes the context of this name.
        loop {
            let named = name.as_ref().and_then(|name| inner.named(name));
            match named.map(|one| (one.id, one.closing)) {
                _ if matches!(inner.host, Host::Changing) => {}
                None => break,
                Some((_, true)) => {}
                Some((id, false)) => {
                    let hosted = inner.enter(id).ok_or(NotConfigured::Gone)?;
                    return Ok(self.using(id, hosted));
                }
            }
            if self.changed.wait_interruptible(&mut inner) {
                return Err(NotConfigured::Interrupted);
            }
        }
        if inner.count() >= MAX_CONTEXTS {
            return Err(NotConfigured::TooManyContexts);
        }
        let id = inner.unused_id();
        let listed = Listed {
            id,
            name,
            configured: false,
            // This one.
            calls: 1,
            closing: false,
            _module: module,
        };
        place(&mut inner.contexts, listed)?;
        if let Some(hosted) = inner.hosted() {
            return Ok(self.using(id, hosted));
        }
        inner.host = Host::Changing;
        drop(inner);
        // Other calls that open a context here wait meanwhile, and so does who would close this one. Without rules
        // there are no flows, so on an error no flow has a route.
        let made = Hosted::new(net, self.memory.clone())
            .and_then(|hosted| Ok(Arc::new(hosted, GFP_KERNEL_ACCOUNT)?));
        let mut inner = self.inner.lock();
        let result = match made {
            Ok(hosted) => {
                inner.host = Host::Present(hosted.clone());
                Ok(self.using(id, hosted))
            }
            Err(error) => {
                inner.end();
                Err(NotConfigured::Error(error))
            }
        };
        drop(inner);
        self.changed.notify_all();
        result
    }

    /// The context with this name.
    pub(crate) fn named(&self, name: &ContextName) -> Option<ContextId> {
        let inner = self.inner.lock();
        let found = inner.named(name).filter(|one| !one.closing);
        found.map(|one| one.id)
    }

    /// The first context with a name from this place of the list on, and its place there.
    pub(crate) fn next_named(&self, from: usize) -> Option<(usize, ContextId, ContextName)> {
        let inner = self.inner.lock();
        let slots = inner.contexts.iter().enumerate();
        let mut named = slots.skip(from).filter_map(|(at, slot)| {
            let listed = slot.as_ref().filter(|one| one.configured)?;
            Some((at, listed.id, listed.name?))
        });
        named.next()
    }

    /// Puts what is staged in the place of the configuration of the call's context, and returns how often that makes it. On an error
    /// both stay as they were.
    pub(crate) fn configure(
        &self,
        call: &Call<'_>,
        staged: &mut Option<Configuration>,
        expected: Option<u32>,
    ) -> Result<u32, NotConfigured> {
        let hosted = call.hosted().ok_or(NotConfigured::Gone)?;
        let name = self.inner.lock().listed(call.id).and_then(|one| one.name);
        if let Some(name) = name {
            hosted.instance.set_name(call.id.owner(), name)?;
        }
        let generation = hosted.configure(call.id, staged, expected)?;
        if let Some(listed) = self.inner.lock().listed(call.id) {
            listed.configured = true;
        }
        Ok(generation)
    }

    /// Whether [`Self::open`] and [`Self::configure`] would do so, as far as that can be told without making anything; how often the
    /// context was configured.
    pub(crate) fn judge(
        &self,
        name: Option<ContextName>,
        known: Option<ContextId>,
        staged: &mut Option<Configuration>,
        expected: Option<u32>,
    ) -> Result<u32, NotConfigured> {
        let there = known.or_else(|| self.named(&name?));
        if let Some(call) = there.and_then(|id| self.call(id)) {
            let hosted = call.hosted().ok_or(NotConfigured::Gone)?;
            return hosted.judge(call.id, staged, expected);
        }
        if self.inner.lock().count() >= MAX_CONTEXTS {
            return Err(NotConfigured::TooManyContexts);
        }
        // It would be a new one, beside those that are there.
        match self.call_any() {
            Some(call) => {
                let hosted = call.hosted().ok_or(NotConfigured::Gone)?;
                hosted.judge(ContextId::TRIAL, staged, expected)
            }
            None => hosted::judge_alone(staged, expected),
        }
    }

    /// What `read` makes of a context; `None` if it never was configured.
    pub(crate) fn with<R>(&self, id: ContextId, read: impl FnOnce(&Context) -> R) -> Option<R> {
        let call = self.call(id)?;
        let mut configured = call.hosted()?.configured.lock();
        let context = context(&mut configured, id)?.as_ref()?;
        Some(read(context))
    }

    /// What packets of the namespace are handled by, and counted in; `None` if it has no context. Who has it may keep it longer than
    /// the contexts.
    pub(crate) fn instance(&self) -> Option<Arc<Instance>> {
        match &self.inner.lock().host {
            Host::Present(hosted) => Some(hosted.instance.clone()),
            Host::Absent | Host::Changing => None,
        }
    }

    /// The counters of the namespace; `None` if it has no context.
    pub(crate) fn stats(&self) -> Option<Stats> {
        Some(self.instance()?.stats())
    }

    /// The connection, with the original destination that it had before it was redirected in the namespace.
    pub(crate) fn original(&self, connection: &Connection) -> Option<Connection> {
        let instance = self.instance()?;
        let local = match connection.family {
            Family::V4 => instance.original::<V4>(connection),
            Family::V6 => instance.original::<V6>(connection),
        };
        Some(Connection {
            local: local?,
            ..*connection
        })
    }

    /// The next flow of a dump that is meant, with the name of the context that it is of: see [`told::next`]. `None`: the end, or
    /// there is no context.
    pub(crate) fn next_flow(&self, position: &mut Position, meant: &Meant) -> Option<ToldFlow> {
        let (owner, flow) = told::next(&*self.instance()?, position, meant)?;
        let inner = self.inner.lock();
        let mut contexts = inner.contexts.iter().flatten();
        let context = contexts.find(|one| flow.redirection.is_some() && one.id.owner() == owner);
        Some(ToldFlow {
            context: context.and_then(|one| one.name),
            flow,
        })
    }

    /// Removes the flows that are meant, and tells how many; `None`: there is no context.
    pub(crate) fn end_flows(&self, meant: &Meant) -> Option<u64> {
        // Who closes the last context waits for this: flows do not go from the table behind its back.
        let call = self.call_any()?;
        Some(told::end(&call.hosted()?.instance, meant))
    }

    /// Removes the context, its rules and its flows; with the namespace's last one, the hooks. `false`: another call does so.
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

    /// Closes the context with this name. `false`: there is none, not even one that another call has not closed yet.
    pub(crate) fn delete(&self, name: &ContextName) -> Result<bool, NotConfigured> {
        let mut inner = self.inner.lock();
        let Some(id) = inner.named(name).map(|one| one.id) else {
            return Ok(false);
        };
        while let Some(listed) = inner.listed(id) {
            if !listed.closing {
                drop(inner);
                if self.close(id) {
                    return Ok(true);
                }
                inner = self.inner.lock();
            } else if self.changed.wait_interruptible(&mut inner) {
                return Err(NotConfigured::Interrupted);
            }
        }
        Ok(false)
    }

    // Removes a context that is closing and that no call uses.
    fn remove(&self, id: ContextId) {
        let mut inner = self.inner.lock();
        let net = inner.hosted().map(|hosted| hosted.net.clone());
        let Some(listed) = inner.listed(id) else {
            // It could not be made.
            return;
        };
        let name = listed.name.filter(|_| listed.configured);
        drop(inner);
        self.remove_listed(id);
        if let (Some(name), Some(net)) = (name, net) {
            events::context_gone(&net, name);
        }
    }

    // The same of one that is on the list, which nobody else takes off.
    fn remove_listed(&self, id: ContextId) {
        let mut inner = self.inner.lock();
        if !inner.is_alone(id) {
            if let Some(hosted) = inner.hosted() {
                drop(inner);
                hosted.forget(id);
                // Before the context is off the list: the call that closes the last one must have the last
                // reference.
                drop(hosted);
                inner = self.inner.lock();
            }
            if !inner.is_alone(id) {
                inner.unlist(id);
                drop(inner);
                // Who opens or deletes one of that name waits.
                self.changed.notify_all();
                return;
            }
        }
        // All of it goes at once. The last reference: all others belong to calls for a context that is on the list.
        let host = core::mem::replace(&mut inner.host, Host::Changing);
        drop(inner);
        drop(host);
        // Until now, calls that open a context here have waited.
        self.inner.lock().end();
        self.changed.notify_all();
    }

    /// Closes all contexts of a namespace that ends, at once: those with names, since no socket is in it any more, and so no call is
    /// under way.
    pub(crate) fn leave(&self) {
        let mut inner = self.inner.lock();
        if !matches!(inner.host, Host::Present(_)) {
            return;
        }
        let host = core::mem::replace(&mut inner.host, Host::Changing);
        drop(inner);
        drop(host);
        self.inner.lock().end();
    }
}
