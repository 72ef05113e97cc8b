// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is at an address: functions and data of the kernel and of modules.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use object::{elf, Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind};

/// Where per-CPU variables of the kernel are in its file: their addresses there are those of no CPU.
const PER_CPU: &str = ".data..percpu";

/// Whose code or data something is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The kernel itself.
    Kernel,
    /// The module of this name.
    Module(String),
}

/// A function, or a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name; Rust's are demangled.
    pub name: String,
    /// Whose it is: an index of [`Symbols`].
    owner: usize,
    start: u64,
    end: u64,
}

/// What was loaded from one file: the ranges of addresses of its sections.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loaded {
    owner: Owner,
    code: Vec<Range<u64>>,
    data: Vec<Range<u64>>,
}

/// The symbols of the kernel and of modules.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    loaded: Vec<Loaded>,
    functions: Vec<Symbol>,
    variables: Vec<Symbol>,
    per_cpu: Vec<Symbol>,
    per_cpu_range: Range<u64>,
}

/// What was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This symbol.
    Symbol(&'a Symbol, &'a Owner),
    /// No symbol, but a section of this one.
    Section(&'a Owner),
    /// Nothing.
    Nothing,
}

impl Symbols {
    /// Adds those of a kernel that runs where it was linked to run (`nokaslr`), from the file `vmlinux`.
    ///
    /// # Errors
    /// If the file cannot be read or has no symbols.
    pub fn add_kernel(&mut self, vmlinux: &Path) -> Result<()> {
        self.add(vmlinux, Owner::Kernel, |_, address| Some(address))
    }

    /// Adds those of a module from its file; `sections` tells where each section was loaded.
    ///
    /// # Errors
    /// If the file cannot be read or has no symbols.
    pub fn add_module(
        &mut self,
        file: &Path,
        name: &str,
        sections: &BTreeMap<String, u64>,
    ) -> Result<()> {
        let place = |section: &str, _| {
            // Gone when the module has been initialised; others may be there by now.
            let gone = section.starts_with(".init");
            sections.get(section).copied().filter(|_| !gone)
        };
        self.add(file, Owner::Module(name.to_owned()), place)
    }

    fn add(
        &mut self,
        path: &Path,
        owner: Owner,
        place: impl Fn(&str, u64) -> Option<u64>,
    ) -> Result<()> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: ElfFile64<'_> = ElfFile64::parse(&*bytes)
            .with_context(|| format!("{} is no ELF file of 64 bits", path.display()))?;
        let index = self.loaded.len();
        let mut loaded = Loaded {
            owner,
            code: Vec::new(),
            data: Vec::new(),
        };
        // For each section that is there, what to add to its symbols' addresses, and its end.
        let mut sections = HashMap::new();
        for section in file.sections() {
            let name = section.name().unwrap_or_default();
            let flags = section.elf_section_header().sh_flags(Endianness::Little);
            let has = |flag: elf::SectionFlags| flags.0 & flag.0 != 0;
            let is_code = has(elf::SHF_EXECINSTR);
            if !has(elf::SHF_ALLOC) || section.size() == 0 {
                continue;
            }
            let Some(start) = place(name, section.address()) else {
                continue;
            };
            let range = start..start + section.size();
            if name == PER_CPU {
                self.per_cpu_range = range.clone();
            } else if is_code {
                loaded.code.push(range.clone());
            } else {
                loaded.data.push(range.clone());
            }
            // A symbol's address is within its section where a file has yet to be linked.
            let linked = file.elf_header().e_type(Endianness::Little) != elf::ET_REL;
            let moved = start.wrapping_sub(if linked { section.address() } else { 0 });
            sections.insert(
                section.index(),
                (moved, range.end, is_code, name == PER_CPU),
            );
        }
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        for symbol in file.symbols() {
            let Some(&(moved, section_end, is_code, per_cpu)) = symbol
                .section_index()
                .and_then(|index| sections.get(&index))
            else {
                continue;
            };
            let name = symbol.name().unwrap_or_default();
            if matches!(symbol.kind(), SymbolKind::Section | SymbolKind::File) || is_no_name(name) {
                continue;
            }
            let start = symbol.address().wrapping_add(moved);
            let which = match (is_code, per_cpu) {
                (true, _) => 0,
                (false, false) => 1,
                (false, true) => 2,
            };
            found[which].push(Candidate {
                start,
                size: symbol.size(),
                section_end,
                global: symbol.is_global(),
                name: name.to_owned(),
            });
        }
        anyhow::ensure!(
            !found[0].is_empty(),
            "{} has no symbols of functions: was it stripped?",
            path.display()
        );
        let lists = [&mut self.functions, &mut self.variables, &mut self.per_cpu];
        for (list, candidates) in lists.into_iter().zip(found) {
            list.extend(chosen(candidates, index));
            list.sort_by_key(|symbol| symbol.start);
        }
        self.loaded.push(loaded);
        Ok(())
    }

    /// The function that an instruction is of.
    pub fn function(&self, address: u64) -> Found<'_> {
        self.find(&self.functions, address, |loaded| &loaded.code)
    }

    /// The variable that an address is of.
    pub fn variable(&self, address: u64) -> Found<'_> {
        self.find(&self.variables, address, |loaded| &loaded.data)
    }

    /// The kernel's per-CPU variable of the address that its symbol has.
    pub fn per_cpu_variable(&self, address: u64) -> Option<&Symbol> {
        lookup(&self.per_cpu, address)
    }

    /// The addresses of the symbols of per-CPU variables.
    pub fn per_cpu_range(&self) -> Range<u64> {
        self.per_cpu_range.clone()
    }

    fn find<'a>(
        &'a self,
        symbols: &'a [Symbol],
        address: u64,
        sections: impl Fn(&Loaded) -> &[Range<u64>],
    ) -> Found<'a> {
        if let Some(symbol) = lookup(symbols, address) {
            return Found::Symbol(symbol, &self.loaded[symbol.owner].owner);
        }
        let there = |loaded: &&Loaded| {
            let ranges = sections(loaded);
            ranges.iter().any(|range| range.contains(&address))
        };
        let loaded = self.loaded.iter().find(there);
        loaded.map_or(Found::Nothing, |loaded| Found::Section(&loaded.owner))
    }
}

