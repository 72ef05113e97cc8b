// SPDX-License-Identifier: MIT OR Apache-2.0

//! What differs between two runs, and which way.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use super::bootstrap::{self, Interval};
use super::pairing::{Pairing, Series};
use super::run::{Cell, Run};
use crate::results::metrics::{Better, Kind, Unit};
use crate::verdict::Verdict;

/// A sampled or modelled metric has changed only if it did so by at least this part of the larger mean:
/// what is less is of no use to anybody, however sure it is.
pub const MIN_EFFECT: f64 = 0.01;

/// A modelled metric has changed only if it did so by at least so much of an event (or a cycle) for each
/// packet, too: a single miss in a thousand packets is none.
pub const MIN_MODELLED: f64 = 0.01;

/// Which of the metrics are looked at, and how much is told.
#[derive(Clone, Debug, Default)]
pub struct Selection<'a> {
    /// Only metrics with this in their names.
    pub metric: Option<&'a str>,
    /// Tell of what has not changed, too.
    pub all: bool,
}

/// What differs between two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference<'a> {
    /// Cells that are in both.
    pub cells: usize,
    /// Those of them of which anything has changed.
    pub changed_cells: usize,
    /// What was found, by what matters: ends of cells, exact metrics by relative size, modelled
    /// ones, sampled ones.
    pub findings: Vec<Finding<'a>>,
    /// Sampled metrics that too few boots tell of.
    pub undecided: usize,
    /// Cells that ended badly on both sides, so that there is nothing to compare.
    pub bad_in_both: Vec<&'a str>,
    /// Cells that only A has.
    pub only_a: Vec<&'a str>,
    /// Cells that only B has.
    pub only_b: Vec<&'a str>,
    /// Metrics that only A has, of any cell that is in both.
    pub metrics_only_a: Vec<&'a str>,
    /// Metrics that only B has.
    pub metrics_only_b: Vec<&'a str>,
}

/// One thing about one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding<'a> {
    /// The cell's id.
    pub cell: &'a str,
    /// Whether it is for the better.
    pub judgement: Judgement,
    /// What it is.
    #[serde(flatten)]
    pub change: Change<'a>,
}

/// Whether it is for the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// It is worse.
    Regressed,
    /// It is better.
    Improved,
    /// It is other than it was, and neither is better.
    Changed,
    /// It is as it was.
    Unchanged,
    /// Nobody knows.
    Undecided,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Change<'a> {
    /// The cell ended otherwise.
    Verdict {
        /// In A.
        from: Verdict,
        /// In B.
        to: Verdict,
        /// Why, of the worse.
        reason: Option<&'a str>,
    },
    /// A metric that is called exact was not the same in all boots of a side: either the subject or
    /// the instrument is not what it should be.
    Varies {
        /// Its name.
        metric: &'a str,
        /// Boot by boot, in A.
        from: Vec<f64>,
        /// In B.
        to: Vec<f64>,
    },
    /// An exact metric.
    Exact {
        /// Its name.
        metric: &'a str,
        /// Its unit.
        unit: Unit,
        /// In A.
        from: f64,
        /// In B.
        to: f64,
    },
    /// A modelled metric.
    Modelled {
        /// Its name.
        metric: &'a str,
        /// Its unit.
        unit: Unit,
        /// Mean over A's boots.
        from: f64,
        /// Mean over B's.
        to: f64,
    },
    /// A sampled metric.
    Sampled {
        /// Its name.
        metric: &'a str,
        /// Its unit.
        unit: Unit,
        /// Mean over A's boots.
        from: f64,
        /// Mean over B's.
        to: f64,
        /// Where the difference lies; null if the boots are too few to tell.
        difference: Option<Interval>,
        /// How many boots there are, of A and of B.
        boots: [usize; 2],
    },
}

impl Change<'_> {
    /// Less is told first.
    const fn rank(&self) -> u8 {
        match self {
            Self::Verdict { .. } => 0,
            Self::Varies { .. } => 1,
            Self::Exact { .. } => 2,
            Self::Modelled { .. } => 3,
            Self::Sampled { .. } => 4,
        }
    }

    /// By what part of the larger number it changed: from 0 to 2.
    fn relative(&self) -> f64 {
        match *self {
            Self::Verdict { .. } | Self::Varies { .. } => 0.0,
            Self::Exact { from, to, .. }
            | Self::Modelled { from, to, .. }
            | Self::Sampled { from, to, .. } => relative(from, to),
        }
    }

    /// The metric's name, if it is about one.
    pub const fn metric(&self) -> Option<&str> {
        match self {
            Self::Verdict { .. } => None,
            Self::Varies { metric, .. }
            | Self::Exact { metric, .. }
            | Self::Modelled { metric, .. }
            | Self::Sampled { metric, .. } => Some(metric),
        }
    }
}

