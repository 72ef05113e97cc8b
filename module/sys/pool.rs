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

use super::window::Window;
use super::work::{Periodic, Work};
use super::{bindings, rcu, time};
use crate::datapath::link::{Heap, Node};
use crate::datapath::stack::FreePointer;
use crate::datapath::work_state::WorkState;

mod lists;

pub(crate) use lists::AllocStats;
use lists::{NodeLists, TrimTo, Usage};

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
