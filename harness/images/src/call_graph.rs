// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who calls whom in an object file, to show that a hook cannot reach a panic.
//!
//! Calls through pointers are not followed. The modules' hooks make none; what the kernel's own
//! functions do is the kernel's matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Functions by (mangled) name, each with the functions that it refers to.
#[derive(Debug, Default)]
pub struct CallGraph(BTreeMap<String, BTreeSet<String>>);

impl CallGraph {
    /// Reads what `llvm-objdump --disassemble --reloc` prints.
    pub fn parse(disassembly: &str) -> Self {
        let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
        let mut current = None;
        for line in disassembly.lines() {
            if let Some(name) = heading(line) {
                graph.entry(name.to_owned()).or_default();
                current = Some(name);
            } else if let (Some(function), Some(target)) = (current, target(line))
                && target != function
            {
                graph
                    .entry(function.to_owned())
                    .or_default()
                    .insert(target.to_owned());
            }
        }
        Self(graph)
    }

    /// A way from a function that `starts` to one that `ends`, the shortest there is.
    pub fn path(
        &self,
        starts: impl Fn(&str) -> bool,
        ends: impl Fn(&str) -> bool,
    ) -> Option<Vec<&str>> {
        let mut came_from = BTreeMap::new();
        let mut queue: VecDeque<&str> = self
            .0
            .keys()
            .map(String::as_str)
            .filter(|name| starts(name))
            .collect();
        let roots: BTreeSet<&str> = queue.iter().copied().collect();
        while let Some(function) = queue.pop_front() {
            if ends(function) {
                let mut path = vec![function];
                while let Some(&caller) = path.last().and_then(|last| came_from.get(last)) {
                    path.push(caller);
                }
                path.reverse();
                return Some(path);
            }
            for callee in self.0.get(function).into_iter().flatten() {
                if !roots.contains(callee.as_str()) && !came_from.contains_key(callee.as_str()) {
                    came_from.insert(callee.as_str(), function);
                    queue.push_back(callee);
                }
            }
        }
        None
    }

    /// The functions that the file defines.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

// "0000000000000010 <name>:" begins a function.
fn heading(line: &str) -> Option<&str> {
    let (address, rest) = line.split_once(" <")?;
    let is_address = !address.is_empty() && address.chars().all(|char| char.is_ascii_hexdigit());
    rest.strip_suffix(">:").filter(|_| is_address)
}

// "…: R_X86_64_PLT32 name-0x4" and "…: call 0x10 <name+0x5>" refer to one.
fn target(line: &str) -> Option<&str> {
    let name = match line.split_once("R_X86_64_") {
        Some((_, relocation)) => relocation.split_whitespace().nth(1)?,
        None => line.split_once('<')?.1.strip_suffix('>')?,
    };
    let end = ["+0x", "-0x"]
        .iter()
        .filter_map(|sign| name.find(sign))
        .min();
    Some(&name[..end.unwrap_or(name.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISASSEMBLY: &str = "
Disassembly of section .text:

0000000000000000 <hook>:
       0: endbr64
       4: callq\t0x30 <helper>
\t\t0000000000000005:  R_X86_64_PLT32\tkfree-0x4
       9: jne\t0x2 <hook+0x2>

0000000000000030 <helper>:
      31: jmp\t0x36 <helper+0x6>
      32: callq\t0x37 <helper+0x7>
\t\t0000000000000033:  R_X86_64_PLT32\tpanic_bounds-0x4

0000000000000050 <open>:
      51: callq\t0x56 <open+0x6>
\t\t0000000000000052:  R_X86_64_PLT32\tpanic_overflow-0x4
";

    #[test]
    fn a_panic_is_found_through_a_helper() {
        let graph = CallGraph::parse(DISASSEMBLY);
        let panics = |name: &str| name.contains("panic");
        assert_eq!(
            graph.path(|name| name == "hook", panics),
            Some(vec!["hook", "helper", "panic_bounds"])
        );
        assert_eq!(
            graph.path(|name| name == "hook", |name| name == "panic_overflow"),
            None
        );
        assert_eq!(
            graph.functions().collect::<Vec<_>>(),
            ["helper", "hook", "open"]
        );
    }

    #[test]
    fn a_ring_of_calls_ends() {
        let ring = "0 <a>:\n 1: callq 0x2 <b>\n2 <b>:\n 3: callq 0x0 <a>\n";
        assert_eq!(
            CallGraph::parse(ring).path(|name| name == "a", |name| name == "z"),
            None
        );
    }
}
