// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a line of memory is: which variable, which slab cache, whose stack.

use std::ops::Range;

use mutexlab_lens_recording::recording::Line;
use mutexlab_lens_recording::settings::Caches;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::symbols::{Found, Owner, Symbols};
use mutexlab_protocol::memory_map::{Cache, MemoryMap, Slab};

/// The proxy's module.
pub const PROXY: &str = "mutex_proxy";
/// What the names of its slab caches begin with (module/proxy/flows.rs).
const PROXY_CACHES: &str = "mutex_";

// Where the kernel puts what, with page tables of four levels and without KASLR
// (Documentation/arch/x86/x86_64/mm.rst).
const USER: Range<u64> = 0..1 << 47;
const DIRECT_MAP: Range<u64> = 0xffff_8880_0000_0000..0xffff_c880_0000_0000;
const VMALLOC: Range<u64> = 0xffff_c900_0000_0000..0xffff_e900_0000_0000;
const VMEMMAP: Range<u64> = 0xffff_ea00_0000_0000..0xffff_eb00_0000_0000;
const CPU_ENTRY_AREA: Range<u64> = 0xffff_fe00_0000_0000..0xffff_fe80_0000_0000;

/// Bytes behind the static per-CPU variables of the kernel that the first chunk of per-CPU memory has for
/// modules and for what is allocated: PERCPU_MODULE_RESERVE and, for slabs and all else,
/// PERCPU_DYNAMIC_RESERVE of linux/percpu.h.
const FIRST_CHUNK: u64 = (8 + 28) << 10;

/// What kind of memory something is in.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A variable of the kernel or a module.
    Variable,
    /// A per-CPU variable, or per-CPU memory that was allocated.
    PerCpu,
    /// An object of a slab cache.
    Slab,
    /// A kernel stack.
    Stack,
    /// Memory from vmalloc().
    Vmalloc,
    /// Pages of memory that are none of these, such as packets' buffers.
    Pages,
    /// The kernel's own table of pages, struct page.
    PageTable,
    /// Of user space.
    User,
    /// What is not known.
    Unknown,
}

/// What a line is of.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What kind of memory.
    pub kind: Kind,
    /// Whether it is `mutex_proxy`'s.
    pub ours: bool,
    /// The variable, the slab cache with the place in its objects, or the thread; where nothing of this
    /// tells what a line is for, with the function that accessed it first.
    pub name: String,
}

/// Names lines.
pub struct Objects<'a> {
    symbols: &'a Symbols,
    map: &'a MemoryMap,
    /// By address.
    slabs: Vec<Slab>,
}

impl<'a> Objects<'a> {
    /// Of a guest with these symbols and this memory.
    pub fn new(symbols: &'a Symbols, map: &'a MemoryMap) -> Self {
        let mut slabs = map.slabs.clone();
        slabs.sort_by_key(|slab| slab.start);
        Self {
            symbols,
            map,
            slabs,
        }
    }

    /// What a line is of, by the first of its bytes that were used.
    pub fn identify(&self, line: &Line) -> Identity {
        let used = line.bytes_read | line.bytes_written;
        let start = line.address & !(Caches::LINE - 1);
        let address = start + u64::from(used.trailing_zeros()) % Caches::LINE;
        let not_ours = |kind, name: String| Identity {
            kind,
            ours: false,
            name,
        };
        if USER.contains(&address) {
            return not_ours(Kind::User, "user space".to_owned());
        }
        if let Some(name) = self.per_cpu_variable(address) {
            return not_ours(Kind::PerCpu, name);
        }
        match self.symbols.variable(address) {
            Found::Symbol(..) | Found::Section(_) => return self.variables(start, used),
            Found::Nothing => {}
        }
        if CPU_ENTRY_AREA.contains(&address) {
            return not_ours(Kind::PerCpu, "cpu_entry_area".to_owned());
        }
        if VMEMMAP.contains(&address) {
            return not_ours(Kind::PageTable, "struct page".to_owned());
        }
        let stacks = self.map.stacks.iter();
        let mut at = stacks.filter(|stack| {
            let range = stack.start..stack.start + stack.bytes;
            range.contains(&address)
        });
        if let Some(stack) = at.next() {
            return not_ours(Kind::Stack, format!("stack of {}", stack.thread));
        }
        if let Some((slab, cache)) = self.slab(address) {
            return self.slab_object(slab, cache, start, line.code);
        }
        if self.is_allocated_per_cpu(address) {
            return self.by_user(Kind::PerCpu, "per-CPU memory", line.code);
        }
        if let Some(area) = self.mapped(address) {
            let name = match area.by.as_str() {
                "" => "vmalloc".to_owned(),
                by => format!("vmalloc by {by}"),
            };
            return self.by_user(Kind::Vmalloc, &name, line.code);
        }
        if VMALLOC.contains(&address) {
            return self.by_user(Kind::Vmalloc, "vmalloc", line.code);
        }
        if DIRECT_MAP.contains(&address) {
            // Large kmalloc() is such, as the proxy's instance is; so are large buffers of packets.
            return self.by_user(Kind::Pages, "pages", line.code);
        }
        not_ours(Kind::Unknown, "unknown".to_owned())
    }