/// The same both ways, so that whatever is called A and B, the same is called changed.
fn relative(from: f64, to: f64) -> f64 {
    let larger = from.abs().max(to.abs());
    if larger == 0.0 {
        0.0
    } else {
        (to - from).abs() / larger
    }
}

impl Judgement {
    fn of(better: Better, from: f64, to: f64) -> Self {
        match (better, to.total_cmp(&from)) {
            (_, Ordering::Equal) => Self::Unchanged,
            (Better::Neither, _) => Self::Changed,
            (Better::Lower, Ordering::Less) | (Better::Higher, Ordering::Greater) => Self::Improved,
            (Better::Lower, Ordering::Greater) | (Better::Higher, Ordering::Less) => {
                Self::Regressed
            }
        }
    }

    /// Whether anything is other than it was.
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Regressed | Self::Improved | Self::Changed)
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Regressed | Self::Improved | Self::Changed => 0,
            Self::Unchanged => 1,
            Self::Undecided => 2,
        }
    }
}

impl<'a> Difference<'a> {
    /// Compares `b` with `a`. Whether that makes sense is for
    /// [`Comparable`](super::comparable::Comparable) to say.
    pub fn of(a: &'a Run, b: &'a Run, selection: &Selection<'_>) -> Self {
        let mut found = Self {
            cells: 0,
            changed_cells: 0,
            findings: Vec::new(),
            undecided: 0,
            bad_in_both: Vec::new(),
            only_a: only(a, b),
            only_b: only(b, a),
            metrics_only_a: Vec::new(),
            metrics_only_b: Vec::new(),
        };
        let mut pairing = Pairing::of(&a.definitions, &b.definitions, selection.metric);
        for (id, ours) in &a.cells {
            let Some(theirs) = b.cells.get(id) else {
                continue;
            };
            found.cells += 1;
            let before = found.findings.len();
            found.cell(id, ours, theirs, &mut pairing, selection);
            let new = found.findings.get(before..).unwrap_or_default();
            if new.iter().any(|finding| finding.judgement.is_change()) {
                found.changed_cells += 1;
            }
        }
        (found.metrics_only_a, found.metrics_only_b) = pairing.unpaired();
        found.sort(&pairing);
        found
    }

    /// How many findings are of this kind.
    pub fn count(&self, judgement: Judgement) -> usize {
        let same = |finding: &&Finding<'_>| finding.judgement == judgement;
        self.findings.iter().filter(same).count()
    }

    /// Cells that have no numbers on one side or both.
    pub fn unjudged_cells(&self) -> usize {
        let unmeasured = |finding: &&Finding<'_>| finding.is_unmeasured();
        self.findings.iter().filter(unmeasured).count() + self.bad_in_both.len()
    }

