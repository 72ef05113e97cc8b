// SPDX-License-Identifier: GPL-2.0

//! Memory of nodes, kept for later ones: magazines and depots over a slab cache.
//!
//! Memory is taken from the CPU's magazine, whose lock is mostly uncontended; else from the depot of the CPU's
//! NUMA node; else from the slab cache. Memory that comes back goes to the depot of the NUMA node on which it
//! lies. Of what was not needed for a second, half is given back to the kernel, second by second (the
//! working set of Bonwick and Adams, "Magazines and Vmem", USENIX ATC 2001, section 3.5).
//!
//! A node that was unlinked from its buckets is in limbo until its last readers have gone: on a stack of
//! the CPU that unlinked it, which takes no memory but the node's own. One work item for all CPUs reclaims
//! the nodes that were in limbo for a grace period. It runs in a task, so that no softirq has to drop thousands
//! of nodes.
//!
//! The life of a node:
//!
//! ```text
//!               SLAB_BATCH                          alloc()
//!   slab cache ────────────► magazine of this CPU ──────────► Owned ───► published, in two buckets
//!       ▲                       ▲          ▲                    │                    │ unlink
//!       │                       │          └────────────────────┘                    ▼
//!       │             DEPOT_BATCH              free(): never published            Unlinked
//!       │                       │                                                    │ free_rcu()
//!       │     trim()            │                                                    ▼
//!       └───────────── depot of its NUMA node                         limbo_next of this CPU
//!                    (and magazines)  ▲                                              │ the work runs
//!                                     │        drop_value()                          ▼
//!                                     └────────────────────────────── limbo_wait of this CPU
//!                                       the work runs once more,
//!                                       a grace period later
//! ```
//!
//! While `perf_enable_pool` is off, alloc() takes memory from kmalloc() instead, and what the work
//! reclaims leaves by trim() at once.
//!
//! What holds where memory changes hands:
//!
//! * [`alloc`](Heap::alloc): the memory is the caller's alone. Pointers that the kernel's allocator leaves
//!   behind when it fails are never followed (`slab.rs`).
//! * [`free`](Heap::free): the value was dropped, and the memory is idle on this CPU.
//! * [`free_rcu`](Heap::free_rcu): the node is in this CPU's limbo, and the work will reclaim it: the work is
//!   queued, or it runs and will see in [`WorkState::complete`] that it has to run again.
//! * The work returns: nodes that were put into limbo before the previous run began are idle memory. If the
//!   work was not queued again, limbo is empty, and the work does not touch the pool any more.
//! * [`NodePool::drain`] returns: the values of all nodes that were put into limbo before the call were dropped,
//!   and with them the references that they had.
//! * The pool is dropped: the work and the trim have returned and will not run again, and all memory
//!   is the kernel's. By the type's contract no node is freed meanwhile.
//!
//! The memory is charged to no control group. Most of it is taken in softirqs, which run for no task in
//! particular; and since it is used again for flows of other namespaces, it would soon be charged to the wrong
//! group, and keep that group in memory after its end. It is bounded by `max_flows`, for each IP version
//! and each namespace with a context, and by what is in limbo.

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
use crate::datapath::cache_set::begin_epoch;
use crate::datapath::link::{Heap, Node};
use crate::datapath::stack::{FreePointer, Stack};
use crate::datapath::work_state::WorkState;

/// How many nodes a CPU gets from the depot at once.
const DEPOT_BATCH: usize = 32;
/// How many it gets from the slab.
const SLAB_BATCH: usize = 16;
/// How many nodes are handled between two calls of `task::pause`.
const AT_ONCE: usize = 64;

/// The idle memory of a magazine or a depot, and how much of it was not needed.
struct FreeList<K, T> {
    idle: Stack<K, T>,
    // The fewest there were since the last trim.
    least: usize,
}

impl<K, T: FreePointer> FreeList<K, T> {
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
    fn trim(&mut self, surplus: &mut Stack<K, T>, to: TrimTo) {
        let count = match to {
            TrimTo::Half => self.least.div_ceil(2),
            TrimTo::Empty => self.idle.count(),
        };
        surplus.move_from(&mut self.idle, count);
        self.least = self.idle.count();
    }
}

