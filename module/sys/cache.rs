// SPDX-License-Identifier: GPL-2.0

//! The flow cache: a set-associative cache for each CPU, of nodes that it found lately.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use kernel::prelude::*;

use super::percpu::PerCpu;
use super::{rcu, task};
use crate::datapath::cache_set::{Set, Tag};
use crate::datapath::link::{Found, ReadGuard};

/// How many sets are made between two calls of `task::pause`.
const AT_ONCE: usize = 1024;

/// A CPU's sets, a power of two of them.
struct Sets<K, T>(KVVec<Set<K, T>>);

/// A cache of nodes on each CPU.
///
/// # Invariants
///
/// Each pointer is null or from `KBox::into_raw`, and is freed only a grace period after it was
/// replaced. Between two calls of `resize` the replaced ones are null.
pub(crate) struct Cache<K, T> {
    of_cpu: PerCpu<AtomicPtr<Sets<K, T>>>,
    // The sets that `resize` has just replaced, until it frees them.
    replaced: PerCpu<AtomicPtr<Sets<K, T>>>,
    // Nodes on each CPU. Changed by one task at a time.
    size: AtomicUsize,
}

// SAFETY: gives shared references to nodes to any thread.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Cache<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Send + Sync> Sync for Cache<K, T> {}

impl<K: PartialEq, T> Cache<K, T> {
    /// A cache of nothing.
    pub(crate) fn new() -> Result<Self> {
        let none = || Ok(AtomicPtr::new(core::ptr::null_mut()));
        Ok(Self {
            of_cpu: PerCpu::new(none)?,
            replaced: PerCpu::new(none)?,
            size: AtomicUsize::new(0),
        })
    }

    /// How many nodes it has room for, on each CPU.
    pub(crate) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set<'g>(&'g self, _guard: &'g ReadGuard, hash: u32) -> Option<&'g Set<K, T>> {
        let sets = self.of_cpu.load();
        // SAFETY: by the type's invariant the sets live as long as the guard.
        let sets = unsafe { sets.as_ref() }?;
        sets.0.get(hash as usize & sets.0.len().wrapping_sub(1))
    }

    /// The entry with `key`, of hash `hash`, if this CPU's cache has it; else what `lookup` finds, which is then
    /// put into the cache. And whether the cache had it.
    #[inline(always)]
    pub(crate) fn lookup<'g>(
        &'g self,
        guard: &'g ReadGuard,
        hash: u32,
        key: &K,
        lookup: impl FnOnce() -> Option<Found<'g, K, T>>,
    ) -> (Option<Found<'g, K, T>>, bool) {
        let Some(set) = self.set(guard, hash) else {
            return (lookup(), false);
        };
        let tag = Tag::new(guard, hash);
        if let Some(found) = set.lookup(guard, tag, key) {
            return (Some(found), true);
        }
        let found = lookup();
        if let Some(found) = &found {
            set.insert(tag, found);
        }
        (found, false)
    }

    /// Makes room for `size` nodes on each CPU, rounded up to a power of two; zero for none. The caches begin
    /// empty. CPUs for which there is no memory have no cache. Sleeps; called by one task at a time.
    pub(crate) fn resize(&self, size: usize) {
        let mut any = false;
        for (slot, replaced) in self.of_cpu.iter().zip(self.replaced.iter()) {
            let sets = match size {
                0 => None,
                _ => sets(size.div_ceil(Set::<K, T>::WAYS).next_power_of_two()).ok(),
            };
            let new = sets.map_or(core::ptr::null_mut(), KBox::into_raw);
            let old = slot.swap(new, Ordering::AcqRel);
            any |= !old.is_null();
            replaced.store(old, Ordering::Relaxed);
        }
        // One grace period for all CPUs.
        if any {
            rcu::synchronize();
        }
        for replaced in self.replaced.iter() {
            let old = replaced.swap(core::ptr::null_mut(), Ordering::Relaxed);
            if !old.is_null() {
                // SAFETY: from `KBox::into_raw`; a grace period has passed since it was replaced, so no
                // reader that has loaded it is left.
                drop(unsafe { KBox::from_raw(old) });
            }
        }
        self.size.store(size, Ordering::Relaxed);
    }
}

fn sets<K, T>(count: usize) -> Result<KBox<Sets<K, T>>> {
    let mut sets = KVVec::with_capacity(count, GFP_KERNEL)?;
    for index in 0..count {
        if index % AT_ONCE == 0 {
            task::pause();
        }
        // Within the capacity.
        sets.push(Set::new(), GFP_KERNEL)?;
    }
    Ok(KBox::new(Sets(sets), GFP_KERNEL)?)
}

impl<K, T> Drop for Cache<K, T> {
    fn drop(&mut self) {
        for slot in self.of_cpu.iter() {
            let sets = slot.load(Ordering::Relaxed);
            if !sets.is_null() {
                // SAFETY: from `KBox::into_raw`; `&mut self` shows that it is not used any more.
                drop(unsafe { KBox::from_raw(sets) });
            }
        }
    }
}
