// SPDX-License-Identifier: MIT OR Apache-2.0

//! A recording with names: the call tree by functions, and memory by objects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use mutexlab_lens_recording::recording::{Costs, Entry, Recording};
use mutexlab_lens_recording::settings::Caches;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::objects::{Identity, Objects};
use super::symbols::{Found, Owner, Symbols};

/// Version of the form of [`Analysis`].
pub const VERSION: u32 = 1;

/// What the packets of one cell cost, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// [`VERSION`].
    pub version: u32,
    /// The cell's name.
    pub cell: String,
    /// The commit of the proxy; with a `+` if files differed from it.
    pub commit: String,
    /// The modelled caches.
    pub caches: Caches,
    /// Packets whose way ended in the window.
    pub packets: u64,
    /// Packets whose way only began or only ended in it.
    pub torn: u64,
    /// Instructions of each CPU in the window; their sum is that over [`Self::frames`].
    pub instructions: Vec<u64>,
    /// The functions that ran, each once.
    pub functions: Vec<Function>,
    /// The call tree, a parent before its children. The first one is the root, of no function.
    pub frames: Vec<Frame>,
    /// What was read and written as data.
    pub objects: Vec<Object>,
}

/// A function.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its name, or in brackets what is known of code without a name.
    pub name: String,
    /// The module that it is of; null for the kernel itself and what is not known.
    pub module: Option<String>,
}

/// A function as it was reached along one path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Its caller's index in [`Analysis::frames`]; the root is its own.
    pub parent: u32,
    /// Its index in [`Analysis::functions`]; null for the root.
    pub function: Option<u32>,
    /// How it was reached.
    pub entry: Reached,
    /// How often. 0 by a jump: those are not counted.
    pub calls: u64,
    /// What its own instructions cost within the spans of packets.
    pub span: Costs,
    /// And outside of them.
    pub outside: Costs,
}

/// How a function was reached.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// It is the root.
    Root,
    /// By a call.
    Call,
    /// By a jump out of the function that was called (a tail call), or out of one so reached: from
    /// which one is not recorded.
    Jump,
    /// By an interrupt or exception.
    Interrupt,
    /// By a system call.
    SystemCall,
    /// It ran already when the window opened, or its task was switched to.
    Unseen,
    /// It is user space.
    User,
}

/// Lines of one object, or of all objects of one kind that are used alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// What it is.
    pub identity: Identity,
    /// The virtual address of one of its lines: that with the least physical one.
    pub address: u64,
    /// Lines of memory.
    pub lines: u64,
    /// Of these, those that one CPU wrote and another one used.
    pub shared: u64,
    /// How often a packet used a line of it: summed over packets, the lines that each used.
    pub used: u64,
    /// The same for lines that the packet wrote to.
    pub written: u64,
    /// The same for written lines that another CPU used, too.
    pub shared_written: u64,
    /// What accesses cost within spans.
    pub span: Costs,
    /// And outside of them.
    pub outside: Costs,
}

/// What is known of a recording beside it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// [`Analysis::cell`].
    pub cell: &'a str,
    /// [`Analysis::commit`].
    pub commit: &'a str,
}

impl Analysis {
    /// Names everything in `recording`.
    ///
    /// # Errors
    /// If the recording contradicts itself: no number of it could be trusted then.
    pub fn new(
        recording: &Recording,
        symbols: &Symbols,
        objects: &Objects<'_>,
        origin: Origin<'_>,
    ) -> Result<Self> {
        let version = mutexlab_lens_recording::recording::VERSION;
        ensure!(
            recording.version == version,
            "the recording is of version {}, but this program reads {version}: build all of it anew",
            recording.version
        );
        let mut tree = Tree::default();
        tree.take(recording, symbols)?;
        let analysis = Self {
            version: VERSION,
            cell: origin.cell.to_owned(),
            commit: origin.commit.to_owned(),
            caches: recording.caches,
            packets: recording.packets,
            torn: recording.torn,
            instructions: recording.instructions.clone(),
            functions: tree.functions,
            frames: tree.frames,
            objects: objects_of(recording, objects),
        };
        analysis.check()?;
        Ok(analysis)
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read, is of another version or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let analysis: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no analysis of `mutexlab lens`", path.display()))?;
        let check = || {
            ensure!(
                analysis.version == VERSION,
                "it is of version {}",
                analysis.version
            );
            analysis.check()
        };
        check().with_context(|| format!("cannot use {}", path.display()))?;
        Ok(analysis)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).context("cannot write an analysis as JSON")?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What all packets cost within their spans.
    pub fn span(&self) -> Costs {
        sum(self.frames.iter().map(|frame| &frame.span))
    }

