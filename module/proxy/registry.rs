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
use crate::abi::proxy::{
    Connection, Family, Stats, MAX_CONTEXTS, MAX_RULES, MAX_UPSTREAMS,
};
use crate::datapath::sort::sort_by_key;
use crate::datapath::tuple::{V4, V6};
use crate::expiry;
use crate::instance::{self, Instance};
use crate::memory::Memory;
use crate::monitor;
use crate::redirect;
use crate::rule_set::{Configuration, Pools, RuleSet};
use crate::sys::hooks;
use crate::sys::net::Namespace;
use crate::sys::netlink::ModuleInUse;
use crate::sys::procfs::Directory;
use crate::sys::rcu;
use crate::sys::tasklet;

/// Names a context; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextId(u32);

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
    /// It was configured by another call, or not often enough.
    OtherGeneration,
}

impl<E: Into<Error>> From<E> for NotConfigured {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// A context that was configured.
struct Context {
    id: ContextId,
    // How often.
    generation: u32,
    configuration: Configuration,
    pools: Pools,
}

impl Context {
    // How many rules it has, and how many upstreams.
    fn size(configuration: &Configuration) -> [usize; 2] {
        [
            configuration.rules().len(),
            configuration.upstreams().len(),
        ]
    }
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

    // Takes what is staged, unless there is an error or nothing is to be changed; the generation after that.
    fn configure(
        &self,
        id: ContextId,
        staged: &mut Option<Configuration>,
        expected: Option<u32>,
        dry_run: bool,
    ) -> Result<u32, NotConfigured> {
        let Some(configuration) = staged.as_ref() else {
            return Err(NotConfigured::Error(EINVAL));
        };
        let mut pools = Pools::new(configuration, id.0)?;
        let mut ports = instance::ports(configuration)?;
        let mut configured = self.configured.lock();
        let old = context(&mut configured, id).and_then(|slot| slot.as_ref());
        let before = old.map(|old| old.generation).unwrap_or_default();
        if let Some(old) = old.filter(|old| configuration.has_upstreams_of(&old.configuration)) {
            pools = old.pools.clone();
        }
        if expected.is_some_and(|expected| expected != before) {
            return Err(NotConfigured::OtherGeneration);
        }
        // Before anything is changed.
        reserve(&mut configured)?;
        let rules = rules(&configured, id, Some((configuration, &pools)))?;
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
            pools,
        };
        match context(&mut configured, id) {
            Some(slot) => *slot = Some(new),
            // There is room.
            None => place(&mut configured, new)?,
        }
        Ok(generation)
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
// `id`, those of `changed`.
fn rules(
    contexts: &[Option<Context>],
    id: ContextId,
    changed: Option<(&Configuration, &Pools)>,
) -> Result<KBox<RuleSet>, NotConfigured> {
    let mut all = KVVec::new();
    for context in contexts.iter().flatten().filter(|one| one.id != id) {
        all.push((context.id.0, &context.configuration, &context.pools), GFP_KERNEL)?;
    }
    if let Some((configuration, pools)) = changed {
        all.push((id.0, configuration, pools), GFP_KERNEL)?;
    }
    let sum = |[a, b]: [usize; 2], [c, d]: [usize; 2]| [a.wrapping_add(c), b.wrapping_add(d)];
    let sizes = all.iter().map(|(_, configuration, _)| Context::size(configuration));
    let [rules, upstreams] = sizes.fold([0, 0], sum);
    if rules > MAX_RULES {
        return Err(NotConfigured::TooManyRules);
    }
    if upstreams > MAX_UPSTREAMS {
        return Err(NotConfigured::TooManyUpstreams);
    }
    sort_by_key(&mut all, |&(number, ..)| number);
    let in_order = || all.iter().map(|&(_, configuration, pools)| (pools, configuration.rules()));
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

    /// What `read` makes of how often the context was configured, and how; `None` if it never was.
    pub(crate) fn with<R>(
        &self,
        id: ContextId,
        read: impl FnOnce(u32, &Configuration) -> R,
    ) -> Option<R> {
        let call = self.call(id)?;
        let mut configured = call.hosted()?.configured.lock();
        let context = context(&mut configured, id)?.as_ref()?;
        Some(read(context.generation, &context.configuration))
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