    /// All variables of which bytes of a line were used.
    fn variables(&self, start: u64, used: u64) -> Identity {
        let mut names: Vec<&str> = Vec::new();
        let mut ours = false;
        let bytes = (0..Caches::LINE).filter(|byte| used & 1 << byte != 0);
        for byte in bytes {
            let (name, owner) = match self.symbols.variable(start + byte) {
                Found::Symbol(symbol, owner) => (symbol.name.as_str(), owner),
                Found::Section(owner) => (
                    match owner {
                        Owner::Kernel => "kernel's data without a symbol",
                        Owner::Module(_) => "module's data without a symbol",
                    },
                    owner,
                ),
                Found::Nothing => continue,
            };
            ours |= *owner == Owner::Module(PROXY.to_owned());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Identity {
            kind: Kind::Variable,
            ours,
            name: names.join(", "),
        }
    }

    /// A per-CPU variable of the kernel's; the same on all CPUs.
    fn per_cpu_variable(&self, address: u64) -> Option<String> {
        let range = self.symbols.per_cpu_range();
        let mut of_cpus = self.map.per_cpu.iter();
        let linked = of_cpus.find_map(|offset| {
            let linked = address.wrapping_sub(*offset);
            range.contains(&linked).then_some(linked)
        })?;
        let symbol = self.symbols.per_cpu_variable(linked);
        Some(
            symbol.map_or("per-CPU data without a symbol".to_owned(), |symbol| {
                symbol.name.clone()
            }),
        )
    }

    /// Whether it is of per-CPU memory that was allocated: behind the variables, or in a chunk of its own.
    fn is_allocated_per_cpu(&self, address: u64) -> bool {
        let end = self.symbols.per_cpu_range().end;
        let behind = self.map.per_cpu.iter().any(|offset| {
            let start = end.wrapping_add(*offset);
            (start..start.wrapping_add(FIRST_CHUNK)).contains(&address)
        });
        let area = self.mapped(address);
        behind || area.is_some_and(|area| area.by == "pcpu_get_vm_areas")
    }

    fn mapped(&self, address: u64) -> Option<&mutexlab_protocol::memory_map::Mapped> {
        let mut areas = self.map.mapped.iter();
        areas.find(|area| (area.start..area.end).contains(&address))
    }

    fn slab(&self, address: u64) -> Option<(Slab, &Cache)> {
        let behind = self.slabs.partition_point(|slab| slab.start <= address);
        let slab = *self.slabs[..behind].last()?;
        let cache = self.map.caches.get(slab.cache)?;
        (address < slab.start + slab.bytes).then_some((slab, cache))
    }

    fn slab_object(&self, slab: Slab, cache: &Cache, start: u64, code: u64) -> Identity {
        // Caches of kmalloc() hold anything.
        if cache.name.starts_with("kmalloc-") {
            return self.by_user(Kind::Slab, &cache.name, code);
        }
        let object = u64::from(cache.object.max(1));
        // Of objects that are no whole number of lines, a line is at another place in each.
        let name = if object.is_multiple_of(Caches::LINE) && object > Caches::LINE {
            let offset = start.saturating_sub(slab.start) % object;
            format!("{} +{offset}", cache.name)
        } else {
            cache.name.clone()
        };
        Identity {
            kind: Kind::Slab,
            ours: cache.name.starts_with(PROXY_CACHES),
            name,
        }
    }

    /// Memory that could be anybody's is taken for the proxy's if its code was the first to access it.
    fn by_user(&self, kind: Kind, what: &str, code: u64) -> Identity {
        let (by, ours) = self.user(code);
        Identity {
            kind,
            ours,
            name: format!("{what}, first used by {by}"),
        }
    }

    /// The function that an instruction is of, and whether it is the proxy's.
    fn user(&self, code: u64) -> (String, bool) {
        match self.symbols.function(code) {
            Found::Symbol(symbol, owner) => (
                super::names::short(&symbol.name),
                *owner == Owner::Module(PROXY.to_owned()),
            ),
            _ => ("something unknown".to_owned(), false),
        }
    }
}
