// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stack traces with names and lines, as the kernel's scripts/decode_stacktrace.sh has them.
//!
//! A trace has `function+0xoffset/0xsize`, with a name of Rust's as the compiler mangled it. Names are
//! demangled in any case. Files and lines are known of kernels that were built with DWARF
//! (CONFIG_DEBUG_INFO_DWARF5), which those of `images/` are not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use duct::cmd;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};

use mutexlab_host::surroundings::Surroundings;
use mutexlab_images::{search_path, Cache};

/// An entry of a trace: `name+0xoffset/0xsize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<'a> {
    name: &'a str,
    offset: u64,
    size: u64,
}

impl<'a> Entry<'a> {
    /// Reads a word; whatever stands before a colon in it, such as a segment, is no part of the name.
    fn parse(word: &'a str) -> Option<Self> {
        let (name, numbers) = word.rsplit_once("+0x")?;
        let (offset, size) = numbers.split_once("/0x")?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let name = name.rsplit(':').next()?;
        Some(Self {
            name,
            offset: number(offset)?,
            size: number(size)?,
        })
        .filter(|entry| !entry.name.is_empty())
    }
}

/// Where the decoded form of a console's log is.
pub fn beside(console_log: &Path) -> PathBuf {
    console_log.with_extension("decoded.log")
}

/// Writes a console's log decoded to [`beside`] it, with the symbols of `vmlinux`, if there is one.
///
/// # Errors
/// If a file cannot be read or written, or the symbols not be looked up.
pub fn write(
    console_log: &Path,
    vmlinux: Option<&Path>,
    surroundings: &Surroundings,
) -> Result<()> {
    let bytes =
        fs::read(console_log).with_context(|| format!("cannot read {}", console_log.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let entries: BTreeSet<Entry<'_>> = text
        .lines()
        // A module's are not in the kernel's file.
        .filter(|line| !line.ends_with(']'))
        .flat_map(str::split_whitespace)
        .filter_map(Entry::parse)
        .collect();
    let places = match vmlinux {
        Some(vmlinux) if !entries.is_empty() => places(&entries, vmlinux, surroundings)?,
        _ => BTreeMap::new(),
    };
    let target = beside(console_log);
    fs::write(&target, decode(&text, &places))
        .with_context(|| format!("cannot write {}", target.display()))
}

/// The text with names demangled, and behind each entry whose place is known the place.
fn decode(text: &str, places: &BTreeMap<Entry<'_>, String>) -> String {
    let mut decoded = String::with_capacity(text.len());
    for line in text.lines() {
        let mut found = Vec::new();
        let mut line_decoded = line.to_owned();
        for entry in line.split_whitespace().filter_map(Entry::parse) {
            if let Ok(name) = rustc_demangle::try_demangle(entry.name) {
                line_decoded = line_decoded.replacen(entry.name, &format!("{name:#}"), 1);
            }
            if !line.ends_with(']') {
                found.extend(places.get(&entry));
            }
        }
        decoded += &line_decoded;
        for place in found {
            decoded += " (";
            decoded += place;
            decoded += ")";
        }
        decoded.push('\n');
    }
    decoded
}

/// The files and lines of entries, as far as `vmlinux` tells.
fn places<'a>(
    entries: &BTreeSet<Entry<'a>>,
    vmlinux: &Path,
    surroundings: &Surroundings,
) -> Result<BTreeMap<Entry<'a>, String>> {
    let bytes = fs::read(vmlinux).with_context(|| format!("cannot read {}", vmlinux.display()))?;
    let file: ElfFile64<'_> = ElfFile64::parse(&*bytes)
        .with_context(|| format!("{} is no ELF file of 64 bits", vmlinux.display()))?;
    if file.section_by_name(".debug_line").is_none() {
        return Ok(BTreeMap::new());
    }
    let mut addresses = BTreeMap::new();
    for symbol in file.symbols() {
        let Ok(name) = symbol.name() else { continue };
        // Of several static functions of a name, the size tells most apart.
        let of_it = entries
            .iter()
            .filter(|entry| entry.name == name && entry.size.abs_diff(symbol.size()) < 16);
        for entry in of_it {
            addresses
                .entry(*entry)
                .or_insert(symbol.address() + entry.offset);
        }
    }
    let asked: Vec<String> = addresses
        .values()
        .map(|address| format!("{address:#x}"))
        .collect();
    if asked.is_empty() {
        return Ok(BTreeMap::new());
    }
    let said = cmd!("llvm-symbolizer", "--obj", vmlinux, "--pretty-print")
        .stdin_bytes(asked.join("\n"))
        .env("PATH", search_path(&Cache::of(surroundings))?)
        .read()
        .context("cannot run llvm-symbolizer, of LLVM, with which kernels are built")?;
    // A block for each address, of a line for each function that was inlined there.
    let blocks = said.split("\n\n");
    Ok(addresses
        .into_keys()
        .zip(blocks)
        .filter_map(|(entry, block)| {
            let lines = block.lines().filter_map(|line| line.rsplit_once(" at "));
            let known: Vec<&str> = lines
                .map(|(_, place)| place)
                .filter(|place| !place.starts_with("??"))
                .collect();
            (!known.is_empty()).then(|| (entry, known.join(" in ")))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found() {
        let entry = |name, offset, size| Some(Entry { name, offset, size });
        assert_eq!(Entry::parse("foo+0x1c4/0x320"), entry("foo", 0x1c4, 0x320));
        assert_eq!(Entry::parse("0010:foo+0x1/0x2"), entry("foo", 1, 2));
        for word in ["foo", "+0x1/0x2", "foo+0x1", "foo+0xx/0x2", "a+0x/0x"] {
            assert_eq!(Entry::parse(word), None, "{word}");
        }
    }

    #[test]
    fn names_are_demangled_and_places_told() {
        let text = "[ 1.0] RIP: 0010:foo+0x1/0x2\n [ 1.0]  _RNvCs1234_7mycrate3bar+0x8/0x10 [m]\n";
        let foo = Entry::parse("foo+0x1/0x2").unwrap();
        let places = BTreeMap::from([(foo, "a.c:7:1".to_owned())]);
        assert_eq!(
            decode(text, &places),
            "[ 1.0] RIP: 0010:foo+0x1/0x2 (a.c:7:1)\n [ 1.0]  mycrate::bar+0x8/0x10 [m]\n"
        );
    }
}
