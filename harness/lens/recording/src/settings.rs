// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the plugin is told, as a JSON file whose path is its argument `settings=`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// An existing directory; the window numbered `n`, from 0, becomes its file `n.json`, a
    /// [`Recording`](crate::recording::Recording), written when the window closes.
    pub directory: PathBuf,
    /// The machine's caches.
    pub caches: Caches,
}

/// The caches of the modelled machine: L1I, L1D and L2 are each CPU's own, the last level is shared. All
/// are physically indexed, replace the least recently used line, and allocate on writes. CPUs keep
/// their caches coherent by invalidation (MESI).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caches {
    /// First level, instructions.
    pub l1i: Cache,
    /// First level, data.
    pub l1d: Cache,
    /// Second level.
    pub l2: Cache,
    /// The last level, shared by all CPUs.
    pub last: Cache,
}

impl Caches {
    /// Bytes of a cache line, of all levels.
    pub const LINE: u64 = 64;
}

/// Size and shape of one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Bytes.
    pub size: u64,
    /// Lines in a set.
    pub ways: u32,
}

impl Default for Caches {
    /// Of the sizes that a server core of today has (Intel Ice Lake SP; Intel 64 and IA-32 Architectures
    /// Optimization Reference Manual, 2.2), with 1.5 MiB of the last level for each of 16 cores,
    /// rounded to a power of two. The first level is fully associative, where that core has 8 and 12 ways: which of
    /// a packet's few lines fall into one set is decided by where the allocators happen to put them, and is another
    /// matter in each boot.
    fn default() -> Self {
        let fully = |size| Cache {
            size,
            ways: (size / Self::LINE) as u32,
        };
        Self {
            l1i: fully(32 << 10),
            l1d: fully(48 << 10),
            l2: Cache {
                size: 1280 << 10,
                ways: 20,
            },
            last: Cache {
                size: 32 << 20,
                ways: 16,
            },
        }
    }
}
