// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `/dev/mutex_probe`: what single steps take, the module's own and the kernel's for the same purpose.
//!
//! `ioctl` with [`IOC_MICRO`] measures each [`Step`] of [`PLAN`] many times, with interrupts off, and
//! fills in [`Times`] for each, in that order.

use super::bytes::{Reader, Writer};

/// One operation, with what it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the clock's own cost, which is already taken off all others.
    Nothing,

    /// Memory for a flow from the pool, where one has just been given back.
    PoolTake,
    /// That memory given back.
    PoolGiveBack,
    /// As `PoolTake` with `perf_enable_pool=0`: by kmalloc(), made fit for a flow.
    PoolOffTake,
    /// As many bytes from a slab cache of their own.
    SlabTake,
    /// And given back.
    SlabGiveBack,
    /// As many bytes from kmalloc().
    KmallocTake,
    /// And given back by kfree().
    KmallocGiveBack,
    /// As many bytes from kzalloc(): memory for a flow must not hold what was there before.
    KzallocTake,
    /// Memory for many flows from the pool, while none is given back.
    PoolGrow,
    /// The same from a slab cache. Not by kmalloc(), whose caches have what others left.
    SlabGrow,

    /// The hash of a tuple of IPv4, by itself.
    Hash,
    /// A flow that this CPU's cache knows, hash included.
    CacheHit,
    /// A flow that the cache does not know, and that is the first of its bucket: looked for in the cache, found
    /// in the table, and put into the cache.
    CacheMiss,
    /// A flow in the table, at this place of its bucket, hash included.
    TableFind(u32),
    /// As `TableFind` with `perf_enable_rcu=0`: under the table's lock.
    TableFindLocked(u32),
    /// An entry of a `list_head`, at this place, by list_for_each_entry().
    ListFind(u32),
    /// An entry of a hash table of `hlist_head`, at this place of its bucket, by jhash_3words() and
    /// hlist_for_each_entry_rcu().
    HlistFind(u32),

    /// The headers of a packet of so many bytes of payload, rewritten where they are.
    RewriteInPlace(u32),
    /// The same with `perf_enable_zero_copy=0`: in a copy of the packet's memory.
    RewriteCopiedData(u32),
    /// The same in a copy by skb_copy(), the packet itself being freed.
    RewriteCopy(u32),
    /// The same in a skb_clone() that pskb_expand_head() gave memory of its own, the packet itself
    /// being freed.
    RewriteClone(u32),
    /// skb_clone() alone, which leaves nothing that may be written.
    CloneOnly(u32),
    /// So many bytes by memcpy().
    Memcpy(u32),
}

impl Step {
    /// Its name, without what it depends on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::PoolTake => "pool-take",
            Self::PoolGiveBack => "pool-give-back",
            Self::PoolOffTake => "pool-off-take",
            Self::SlabTake => "slab-take",
            Self::SlabGiveBack => "slab-give-back",
            Self::KmallocTake => "kmalloc-take",
            Self::KmallocGiveBack => "kmalloc-give-back",
            Self::KzallocTake => "kzalloc-take",
            Self::PoolGrow => "pool-grow",
            Self::SlabGrow => "slab-grow",
            Self::Hash => "hash",
            Self::CacheHit => "cache-hit",
            Self::CacheMiss => "cache-miss",
            Self::TableFind(_) => "table-find",
            Self::TableFindLocked(_) => "table-find-locked",
            Self::ListFind(_) => "list-find",
            Self::HlistFind(_) => "hlist-find",
            Self::RewriteInPlace(_) => "rewrite-in-place",
            Self::RewriteCopiedData(_) => "rewrite-copied-data",
            Self::RewriteCopy(_) => "rewrite-copy",
            Self::RewriteClone(_) => "rewrite-clone",
            Self::CloneOnly(_) => "clone-only",
            Self::Memcpy(_) => "memcpy",
        }
    }

    /// What it depends on: a place in a bucket or list, or bytes.
    pub const fn size(self) -> Option<u32> {
        match self {
            Self::TableFind(size)
            | Self::TableFindLocked(size)
            | Self::ListFind(size)
            | Self::HlistFind(size)
            | Self::RewriteInPlace(size)
            | Self::RewriteCopiedData(size)
            | Self::RewriteCopy(size)
            | Self::RewriteClone(size)
            | Self::CloneOnly(size)
            | Self::Memcpy(size) => Some(size),
            _ => None,
        }
    }
}

