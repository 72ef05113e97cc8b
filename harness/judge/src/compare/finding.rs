// SPDX-License-Identifier: MIT OR Apache-2.0

//! What was found of one cell: what changed, and whether that is for the better.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::Serialize;

use super::bootstrap::{self, Interval};
use super::pairing::Series;
use mutexlab_model::verdict::Verdict;
use mutexlab_results::metric::{Better, Kind, Unit, MIN_EFFECT, MIN_MODELLED};

/// One thing about one cell.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
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
        /// Its unit.
        unit: Unit,
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
    /// A metric that repeats with its boot.
    Repeatable {
        /// Its name.
        metric: &'a str,
        /// Its unit.
        unit: Unit,
        /// In A; the mean, if there are boots of several seeds, but too few.
        from: f64,
        /// In B.
        to: f64,
    },
    /// A sampled metric, or one that repeats with its boot, of boots of several seeds.
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
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::Verdict { .. } => 0,
            Self::Varies { .. } => 1,
            Self::Exact { .. } => 2,
            Self::Modelled { .. } => 3,
            Self::Repeatable { .. } => 4,
            Self::Sampled { .. } => 5,
        }
    }

    /// By what part of the larger number it changed: from 0 to 2.
    pub(super) fn relative(&self) -> f64 {
        match *self {
            Self::Verdict { .. } | Self::Varies { .. } => 0.0,
            Self::Exact { from, to, .. }
            | Self::Modelled { from, to, .. }
            | Self::Repeatable { from, to, .. }
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
            | Self::Repeatable { metric, .. }
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

    /// What a cell that ended otherwise means. Our own machinery's failure says nothing about the subject, but a cell that was ok and was not
    /// measured again is no pass either.
    pub(super) const fn of_verdicts(from: Verdict, to: Verdict) -> Self {
        match (from, to) {
            (Verdict::Infra | Verdict::Noisy, _) | (_, Verdict::Infra | Verdict::Noisy) => {
                Self::Undecided
            }
            (_, Verdict::Ok) => Self::Improved,
            (Verdict::Ok, _) => Self::Regressed,
            _ => Self::Changed,
        }
    }

    /// Whether anything is other than it was.
    pub const fn is_change(self) -> bool {
        matches!(self, Self::Regressed | Self::Improved | Self::Changed)
    }

    pub(super) const fn rank(self) -> u8 {
        match self {
            Self::Regressed | Self::Improved | Self::Changed => 0,
            Self::Unchanged => 1,
            Self::Undecided => 2,
        }
    }
}

impl<'a> Finding<'a> {
    /// Whether one side has numbers of the cell and the other, through no fault of the subject's,
    /// has none.
    pub(super) fn is_unmeasured(&self) -> bool {
        matches!(self.change, Change::Verdict { .. }) && self.judgement == Judgement::Undecided
    }

    /// Compares one metric of a cell. Unless `all` is to be told, the interval of a small difference is left
    /// out.
    pub(super) fn of(cell: &'a str, from: &Series<'a>, to: &Series<'a>, all: bool) -> Self {
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
                        unit: b.unit,
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
        if a.kind.max(b.kind) == Kind::Repeatable && !enough {
            let (from, to) = means;
            return Self {
                cell,
                judgement: if is_large {
                    Judgement::of(b.better, from, to)
                } else {
                    Judgement::Unchanged
                },
                change: Change::Repeatable {
                    metric,
                    unit: b.unit,
                    from,
                    to,
                },
            };
        }
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
