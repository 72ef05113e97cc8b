// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's memory in slabs, by its own figures.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};

const PAGE: u64 = 4096;

/// What packets are in: their descriptors, and the data of small ones and of those of an Ethernet frame.
const PACKET_CACHES: [&str; 4] = [
    "skbuff_head_cache",
    "skbuff_fclone_cache",
    "skbuff_small_head",
    "kmalloc-2k",
];

/// Takes what CPUs hold back of freed memory for packets. How much that is depends on all that happened
/// since the machine began to boot, and decides how often an allocation takes the longer way.
pub fn empty_packet_caches() -> Result<()> {
    for name in PACKET_CACHES {
        // kmem_cache_shrink().
        let path = Path::new("/sys/kernel/slab").join(name).join("shrink");
        fs::write(&path, "1").with_context(|| format!("cannot write to {}", path.display()))?;
    }
    Ok(())
}

/// How a cache of slabs puts its objects into pages. How many of them it has is in /proc/slabinfo,
/// but of debug kernels only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slabs {
    /// Objects in one slab.
    objects: u64,
    /// Bytes of one slab.
    bytes: u64,
}

impl Slabs {
    /// Those of the cache called `name`.
    pub fn of(name: &str) -> Result<Self> {
        let directory = Path::new("/sys/kernel/slab").join(name);
        let read = |file: &str| -> Result<u64> {
            let path = directory.join(file);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            text.trim_end()
                .parse()
                .with_context(|| format!("{} says {text:?}", path.display()))
        };
        let (objects, order) = (read("objs_per_slab")?, read("order")?);
        ensure!(
            objects > 0 && order < 16,
            "{} has slabs of {objects} objects in 2^{order} pages",
            directory.display()
        );
        let bytes = PAGE << order;
        Ok(Self { objects, bytes })
    }

    /// Bytes of the slabs that so many objects fill; what stays free in a slab is theirs, too.
    pub fn hold(&self, objects: u64) -> u64 {
        objects.div_ceil(self.objects) * self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_whole() {
        // 21 objects of 192 bytes leave 64 bytes free.
        let slabs = Slabs {
            objects: 21,
            bytes: PAGE,
        };
        assert_eq!(slabs.hold(0), 0);
        assert_eq!(slabs.hold(1), PAGE);
        assert_eq!(slabs.hold(21), PAGE);
        assert_eq!(slabs.hold(22), 2 * PAGE);
    }
}
