// SPDX-License-Identifier: GPL-2.0

//! Memory of nodes, kept for those to come.
//!
//! Three stores, in the order in which they are asked: what the CPU has, under a lock that nobody
//! else wants; the depot of the CPU's NUMA node; the slab. Memory that comes back goes to the depot
//! of the node on which it lies. What a whole second did not need is halved, second by second (the
//! working set of Bonwick and Adams, "Magazines and Vmem", USENIX ATC 2001, section 3.5).
//!
//! A node that was taken off its chains waits for its last readers: on a stack of the CPU that took
//! it off, which takes no memory but the node's own. One work item for all of them reclaims what
//! has waited for a grace period, in a task, so that no softirq has to drop thousands of nodes.
//!
//! What holds where memory changes hands:
//!
//! * [`take`](Heap::take): the memory is the caller's alone. What the kernel's allocator gave and the
//!   store does not want is freed; what it did not give is never looked at (`slab.rs`).
//! * [`give_back`](Heap::give_back): the value was dropped, and the memory is idle on this CPU.
//! * [`retire`](Heap::retire): the node is on this CPU's stack, and the work will come: it is queued,
//!   or it runs and will see in [`Duty::end`] that it has to run again.
//! * The work returns: what was retired before the run before this one began is idle memory. If it was
//!   not queued again, nothing waits, and it does not touch the pool any more.
//! * [`Pool::settle`] returns: the values of all nodes that were retired before the call were dropped,
//!   and with them the references that they had.
//! * The pool is dropped: the work and the trim have returned and will not run again, and all memory
//!   is the kernel's. By the type's contract nobody retires a node meanwhile.
//!
//! The memory is charged to no control group. Most of it is taken in softirqs, which run for nobody;
//! and since it is used again for flows of other namespaces, it would soon be charged to the wrong
//! group, and keep that one in memory when it is dead. What bounds it: `max_flows`, for each IP version
//! and each namespace with a context, and what waits for a grace period.

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use kernel::prelude::*;
use kernel::str::CStr;

use super::lock::Locked;
use super::percpu::PerCpu;
use super::slab::{self, Slab};
use super::window::Window;
use super::work::{Periodic, Work};
use super::{bindings, rcu, task, time};
use crate::datapath::duty::Duty;
use crate::datapath::link::{Heap, Node};
use crate::datapath::recent::begin_epoch;
use crate::datapath::stack::{Spare, Stack};

/// How many nodes a CPU gets from the depot at once.
const FROM_DEPOT: usize = 32;
/// How many it gets from the slab.
const FROM_SLAB: usize = 16;
/// How many nodes are handled before others may use the CPU.
const AT_ONCE: usize = 64;

/// Memory to be used, and how much of it nobody asked for.
struct Store<K, T> {
    idle: Stack<K, T>,
    // The fewest there were since the last look.
    least: usize,
}

impl<K, T: Spare> Store<K, T> {
    fn new() -> Self {
        Self {
            idle: Stack::new(),
            least: 0,
        }
    }

    fn pop(&mut self) -> Option<NonNull<Node<K, T>>> {
        let node = self.idle.pop();
        self.least = self.least.min(self.idle.count());
        node
    }

    // Takes from `other`.
    fn refill(&mut self, other: &mut Self, count: usize) {
        self.idle.move_from(&mut other.idle, count);
        other.least = other.least.min(other.idle.count());
    }

    // Moves half of what was not needed since the last time to `surplus`, or all there is.
    fn trim(&mut self, surplus: &mut Stack<K, T>, keep: Keep) {
        let count = match keep {
            Keep::Half => self.least.div_ceil(2),
            Keep::Nothing => self.idle.count(),
        };
        surplus.move_from(&mut self.idle, count);
        self.least = self.idle.count();
    }
}

#[derive(Clone, Copy, Debug)]
enum Keep {
    Half,
    Nothing,
}

/// What a CPU has.
struct Local<K, T> {
    store: Store<K, T>,
    // Taken off since the grace period under way began, and before that.
    retired: Stack<K, T>,
    waiting: Stack<K, T>,
    fast: u64,
    slow: u64,
    freed: u64,
}

/// How memory was taken on one CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// From what was there.
    pub(crate) fast: u64,
    /// From the kernel's allocator.
    pub(crate) slow: u64,
    /// Given back.
    pub(crate) freed: u64,
}

/// How much memory there is, in nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// In all.
    pub(crate) nodes: usize,
    /// Of these, waiting to be used.
    pub(crate) idle: usize,
    /// Of these, waiting for their last readers.
    pub(crate) waiting: usize,
    /// The most there ever were in all.
    pub(crate) peak: usize,
    /// Grace periods after which nodes were reclaimed.
    pub(crate) grace_periods: usize,
}