#[derive(Clone, Copy, Debug)]
enum TrimTo {
    Half,
    Empty,
}

/// What a CPU has.
struct CpuLists<K, T> {
    magazine: FreeList<K, T>,
    // In limbo: unlinked since the work's last run, and before that.
    limbo_next: Stack<K, T>,
    limbo_wait: Stack<K, T>,
    fast: u64,
    slow: u64,
    freed: u64,
}

/// How memory was taken on one CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AllocStats {
    /// From idle memory of the pool.
    pub(crate) fast: u64,
    /// From the kernel's allocator.
    pub(crate) slow: u64,
    /// Given back.
    pub(crate) freed: u64,
}

/// How much memory there is, in nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// In all.
    pub(crate) nodes: usize,
    /// Of these, idle.
    pub(crate) idle: usize,
    /// Of these, in limbo: waiting for their last readers.
    pub(crate) limbo: usize,
    /// The most there ever were in all.
    pub(crate) peak: usize,
    /// Grace periods after which nodes were reclaimed.
    pub(crate) grace_periods: usize,
}

struct NodeLists<K: Send + Sync, T: FreePointer> {
    keeps: &'static AtomicU32,
    slab: Slab<Node<K, T>>,
    locals: PerCpu<Locked<CpuLists<K, T>>>,
    depots: KVec<Locked<FreeList<K, T>>>,
    nodes: AtomicUsize,
    peak: AtomicUsize,
    grace_periods: AtomicUsize,
}

#[repr(C)]
struct Reclaimer<K: Send + Sync, T: FreePointer> {
    work: bindings::mxp_rcu_work,
    // Of the work, which is called for when a node is freed.
    work_state: WorkState,
    // How often it has run to its end.
    runs: AtomicUsize,
    lists: NodeLists<K, T>,
}

/// Memory for nodes; all of it must be given back before the pool is dropped.
///
/// # Invariants
///
/// The pointer came from `KBox::into_raw`; its work was initialised.
pub(crate) struct NodePool<K: Send + Sync, T: FreePointer> {
    reclaimer: NonNull<Reclaimer<K, T>>,
    // `Some` until the drop.
    trim: Option<Periodic<Trim<K, T>>>,
}

// SAFETY: what is in it is behind locks or atomic; nodes may be sent.
unsafe impl<K: Send + Sync, T: FreePointer> Send for NodePool<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: FreePointer> Sync for NodePool<K, T> {}

impl<K: Send + Sync, T: FreePointer> NodePool<K, T> {
    /// A pool of nodes that /proc/slabinfo knows as `name`, aligned to `align` bytes.
    /// As long as `keeps` is zero, it keeps nothing: memory is from kmalloc(), and freed when it
    /// comes back.
    pub(crate) fn new(name: &'static CStr, align: u32, keeps: &'static AtomicU32) -> Result<Self> {
        let reclaimer = KBox::<Reclaimer<K, T>>::new_uninit(GFP_KERNEL)?;
        let lists = NodeLists::new(name, align, keeps)?;
        let reclaimer =
            NonNull::new(KBox::into_raw(reclaimer).cast::<Reclaimer<K, T>>()).ok_or(ENOMEM)?;
        // SAFETY: the memory is valid for it, and all bytes zero are a value of the C struct, which
        // is initialised; it stays where it is.
        unsafe {
            reclaimer.write(Reclaimer {
                work: core::mem::zeroed(),
                work_state: WorkState::new(),
                runs: AtomicUsize::new(0),
                lists,
            });
            bindings::mxp_rcu_work_init(&raw mut (*reclaimer.as_ptr()).work, Some(reclaim::<K, T>));
        }
        let trim = Periodic::start(time::HZ, Trim(reclaimer)).inspect_err(|_| {
            // SAFETY: from `KBox::into_raw`, and there is no other reference to it.
            drop(unsafe { KBox::from_raw(reclaimer.as_ptr()) });
        })?;
        Ok(Self {
            reclaimer,
            trim: Some(trim),
        })
    }
}

