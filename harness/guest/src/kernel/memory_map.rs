// SPDX-License-Identifier: MIT OR Apache-2.0

//! Looks what lies where in this guest's memory.

use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use mutex_abi::bytes::Reader;
use mutex_abi::memory::{Area, Header, Use, DEVICE};

use super::device;
use mutexlab_protocol::memory_map::{Cache, Mapped, MemoryMap, Slab, Stack};
use mutexlab_protocol::GuestCell;

const MODULES: &str = "/sys/module";
const VMALLOC: &str = "/proc/vmallocinfo";
/// What decides whether [`VMALLOC`] tells addresses (kernel/sysctl.rst): 1 shows them to whoever has
/// CAP_SYSLOG, 0 shows hashes of them.
const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";

/// The map of a cell that the lens looks on; `None` for others.
pub fn of(cell: &GuestCell) -> Result<Option<Box<MemoryMap>>> {
    cell.lens.then(|| look().map(Box::new)).transpose()
}

/// Asks the kernel and the probe's module, which must be loaded.
fn look() -> Result<MemoryMap> {
    let mut map = MemoryMap {
        modules: modules()?,
        mapped: mapped()?,
        ..MemoryMap::default()
    };
    let device = device::open(DEVICE)?;
    let bytes = device::read(&device).with_context(|| format!("cannot read {DEVICE}"))?;
    read_areas(&bytes, &mut map)
        .with_context(|| format!("what {DEVICE} says is cut short, or of another version"))?;
    Ok(map)
}

/// Takes in what the device says; `None` if it is not understood.
fn read_areas(bytes: &[u8], map: &mut MemoryMap) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let header = Header::decode(&mut reader)?;
    for _ in 0..header.cpus {
        map.per_cpu.push(reader.u64()?);
    }
    let mut indices = BTreeMap::new();
    while reader.remaining() > 0 {
        let area = Area::decode(&mut reader)?;
        let name = String::from_utf8_lossy(area.name()).into_owned();
        match area.used {
            Use::Stack => map.stacks.push(Stack {
                start: area.address,
                bytes: area.bytes,
                thread: name,
            }),
            Use::Slab => {
                // Names are not unique: DMA caches and those of modules may share them.
                let cache = match indices.entry((name, area.object)) {
                    Entry::Occupied(index) => *index.get(),
                    Entry::Vacant(vacant) => {
                        let (name, object) = vacant.key().clone();
                        map.caches.push(Cache { name, object });
                        *vacant.insert(map.caches.len() - 1)
                    }
                };
                map.slabs.push(Slab {
                    start: area.address,
                    bytes: area.bytes,
                    cache,
                });
            }
        }
    }
    Some(())
}

/// The sections of every module that is loaded. What is built in has none.
pub fn modules() -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
    let mut modules = BTreeMap::new();
    let entries = fs::read_dir(MODULES).with_context(|| format!("cannot list {MODULES}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {MODULES}"))?;
        let directory = entry.path().join("sections");
        if directory.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            modules.insert(name, sections(&directory)?);
        }
    }
    Ok(modules)
}

fn sections(directory: &Path) -> Result<BTreeMap<String, u64>> {
    let mut sections = BTreeMap::new();
    let list = || format!("cannot list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(list)? {
        let path = entry.with_context(list)?.path();
        let read = || format!("cannot read an address from {}", path.display());
        let text = fs::read_to_string(&path).with_context(read)?;
        let address = text.trim().trim_start_matches("0x");
        let address = u64::from_str_radix(address, 16).with_context(read)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        sections.insert(name.into_owned(), address);
    }
    Ok(sections)
}

fn mapped() -> Result<Vec<Mapped>> {
    let cannot = |path| format!("cannot use {path}");
    let before = fs::read_to_string(KPTR_RESTRICT).with_context(|| cannot(KPTR_RESTRICT))?;
    fs::write(KPTR_RESTRICT, "1").with_context(|| cannot(KPTR_RESTRICT))?;
    let text = fs::read_to_string(VMALLOC).with_context(|| cannot(VMALLOC));
    fs::write(KPTR_RESTRICT, before).with_context(|| cannot(KPTR_RESTRICT))?;
    Ok(text?.lines().filter_map(Mapped::parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(used: Use, address: u64, object: u32, name: &[u8]) -> Area {
        let mut filled = [0; Area::NAME];
        filled[..name.len()].copy_from_slice(name);
        Area {
            address,
            bytes: 4096,
            object,
            used,
            name: filled,
        }
    }

    #[test]
    fn areas_are_sorted_by_what_they_are() {
        let mut bytes = Header { cpus: 2 }.encode().to_vec();
        bytes.extend([1_u64, 2].iter().flat_map(|offset| offset.to_le_bytes()));
        for area in [
            area(Use::Slab, 0x1000, 192, b"flows"),
            area(Use::Slab, 0x3000, 64, b"kmalloc-64"),
            area(Use::Slab, 0x2000, 192, b"flows"),
            area(Use::Stack, 0x4000, 4096, b"ksoftirqd/0"),
        ] {
            bytes.extend(area.encode());
        }
        let mut map = MemoryMap::default();
        read_areas(&bytes, &mut map).unwrap();
        assert_eq!(map.per_cpu, [1, 2]);
        let names: Vec<_> = map.caches.iter().map(|cache| cache.name.as_str()).collect();
        assert_eq!(names, ["flows", "kmalloc-64"]);
        let of: Vec<_> = map.slabs.iter().map(|slab| slab.cache).collect();
        assert_eq!(of, [0, 1, 0]);
        assert_eq!(map.stacks[0].thread, "ksoftirqd/0");
        assert!(read_areas(&bytes[..bytes.len() - 1], &mut MemoryMap::default()).is_none());
    }
}