struct Shared<K: Send + Sync, T: Spare> {
    keeps: &'static AtomicU32,
    slab: Slab<Node<K, T>>,
    locals: PerCpu<Locked<Local<K, T>>>,
    depots: KVec<Locked<Store<K, T>>>,
    nodes: AtomicUsize,
    peak: AtomicUsize,
    grace_periods: AtomicUsize,
}

#[repr(C)]
struct Inner<K: Send + Sync, T: Spare> {
    work: bindings::mxp_rcu_work,
    // Of the work: called by whoever retires a node.
    duty: Duty,
    // How often it has run to its end.
    runs: AtomicUsize,
    shared: Shared<K, T>,
}

/// Memory for nodes; give all of it back before it is dropped.
///
/// # Invariants
///
/// The pointer came from `KBox::into_raw`; its work was initialised.
pub(crate) struct Pool<K: Send + Sync, T: Spare> {
    inner: NonNull<Inner<K, T>>,
    // There until the drop.
    trim: Option<Periodic<Trim<K, T>>>,
}

// SAFETY: what is in it is behind locks or atomic; nodes may be sent.
unsafe impl<K: Send + Sync, T: Spare> Send for Pool<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Spare> Sync for Pool<K, T> {}

impl<K: Send + Sync, T: Spare> Pool<K, T> {
    /// A pool of nodes that /proc/slabinfo knows as `name`, aligned to `align` bytes.
    /// As long as `keeps` is zero, it keeps nothing: memory is from kmalloc(), and freed when it
    /// comes back.
    pub(crate) fn new(name: &'static CStr, align: u32, keeps: &'static AtomicU32) -> Result<Self> {
        let inner = KBox::<Inner<K, T>>::new_uninit(GFP_KERNEL)?;
        let shared = Shared::new(name, align, keeps)?;
        let inner = NonNull::new(KBox::into_raw(inner).cast::<Inner<K, T>>()).ok_or(ENOMEM)?;
        // SAFETY: the memory is valid for it, and all bytes zero are a value of the C struct, which
        // is initialised; it stays where it is.
        unsafe {
            inner.write(Inner {
                work: core::mem::zeroed(),
                duty: Duty::new(),
                runs: AtomicUsize::new(0),
                shared,
            });
            bindings::mxp_rcu_work_init(&raw mut (*inner.as_ptr()).work, Some(reclaim::<K, T>));
        }
        let trim = Periodic::start(time::HZ, Trim(inner)).inspect_err(|_| {
            // SAFETY: from `KBox::into_raw`, and nobody else knows of it.
            drop(unsafe { KBox::from_raw(inner.as_ptr()) });
        })?;
        Ok(Self {
            inner,
            trim: Some(trim),
        })
    }
}

impl<K: Send + Sync, T: Spare> Pool<K, T> {
    fn inner(&self) -> &Inner<K, T> {
        // SAFETY: by the type's invariant; freed by the drop only.
        unsafe { self.inner.as_ref() }
    }

    /// How memory was taken, in the order of [`cpus`](super::percpu::cpus).
    pub(crate) fn taken(&self) -> impl Iterator<Item = Taken> + '_ {
        self.inner().shared.locals.iter().map(|local| {
            local.with(|local| Taken {
                fast: local.fast,
                slow: local.slow,
                freed: local.freed,
            })
        })
    }

    /// How much memory is idle in the depot of each NUMA node, in the order of their numbers.
    pub(crate) fn depots(&self) -> impl Iterator<Item = usize> + '_ {
        let depots = &self.inner().shared.depots;
        depots
            .iter()
            .map(|depot| depot.with(|depot| depot.idle.count()))
    }

    /// How much memory there is now.
    pub(crate) fn held(&self) -> Held {
        self.inner().shared.held()
    }

    /// Waits until the values of all nodes that were retired before this call were dropped. Others may
    /// retire nodes meanwhile, for which it does not wait. Sleeps for some grace periods, if anything
    /// waits at all.
    pub(crate) fn settle(&self) {
        // A run under way may have looked at some CPUs before the last of those nodes was retired
        // there. The one after it lets them wait, and the next one drops their values.
        const RUNS: usize = 3;
        let inner = self.inner();
        let before = inner.runs.load(Ordering::SeqCst);
        // Idle: nothing was retired since the last run began, and that one left nothing to wait.
        while !inner.duty.is_idle() && inner.runs.load(Ordering::SeqCst).wrapping_sub(before) < RUNS
        {
            inner.flush();
        }
    }
}

