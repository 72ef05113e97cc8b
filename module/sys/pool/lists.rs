// SPDX-License-Identifier: GPL-2.0

//! The lists that idle nodes and nodes in limbo are in: the magazine and the limbo of each CPU, and the depot of each
//! NUMA node. `pool.rs` tells how memory goes from one to the other.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use kernel::prelude::*;
use kernel::str::CStr;

use super::super::lock::Locked;
use super::super::percpu::PerCpu;
use super::super::slab::{self, Slab};
use super::super::{bindings, rcu, task};
use crate::datapath::cache_set::begin_epoch;
use crate::datapath::link::Node;
use crate::datapath::stack::{FreePointer, Stack};

/// How many nodes a CPU gets from the depot at once.
const DEPOT_BATCH: usize = 32;
/// How many it gets from the slab.
const SLAB_BATCH: usize = 16;
/// How many nodes are handled between two calls of `task::pause`.
const AT_ONCE: usize = 64;

/// The idle memory of a magazine or a depot, and how much of it was not needed.
pub(super) struct FreeList<K, T> {
    pub(super) idle: Stack<K, T>,
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
pub(super) enum TrimTo {
    Half,
    Empty,
}

/// What a CPU has.
pub(super) struct CpuLists<K, T> {
    pub(super) magazine: FreeList<K, T>,
    // In limbo: unlinked since the work's last run, and before that.
    pub(super) limbo_next: Stack<K, T>,
    limbo_wait: Stack<K, T>,
    pub(super) fast: u64,
    pub(super) slow: u64,
    pub(super) freed: u64,
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

pub(super) struct NodeLists<K: Send + Sync, T: FreePointer> {
    keeps: &'static AtomicU32,
    slab: Slab<Node<K, T>>,
    pub(super) locals: PerCpu<Locked<CpuLists<K, T>>>,
    pub(super) depots: KVec<Locked<FreeList<K, T>>>,
    nodes: AtomicUsize,
    peak: AtomicUsize,
    pub(super) grace_periods: AtomicUsize,
}

impl<K: Send + Sync, T: FreePointer> NodeLists<K, T> {
    pub(super) fn new(name: &'static CStr, align: u32, keeps: &'static AtomicU32) -> Result<Self> {
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
    pub(super) fn alloc(&self) -> Option<NonNull<Node<K, T>>> {
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
    pub(super) fn reclaim(&self) -> (usize, bool) {
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

    pub(super) fn usage(&self) -> Usage {
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
    pub(super) fn trim(&self, to: TrimTo) {
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
