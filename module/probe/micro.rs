// SPDX-License-Identifier: GPL-2.0

//! What single steps of the datapath take, beside what the kernel offers for the same.
//!
//! Pool, table, cache and translation are the very code that runs in the proxy.

use core::sync::atomic::AtomicU32;

use kernel::c_str;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::bytes::Writer;
use crate::abi::micro::{Step, Times, FLOW_SIZE, PLAN, SIZE};
use crate::abi::proxy::Protocol;
use crate::datapath::flow::{ChecksumFixup, Direction, Flow, Owner};
use crate::datapath::hash::Seed;
use crate::datapath::link::{Buckets, Link, Node, Owned, ReadGuard, HEADS_ALIGN};
use crate::datapath::packet::{Header, UDP_HEADER};
use crate::datapath::translate::{translate, Offload};
use crate::datapath::tuple::{Ports, Tuple, V4};
use crate::sys::cache::Cache;
use crate::sys::lock::{self, SpinLock};
use crate::sys::micro::{
    as_in_a_hook, time, time_memcpy, time_of, Allocator, Datagram, Kmalloc, Lists, Repeat, Slab,
};
use crate::sys::pool::NodePool;
use crate::sys::route::CachedRoute;
use crate::sys::task;

/// How often a step is done before it is measured.
const WARM_UP: usize = 32;
/// How often it is measured.
const SAMPLES: usize = 255;

/// For [`NodePool::new`].
static KEEPS: AtomicU32 = AtomicU32::new(1);
static KEEPS_NOTHING: AtomicU32 = AtomicU32::new(0);

type Key = Tuple<V4>;
type Value = Flow<CachedRoute>;
type FlowPool = NodePool<Key, Value>;

const _: () = assert!(size_of::<Node<Key, Value>>() == FLOW_SIZE);

/// Measures every step: the table that `abi::micro` describes. Takes some milliseconds; sleeps.
pub(crate) fn measure() -> Result<KVec<u8>> {
    let mut bytes = KVec::new();
    for _ in 0..SIZE {
        bytes.push(0, GFP_KERNEL)?;
    }
    let nothing = Meter { clock: 0 }.step(Step::Nothing)?;
    let meter = Meter {
        clock: nothing.median,
    };
    let mut writer = Writer::new(&mut bytes);
    for step in PLAN {
        task::pause();
        meter.step(step)?.encode(&mut writer).ok_or(EINVAL)?;
    }
    Ok(bytes)
}

struct Meter {
    // What it takes to time nothing.
    clock: u64,
}

impl Meter {
    fn step(&self, step: Step) -> Result<Times> {
        match step {
            Step::Nothing => Self { clock: 0 }.each(|_| Ok(time(|| ()))),
            Step::PoolTake => self.take_again(&mut pool(&KEEPS)?),
            Step::PoolGiveBack => self.give_back(&mut pool(&KEEPS)?),
            Step::PoolOffTake => self.take_again(&mut pool(&KEEPS_NOTHING)?),
            Step::SlabTake => self.take_again(&mut slab()?),
            Step::SlabGiveBack => self.give_back(&mut slab()?),
            Step::KmallocTake => self.take_again(&mut Kmalloc::<false>),
            Step::KmallocGiveBack => self.give_back(&mut Kmalloc::<false>),
            Step::KzallocTake => self.take_again(&mut Kmalloc::<true>),
            Step::PoolGrow => self.take_more(&mut pool(&KEEPS)?),
            Step::SlabGrow => self.take_more(&mut slab()?),
            Step::Hash => {
                let (key, seed) = (client(1), Seed::from(1));
                self.each(|_| {
                    Ok(time_of(&mut Hash {
                        key,
                        seed: &seed,
                        hash: 0,
                    }))
                })
            }
            Step::CacheHit => self.cached(1),
            // One more than the cache holds, in turns: the next one has always just been replaced.
            Step::CacheMiss => self.cached(CACHED as u32 + 1),
            Step::TableFind(place) => self.found::<false>(place),
            Step::TableFindLocked(place) => self.found::<true>(place),
            Step::ListFind(place) => {
                let mut lists = Lists::new(0)?;
                self.each(|_| lists.find(place))
            }
            Step::HlistFind(place) => {
                let mut lists = Lists::new(place)?;
                self.each(|_| lists.find_hashed(place))
            }
            Step::RewriteInPlace(payload) => self.rewritten(payload, |_| true),
            Step::RewriteCopiedData(payload) => {
                self.rewritten(payload, |packet| packet.skb().copy())
            }
            Step::RewriteCopy(payload) => self.rewritten(payload, Datagram::become_copy),
            Step::RewriteClone(payload) => self.rewritten(payload, Datagram::become_clone),
            Step::CloneOnly(payload) => {
                let mut packet = Datagram::new(payload)?;
                self.each(|_| packet.time_clone())
            }
            Step::Memcpy(size) => {
                let (mut to, mut from) = (KVec::new(), KVec::new());
                for byte in 0..size {
                    to.push(0, GFP_KERNEL)?;
                    from.push(byte as u8, GFP_KERNEL)?;
                }
                self.each(|_| time_memcpy(&mut to, &from))
            }
        }
    }