/// All steps, in the order in which they are measured.
pub const PLAN: [Step; 51] = {
    use Step::*;
    [
        Nothing,
        PoolTake,
        PoolGiveBack,
        PoolOffTake,
        SlabTake,
        SlabGiveBack,
        KmallocTake,
        KmallocGiveBack,
        KzallocTake,
        PoolGrow,
        SlabGrow,
        Hash,
        CacheHit,
        CacheMiss,
        TableFind(1),
        TableFind(2),
        TableFind(3),
        TableFind(4),
        TableFind(8),
        TableFindLocked(1),
        ListFind(1),
        ListFind(2),
        ListFind(8),
        ListFind(64),
        ListFind(512),
        HlistFind(1),
        HlistFind(2),
        HlistFind(3),
        HlistFind(4),
        HlistFind(8),
        RewriteInPlace(64),
        RewriteInPlace(512),
        RewriteInPlace(1400),
        RewriteCopiedData(64),
        RewriteCopiedData(256),
        RewriteCopiedData(512),
        RewriteCopiedData(1400),
        RewriteCopy(64),
        RewriteCopy(256),
        RewriteCopy(512),
        RewriteCopy(1400),
        RewriteClone(64),
        RewriteClone(512),
        RewriteClone(1400),
        CloneOnly(64),
        CloneOnly(512),
        CloneOnly(1400),
        Memcpy(64),
        Memcpy(256),
        Memcpy(512),
        Memcpy(1400),
    ]
};

/// Bytes of a flow of IPv4, for which other allocators are asked as well.
pub const FLOW_SIZE: usize = 192;
/// The last place at which [`Step::ListFind`] looks.
pub const LIST_LENGTH: usize = 512;

/// Fills in [`Times`] for each step of [`PLAN`].
pub const IOC_MICRO: u32 = (2 << 30) | ((SIZE as u32) << 16) | ((b'M' as u32) << 8) | 2;
/// Bytes of all of them.
pub const SIZE: usize = PLAN.len() * Times::SIZE;

/// What a step took. Times are TSC ticks, the clock's own cost taken off; with `-icount shift=0` a
/// tick is an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How often it was measured.
    pub samples: u64,
    /// The least.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// The most.
    pub max: u64,
    /// All together.
    pub sum: u64,
}

impl Times {
    /// Size in bytes.
    pub const SIZE: usize = 40;

    /// Of all `samples`, which get sorted; `None` if there are none.
    pub fn of(samples: &mut [u64]) -> Option<Self> {
        sort(samples);
        Some(Self {
            samples: samples.len() as u64,
            min: *samples.first()?,
            median: *samples.get(samples.len().saturating_sub(1) / 2)?,
            max: *samples.last()?,
            sum: samples
                .iter()
                .fold(0, |sum, &one| u64::wrapping_add(sum, one)),
        })
    }

    /// Reads what one step took; `None` if there is too little to read.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            samples: reader.u64()?,
            min: reader.u64()?,
            median: reader.u64()?,
            max: reader.u64()?,
            sum: reader.u64()?,
        })
    }

    /// Writes it; `None` if it does not fit.
    pub fn encode(&self, writer: &mut Writer<'_>) -> Option<()> {
        for field in [self.samples, self.min, self.median, self.max, self.sum] {
            writer.put(&field.to_le_bytes())?;
        }
        Some(())
    }
}

// By insertion, since there are few. core's sort can panic, which modules must not.
fn sort(samples: &mut [u64]) {
    for end in 1..samples.len() {
        let mut at = end;
        while let Some([.., one, next]) = samples.get_mut(..=at) {
            if *one <= *next {
                break;
            }
            core::mem::swap(one, next);
            at = at.wrapping_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_all_samples() {
        let times = Times::of(&mut [9, 1, 5, 7]).unwrap();
        let expected = Times {
            samples: 4,
            min: 1,
            median: 5,
            max: 9,
            sum: 22,
        };
        assert_eq!(times, expected);
        assert_eq!(Times::of(&mut []), None);
        let mut bytes = [0; Times::SIZE];
        times.encode(&mut Writer::new(&mut bytes)).unwrap();
        assert_eq!(Times::decode(&mut Reader::new(&bytes)), Some(times));
        assert_eq!(Times::decode(&mut Reader::new(&bytes[1..])), None);
    }

    #[test]
    fn each_step_is_told_from_the_others_and_all_fit_an_ioctl() {
        // _IOC_SIZEBITS of asm-generic/ioctl.h.
        const { assert!(SIZE < 1 << 14) };
        for (index, step) in PLAN.iter().enumerate() {
            let same = |other: &Step| (other.name(), other.size()) == (step.name(), step.size());
            assert!(!PLAN[..index].iter().any(same), "{step:?} twice");
        }
    }
}
