// SPDX-License-Identifier: GPL-2.0

//! A set of a set-associative cache of nodes that a CPU found lately.
//!
//! Nothing tells a cache that a node has gone. Its pointers may lead to memory that is no node any more, or
//! another one. It is safe to follow them all the same:
//!
//! * Memory of nodes stays memory of nodes until its heap has begun a new epoch, for all caches, and a grace
//!   period has passed after that. Entries of an earlier epoch are not followed.
//! * While it is a node's memory, its links tell whether it is in a bucket; see [`Node::init`]. Only
//!   if it is, the rest of it is read: then it is a live node, and remains one for the reader's
//!   section. If it is not the node that was kept, its key differs.
//!
//! Like `link.rs`, this file knows no kernel.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::link::{Found, Node, ReadGuard};

/// The epoch. Any heap begins a new one before it frees memory of nodes.
///
/// After 2^48 epochs an old entry would be taken for a new one. A heap that keeps nothing frees memory after
/// every grace period: at a thousand of them a second that takes 8,900 years.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Begins the next epoch; see [`Heap`](super::link::Heap).
pub fn begin_epoch() {
    EPOCH.fetch_add(1, Ordering::SeqCst);
}

/// What an entry is compared by before its node is looked at: 48 bits of the epoch in which the look-up began,
/// and the upper 16 bits of the hash, which do not select the set. More are not needed, since the key is
/// compared after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'g>(u64, PhantomData<&'g ReadGuard>);

/// How many bits of a hash are in a tag.
const HASH_BITS: u32 = 16;

impl<'g> Tag<'g> {
    /// For a look-up of `hash`, and to insert what is found under the same guard.
    #[inline(always)]
    pub fn new(_guard: &'g ReadGuard, hash: u32) -> Self {
        // Acquire: the look-up comes after this.
        let epoch = EPOCH.load(Ordering::Acquire);
        Self(
            epoch << HASH_BITS | u64::from(hash >> HASH_BITS),
            PhantomData,
        )
    }
}

/// # Invariants
///
/// If the node is not null, it was found in the tag's epoch or a later one.
struct CacheEntry<K, T> {
    tag: AtomicU64,
    // With the direction in its lowest bit.
    node: AtomicPtr<Node<K, T>>,
}

impl<K, T> CacheEntry<K, T> {
    // A reader in between, in an interrupt or on another CPU, sees no node. A writer in between leaves a
    // node that was found after both tags were read.
    #[inline(always)]
    fn set(&self, tag: u64, node: *mut Node<K, T>) {
        self.node.store(core::ptr::null_mut(), Ordering::Relaxed);
        self.tag.store(tag, Ordering::Release);
        self.node.store(node, Ordering::Release);
    }

    #[inline(always)]
    fn get(&self) -> (u64, *mut Node<K, T>) {
        // The tag first: the node may then be newer than the tag, but not older.
        let tag = self.tag.load(Ordering::Acquire);
        (tag, self.node.load(Ordering::Acquire))
    }
}

const WAYS: usize = 4;

/// A cache line of entries, the one used last first.
#[repr(C, align(64))]
pub struct Set<K, T>([CacheEntry<K, T>; WAYS]);

// SAFETY: gives shared references to nodes to any thread.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Set<K, T> {}
// SAFETY: as above; all of it is atomic.
unsafe impl<K: Send + Sync, T: Send + Sync> Sync for Set<K, T> {}

impl<K, T> Set<K, T> {
    /// How many nodes a set holds.
    pub const WAYS: usize = WAYS;

    /// An empty set.
    pub const fn new() -> Self {
        Self(
            [const {
                CacheEntry {
                    tag: AtomicU64::new(0),
                    node: AtomicPtr::new(core::ptr::null_mut()),
                }
            }; WAYS],
        )
    }
}