impl Symbol {
    /// How far behind the symbol's address another is.
    pub fn offset(&self, address: u64) -> u64 {
        address.wrapping_sub(self.start)
    }
}

/// What a file is said to hold, in tests: names, addresses and sizes.
#[cfg(any(test, feature = "sample"))]
pub(super) struct Synthetic<'a> {
    pub owner: Owner,
    pub functions: &'a [(&'a str, u64, u64)],
    pub variables: &'a [(&'a str, u64, u64)],
}

#[cfg(any(test, feature = "sample"))]
impl Symbols {
    /// Symbols without a file. All functions of one are in one section, and all variables; each has 256
    /// bytes behind its last symbol.
    pub(super) fn synthetic(files: &[Synthetic<'_>]) -> Self {
        let mut symbols = Self::default();
        for (index, file) in files.iter().enumerate() {
            let section = |list: &[(&str, u64, u64)]| {
                let start = list.iter().map(|&(_, start, _)| start).min().unwrap();
                let end = list
                    .iter()
                    .map(|&(_, start, size)| start + size)
                    .max()
                    .unwrap();
                start..end + 256
            };
            symbols.loaded.push(Loaded {
                owner: file.owner.clone(),
                code: vec![section(file.functions)],
                data: vec![section(file.variables)],
            });
            let lists = [
                (&mut symbols.functions, file.functions),
                (&mut symbols.variables, file.variables),
            ];
            for (list, given) in lists {
                list.extend(given.iter().map(|&(name, start, size)| Symbol {
                    name: name.to_owned(),
                    owner: index,
                    start,
                    end: start + size,
                }));
                list.sort_by_key(|symbol| symbol.start);
            }
        }
        symbols
    }
}

/// A symbol of a file.
struct Candidate {
    start: u64,
    /// 0 for a label.
    size: u64,
    section_end: u64,
    global: bool,
    name: String,
}

impl Candidate {
    /// Which of several names of one address is told: the one that callers use.
    fn rank(&self) -> (bool, bool, usize) {
        let alias = self.name.starts_with("__pi_") || self.name.starts_with("__cfi_");
        (alias, !self.global, self.name.len())
    }
}

/// What compilers and linkers leave that names nothing.
fn is_no_name(name: &str) -> bool {
    name.is_empty() || name.starts_with(".L") || name.starts_with('$')
}

/// One symbol for each address; labels (of assembly) only where there is nothing that has a size.
/// Without a size a symbol ends where the next one begins.
fn chosen(mut candidates: Vec<Candidate>, owner: usize) -> Vec<Symbol> {
    candidates.sort_by(|a, b| {
        let key = |candidate: &Candidate| (candidate.start, candidate.size == 0, candidate.rank());
        key(a).cmp(&key(b))
    });
    candidates.dedup_by_key(|candidate| candidate.start);
    let mut covered = 0;
    candidates.retain(|candidate| {
        if candidate.size == 0 {
            return candidate.start >= covered;
        }
        covered = covered.max(candidate.start + candidate.size);
        true
    });
    let starts: Vec<u64> = candidates.iter().map(|candidate| candidate.start).collect();
    candidates
        .into_iter()
        .enumerate()
        .map(|(index, candidate)| {
            let next = starts.get(index + 1).copied().unwrap_or(u64::MAX);
            let end = match candidate.size {
                0 => next.min(candidate.section_end.max(candidate.start)),
                size => candidate.start + size,
            };
            Symbol {
                name: format!("{:#}", rustc_demangle::demangle(&candidate.name)),
                owner,
                start: candidate.start,
                end,
            }
        })
        .collect()
}

/// The symbol that holds `address`: of several the one that begins last.
fn lookup(symbols: &[Symbol], address: u64) -> Option<&Symbol> {
    /// How many symbols may lie within another one.
    const NESTED: usize = 8;
    let behind = symbols.partition_point(|symbol| symbol.start <= address);
    let before = symbols[..behind].iter().rev().take(NESTED);
    before.into_iter().find(|symbol| address < symbol.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, start: u64, size: u64, global: bool) -> Candidate {
        Candidate {
            start,
            size,
            section_end: 1000,
            global,
            name: name.to_owned(),
        }
    }

    fn name(symbols: &[Symbol], address: u64) -> &str {
        lookup(symbols, address).map_or("-", |symbol| &symbol.name)
    }

    #[test]
    fn the_best_name_of_an_address_is_taken() {
        let symbols = chosen(
            vec![
                candidate("__pi_memcpy", 100, 20, true),
                candidate("memcpy_local", 100, 20, false),
                candidate("__memcpy", 100, 20, true),
                candidate("memcpy", 100, 20, true),
            ],
            0,
        );
        assert_eq!(symbols.len(), 1);
        assert_eq!(name(&symbols, 119), "memcpy");
        assert_eq!(name(&symbols, 120), "-");
    }

    #[test]
    fn labels_count_only_outside_of_functions() {
        let symbols = chosen(
            vec![
                candidate("entry", 100, 0, true),
                candidate("function", 200, 50, false),
                candidate("inside", 220, 0, false),
                candidate("last", 900, 0, false),
            ],
            0,
        );
        for (address, expected) in [
            (99, "-"),
            (100, "entry"),
            // A label ends where the next symbol begins.
            (199, "entry"),
            (230, "function"),
            (250, "-"),
            (999, "last"),
            (1000, "-"),
        ] {
            assert_eq!(name(&symbols, address), expected, "{address}");
        }
    }

    #[test]
    fn a_symbol_within_another_does_not_end_it() {
        let symbols = chosen(
            vec![
                candidate("outer", 100, 100, true),
                candidate("inner", 120, 10, true),
            ],
            0,
        );
        assert_eq!(name(&symbols, 125), "inner");
        assert_eq!(name(&symbols, 150), "outer");
    }

    #[test]
    fn names_of_rust_are_demangled() {
        let mangled =
            "_RNvMs1_NtCs1CQmyMKoIHR_5proxy5flowsINtB5_5FlowsNtNtNtB7_8datapath5tuple2V4E3newB7_";
        let symbols = chosen(vec![candidate(mangled, 0, 8, false)], 0);
        assert_eq!(
            symbols[0].name,
            "<proxy::flows::Flows<proxy::datapath::tuple::V4>>::new"
        );
    }

    /// This program is a file with symbols, too.
    #[test]
    fn functions_of_a_file_are_found_where_it_was_loaded() {
        let path = std::path::PathBuf::from("/proc/self/exe");
        let mut symbols = Symbols::default();
        symbols.add_kernel(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let main = file
            .symbols()
            .find(|symbol| symbol.name() == Ok("main"))
            .unwrap();
        let found = symbols.function(main.address() + 1);
        let Found::Symbol(symbol, owner) = found else {
            panic!("{found:?}");
        };
        assert_eq!((symbol.name.as_str(), owner), ("main", &Owner::Kernel));
        assert_eq!(symbol.offset(main.address() + 1), 1);
        assert_eq!(symbols.function(1), Found::Nothing);
    }
}
