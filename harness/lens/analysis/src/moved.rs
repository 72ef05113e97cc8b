// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions whose instructions are others in another analysis, in netfilter's hooks and outside of them.
//!
//! Outside is all else that the kernel did in the window: the way of packets through it, beside which nothing of
//! account runs there. User space, which is no part of the kernel, is left out.

use std::collections::BTreeMap;

use anyhow::{ensure, Result};
use serde::Serialize;

use super::analysis::{Analysis, Function, Reached};
use super::difference::Pair;
use super::text::function_name;

/// A function's own instructions, for each packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// The function.
    pub function: String,
    /// In the spans of packets.
    pub hooks: Pair,
    /// Outside of them.
    pub outside: Pair,
}

impl Moved {
    /// By how many it rose in all.
    pub fn change(&self) -> f64 {
        self.hooks.change() + self.outside.change()
    }
}

/// The functions of which `b` has more or fewer instructions than `a`, the greatest change first.
///
/// # Errors
/// If one of the two has seen no packet.
pub fn moved(a: &Analysis, b: &Analysis) -> Result<Vec<Moved>> {
    ensure!(
        a.packets > 0 && b.packets > 0,
        "the lens has seen no packet of {} on one side",
        b.cell
    );
    let mut counts: BTreeMap<&Function, [[u64; 2]; 2]> = BTreeMap::new();
    for (side, analysis) in [a, b].into_iter().enumerate() {
        for frame in &analysis.frames {
            let function = frame
                .function
                .and_then(|index| analysis.functions.get(index as usize));
            let Some(function) = function.filter(|_| frame.entry != Reached::User) else {
                continue;
            };
            let [hooks, outside] = counts.entry(function).or_default();
            hooks[side] += frame.span.instructions;
            outside[side] += frame.outside.instructions;
        }
    }
    let pair = |[before, with_it]: [u64; 2]| Pair {
        a: a.per_packet(before),
        b: b.per_packet(with_it),
    };
    let mut found: Vec<Moved> = counts
        .into_iter()
        .map(|(function, [hooks, outside])| Moved {
            function: function_name(function),
            hooks: pair(hooks),
            outside: pair(outside),
        })
        .filter(|moved| moved.hooks.change() != 0.0 || moved.outside.change() != 0.0)
        .collect();
    let size = |moved: &Moved| moved.hooks.change().abs() + moved.outside.change().abs();
    found.sort_by(|a, b| {
        let by_size = size(b).total_cmp(&size(a));
        by_size.then_with(|| a.function.cmp(&b.function))
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::example;

    #[test]
    fn the_same_has_not_moved() {
        let analysis = example(|_| ());
        assert_eq!(moved(&analysis, &analysis).unwrap(), []);
    }

    #[test]
    fn what_moved_is_named_with_its_place() {
        let before = example(|_| ());
        let after = example(|recording| {
            // Three more for each of ten packets.
            recording.code[4].costs.instructions += 30;
            recording.instructions[0] += 30;
        });
        let found = moved(&before, &after).unwrap();
        let [find] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(find.function, "proxy::find [mutex_proxy]");
        assert_eq!(
            (find.hooks.change(), find.outside.change(), find.change()),
            (3.0, 0.0, 3.0)
        );
    }
}
