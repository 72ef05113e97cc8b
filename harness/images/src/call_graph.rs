// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who calls whom in an object file, and what of the stack each takes: to show that a hook cannot reach a panic, and that the
//! kernel's stack, which nothing guards, is large enough.
//!
//! Calls through pointers are not followed. The modules' hooks make none; what the kernel's own
//! functions do is the kernel's matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Functions by (mangled) name.
#[derive(Debug, Default)]
pub struct CallGraph(BTreeMap<String, Function>);

#[derive(Debug, Default)]
struct Function {
    /// The functions that it refers to.
    calls: BTreeSet<String>,
    /// Whether it calls itself.
    recurses: bool,
    /// What of the stack it takes: bytes that it moves the stack pointer by, and what it pushes.
    frame: u64,
}

impl CallGraph {
    /// Reads what `llvm-objdump --disassemble --reloc` prints.
    pub fn parse(disassembly: &str) -> Self {
        let mut graph = BTreeMap::<String, Function>::new();
        let mut current = None;
        let mut is_call = false;
        let mut lines = disassembly.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(name) = heading(line) {
                graph.entry(name.to_owned()).or_default();
                current = Some(name);
                continue;
            }
            let Some(name) = current else { continue };
            let function = graph.entry(name.to_owned()).or_default();
            function.frame += taken(line);
            let is_relocation = line.contains(RELOCATION);
            if !is_relocation {
                is_call = line.contains("\tcall") || line.contains(" call");
                if lines.peek().is_some_and(|next| next.contains(RELOCATION)) {
                    // The instruction itself names what happens to follow it, which may be another function.
                    continue;
                }
            }
            let Some(target) = target(line) else { continue };
            if target != name {
                function.calls.insert(target.to_owned());
            } else if is_call && (is_relocation || line.ends_with(&format!("<{name}>"))) {
                function.recurses = true;
            }
        }
        Self(graph)
    }

    /// The most that any function that `starts` takes of the stack, in bytes, with all that it calls: the functions on the way there.
    /// A function that returns `at_once` when it is called again before it has returned ends a ring of calls. None that calls itself does.
    ///
    /// # Errors
    /// If there is no most, since functions call each other in a ring: those.
    pub fn deepest(
        &self,
        starts: impl Fn(&str) -> bool,
        at_once: impl Fn(&str) -> bool,
    ) -> Result<Depth<'_>, Vec<&str>> {
        let mut search = Search {
            graph: self,
            at_once: &at_once,
            way: Vec::new(),
            known: BTreeMap::new(),
        };
        let mut deepest = Depth::default();
        for name in self.functions().filter(|name| starts(name)) {
            search.below(name)?.0.replace(&mut deepest);
        }
        Ok(deepest)
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
            let calls = self.0.get(function).map(|function| &function.calls);
            for callee in calls.into_iter().flatten() {
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

/// What functions take of the stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depth<'a> {
    /// How much.
    pub bytes: u64,
    /// Which functions, each called by the one before.
    pub way: Vec<&'a str>,
}

impl Depth<'_> {
    fn replace(self, other: &mut Self) {
        if self.bytes > other.bytes {
            *other = self;
        }
    }
}

/// The search for the deepest way.
struct Search<'a, 'b> {
    graph: &'a CallGraph,
    at_once: &'b dyn Fn(&str) -> bool,
    /// The functions that have not returned.
    way: Vec<&'a str>,
    /// What is the same on every way.
    known: BTreeMap<&'a str, Depth<'a>>,
}

impl<'a> Search<'a, '_> {
    // What this function takes with those that it calls, and whether that depends on the way to it; the ring that it is in.
    fn below(&mut self, name: &'a str) -> Result<(Depth<'a>, bool), Vec<&'a str>> {
        if let Some(depth) = self.known.get(name) {
            return Ok((depth.clone(), false));
        }
        // What is not defined here is the kernel's.
        let Some(function) = self.graph.0.get(name) else {
            return Ok((Depth::default(), false));
        };
        let own = function.frame + CALL;
        let before = self.way.iter().position(|&one| one == name);
        if function.recurses || before.is_some() {
            let ring = self.way.iter().skip(before.unwrap_or(self.way.len()));
            let ring: Vec<&str> = ring.copied().chain([name]).collect();
            if function.recurses || !ring.iter().any(|one| (self.at_once)(one)) {
                return Err(ring);
            }
            if (self.at_once)(name) {
                let way = vec![name];
                return Ok((Depth { bytes: own, way }, true));
            }
        }
        self.way.push(name);
        let (mut deepest, mut depends) = (Depth::default(), false);
        for callee in &function.calls {
            let (depth, on_way) = self.below(callee)?;
            depends |= on_way;
            depth.replace(&mut deepest);
        }
        self.way.pop();
        let depth = Depth {
            bytes: own + deepest.bytes,
            way: std::iter::once(name).chain(deepest.way).collect(),
        };
        if !depends {
            self.known.insert(name, depth.clone());
        }
        Ok((depth, depends))
    }
}