    /// What everything cost in the window.
    pub fn window(&self) -> Costs {
        let mut all = self.span();
        all += sum(self.frames.iter().map(|frame| &frame.outside));
        all
    }

    /// `count` for each packet.
    pub fn per_packet(&self, count: u64) -> f64 {
        to_float(count) / to_float(self.packets.max(1))
    }

    /// The objects of `mutex_proxy`.
    pub fn ours(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.identity.ours)
    }

    /// The objects of which lines went from CPU to CPU within spans, those that did so most first.
    pub fn transferred(&self) -> Vec<&Object> {
        let objects = self.objects.iter();
        let mut objects: Vec<&Object> =
            objects.filter(|object| object.span.transfers > 0).collect();
        objects.sort_by_key(|object| Reverse(object.span.transfers));
        objects
    }

    /// A frame's function; the root's name is "all".
    pub fn name(&self, frame: &Frame) -> &str {
        let index = frame.function.map(|index| index as usize);
        let function = index.and_then(|index| self.functions.get(index));
        function.map_or("all", |function| &function.name)
    }

    /// For each frame the sum of `own` over it and all below it.
    pub fn inclusive(&self, own: impl Fn(&Frame) -> u64) -> Vec<u64> {
        let mut sums: Vec<u64> = self.frames.iter().map(own).collect();
        for index in (1..sums.len()).rev() {
            let parent = self.frames[index].parent as usize;
            sums[parent] += sums[index];
        }
        sums
    }

    fn check(&self) -> Result<()> {
        let counted: u64 = self.instructions.iter().sum();
        let found = self.window().instructions;
        ensure!(
            counted == found,
            "{counted} instructions were executed in the window, but {found} are in the call tree"
        );
        for (index, frame) in self.frames.iter().enumerate() {
            let parent = frame.parent as usize;
            ensure!(
                parent < index.max(1),
                "frame {index} stands before its caller"
            );
            let function = frame.function.map_or(0, |index| index as usize);
            ensure!(
                frame.function.is_none() == (index == 0)
                    && (index == 0 || function < self.functions.len()),
                "frame {index} is of no function"
            );
        }
        ensure!(!self.frames.is_empty(), "there is no call tree");
        Ok(())
    }
}

/// Sum over all of them.
pub fn sum<'a>(costs: impl Iterator<Item = &'a Costs>) -> Costs {
    costs.fold(Costs::default(), |mut sum, costs| {
        sum += *costs;
        sum
    })
}

/// Counts of a window stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub fn to_float(number: u64) -> f64 {
    number as f64
}

/// A call tree as it grows.
#[derive(Default)]
struct Tree {
    functions: Vec<Function>,
    indices: HashMap<Function, u32>,
    frames: Vec<Frame>,
    /// Frames by caller, function and how they were reached.
    children: HashMap<(u32, u32, Reached), u32>,
    /// Functions by where an instruction is.
    known: HashMap<u64, u32>,
}

impl Tree {
    fn take(&mut self, recording: &Recording, symbols: &Symbols) -> Result<()> {
        self.frames.push(Frame {
            parent: 0,
            function: None,
            entry: Reached::Root,
            calls: 0,
            span: Costs::default(),
            outside: Costs::default(),
        });
        // The frame of each node.
        let mut places: Vec<u32> = Vec::with_capacity(recording.nodes.len());
        for (index, node) in recording.nodes.iter().enumerate() {
            if index == 0 {
                places.push(0);
                continue;
            }
            let Some(&parent) = places.get(node.parent as usize) else {
                bail!("node {index} of the recording stands before its caller");
            };
            let entry = Reached::from(node.entry);
            let function = match node.entry {
                Entry::User => self.user(),
                _ => self.function(node.address, symbols),
            };
            let frame = self.child(parent, function, entry)?;
            self.frames[frame as usize].calls += node.calls;
            places.push(frame);
        }
        for code in &recording.code {
            let node = recording.nodes.get(code.node as usize);
            let (Some(node), Some(&place)) = (node, places.get(code.node as usize)) else {
                bail!("the recording has no node {}", code.node);
            };
            ensure!(code.node != 0, "the recording's root has instructions");
            let function = match node.entry {
                Entry::User => self.user(),
                _ => self.function(code.address, symbols),
            };
            let place = if self.frames[place as usize].function == Some(function) {
                place
            } else {
                self.child(place, function, Reached::Jump)?
            };
            let frame = &mut self.frames[place as usize];
            *(if code.in_span {
                &mut frame.span
            } else {
                &mut frame.outside
            }) += code.costs;
        }
        Ok(())
    }

