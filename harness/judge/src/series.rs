// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commits of a kernel one after the other: what each did to the counts.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::compare::difference::{Difference, Shown};
use crate::compare::finding::{Change, Finding};
use mutexlab_results::slim::Run;

/// What measuring a commit came to.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The kernel does not build, or the modules do not against it.
    DoesNotBuild {
        /// In one line.
        why: &'a str,
        /// All that make said.
        log: &'a Path,
    },
    /// It was measured; cells are named without the kernel.
    Measured(&'a Run),
}

/// A commit beside the last one before it that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
#[schemars(deny_unknown_fields)]
pub enum Step<'a> {
    /// It does not build.
    DoesNotBuild {
        /// In one line.
        why: &'a str,
        /// All that make said.
        log: &'a Path,
    },
    /// There is nothing before it to compare with.
    First {
        /// Its results.
        results: &'a Path,
    },
    /// It boots the same, to the last bit.
    SameImage,
    /// What boots is another.
    Measured {
        /// Its results.
        results: &'a Path,
        /// Counts that moved, and cells that ended otherwise.
        moved: Vec<Finding<'a>>,
        /// How many cells have numbers on both sides.
        compared: usize,
    },
}

impl Step<'_> {
    /// Whether a count moved; that a cell ended otherwise is none.
    pub fn moves_a_count(&self) -> bool {
        let Self::Measured { moved, .. } = self else {
            return false;
        };
        let mut changes = moved.iter().map(|finding| &finding.change);
        changes.any(|change| !matches!(change, Change::Verdict { .. }))
    }
}

/// What each commit did, the first of which has none before it.
pub fn steps<'a>(outcomes: &[Outcome<'a>]) -> Vec<Step<'a>> {
    let mut before: Option<&Run> = None;
    let mut steps = Vec::new();
    for outcome in outcomes {
        steps.push(match *outcome {
            Outcome::DoesNotBuild { why, log } => Step::DoesNotBuild { why, log },
            Outcome::Measured(run) => {
                let step = step(before, run);
                before = Some(run);
                step
            }
        });
    }
    steps
}

fn step<'a>(before: Option<&'a Run>, run: &'a Run) -> Step<'a> {
    let results = run.path.as_path();
    let Some(before) = before else {
        return Step::First { results };
    };
    if boots_the_same(before, run) {
        return Step::SameImage;
    }
    let found = Difference::of(before, run, &Shown::default());
    let unjudged = found.unjudged_cells();
    let moved = found.findings.into_iter().filter(is_certain).collect();
    Step::Measured {
        results,
        moved,
        compared: found.cells.saturating_sub(unjudged),
    }
}

/// Whether two runs had the same kernel and modules in their guests, whatever they were made from.
pub fn boots_the_same(a: &Run, b: &Run) -> bool {
    let of = |run: &Run| -> Vec<_> {
        let kernels = run.closure.kernels.values();
        let files = kernels.map(|kernel| (kernel.image_sha256.clone(), kernel.modules.clone()));
        files.collect()
    };
    of(a) == of(b)
}

/// Whether chance has no part in it.
fn is_certain(finding: &Finding<'_>) -> bool {
    let counted = matches!(
        finding.change,
        Change::Exact { .. } | Change::Varies { .. } | Change::Verdict { .. }
    );
    counted && (finding.judgement.is_change() || matches!(finding.change, Change::Verdict { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_results::sample::{exact, run, sampled};

    fn of(image: &str, hook: f64, path: f64) -> Run {
        let mut run = run(&[(
            "a",
            &[&[exact("hook.mean", hook), sampled("path.mean", path)]],
        )]);
        for kernel in run.closure.kernels.values_mut() {
            kernel.image_sha256 = image.repeat(64);
        }
        run
    }

    #[test]
    fn each_is_compared_with_the_last_that_was_measured() {
        let runs = [
            of("a", 7.0, 90.0),
            of("a", 7.0, 90.0),
            of("b", 7.0, 95.0),
            of("c", 9.0, 99.0),
        ];
        let broken = Outcome::DoesNotBuild {
            why: "a.c:1:2: error: nonsense",
            log: Path::new("/a.log"),
        };
        let [base, same, other, moving] = runs.each_ref().map(Outcome::Measured);
        let steps = steps(&[base, same, other, broken, moving]);
        assert!(matches!(steps[0], Step::First { .. }));
        assert_eq!(steps[1], Step::SameImage);
        // What is sampled moves without a reason.
        assert!(matches!(&steps[2], Step::Measured { moved, compared: 1, .. } if moved.is_empty()));
        assert!(matches!(steps[3], Step::DoesNotBuild { .. }));
        let Step::Measured { moved, .. } = &steps[4] else {
            panic!("{:?}", steps[4])
        };
        assert_eq!(moved[0].change.metric(), Some("hook.mean"));
        assert!(steps[4].moves_a_count() && !steps[2].moves_a_count());
    }
}