impl<K, T> Default for Set<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: PartialEq, T> Set<K, T> {
    /// The entry with `key`, if it was kept and is still in a bucket.
    #[inline(always)]
    pub fn lookup<'g>(
        &self,
        guard: &'g ReadGuard,
        tag: Tag<'g>,
        key: &K,
    ) -> Option<Found<'g, K, T>> {
        for (way, slot) in self.0.iter().enumerate() {
            let (kept, node) = slot.get();
            if kept != tag.0 {
                continue;
            }
            // SAFETY: the entry's epoch is the one that this guard has read: by the contract of its heap
            // the memory is a node's for as long as the guard.
            if let Some(found) = unsafe { Found::recheck(guard, node) } {
                if found.key() == key {
                    if way != 0 {
                        self.promote(way, kept, node);
                    }
                    return Some(found);
                }
            }
        }
        None
    }

    /// Keeps what a look-up of `tag`'s hash found after the tag was made, in place of the least recently used
    /// entry.
    pub fn insert<'g>(&self, tag: Tag<'g>, found: &Found<'g, K, T>) {
        self.promote(WAYS - 1, tag.0, found.tagged());
    }

    // Puts an entry first, and moves those before `way` back by one.
    #[cold]
    fn promote(&self, way: usize, tag: u64, node: *mut Node<K, T>) {
        let (mut tag, mut node) = (tag, node);
        for slot in self.0.iter().take(way.wrapping_add(1)) {
            let displaced = slot.get();
            slot.set(tag, node);
            (tag, node) = displaced;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::{self, Heads, Sections};
    use super::super::link::{Buckets, Heap, Owned, Rcu};
    use super::*;
    use std::ptr::NonNull;
    use std::sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard};

    type TestNode = Node<u32, u32>;
    type TestBuckets = Buckets<u32, u32, Heads<u32, u32>, Mutex<()>>;

    /// Uses memory again after a grace period, and frees it when told to.
    #[derive(Default)]
    struct Reusing {
        limbo: Mutex<Vec<Memory>>,
        idle: Mutex<Vec<Memory>>,
    }

    struct Memory(NonNull<TestNode>);

    // SAFETY: the memory belongs to its owner alone, but for what readers see of it.
    unsafe impl Send for Memory {}

    // SAFETY: a box is valid and exclusive; memory is only used again after `reclaim`.
    unsafe impl Heap<TestNode> for Reusing {
        fn alloc(&self) -> Option<NonNull<TestNode>> {
            if let Some(memory) = self.idle.lock().unwrap().pop() {
                return Some(memory.0);
            }
            let new = NonNull::from(Box::leak(Box::<TestNode>::new_uninit())).cast();
            // SAFETY: new memory.
            unsafe { Node::init(new) };
            Some(new)
        }

        unsafe fn free(&self, node: NonNull<TestNode>) {
            // SAFETY: the caller's promise.
            unsafe { Node::drop_value(node) };
            self.idle.lock().unwrap().push(Memory(node));
        }

        unsafe fn free_rcu(&self, node: NonNull<TestNode>) {
            self.limbo.lock().unwrap().push(Memory(node));
        }
    }

    impl Reusing {
        fn reclaim(&self) {
            let ready = core::mem::take(&mut *self.limbo.lock().unwrap());
            host::wait();
            for memory in &ready {
                // SAFETY: put into limbo before the grace period.
                unsafe { Node::drop_value(memory.0) };
            }
            self.idle.lock().unwrap().extend(ready);
        }

        fn free(&self) {
            let surplus = core::mem::take(&mut *self.idle.lock().unwrap());
            begin_epoch();
            host::wait();
            for memory in surplus {
                // SAFETY: from `alloc`, nobody's, and not looked at any more.
                drop(unsafe { Box::from_raw(memory.0.as_ptr()) });
            }
        }
    }

    /// All tests share the epoch: one of these at a time, and none that frees memory meanwhile.
    static EPOCHS: Mutex<()> = Mutex::new(());

    fn alone() -> (MutexGuard<'static, ()>, RwLockReadGuard<'static, ()>) {
        let epochs = EPOCHS.lock().unwrap_or_else(PoisonError::into_inner);
        (epochs, host::steady())
    }

    fn buckets() -> TestBuckets {
        Buckets::new(Heads::new(1), Mutex::new(())).unwrap()
    }

    fn insert(buckets: &TestBuckets, heap: &Reusing, keys: [u32; 2], value: u32) {
        let node = Owned::new(heap, keys, value).unwrap();
        Sections::read(|guard| {
            buckets.edit(|editor| editor.publish(guard, node, [0, 0]));
        });
    }

    /// Gives everything back.
    fn finish(buckets: &TestBuckets, heap: &Reusing) {
        Sections::read(|guard| {
            buckets.edit(|editor| {
                editor.walk(guard, 0, |editor, found| {
                    if found.direction == 0 {
                        assert!(editor.unlink(guard, heap, found.node, [0, 0]).is_some());
                    }
                });
            });
        });
        heap.reclaim();
        heap.free();
    }

    fn remove(buckets: &TestBuckets, heap: &Reusing, key: u32) {
        Sections::read(|guard| {
            let node = buckets.lookup(guard, 0, &key).unwrap().node;
            buckets
                .edit(|editor| editor.unlink(guard, heap, node, [0, 0]))
                .unwrap();
        });
    }

    // What the set has for a key; if it has nothing, what the buckets have, which is then kept.
    fn look(buckets: &TestBuckets, set: &Set<u32, u32>, key: u32) -> [Option<u32>; 2] {
        Sections::read(|guard| {
            let tag = Tag::new(guard, 7);
            if let Some(found) = set.lookup(guard, tag, &key) {
                assert_eq!(*found.key(), key);
                return [Some(**found.node), None];
            }
            let found = buckets.lookup(guard, 0, &key);
            if let Some(found) = &found {
                set.insert(tag, found);
            }
            [None, found.map(|found| **found.node)]
        })
    }

    #[test]
    fn what_was_found_is_found_again_until_it_goes() {
        let _alone = alone();
        let (buckets, heap, set) = (buckets(), Reusing::default(), Set::new());
        insert(&buckets, &heap, [1, 2], 10);
        assert_eq!(look(&buckets, &set, 1), [None, Some(10)]);
        assert_eq!(look(&buckets, &set, 1), [Some(10), None]);
        assert_eq!(look(&buckets, &set, 2), [None, Some(10)]);
        assert_eq!(look(&buckets, &set, 2), [Some(10), None]);
        remove(&buckets, &heap, 1);
        assert_eq!(look(&buckets, &set, 1), [None, None]);
        heap.reclaim();
        assert_eq!(look(&buckets, &set, 2), [None, None]);
        // The same memory with other keys, one of which is the same: what was kept leads there.
        insert(&buckets, &heap, [1, 3], 11);
        assert_eq!(look(&buckets, &set, 2), [None, None]);
        assert_eq!(look(&buckets, &set, 1), [Some(11), None]);
        assert_eq!(look(&buckets, &set, 3), [Some(11), None]);
        remove(&buckets, &heap, 3);
        heap.reclaim();
        heap.free();
        assert_eq!(look(&buckets, &set, 1), [None, None]);
        finish(&buckets, &heap);
    }

    #[test]
    fn the_least_lately_used_goes_first() {
        let _alone = alone();
        let (buckets, heap, set) = (buckets(), Reusing::default(), Set::new());
        let keys = 0..WAYS as u32;
        for key in 0..=WAYS as u32 {
            insert(&buckets, &heap, [key, 100 + key], key);
        }
        for key in keys.clone() {
            assert_eq!(look(&buckets, &set, key), [None, Some(key)]);
        }
        // All are there; 0 is used again, and so 1 is the one that goes.
        for key in keys.clone().rev() {
            assert_eq!(look(&buckets, &set, key), [Some(key), None]);
        }
        let new = WAYS as u32;
        assert_eq!(look(&buckets, &set, new), [None, Some(new)]);
        for key in keys.clone().take(WAYS - 1) {
            assert_eq!(look(&buckets, &set, key), [Some(key), None]);
        }
        assert_eq!(
            look(&buckets, &set, WAYS as u32 - 1),
            [None, Some(WAYS as u32 - 1)]
        );
        finish(&buckets, &heap);
    }

    #[test]
    fn an_entry_ends_with_its_epoch() {
        let _alone = alone();
        let (buckets, heap, set) = (buckets(), Reusing::default(), Set::new());
        insert(&buckets, &heap, [1, 2], 10);
        look(&buckets, &set, 1);
        heap.free();
        assert_eq!(look(&buckets, &set, 1), [None, Some(10)]);
        finish(&buckets, &heap);
    }

    #[test]
    fn epochs_do_not_come_again_soon() {
        let _alone = alone();
        let tag = || Sections::read(|guard| Tag::new(guard, 0xabcd_0000).0);
        let before = EPOCH.load(Ordering::Relaxed);
        let first = tag();
        // With 32 bits it was the same again.
        EPOCH.fetch_add(1 << 32, Ordering::SeqCst);
        assert_ne!(tag(), first);
        assert_eq!(tag() & 0xffff, 0xabcd);
        EPOCH.store(before, Ordering::SeqCst);
    }

    #[test]
    fn many_use_one_set_while_nodes_come_and_go() {
        let _alone = alone();
        let (buckets, heap, set) = (buckets(), Reusing::default(), Set::new());
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        insert(&buckets, &heap, [1000, 1001], 1000);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for round in 0..rounds {
                        for key in [round % 7, 1000, 50 + round % 7] {
                            for value in look(&buckets, &set, key).into_iter().flatten() {
                                assert_eq!(value, if key < 1000 { key % 50 } else { key });
                            }
                        }
                        assert_ne!(look(&buckets, &set, 1000), [None, None]);
                    }
                });
            }
            for round in 0..rounds {
                let key = round % 7;
                insert(&buckets, &heap, [key, 50 + key], key);
                std::thread::yield_now();
                remove(&buckets, &heap, key);
                if round % 3 == 0 {
                    heap.reclaim();
                }
                if round % 12 == 0 {
                    heap.free();
                }
            }
        });
        finish(&buckets, &heap);
    }
}