/// Marks the line that tells where a call or jump leads that is still to be resolved.
const RELOCATION: &str = "R_X86_64_";

/// Where a call returns to.
const CALL: u64 = 8;

// What an instruction takes of the stack: "pushq %rbx", "subq $0x20, %rsp", or "addq $-0x80, %rsp", which is a byte shorter.
fn taken(line: &str) -> u64 {
    let instruction = line.split_once(':').map_or("", |(_, rest)| rest);
    // Large numbers are followed by a comment.
    let instruction = instruction.split('#').next().unwrap_or_default().trim();
    let mut words = instruction.split_whitespace();
    let (Some(name), Some(operand)) = (words.next(), words.next()) else {
        return 0;
    };
    let number = |prefix: &str| {
        let digits = operand.strip_prefix(prefix)?.strip_suffix(',')?;
        u64::from_str_radix(digits, 16).ok()
    };
    match name {
        "push" | "pushq" => CALL,
        "sub" | "subq" if instruction.ends_with(", %rsp") => number("$0x").unwrap_or_default(),
        "add" | "addq" if instruction.ends_with(", %rsp") => number("$-0x").unwrap_or_default(),
        _ => 0,
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
    let name = match line.split_once(RELOCATION) {
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
       5: callq\t0x9 <hook+0x9>
\t\t0000000000000006:  R_X86_64_PLT32\tkfree-0x4
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
    fn the_last_jump_of_a_function_leads_where_its_relocation_says() {
        let disassembly = "
0000000000000000 <first>:
       0: jmp\t0x5 <next>
\t\t0000000000000001:  R_X86_64_PLT32\tkfree-0x4

0000000000000005 <next>:
       5: retq
";
        let graph = CallGraph::parse(disassembly);
        let way = |ends: &str| graph.path(|name| name == "first", |name| name == ends);
        assert_eq!(way("next"), None);
        assert_eq!(way("kfree"), Some(vec!["first", "kfree"]));
    }

    #[test]
    fn the_deepest_way_is_found() {
        let disassembly = "
0000000000000000 <hook>:
       0: pushq\t%rbx
       1: subq\t$0x20, %rsp
       4: callq\t0x30 <shallow>
       9: callq\t0x40 <deep>
      12: addq\t$0x20, %rsp
0000000000000030 <shallow>:
      30: subq\t$0x8, %rsp              # imm = 0x8
      31: callq\t0x36 <shallow+0x6>
\t\t0000000000000032:  R_X86_64_PLT32\tkfree-0x4
0000000000000040 <deep>:
      40: addq\t$-0x80, %rsp
      44: jne\t0x40 <deep>
      46: subq\t%rax, %rbx
";
        let graph = CallGraph::parse(disassembly);
        let never = |_: &str| false;
        let deepest = graph.deepest(|name| name == "hook", never).unwrap();
        assert_eq!(deepest.way, ["hook", "deep"]);
        assert_eq!(deepest.bytes, 8 + 0x20 + 8 + 0x80 + 8);
        assert_eq!(graph.deepest(never, never), Ok(Depth::default()));
    }

    #[test]
    fn what_calls_itself_has_no_deepest_way() {
        let ring = |disassembly: &str, at_once: &str| {
            let graph = CallGraph::parse(disassembly);
            let deepest = graph.deepest(|_| true, |name| name == at_once);
            let own = |way: Vec<&str>| way.join(" ");
            deepest.map(|depth| own(depth.way)).map_err(own)
        };
        let itself = "0 <a>:\n 1: jmp 0x5 <b>\n2 <b>:\n 3: callq 0x2 <b>\n";
        assert_eq!(ring(itself, ""), Err("b".into()));
        let unresolved = "0 <a>:\n 1: callq 0x6 <a+0x6>\n 2:  R_X86_64_PLT32 a-0x4\n";
        assert_eq!(ring(unresolved, ""), Err("a".into()));
        let loops = "0 <a>:\n 1: jmp 0x0 <a>\n 6: callq 0xb <a+0xb>\n 7:  R_X86_64_PLT32 c-0x4\n";
        assert_eq!(ring(loops, ""), Ok("a".into()));
        let three =
            "0 <a>:\n 1: callq 0x2 <b>\n2 <b>:\n 3: callq 0x4 <c>\n4 <c>:\n 5: jmp 0x2 <b>\n";
        assert_eq!(ring(three, ""), Err("b c b".into()));
        // Wherever it is entered, the ring is gone through until b is called again.
        assert_eq!(ring(three, "b"), Ok("a b c b".into()));
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
