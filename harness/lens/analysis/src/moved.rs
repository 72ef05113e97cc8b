// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions whose instructions are others in another analysis, in netfilter's hooks and outside of them.
//!
//! Outside is all else that the kernel did in the window: the way of packets through it, beside which nothing of
//! account runs there. User space, which is no part of the kernel, is left out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::analysis::{Analysis, Function, Reached};
use super::difference::Pair;
use super::text::function_name;

/// A function's own instructions, for each packet.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Moved {
    /// The function.
    pub function: String,
    /// In the spans of packets; null if boots of one side do not agree.
    pub hooks: Option<Pair>,
    /// Outside of them; null likewise.
    pub outside: Option<Pair>,
}

impl Moved {
    /// By how many it rose in all, as far as boots agree.
    pub fn change(&self) -> f64 {
        self.changes().sum()
    }

    fn changes(&self) -> impl Iterator<Item = f64> {
        let pairs = [self.hooks, self.outside].into_iter().flatten();
        pairs.map(Pair::change)
    }
}

/// The functions of which `b` has more or fewer instructions than `a`, the greatest change first. Both are of one cell,
/// an analysis for each boot: what boots of one side do not count alike has not moved but varies, and is left out.
///
/// # Errors
/// If a boot has seen no packet, or a side none.
pub fn moved(a: &[Analysis], b: &[Analysis]) -> Result<Vec<Moved>> {
    let (counts_a, counts_b) = (counts(a)?, counts(b)?);
    let functions: BTreeSet<&Function> = counts_a
        .iter()
        .chain(&counts_b)
        .flat_map(BTreeMap::keys)
        .copied()
        .collect();
    let of = |boots: &[Counts<'_>], function: &Function, place: usize| {
        let counts = boots
            .iter()
            .map(|counts| counts.get(function).copied().unwrap_or_default());
        steady(counts.map(|counts| counts[place]))
    };
    let mut found = Vec::new();
    for function in functions {
        let pair = |place| {
            let (a, b) = (
                of(&counts_a, function, place),
                of(&counts_b, function, place),
            );
            a.zip(b).map(|(a, b)| Pair { a, b })
        };
        let one = Moved {
            function: function_name(function),
            hooks: pair(0),
            outside: pair(1),
        };
        if one.changes().any(|change| change != 0.0) {
            found.push(one);
        }
    }
    let size = |moved: &Moved| moved.changes().map(f64::abs).sum::<f64>();
    found.sort_by(|a, b| {
        let by_size = size(b).total_cmp(&size(a));
        by_size.then_with(|| a.function.cmp(&b.function))
    });
    Ok(found)
}

/// Instructions for each packet by function, in the hooks and outside.
type Counts<'a> = BTreeMap<&'a Function, [f64; 2]>;

fn counts(boots: &[Analysis]) -> Result<Vec<Counts<'_>>> {
    ensure!(!boots.is_empty(), "the lens has seen no boot on one side");
    boots.iter().map(of_boot).collect()
}

fn of_boot(analysis: &Analysis) -> Result<Counts<'_>> {
    ensure!(
        analysis.packets > 0,
        "the lens has seen no packet of {}",
        analysis.cell
    );
    let mut sums: BTreeMap<&Function, [u64; 2]> = BTreeMap::new();
    for frame in &analysis.frames {
        let function = frame
            .function
            .and_then(|index| analysis.functions.get(index as usize));
        if let Some(function) = function.filter(|_| frame.entry != Reached::User) {
            let [hooks, outside] = sums.entry(function).or_default();
            *hooks += frame.span.instructions;
            *outside += frame.outside.instructions;
        }
    }
    let each = |sums: [u64; 2]| sums.map(|sum| analysis.per_packet(sum));
    Ok(sums
        .into_iter()
        .map(|(function, sums)| (function, each(sums)))
        .collect())
}

/// The one number that all are.
fn steady(mut values: impl Iterator<Item = f64>) -> Option<f64> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::example;
    use mutexlab_lens_recording::recording::Recording;

    /// Has `find` take so many more instructions for each of ten packets.
    fn add(recording: &mut Recording, more: u64) {
        recording.code[4].costs.instructions += 10 * more;
        recording.instructions[0] += 10 * more;
    }

    #[test]
    fn the_same_has_not_moved() {
        let analysis = [example(|_| ())];
        assert_eq!(moved(&analysis, &analysis).unwrap(), []);
        assert!(moved(&analysis, &[]).is_err());
    }

    #[test]
    fn what_moved_is_named_with_its_place() {
        let before = [example(|_| ()), example(|_| ())];
        let found = moved(&before, &[example(|recording| add(recording, 3))]).unwrap();
        let [find] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(find.function, "proxy::find [mutex_proxy]");
        let [hooks, outside] = [find.hooks, find.outside].map(|pair| pair.map(Pair::change));
        assert_eq!((hooks, outside), (Some(3.0), Some(0.0)));
        assert_eq!(find.change(), 3.0);
    }

    #[test]
    fn what_varies_has_not_moved() {
        let steady = [example(|_| ()), example(|_| ())];
        let varies = [
            example(|recording| add(recording, 1)),
            example(|recording| add(recording, 2)),
        ];
        assert_eq!(moved(&steady, &varies).unwrap(), []);
        assert_eq!(moved(&varies, &steady).unwrap(), []);
        // Where it moved as well it is told there alone.
        let outside = varies.map(|mut boot| {
            for frame in &mut boot.frames {
                frame.outside.instructions += 10;
            }
            boot
        });
        let found = moved(&steady, &outside).unwrap();
        let find = found.iter().find(|one| one.function.contains("find"));
        let find = find.unwrap();
        assert_eq!(find.hooks, None);
        assert!(find.outside.unwrap().change() > 0.0, "{find:?}");
    }
}