impl<K: Send + Sync, T: FreePointer> NodePool<K, T> {
    fn reclaimer(&self) -> &Reclaimer<K, T> {
        // SAFETY: by the type's invariant; freed by the drop only.
        unsafe { self.reclaimer.as_ref() }
    }

    /// How memory was taken, in the order of [`cpus`](super::percpu::cpus).
    pub(crate) fn alloc_stats(&self) -> impl Iterator<Item = AllocStats> + '_ {
        self.reclaimer().lists.locals.iter().map(|local| {
            local.with(|local| AllocStats {
                fast: local.fast,
                slow: local.slow,
                freed: local.freed,
            })
        })
    }

    /// How much memory is idle in the depot of each NUMA node, in the order of their numbers.
    pub(crate) fn depots(&self) -> impl Iterator<Item = usize> + '_ {
        let depots = &self.reclaimer().lists.depots;
        depots
            .iter()
            .map(|depot| depot.with(|depot| depot.idle.count()))
    }

    /// How much memory there is now.
    pub(crate) fn usage(&self) -> Usage {
        self.reclaimer().lists.usage()
    }

    /// Waits until the values of all nodes that were put into limbo before this call were dropped. Others may
    /// free nodes meanwhile, for which it does not wait. Sleeps for some grace periods, if anything
    /// waits at all.
    pub(crate) fn drain(&self) {
        // A run under way may have looked at some CPUs before the last of those nodes was put into limbo
        // there. The second run then moves them to `limbo_wait`, and the third one drops their values.
        const RUNS: usize = 3;
        let reclaimer = self.reclaimer();
        let before = reclaimer.runs.load(Ordering::SeqCst);
        // Idle: nothing was put into limbo since the last run began, and that run left nothing in limbo.
        while !reclaimer.work_state.is_idle()
            && reclaimer.runs.load(Ordering::SeqCst).wrapping_sub(before) < RUNS
        {
            reclaimer.flush_work();
        }
    }
}

// SAFETY: `alloc` gives memory that is in no list and no node any more, of the node's size, and aligned as
// the slab is. `free_rcu` leaves the node in limbo for a grace period, which all guards that exist at the call
// delay. Memory is freed by `NodeLists::trim` only, which begins an epoch and then waits for a grace period.
unsafe impl<K: Send + Sync, T: FreePointer> Heap<Node<K, T>> for NodePool<K, T> {
    #[inline(always)]
    fn alloc(&self) -> Option<NonNull<Node<K, T>>> {
        self.reclaimer().lists.alloc()
    }

    unsafe fn free(&self, node: NonNull<Node<K, T>>) {
        let lists = &self.reclaimer().lists;
        lists.locals.this().with(|local| {
            local.freed = local.freed.wrapping_add(1);
            // SAFETY: by the caller's promise the node is valid and not used any more.
            unsafe {
                Node::drop_value(node);
                local.magazine.idle.push(node);
            }
        });
    }

    unsafe fn free_rcu(&self, node: NonNull<Node<K, T>>) {
        let reclaimer = self.reclaimer();
        let local = reclaimer.lists.locals.this();
        // SAFETY: the caller's promise: it is in no bucket any more, and is freed once.
        local.with(|local| unsafe { local.limbo_next.push(node) });
        reclaimer.reclaim_later();
    }
}

impl<K: Send + Sync, T: FreePointer> Drop for NodePool<K, T> {
    fn drop(&mut self) {
        self.trim = None;
        while !self.reclaimer().work_state.is_idle() {
            self.reclaimer().flush_work();
        }
        // The work is not called for any more, so it is not queued. But the run that made it idle may not have
        // returned yet, and it returns through the module's text. It queues nothing, so waiting once is
        // enough.
        self.reclaimer().flush_work();
        // By the type's contract no node is in use: so all memory is idle now.
        self.reclaimer().lists.trim(TrimTo::Empty);
        // SAFETY: from `KBox::into_raw`; the work and the trim have returned, and are not queued any more.
        drop(unsafe { KBox::from_raw(self.reclaimer.as_ptr()) });
    }
}

