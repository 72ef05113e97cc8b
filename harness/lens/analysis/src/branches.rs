// SPDX-License-Identifier: MIT OR Apache-2.0

//! A call tree as it is shown: only what costs something, and not the long way to where the first of
//! it is.

use std::collections::HashMap;

use super::analysis::{Analysis, Reached};
use super::functions::View;

/// A function on one path, with what was called from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its index in [`Analysis::functions`].
    pub function: u32,
    /// How it was reached.
    pub entry: Reached,
    /// Instructions of its own.
    pub own: u64,
    /// Those and all of [`Self::children`].
    pub total: u64,
    /// What it called, the dearest first.
    pub children: Vec<Branch>,
}

/// The tree of what costs instructions in `view`. Of spans what is above them is left out, but for the
/// caller of each outermost function in them: it tells which hook it is.
pub fn branches(analysis: &Analysis, view: View) -> Vec<Branch> {
    let own: Vec<u64> = analysis
        .frames
        .iter()
        .map(|frame| view.own(frame).instructions)
        .collect();
    let mut growing = Growing::default();
    // For each frame the place of its branch, if it has one.
    let mut places: Vec<Option<usize>> = vec![None; analysis.frames.len()];
    for (index, frame) in analysis.frames.iter().enumerate().skip(1) {
        let parent = frame.parent as usize;
        let Some(function) = frame.function else {
            continue;
        };
        let above = match places[parent] {
            Some(place) => Some(place),
            // Every path of a window begins at its root.
            None if view == View::Window => None,
            None if own[index] == 0 => continue,
            None => {
                let caller = &analysis.frames[parent];
                caller
                    .function
                    .map(|function| growing.place(None, function, caller.entry))
            }
        };
        let place = growing.place(above, function, frame.entry);
        growing.arena[place].own += own[index];
        places[index] = Some(place);
    }
    growing.grown()
}

/// Branches as they grow, each with its children's places.
#[derive(Default)]
struct Growing {
    arena: Vec<Branch>,
    below: Vec<Vec<usize>>,
    roots: Vec<usize>,
    known: HashMap<(Option<usize>, u32, Reached), usize>,
}

impl Growing {
    fn place(&mut self, above: Option<usize>, function: u32, entry: Reached) -> usize {
        let new = self.arena.len();
        let place = *self.known.entry((above, function, entry)).or_insert(new);
        if place == new {
            self.arena.push(Branch {
                function,
                entry,
                own: 0,
                total: 0,
                children: Vec::new(),
            });
            self.below.push(Vec::new());
            match above {
                Some(above) => self.below[above].push(new),
                None => self.roots.push(new),
            }
        }
        place
    }

    /// What has a total, with all below it. A child has a greater place than its caller.
    fn grown(self) -> Vec<Branch> {
        let mut done: Vec<Option<Branch>> = self.arena.into_iter().map(Some).collect();
        for place in (0..done.len()).rev() {
            let below = self.below[place].iter();
            let mut children: Vec<Branch> = below.filter_map(|&child| done[child].take()).collect();
            order(&mut children);
            if let Some(branch) = &mut done[place] {
                branch.total = branch.own + children.iter().map(|child| child.total).sum::<u64>();
                branch.children = children;
            }
        }
        let mut roots: Vec<Branch> = self
            .roots
            .into_iter()
            .filter_map(|root| done[root].take())
            .collect();
        order(&mut roots);
        roots
    }
}

fn order(branches: &mut Vec<Branch>) {
    branches.retain(|branch| branch.total > 0);
    branches.sort_by_key(|branch| {
        (
            std::cmp::Reverse(branch.total),
            branch.function,
            branch.entry,
        )
    });
}

/// How deep the deepest of them is; 0 if there is none.
pub fn depth(branches: &[Branch]) -> usize {
    let below = branches.iter().map(|branch| 1 + depth(&branch.children));
    below.max().unwrap_or(0)
}