    // Measures a step many times, after it was done some times.
    fn each(&self, mut sample: impl FnMut(&ReadGuard) -> Result<u64>) -> Result<Times> {
        let mut samples = KVec::with_capacity(SAMPLES, GFP_KERNEL)?;
        as_in_a_hook(|guard| {
            for _ in 0..WARM_UP {
                sample(guard)?;
            }
            self.collect(&mut samples, || sample(guard))
        })
    }

    // Fills `samples`, for which there is room: so this allocates nothing.
    fn collect(
        &self,
        samples: &mut KVec<u64>,
        mut sample: impl FnMut() -> Result<u64>,
    ) -> Result<Times> {
        for _ in 0..SAMPLES {
            samples.push(sample()?.saturating_sub(self.clock), GFP_ATOMIC)?;
        }
        Times::of(samples).ok_or(EINVAL)
    }

    fn take_again(&self, from: &mut impl Allocator) -> Result<Times> {
        self.each(|_| {
            let (memory, ticks) = from.take()?;
            from.give_back(memory);
            Ok(ticks)
        })
    }

    fn give_back(&self, to: &mut impl Allocator) -> Result<Times> {
        self.each(|_| {
            let (memory, _) = to.take()?;
            Ok(to.give_back(memory))
        })
    }

    // From the first on, without a warm-up.
    fn take_more(&self, from: &mut impl Allocator) -> Result<Times> {
        let mut samples = KVec::with_capacity(SAMPLES, GFP_KERNEL)?;
        let mut taken = KVec::with_capacity(SAMPLES, GFP_KERNEL)?;
        let times = as_in_a_hook(|_| {
            self.collect(&mut samples, || {
                let (memory, ticks) = from.take()?;
                taken.push(memory, GFP_ATOMIC)?;
                Ok(ticks)
            })
        });
        as_in_a_hook(|_| {
            for memory in taken {
                from.give_back(memory);
            }
        });
        times
    }

    fn cached(&self, flows: u32) -> Result<Times> {
        let table = Flows::new(64, flows)?;
        let cache = Cache::new()?;
        cache.resize(CACHED);
        let mut turn = 0_u32;
        let mut look = |guard: &ReadGuard| {
            let mut lookup = CachedLookup {
                flows: &table,
                cache: &cache,
                guard,
                key: client(turn),
                found: core::ptr::null(),
                known: false,
            };
            turn = turn.wrapping_add(1) % flows;
            (time_of(&mut lookup), lookup.known)
        };
        // The first time it knows nothing.
        as_in_a_hook(|guard| look(guard));
        self.each(|guard| {
            let (ticks, known) = look(guard);
            (known == (flows == 1)).then_some(ticks).ok_or(ENOENT)
        })
    }

    fn found<const LOCKED: bool>(&self, place: u32) -> Result<Times> {
        // Of one bucket.
        let table = Flows::new(1, place)?;
        self.each(|guard| {
            let mut lookup = Lookup::<'_, LOCKED> {
                flows: &table,
                guard,
                key: table.at(guard, place).ok_or(ENOENT)?,
                found: core::ptr::null(),
            };
            let ticks = time_of(&mut lookup);
            (!lookup.found.is_null()).then_some(ticks).ok_or(ENOENT)
        })
    }

    // A packet is made ready to be written, and translated: there, and back the next time.
    fn rewritten(
        &self,
        payload: u32,
        mut prepare: impl FnMut(&mut Datagram) -> bool,
    ) -> Result<Times> {
        let mut packet = Datagram::new(payload)?;
        let original = client(0);
        let upstream = original.to(V4(0x0a00_0002_u32.to_be()), 8080_u16.to_be());
        let change = ChecksumFixup::between(&original, &upstream);
        let mut turn = [(upstream, change), (original, change.reverse())];
        self.each(|_| {
            turn.reverse();
            let [_, (to, by)] = &turn;
            let mut done = false;
            let ticks = time(|| {
                if !prepare(&mut packet) {
                    return;
                }
                let mut skb = packet.skb();
                let Some(headers) = skb.writable(V4::LENGTH + UDP_HEADER) else {
                    return;
                };
                let Some((network, transport)) = headers.split_at_mut_checked(V4::LENGTH) else {
                    return;
                };
                done = translate(network, transport, to, *by, Offload::None).is_some();
            });
            done.then_some(ticks).ok_or(EIO)
        })
    }
}

struct Hash<'a> {
    key: Key,
    seed: &'a Seed<3>,
    hash: u32,
}