/// Gives memory back that was not needed, once a second.
struct Trim<K: Send + Sync, T: FreePointer>(NonNull<Reclaimer<K, T>>);

// SAFETY: as for the pool, to which it belongs.
unsafe impl<K: Send + Sync, T: FreePointer> Send for Trim<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: FreePointer> Sync for Trim<K, T> {}

impl<K: Send + Sync, T: FreePointer> Work for Trim<K, T> {
    fn run(&self) -> u32 {
        // SAFETY: the pool stops this before it frees the reclaimer.
        unsafe { self.0.as_ref() }.lists.trim(TrimTo::Half);
        time::HZ
    }
}

unsafe extern "C" fn reclaim<K: Send + Sync, T: FreePointer>(work: *mut bindings::work_struct) {
    const {
        assert!(offset_of!(bindings::rcu_work, work) == 0);
    }
    // SAFETY: `work` is the first field of the RCU work, and that of the reclaimer, which lives until
    // the pool's drop has waited for the work to return.
    let reclaimer = unsafe { &*work.cast::<Reclaimer<K, T>>() };
    Window::Reclaim.pass();
    reclaimer.work_state.begin();
    let (reclaimed, more) = reclaimer.lists.reclaim();
    if reclaimed != 0 {
        reclaimer
            .lists
            .grace_periods
            .fetch_add(1, Ordering::Relaxed);
    }
    reclaimer.runs.fetch_add(1, Ordering::SeqCst);
    if more || reclaimer.work_state.complete() {
        reclaimer.queue();
        return;
    }
    // From here on the pool may be freed.
    let _ = reclaimer;
    Window::Idle.pass();
}

impl<K: Send + Sync, T: FreePointer> Reclaimer<K, T> {
    fn queue(&self) {
        // SAFETY: the work was initialised; the kernel has locks of its own for it.
        unsafe { bindings::mxp_rcu_work_queue((&raw const self.work).cast_mut()) };
    }

    fn reclaim_later(&self) {
        if self.work_state.schedule() {
            self.queue();
        }
    }

    // Waits for a run that is queued or under way. If there is none, it waits for a grace period: a CPU that
    // has called for the work may be about to queue it.
    fn flush_work(&self) {
        let work = (&raw const self.work.work).cast_mut();
        // SAFETY: initialised in `new`. May sleep: called by tasks only.
        if !unsafe { bindings::flush_rcu_work(work) } {
            rcu::synchronize();
        }
    }
}