// SAFETY: `take` gives memory that nobody else has, of the node's size, and aligned as the slab
// is; `retire` lets it wait for a grace period, which all guards that exist at the call delay.
// Memory is freed by
// `Shared::trim` only.
unsafe impl<K: Send + Sync, T: Spare> Heap<Node<K, T>> for Pool<K, T> {
    fn take(&self) -> Option<NonNull<Node<K, T>>> {
        self.inner().shared.take()
    }

    unsafe fn give_back(&self, node: NonNull<Node<K, T>>) {
        let shared = &self.inner().shared;
        shared.locals.this().with(|local| {
            local.freed = local.freed.wrapping_add(1);
            // SAFETY: by the caller's promise the node is valid and nobody's.
            unsafe {
                Node::finish(node);
                local.store.idle.push(node);
            }
        });
    }

    unsafe fn retire(&self, node: NonNull<Node<K, T>>) {
        let inner = self.inner();
        let local = inner.shared.locals.this();
        // SAFETY: the caller's promise: it is on no chain any more, and nobody else retires it.
        local.with(|local| unsafe { local.retired.push(node) });
        inner.reclaim_later();
    }
}

impl<K: Send + Sync, T: Spare> Drop for Pool<K, T> {
    fn drop(&mut self) {
        self.trim = None;
        while !self.inner().duty.is_idle() {
            self.inner().flush();
        }
        // Nobody calls the work any more, so it is not queued; but the run that said so may not have
        // returned, and what it returns through is the module's text. It queues nothing: so to wait
        // for it once is enough.
        self.inner().flush();
        // By the type's contract nothing is in use: so all of it is idle now.
        self.inner().shared.trim(Keep::Nothing);
        // SAFETY: from `KBox::into_raw`; the work and the trim are done, and nobody queues them.
        drop(unsafe { KBox::from_raw(self.inner.as_ptr()) });
    }
}

/// Gives back what is not needed, now and then.
struct Trim<K: Send + Sync, T: Spare>(NonNull<Inner<K, T>>);

// SAFETY: as for the pool, to which it belongs.
unsafe impl<K: Send + Sync, T: Spare> Send for Trim<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Spare> Sync for Trim<K, T> {}

impl<K: Send + Sync, T: Spare> Work for Trim<K, T> {
    fn run(&self) -> u32 {
        // SAFETY: the pool stops this before it frees the inner part.
        unsafe { self.0.as_ref() }.shared.trim(Keep::Half);
        time::HZ
    }
}

unsafe extern "C" fn reclaim<K: Send + Sync, T: Spare>(work: *mut bindings::work_struct) {
    const {
        assert!(offset_of!(bindings::rcu_work, work) == 0);
    }
    // SAFETY: `work` is the first field of the RCU work, and that of the inner part, which lives until
    // the pool's drop has waited for the work to return.
    let inner = unsafe { &*work.cast::<Inner<K, T>>() };
    Window::Reclaim.pass();
    inner.duty.begin();
    let (reclaimed, more) = inner.shared.reclaim();
    if reclaimed != 0 {
        inner.shared.grace_periods.fetch_add(1, Ordering::Relaxed);
    }
    inner.runs.fetch_add(1, Ordering::SeqCst);
    if more || inner.duty.end() {
        inner.queue();
        return;
    }
    // Not the work's any more.
    let _ = inner;
    Window::Idle.pass();
}

impl<K: Send + Sync, T: Spare> Inner<K, T> {
    fn queue(&self) {
        // SAFETY: the work was initialised; the kernel has locks of its own for it.
        unsafe { bindings::mxp_rcu_work_queue((&raw const self.work).cast_mut()) };
    }

    fn reclaim_later(&self) {
        if self.duty.call() {
            self.queue();
        }
    }

    // Waits for a run that is queued or under way. Sleeps, also if there is none: whoever has called
    // the work may be about to queue it.
    fn flush(&self) {
        let work = (&raw const self.work.work).cast_mut();
        // SAFETY: initialised in `new`. May sleep: called by tasks only.
        if !unsafe { bindings::flush_rcu_work(work) } {
            rcu::synchronize();
        }
    }
}

impl<K: Send + Sync, T: Spare> Shared<K, T> {
    fn new(name: &'static CStr, align: u32, keeps: &'static AtomicU32) -> Result<Self> {
        let local = || {
            Locked::of_cpu(Local {
                store: Store::new(),
                retired: Stack::new(),
                waiting: Stack::new(),
                fast: 0,
                slow: 0,
                freed: 0,
            })
        };
        let mut depots = KVec::new();
        // SAFETY: has no preconditions.
        for _ in 0..unsafe { bindings::mxp_nodes() } {
            depots.push(Locked::of_node(Store::new())?, GFP_KERNEL)?;
        }
        Ok(Self {
            keeps,
            slab: Slab::new(name, align)?,
            locals: PerCpu::of_module(local)?,
            depots,
            nodes: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            grace_periods: AtomicUsize::new(0),
        })
    }