impl Repeat for Hash<'_> {
    #[inline(always)]
    fn once(&mut self) {
        self.hash = self.key.hash(self.seed);
    }
}

/// As the hook looks a flow up.
struct Lookup<'g, const LOCKED: bool> {
    flows: &'g Flows,
    guard: &'g ReadGuard,
    key: Key,
    // The entry, by its key.
    found: *const Key,
}

impl<const LOCKED: bool> Repeat for Lookup<'_, LOCKED> {
    #[inline(always)]
    fn once(&mut self) {
        let Flows { buckets, seed, .. } = self.flows;
        let mut find = || {
            let hash = self.key.hash(seed) as usize;
            if let Some(found) = buckets.lookup(self.guard, hash, &self.key) {
                self.found = found.key();
            }
        };
        if LOCKED {
            buckets.with_lock(find);
        } else {
            find();
        }
    }
}

/// As it does with a cache.
struct CachedLookup<'g> {
    flows: &'g Flows,
    cache: &'g Cache<Key, Value>,
    guard: &'g ReadGuard,
    key: Key,
    found: *const Key,
    known: bool,
}

impl Repeat for CachedLookup<'_> {
    #[inline(always)]
    fn once(&mut self) {
        let Flows { buckets, seed, .. } = self.flows;
        let hash = self.key.hash(seed);
        let lookup = || buckets.lookup(self.guard, hash as usize, &self.key);
        let (found, known) = self.cache.lookup(self.guard, hash, &self.key, lookup);
        if let Some(found) = found {
            self.found = found.key();
        }
        self.known = known;
    }
}

/// How many flows the cache of [`Step::CacheHit`] holds: one set, all of which is one line.
const CACHED: usize = 4;

fn pool(keeps: &'static AtomicU32) -> Result<FlowPool> {
    NodePool::new(c_str!("mutex_micro_pool"), 64, keeps)
}

fn slab() -> Result<Slab> {
    Slab::new(c_str!("mutex_micro_slab"))
}

// What packets of one of many clients look like.
fn client(number: u32) -> Key {
    Tuple::new(
        Protocol::Udp,
        V4(0xc612_0001_u32.wrapping_add(number).to_be()),
        V4(0xcb00_7101_u32.to_be()),
        Ports::new(40_000_u16.to_be(), 80_u16.to_be()),
    )
}

/// A table of some flows.
struct Flows {
    buckets: Buckets<Key, Value, KVVec<Link<Key, Value>>, SpinLock>,
    seed: Seed<3>,
    pool: FlowPool,
}

impl Flows {
    fn new(buckets: usize, flows: u32) -> Result<Self> {
        // Memory for so many is aligned as heads have to be.
        let room = buckets.max(HEADS_ALIGN / size_of::<Link<Key, Value>>());
        let mut heads = KVVec::with_capacity(room, GFP_KERNEL)?;
        for _ in 0..buckets {
            heads.push(Link::null(), GFP_KERNEL)?;
        }
        let locks = Arc::new(lock::LockCounters::new()?, GFP_KERNEL)?;
        let table = Self {
            buckets: Buckets::new(heads, SpinLock::new(locks)?).ok_or(EINVAL)?,
            seed: 1.into(),
            pool: pool(&KEEPS)?,
        };
        const OWNER: Owner = Owner {
            context: 0,
            upstream: Owner::NOBODY.upstream,
        };
        for number in 0..flows {
            let original = client(number);
            let upstream = original.to(V4(0x0a00_0002_u32.to_be()), 8080_u16.to_be());
            let (keys, flow) = Flow::new(&original, &upstream, OWNER, 0);
            let hashes = keys.map(|key| key.hash(&table.seed) as usize);
            let node = Owned::new(&table.pool, keys, flow).ok_or(ENOMEM)?;
            as_in_a_hook(|guard| {
                table.buckets.edit(|editor| {
                    editor.publish(guard, node, hashes);
                });
            });
        }
        Ok(table)
    }

    // What is at a place of the first bucket, which is 1 for the first.
    fn at(&self, guard: &ReadGuard, place: u32) -> Option<Key> {
        let mut left = place;
        let mut key = None;
        self.buckets.edit(|editor| {
            editor.walk(guard, 0, |_, found| {
                left = left.wrapping_sub(1);
                if left == 0 {
                    key = Some(*found.key());
                }
            });
        });
        key
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        as_in_a_hook(|guard| {
            let buckets = self.buckets.count(guard);
            for bucket in 0..buckets {
                self.buckets.edit(|editor| {
                    editor.walk(guard, bucket, |editor, found| {
                        if Direction::from_index(found.direction) == Direction::Original {
                            let hashes = [0, 1].map(|direction| {
                                found.node.key(direction).hash(&self.seed) as usize
                            });
                            drop(editor.unlink(guard, &self.pool, found.node, hashes));
                        }
                    });
                });
            }
        });
    }
}