impl<K: Send + Sync, T: FreePointer> NodeLists<K, T> {
    fn new(name: &'static CStr, align: u32, keeps: &'static AtomicU32) -> Result<Self> {
        let local = || {
            Locked::of_cpu(CpuLists {
                magazine: FreeList::new(),
                limbo_next: Stack::new(),
                limbo_wait: Stack::new(),
                fast: 0,
                slow: 0,
                freed: 0,
            })
        };
        let mut depots = KVec::new();
        // SAFETY: has no preconditions.
        for _ in 0..unsafe { bindings::mxp_nodes() } {
            depots.push(Locked::of_node(FreeList::new())?, GFP_KERNEL)?;
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

    #[inline(always)]
    fn alloc(&self) -> Option<NonNull<Node<K, T>>> {
        self.locals.this().with(|local| {
            if self.keeps.load(Ordering::Relaxed) != 0 {
                if let Some(node) = local.magazine.pop() {
                    local.fast = local.fast.wrapping_add(1);
                    return Some(node);
                }
            }
            self.alloc_slow(local)
        })
    }

    // As long as nothing is kept, or when the magazine is empty.
    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, local: &mut CpuLists<K, T>) -> Option<NonNull<Node<K, T>>> {
        if self.keeps.load(Ordering::Relaxed) == 0 {
            let node = slab::kmalloc()?;
            local.slow = local.slow.wrapping_add(1);
            self.init_node(node);
            return Some(node);
        }
        // SAFETY: has no preconditions.
        let node = unsafe { bindings::mxp_this_node() } as usize;
        if let Some(depot) = self.depots.get(node) {
            depot.with(|depot| local.magazine.refill(depot, DEPOT_BATCH));
        }
        if let Some(node) = local.magazine.pop() {
            local.fast = local.fast.wrapping_add(1);
            return Some(node);
        }
        local.slow = local.slow.wrapping_add(1);
        self.slab.allocate::<SLAB_BATCH>(|node| {
            self.init_node(node);
            // SAFETY: just made by `Node::init`, and in no other list; nodes of the modules consist of
            // numbers and pointers that may be null, of which zeros are values.
            unsafe { local.magazine.idle.push(node) };
        });
        local.magazine.pop()
    }

    // Makes new memory fit for a magazine.
    fn init_node(&self, node: NonNull<Node<K, T>>) {
        // SAFETY: new memory, of a node's size, and aligned to a word at least, which is a node's alignment.
        unsafe { Node::init(node) };
        self.count_new(1);
    }

    // Reclaims what has waited for a grace period, and lets wait what was put into limbo meanwhile. Returns how
    // much was reclaimed, and whether something waits.
    fn reclaim(&self) -> (usize, bool) {
        let (mut reclaimed, mut more) = (0_usize, false);
        for local in self.locals.iter() {
            let mut ready = local.with(|local| {
                let ready = local.limbo_wait.take();
                local.limbo_wait = local.limbo_next.take();
                more |= local.limbo_wait.count() != 0;
                local.freed = local.freed.wrapping_add(ready.count() as u64);
                ready
            });
            reclaimed = reclaimed.wrapping_add(ready.count());
            while let Some(node) = ready.pop() {
                // SAFETY: it was unlinked from its buckets before a grace period that has passed: no reader sees it.
                unsafe { Node::drop_value(node) };
                // SAFETY: it lies in the direct map, as all slabs do.
                let of = unsafe { bindings::mxp_node_of(node.as_ptr().cast()) } as usize;
                let depot = self.depots.get(of).or(self.depots.first());
                if let Some(depot) = depot {
                    // SAFETY: `drop_value` leaves it as `Node::init` does, and it is in no stack any more.
                    depot.with(|depot| unsafe { depot.idle.push(node) });
                }
                if ready.count() % AT_ONCE == 0 {
                    task::pause();
                }
            }
        }
        if self.keeps.load(Ordering::Relaxed) == 0 {
            self.trim(TrimTo::Empty);
        }
        (reclaimed, more)
    }

    fn usage(&self) -> Usage {
        let (mut idle, mut limbo) = (0_usize, 0_usize);
        for local in self.locals.iter() {
            local.with(|local| {
                idle = idle.wrapping_add(local.magazine.idle.count());
                let (next, wait) = (local.limbo_next.count(), local.limbo_wait.count());
                limbo = limbo.wrapping_add(next).wrapping_add(wait);
            });
        }
        for depot in &self.depots {
            idle = idle.wrapping_add(depot.with(|depot| depot.idle.count()));
        }
        Usage {
            nodes: self.nodes.load(Ordering::Relaxed),
            idle,
            limbo,
            peak: self.peak.load(Ordering::Relaxed),
            grace_periods: self.grace_periods.load(Ordering::Relaxed),
        }
    }

    // Gives memory back to the kernel: half of what was not needed since the last time, or all that is idle.
    fn trim(&self, to: TrimTo) {
        let mut surplus = Stack::new();
        for local in self.locals.iter() {
            local.with(|local| local.magazine.trim(&mut surplus, to));
        }
        for depot in &self.depots {
            depot.with(|depot| depot.trim(&mut surplus, to));
        }
        if surplus.count() == 0 {
            return;
        }
        // From here on no look-up that begins follows a cache's entry to it; after the grace period none
        // does.
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