    fn count_new(&self, count: usize) {
        let nodes = self.nodes.fetch_add(count, Ordering::Relaxed);
        self.peak
            .fetch_max(nodes.wrapping_add(count), Ordering::Relaxed);
    }

    fn take(&self) -> Option<NonNull<Node<K, T>>> {
        self.locals.this().with(|local| {
            if self.keeps.load(Ordering::Relaxed) == 0 {
                let node = slab::kmalloc()?;
                local.slow = local.slow.wrapping_add(1);
                self.adopt(node);
                return Some(node);
            }
            if let Some(node) = local.store.pop() {
                local.fast = local.fast.wrapping_add(1);
                return Some(node);
            }
            // SAFETY: has no preconditions.
            let node = unsafe { bindings::mxp_this_node() } as usize;
            if let Some(depot) = self.depots.get(node) {
                depot.with(|depot| local.store.refill(depot, FROM_DEPOT));
            }
            if let Some(node) = local.store.pop() {
                local.fast = local.fast.wrapping_add(1);
                return Some(node);
            }
            local.slow = local.slow.wrapping_add(1);
            self.slab.allocate::<FROM_SLAB>(|node| {
                self.adopt(node);
                // SAFETY: made for this, and nobody else's.
                unsafe { local.store.idle.push(node) };
            });
            local.store.pop()
        })
    }

    // Makes new memory fit for the store.
    fn adopt(&self, node: NonNull<Node<K, T>>) {
        // SAFETY: new memory, of a node's size and alignment, to a word at least; nodes of the
        // module are of numbers and pointers that may be null.
        unsafe { Node::blank(node) };
        self.count_new(1);
    }

    // Reclaims what has waited for a grace period, and lets wait what was retired meanwhile. How
    // much was reclaimed, and whether something waits.
    fn reclaim(&self) -> (usize, bool) {
        let (mut reclaimed, mut more) = (0_usize, false);
        for local in self.locals.iter() {
            let mut ready = local.with(|local| {
                let ready = local.waiting.take();
                local.waiting = local.retired.take();
                more |= local.waiting.count() != 0;
                local.freed = local.freed.wrapping_add(ready.count() as u64);
                ready
            });
            reclaimed = reclaimed.wrapping_add(ready.count());
            while let Some(node) = ready.pop() {
                // SAFETY: a grace period ago it was taken off its chains: it is nobody's.
                unsafe { Node::finish(node) };
                // SAFETY: it lies in the direct map, as all slabs do.
                let of = unsafe { bindings::mxp_node_of(node.as_ptr().cast()) } as usize;
                let depot = self.depots.get(of).or(self.depots.first());
                if let Some(depot) = depot {
                    // SAFETY: blank again, and in no stack any more.
                    depot.with(|depot| unsafe { depot.idle.push(node) });
                }
                if ready.count() % AT_ONCE == 0 {
                    task::pause();
                }
            }
        }
        if self.keeps.load(Ordering::Relaxed) == 0 {
            self.trim(Keep::Nothing);
        }
        (reclaimed, more)
    }

    fn held(&self) -> Held {
        let (mut idle, mut waiting) = (0_usize, 0_usize);
        for local in self.locals.iter() {
            local.with(|local| {
                idle = idle.wrapping_add(local.store.idle.count());
                let (retired, ready) = (local.retired.count(), local.waiting.count());
                waiting = waiting.wrapping_add(retired).wrapping_add(ready);
            });
        }
        for depot in &self.depots {
            idle = idle.wrapping_add(depot.with(|depot| depot.idle.count()));
        }
        Held {
            nodes: self.nodes.load(Ordering::Relaxed),
            idle,
            waiting,
            peak: self.peak.load(Ordering::Relaxed),
            grace_periods: self.grace_periods.load(Ordering::Relaxed),
        }
    }

    // Gives memory back to the kernel that was not needed since the last time, or all that is idle.
    fn trim(&self, keep: Keep) {
        let mut surplus = Stack::new();
        for local in self.locals.iter() {
            local.with(|local| local.store.trim(&mut surplus, keep));
        }
        for depot in &self.depots {
            depot.with(|depot| depot.trim(&mut surplus, keep));
        }
        if surplus.count() == 0 {
            return;
        }
        // From here on nobody looks at what caches keep of it; and then nobody does any more.
        begin_epoch();
        rcu::synchronize();
        self.nodes.fetch_sub(surplus.count(), Ordering::Relaxed);
        while let Some(node) = surplus.pop() {
            // SAFETY: from the slab or kmalloc(), and in no stack any more.
            unsafe { slab::free(node) };
            if surplus.count() % AT_ONCE == 0 {
                task::pause();
            }
        }
    }
}