    fn child(&mut self, parent: u32, function: u32, entry: Reached) -> Result<u32> {
        let new = u32::try_from(self.frames.len()).context("too large a call tree")?;
        let place = *self
            .children
            .entry((parent, function, entry))
            .or_insert(new);
        if place == new {
            self.frames.push(Frame {
                parent,
                function: Some(function),
                entry,
                calls: 0,
                span: Costs::default(),
                outside: Costs::default(),
            });
        }
        Ok(place)
    }

    fn function(&mut self, address: u64, symbols: &Symbols) -> u32 {
        if let Some(&index) = self.known.get(&address) {
            return index;
        }
        let module = |owner: &Owner| match owner {
            Owner::Kernel => None,
            Owner::Module(name) => Some(name.clone()),
        };
        let function = match symbols.function(address) {
            Found::Symbol(symbol, owner) => Function {
                name: symbol.name.clone(),
                module: module(owner),
            },
            Found::Section(owner) => Function {
                name: "[no symbol]".to_owned(),
                module: module(owner),
            },
            Found::Nothing => Function {
                name: "[unknown]".to_owned(),
                module: None,
            },
        };
        let index = self.index(function);
        self.known.insert(address, index);
        index
    }

    fn user(&mut self) -> u32 {
        self.index(Function {
            name: "[user]".to_owned(),
            module: None,
        })
    }

    fn index(&mut self, function: Function) -> u32 {
        // As many as there are frames at the most, and those are counted.
        let new = self.functions.len() as u32;
        let index = *self.indices.entry(function.clone()).or_insert(new);
        if index == new {
            self.functions.push(function);
        }
        index
    }
}

impl From<Entry> for Reached {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Call => Self::Call,
            Entry::Interrupt => Self::Interrupt,
            Entry::SystemCall => Self::SystemCall,
            Entry::Unseen => Self::Unseen,
            Entry::User => Self::User,
        }
    }
}

/// The lines of a recording, by what they are of; those that packets use most come first.
fn objects_of(recording: &Recording, objects: &Objects<'_>) -> Vec<Object> {
    // Which CPUs use and write each line, in spans and outside.
    let mut by_line: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for line in &recording.lines {
        let (cpus, writing) = by_line.entry(line.physical).or_default();
        *cpus |= line.cpus;
        *writing |= line.cpus_writing;
    }
    let is_shared = |physical: u64| {
        by_line
            .get(&physical)
            .is_some_and(|&(cpus, writing)| writing != 0 && cpus.count_ones() > 1)
    };
    let mut found: BTreeMap<Identity, (Object, BTreeSet<u64>)> = BTreeMap::new();
    for line in &recording.lines {
        let identity = objects.identify(line);
        let (object, lines) = found.entry(identity).or_insert_with_key(|identity| {
            let object = Object {
                identity: identity.clone(),
                address: line.address,
                lines: 0,
                shared: 0,
                used: 0,
                written: 0,
                shared_written: 0,
                span: Costs::default(),
                outside: Costs::default(),
            };
            (object, BTreeSet::new())
        });
        let shared = is_shared(line.physical);
        if lines.insert(line.physical) {
            object.lines += 1;
            object.shared += u64::from(shared);
        }
        if line.in_span {
            object.used += line.packets;
            object.written += line.packets_writing;
            object.shared_written += if shared { line.packets_writing } else { 0 };
            object.span += line.costs;
        } else {
            object.outside += line.costs;
        }
    }
    let mut objects: Vec<Object> = found.into_values().map(|(object, _)| object).collect();
    objects.sort_by(|a, b| {
        let key = |object: &Object| (object.used, object.span.reads + object.span.writes);
        key(b)
            .cmp(&key(a))
            .then_with(|| a.identity.cmp(&b.identity))
    });
    objects
}

#[cfg(test)]
mod tests;
