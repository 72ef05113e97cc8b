// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the guest's memory lies in QEMU's.
//!
//! Of data QEMU tells the physical address, but of code only where it lies in its own memory
//! (`qemu_plugin_insn_haddr()`). The guest's memory is one mapping there, since a guest has no more
//! than the machine places below 4 GiB; so the distance from its start is the physical address.

use std::fs;
use std::ops::Range;

/// A mapping of this process's memory in which a guest's may lie.
#[derive(Clone, Debug, Default)]
pub struct Ram(Vec<Range<u64>>);

/// Smaller mappings are not the guest's memory but its firmware and the like.
const LEAST_SIZE: u64 = 64 << 20;

/// Added to addresses whose place in the guest's memory is not known: beyond all physical ones.
const ELSEWHERE: u64 = 1 << 63;

impl Ram {
    /// Looks at this process's mappings as they are now.
    pub fn find() -> Self {
        Self(mappings(
            &fs::read_to_string("/proc/self/maps").unwrap_or_default(),
        ))
    }

    /// The physical address of what lies at `host` in this process; if that is not in the guest's
    /// memory, an address of its own.
    pub fn physical(&self, host: u64) -> u64 {
        match self.0.iter().find(|range| range.contains(&host)) {
            Some(range) => host - range.start,
            None => host | ELSEWHERE,
        }
    }
}

/// The large mappings that can be written to, by a text as in `/proc/PID/maps` (proc(5)).
fn mappings(text: &str) -> Vec<Range<u64>> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            let range = number(start)?..number(end)?;
            let is_writable = words.next()?.starts_with("rw-");
            (is_writable && range.end - range.start >= LEAST_SIZE).then_some(range)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0040000000 rw-p 00000000 00:00 0 
7f0040000000-7f0040001000 ---p 00000000 00:00 0 
7f0050000000-7f0058000000 rwxp 00000000 00:00 0 
55d4ebdbf000-55d4ebddd000 rw-p 00000000 00:00 0                          [heap]
";

    #[test]
    fn the_large_mapping_without_code_is_the_guests_memory() {
        let ram = Ram(mappings(MAPS));
        assert_eq!(ram.physical(0x7f00_0010_0040), 0x10_0040);
        // Translated code, and the heap.
        assert_eq!(ram.physical(0x7f00_5000_0040), 0x7f00_5000_0040 | ELSEWHERE);
        assert_eq!(ram.physical(0x55d4_ebdb_f000), 0x55d4_ebdb_f000 | ELSEWHERE);
    }
}