    /// Whether a comparison can let this pass: 0 if nothing is worse, 1 if something is or an exact
    /// metric varies, 2 if a cell that one side measured the other could not.
    pub fn exit_code(&self) -> i32 {
        let is_bad = |finding: &Finding<'_>| {
            let varies = matches!(finding.change, Change::Varies { .. });
            varies || finding.judgement == Judgement::Regressed
        };
        if self.findings.iter().any(is_bad) {
            1
        } else if self.findings.iter().any(Finding::is_unmeasured) {
            2
        } else {
            0
        }
    }

    fn cell(
        &mut self,
        id: &'a str,
        a: &'a Cell,
        b: &'a Cell,
        pairing: &mut Pairing<'a>,
        selection: &Selection<'_>,
    ) {
        let ((from, why_from), (to, why_to)) = (a.verdict(), b.verdict());
        if from != to {
            self.findings.push(Finding {
                cell: id,
                judgement: verdict_judgement(from, to),
                change: Change::Verdict {
                    from,
                    to,
                    reason: if to > from { why_to } else { why_from },
                },
            });
            return;
        }
        if from != Verdict::Ok {
            self.bad_in_both.push(id);
            return;
        }
        for (ours, theirs) in pairing.pairs(a, b) {
            let finding = Finding::of(id, &ours, &theirs, selection.all);
            if finding.judgement == Judgement::Undecided {
                self.undecided += 1;
            }
            if selection.all || finding.judgement.is_change() {
                self.findings.push(finding);
            }
        }
    }

    /// What matters first; what is of one cell stays together.
    fn sort(&mut self, pairing: &Pairing<'a>) {
        let mut largest: BTreeMap<(u8, &str), f64> = BTreeMap::new();
        for finding in &self.findings {
            let size = largest
                .entry((finding.change.rank(), finding.cell))
                .or_insert(0.0);
            *size = size.max(finding.change.relative());
        }
        self.findings.sort_by_cached_key(|finding| {
            let rank = finding.change.rank();
            let size = largest.get(&(rank, finding.cell)).copied().unwrap_or(0.0);
            // Sizes are not negative, and their bits are in their order then.
            let by_size = std::cmp::Reverse(size.to_bits());
            let metric = finding.change.metric().map(|metric| pairing.place(metric));
            // That a cell was not measured matters, though nobody knows which way.
            let judged = if rank == 0 {
                0
            } else {
                finding.judgement.rank()
            };
            (judged, rank, by_size, finding.cell, metric)
        });
    }
}

impl<'a> Finding<'a> {
    /// Whether one side has numbers of the cell and the other, through no fault of the subject's,
    /// has none.
    fn is_unmeasured(&self) -> bool {
        matches!(self.change, Change::Verdict { .. }) && self.judgement == Judgement::Undecided
    }

    fn of(cell: &'a str, from: &Series<'a>, to: &Series<'a>, all: bool) -> Self {
        let (a, b) = (from.definition, to.definition);
        let (from, to) = (from.values.as_slice(), to.values.as_slice());
        let metric = a.name.as_str();
        if a.kind == Kind::Exact && b.kind == Kind::Exact {
            return match (same(from), same(to)) {
                (Some(from), Some(to)) => Self {
                    cell,
                    judgement: Judgement::of(b.better, from, to),
                    change: Change::Exact {
                        metric,
                        unit: b.unit,
                        from,
                        to,
                    },
                },
                _ => Self {
                    cell,
                    judgement: Judgement::Changed,
                    change: Change::Varies {
                        metric,
                        from: from.to_vec(),
                        to: to.to_vec(),
                    },
                },
            };
        }
        let boots = [from.len(), to.len()];
        let means = (bootstrap::mean(from), bootstrap::mean(to));
        let is_large = relative(means.0, means.1) >= MIN_EFFECT;
        if a.kind.max(b.kind) == Kind::Modelled {
            let (from, to) = means;
            let judgement = if is_large && (to - from).abs() >= MIN_MODELLED {
                Judgement::of(b.better, from, to)
            } else {
                Judgement::Unchanged
            };
            return Self {
                cell,
                judgement,
                change: Change::Modelled {
                    metric,
                    unit: b.unit,
                    from,
                    to,
                },
            };
        }
        let enough = from.len().min(to.len()) >= bootstrap::MIN_BOOTS;
        // Of a small effect nobody asks how sure it is, unless all is to be told.
        let difference = (is_large || all)
            .then(|| bootstrap::difference(from, to))
            .flatten();
        let (from, to) = means;
        let judgement = match difference {
            _ if !enough => Judgement::Undecided,
            Some(interval) if is_large && interval.excludes_zero() => {
                Judgement::of(b.better, from, to)
            }
            _ => Judgement::Unchanged,
        };
        Self {
            cell,
            judgement,
            change: Change::Sampled {
                metric,
                unit: b.unit,
                from,
                to,
                difference,
                boots,
            },
        }
    }
}

/// The one number that all are.
fn same(values: &[f64]) -> Option<f64> {
    let (first, rest) = values.split_first()?;
    rest.iter().all(|value| value == first).then_some(*first)
}

/// Our own machinery's failure says nothing about the subject, but a cell that was ok and was not
/// measured again is no pass either.
const fn verdict_judgement(from: Verdict, to: Verdict) -> Judgement {
    match (from, to) {
        (Verdict::Infra | Verdict::Noisy, _) | (_, Verdict::Infra | Verdict::Noisy) => {
            Judgement::Undecided
        }
        (_, Verdict::Ok) => Judgement::Improved,
        (Verdict::Ok, _) => Judgement::Regressed,
        _ => Judgement::Changed,
    }
}

