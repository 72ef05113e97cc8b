// SPDX-License-Identifier: MIT OR Apache-2.0

//! What lay where in a guest's memory while something was measured: from the agent to the host.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All that the guest's kernel tells of its memory. Addresses are virtual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MemoryMap {
    /// The loaded modules: the addresses of the sections of each, by their names.
    pub modules: BTreeMap<String, BTreeMap<String, u64>>,
    /// For each possible CPU what is between a per-CPU variable's symbol and its address there.
    pub per_cpu: Vec<u64>,
    /// Areas of vmalloc()'s.
    pub mapped: Vec<Mapped>,
    /// The slab caches that have slabs.
    pub caches: Vec<Cache>,
    /// Their slabs.
    pub slabs: Vec<Slab>,
    /// The kernel stacks of threads.
    pub stacks: Vec<Stack>,
}

/// An area of vmalloc()'s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Mapped {
    /// Its first byte.
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
    /// The function that asked for it; empty if that is not known.
    pub by: String,
}

/// A slab cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Cache {
    /// Its name.
    pub name: String,
    /// Bytes from one object to the next.
    pub object: u32,
}

/// A slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Slab {
    /// Its first byte.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    /// Its cache's index in [`MemoryMap::caches`].
    pub cache: usize,
}

/// A kernel stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Stack {
    /// Its first byte, which is used last.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
    /// The thread's name.
    pub thread: String,
}

impl Mapped {
    /// Reads a line of /proc/vmallocinfo; `None` if it tells of no address.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        // The size, and then the caller as `%pS` prints it.
        let caller = words.nth(1).unwrap_or_default();
        let by = caller.split_once('+').map_or("", |(name, _)| name);
        Some(Self {
            start: address(start)?,
            end: address(end)?,
            by: by.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_read_with_those_who_asked_for_them() {
        let area = |line| Mapped::parse(line).unwrap();
        let full = area(
            "0xffffc90000002000-0xffffc90000005000   12288 pcpu_get_vm_areas+0x0/0x10c0 vmalloc",
        );
        assert_eq!(full.start, 0xffff_c900_0000_2000);
        assert_eq!(full.end, 0xffff_c900_0000_5000);
        assert_eq!(full.by, "pcpu_get_vm_areas");
        assert_eq!(area("0xffff01-0xffff02   4096 unpurged vm_area").by, "");
        assert_eq!(area("0xffff01-0xffff02   4096").by, "");
        assert_eq!(Mapped::parse("(____ptrval____)-(____ptrval____) 1"), None);
    }
}