fn only<'a>(these: &'a Run, those: &Run) -> Vec<&'a str> {
    let ids = these.cells.keys();
    ids.filter(|id| !those.cells.contains_key(*id))
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compare::run::tests::{exact, run, sampled, MetricOfTest};

    fn of<'a>(a: &'a Run, b: &'a Run) -> Difference<'a> {
        Difference::of(a, b, &Selection::default())
    }

    #[test]
    fn one_instruction_more_is_worse() {
        let a = run(&[
            ("a", &[&[exact("hook.mean", 7.0)]]),
            ("b", &[&[exact("hook.mean", 9.0)]]),
        ]);
        let b = run(&[
            ("a", &[&[exact("hook.mean", 8.0)]]),
            ("b", &[&[exact("hook.mean", 9.0)]]),
        ]);
        let found = of(&a, &b);
        assert_eq!(
            (found.cells, found.changed_cells, found.exit_code()),
            (2, 1, 1)
        );
        assert_eq!(found.findings.len(), 1);
        assert_eq!(found.findings[0].cell, "a");
        assert_eq!(found.findings[0].judgement, Judgement::Regressed);
        let back = of(&b, &a);
        assert_eq!(back.findings[0].judgement, Judgement::Improved);
        assert_eq!(back.exit_code(), 0);
    }

    #[test]
    fn more_is_better_where_it_is_and_neither_where_it_is_not() {
        let with = |better, value| {
            let metric = MetricOfTest {
                better,
                ..exact("a", value)
            };
            run(&[("a", &[&[metric]])])
        };
        for (better, judgement, code) in [
            (Better::Higher, Judgement::Improved, 0),
            (Better::Lower, Judgement::Regressed, 1),
            (Better::Neither, Judgement::Changed, 0),
        ] {
            let (a, b) = (with(better, 1.0), with(better, 2.0));
            let found = of(&a, &b);
            assert_eq!(found.findings[0].judgement, judgement);
            assert_eq!(found.exit_code(), code);
        }
    }

    #[test]
    fn what_matters_comes_first() {
        let boots = |value: f64| {
            [
                sampled("s", value),
                sampled("s", value + 1.0),
                sampled("s", value),
            ]
        };
        let [s1, s2, s3] = boots(100.0);
        let a = run(&[
            ("dead", &[&[exact("hook.mean", 1.0)]]),
            ("large", &[&[exact("p50", 10.0), exact("hook.mean", 10.0)]]),
            ("sampled", &[&[s1], &[s2], &[s3]]),
            ("small", &[&[exact("hook.mean", 1000.0)]]),
        ]);
        let [s1, s2, s3] = boots(200.0);
        let mut b = run(&[
            ("dead", &[&[exact("hook.mean", 1.0)]]),
            ("large", &[&[exact("p50", 11.0), exact("hook.mean", 12.0)]]),
            ("sampled", &[&[s1], &[s2], &[s3]]),
            ("small", &[&[exact("hook.mean", 1001.0)]]),
        ]);
        let dead = b.cells.get_mut("dead").unwrap().boots.get_mut(&1).unwrap();
        dead.verdict = Verdict::Splat;
        let found = of(&a, &b);
        let told: Vec<_> = found
            .findings
            .iter()
            .map(|finding| (finding.cell, finding.change.metric()))
            .collect();
        assert_eq!(
            told,
            [
                ("dead", None),
                ("large", Some("hook.mean")),
                ("large", Some("p50")),
                ("small", Some("hook.mean")),
                ("sampled", Some("s")),
            ]
        );
        assert_eq!(found.changed_cells, 4);
    }

    #[test]
    fn an_exact_metric_that_varies_is_told() {
        let a = run(&[("a", &[&[exact("m", 7.0)], &[exact("m", 7.0)]])]);
        let b = run(&[("a", &[&[exact("m", 7.0)], &[exact("m", 8.0)]])]);
        let found = of(&a, &b);
        let varies = Change::Varies {
            metric: "m",
            from: vec![7.0, 7.0],
            to: vec![7.0, 8.0],
        };
        assert_eq!(found.findings[0].change, varies);
        assert_eq!(found.exit_code(), 1);
    }

    #[test]
    fn few_boots_and_small_effects_tell_nothing() {
        let of_boots = |values: &[f64]| {
            let boots: Vec<_> = values.iter().map(|&value| [sampled("s", value)]).collect();
            let boots: Vec<&[_]> = boots.iter().map(|boot| boot.as_slice()).collect();
            run(&[("a", &boots)])
        };
        let judgement = |a: &[f64], b: &[f64]| {
            let (a, b) = (of_boots(a), of_boots(b));
            let selection = Selection {
                all: true,
                ..Selection::default()
            };
            let found = Difference::of(&a, &b, &selection);
            (found.findings[0].judgement, found.undecided)
        };
        let undecided = (Judgement::Undecided, 1);
        assert_eq!(judgement(&[1.0, 1.0], &[9.0, 9.0]), undecided);
        assert_eq!(judgement(&[1.0; 3], &[9.0; 3]), (Judgement::Regressed, 0));
        assert_eq!(
            judgement(&[100.0; 3], &[100.9; 3]),
            (Judgement::Unchanged, 0)
        );
        let noisy = judgement(&[1.0, 50.0, 99.0], &[60.0, 20.0, 90.0]);
        assert_eq!(noisy, (Judgement::Unchanged, 0));
    }

    #[test]
    fn what_only_one_has_is_listed() {
        let a = run(&[("a", &[&[exact("m", 1.0), exact("n", 1.0)]]), ("x", &[&[]])]);
        let b = run(&[("a", &[&[exact("m", 1.0), exact("o", 1.0)]]), ("y", &[&[]])]);
        let found = of(&a, &b);
        assert_eq!(
            (found.only_a.as_slice(), found.only_b.as_slice()),
            (&["x"][..], &["y"][..])
        );
        assert_eq!(found.metrics_only_a, ["n"]);
        assert_eq!(found.metrics_only_b, ["o"]);
        assert!(found.findings.is_empty());
    }

    #[test]
    fn a_cell_that_was_not_measured_is_no_pass() {
        let a = run(&[("a", &[&[exact("m", 1.0)]])]);
        let mut b = a.clone();
        b.cells
            .get_mut("a")
            .unwrap()
            .boots
            .get_mut(&1)
            .unwrap()
            .verdict = Verdict::Infra;
        let found = of(&a, &b);
        assert_eq!(
            (
                found.exit_code(),
                found.changed_cells,
                found.unjudged_cells()
            ),
            (2, 0, 1)
        );
        let found = of(&b, &b);
        assert_eq!((found.bad_in_both.len(), found.unjudged_cells()), (1, 1));
    }

    fn any_run() -> impl Strategy<Value = Run> {
        let metric =
            (0..4_usize, -1e6..1e6_f64, any::<bool>()).prop_map(|(name, value, is_exact)| {
                let name = ["hook.mean", "a", "b", "c"][name];
                if is_exact {
                    exact(name, value)
                } else {
                    sampled(name, value)
                }
            });
        let boot = prop::collection::vec(metric, 0..4);
        let cell = prop::collection::vec(boot, 1..5);
        prop::collection::vec(cell, 1..6).prop_map(|cells| {
            let boots: Vec<Vec<&[_]>> = cells
                .iter()
                .map(|cell| cell.iter().map(Vec::as_slice).collect())
                .collect();
            let names = ["a", "b", "c", "d", "e"];
            let cells: Vec<_> = names
                .into_iter()
                .zip(boots.iter().map(Vec::as_slice))
                .collect();
            run(&cells)
        })
    }

    proptest! {
        #[test]
        fn a_run_does_not_differ_from_itself(run in any_run()) {
            let found = of(&run, &run);
            let varies = |finding: &Finding<'_>| matches!(finding.change, Change::Varies { .. });
            prop_assert!(found.findings.iter().all(varies), "{:?}", found.findings);
            prop_assert!(found.only_a.is_empty() && found.metrics_only_b.is_empty());
        }

        #[test]
        fn what_differs_one_way_differs_the_other(a in any_run(), b in any_run()) {
            let (there, back) = (of(&a, &b), of(&b, &a));
            prop_assert_eq!(there.changed_cells, back.changed_cells);
            prop_assert_eq!(there.count(Judgement::Regressed), back.count(Judgement::Improved));
            prop_assert_eq!(there.undecided, back.undecided);
            prop_assert_eq!(there.only_a, back.only_b);
        }
    }
}
