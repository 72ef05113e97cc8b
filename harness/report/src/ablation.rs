// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each knob changes, alone and in pairs.

use maud::{html, Markup};

use super::cell::Cell;
use super::glossary;
use super::run::{Knob, Run};
use super::traffic::Traffic;
use mutexlab_draw::chart::axis::{Axis, Zero};
use mutexlab_draw::chart::dots::{Dots, Mark, Row};
use mutexlab_draw::chart::mark::STYLES;
use mutexlab_draw::chart::number;
use mutexlab_draw::figure;
use mutexlab_draw::figure::Ids;
use mutexlab_results::metric::{FIRST_PACKET, HOOK_MEAN, MEMORY_PER_FLOW, PATH_MEAN};

/// What a knob may change.
const METRICS: [&str; 4] = [HOOK_MEAN, FIRST_PACKET, MEMORY_PER_FLOW, PATH_MEAN];

/// A knob with another value than its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn<'a> {
    knob: &'a Knob,
    value: Option<&'a str>,
}

impl Turn<'_> {
    fn label(&self) -> String {
        self.knob.setting(self.value)
    }
}

/// Cells of one subject, traffic and number of CPUs, of which one has all knobs at their defaults.
struct Bench<'a> {
    subject: &'a str,
    traffic: &'a Traffic,
    cpus: u32,
    default: &'a Cell,
}

impl Bench<'_> {
    fn label(&self, subjects: bool) -> String {
        let mut text = self.traffic.label();
        if subjects {
            text = format!("{}: {text}", self.subject);
        }
        if self.cpus != 1 {
            text.push_str(&format!(", {} CPUs", self.cpus));
        }
        text
    }
}

/// Finds cells by the knobs that they have turned.
struct Ablation<'a> {
    run: &'a Run,
    knobs: &'a [Knob],
    benches: Vec<Bench<'a>>,
    turns: Vec<Turn<'a>>,
}

impl<'a> Ablation<'a> {
    fn new(run: &'a Run, knobs: &'a [Knob]) -> Self {
        let benches = run
            .cells
            .iter()
            .filter(|cell| !cell.parameters.is_empty() && run.turned(knobs, cell).is_empty())
            .map(|default| Bench {
                subject: &default.subject,
                traffic: &default.traffic,
                cpus: default.cpus,
                default,
            });
        let turns = knobs.iter().flat_map(|knob| {
            knob.others.iter().map(move |value| Turn {
                knob,
                value: value.as_deref(),
            })
        });
        Self {
            run,
            knobs,
            benches: benches.collect(),
            turns: turns.collect(),
        }
    }

    /// The cell with these knobs turned and no others.
    fn cell(&self, bench: &Bench<'_>, turns: &[Turn<'_>]) -> Option<&'a Cell> {
        self.run.cells.iter().find(|cell| {
            let turned = self.run.turned(self.knobs, cell);
            cell.subject == bench.subject
                && cell.traffic == *bench.traffic
                && cell.cpus == bench.cpus
                && turned.len() == turns.len()
                && turned.iter().all(|(knob, value)| {
                    let turn = Turn {
                        knob,
                        value: value.as_deref(),
                    };
                    turns.contains(&turn)
                })
        })
    }

    /// What the turns change of a metric.
    fn delta(&self, bench: &Bench<'_>, turns: &[Turn<'_>], metric: &str) -> Option<f64> {
        Some(self.cell(bench, turns)?.value(metric)? - bench.default.value(metric)?)
    }

    /// Whether cells with two knobs turned were measured.
    fn has_pairs(&self) -> bool {
        self.run
            .cells
            .iter()
            .any(|cell| self.run.turned(self.knobs, cell).len() == 2)
    }

    fn subjects_differ(&self) -> bool {
        let first = self.benches.first().map(|bench| bench.subject);
        self.benches
            .iter()
            .any(|bench| Some(bench.subject) != first)
    }

    /// What each knob changes alone; none if it changes nothing of this metric.
    fn alone(&self, metric: &str, benches: &[Bench<'_>]) -> Option<Dots> {
        let mut unit = None;
        let rows: Vec<Row> = self
            .turns
            .iter()
            .map(|turn| Row {
                name: turn.label(),
                marks: benches
                    .iter()
                    .map(|bench| {
                        let value = self.delta(bench, &[*turn], metric)?;
                        let before = bench.default.metric(metric)?;
                        unit = Some(before.unit.clone());
                        let percent = number::percent(value, before.value());
                        Some(Mark {
                            value,
                            note: percent.map_or_else(String::new, |text| format!("({text})")),
                        })
                    })
                    .collect(),
            })
            .collect();
        let values = || rows.iter().flat_map(|row| &row.marks).flatten();
        // Tenths are the path's noise, not a knob's doing.
        if !values().any(|mark| mark.value.abs() >= 0.5) {
            return None;
        }
        let unit = glossary::unit(&unit?);
        let subjects = self.subjects_differ();
        let told = rows
            .iter()
            .map(|row| format!("{}: {}", row.name, row.range()));
        Some(Dots {
            title: format!(
                "What each setting changes alone: {}",
                glossary::title(metric)
            ),
            description: format!(
                "Marks, in {unit} more or fewer than with all defaults. {}.",
                told.collect::<Vec<_>>().join("; ")
            ),
            axis: Axis::linear(
                &format!("change of {metric}"),
                &unit,
                values().map(|mark| mark.value),
                Zero::Shown,
            ),
            names: benches.iter().map(|bench| bench.label(subjects)).collect(),
            rows,
        })
    }

    /// What two knobs change together, and how far that is from what they change alone.
    fn pairs(&self, bench: &Bench<'_>, metric: &str) -> Markup {
        let together = |a: &Turn<'_>, b: &Turn<'_>| {
            let alone = |turn: &Turn<'_>| self.delta(bench, &[*turn], metric);
            let both = self.delta(bench, &[*a, *b], metric)?;
            Some((both, both - alone(a)? - alone(b)?))
        };
        let most = self
            .turns
            .iter()
            .flat_map(|a| self.turns.iter().filter_map(move |b| together(a, b)))
            .map(|(_, interaction)| interaction.abs())
            .fold(0.0, f64::max);
        html! {
            table class="heat" {
                caption { (bench.label(self.subjects_differ())) }
                thead { tr {
                    td {}
                    @for turn in &self.turns { th scope="col" { (turn.label()) } }
                } }
                tbody {
                    @for (row, a) in self.turns.iter().enumerate() {
                        tr {
                            th scope="row" { (a.label()) }
                            @for (column, b) in self.turns.iter().enumerate() {
                                @if row == column {
                                    td class="alone" { @match self.delta(bench, &[*a], metric) {
                                        Some(value) => { (number::signed(value)) small { "alone" } },
                                        None => "–",
                                    } }
                                } @else if column > row {
                                    td class="empty" {}
                                } @else {
                                    @match together(a, b) {
                                        Some((both, interaction)) => td class=(heat(interaction, most)) {
                                            (number::signed(both)) small { (told(interaction)) }
                                        },
                                        None => td { "–" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn told(interaction: f64) -> String {
    match number::signed(interaction).as_str() {
        "0" => "as their sum".to_owned(),
        text if interaction > 0.0 => {
            format!("{} more than their sum", text.trim_start_matches('+'))
        }
        _ => format!("{} less than their sum", number::plain(-interaction)),
    }
}

/// A shade for an interaction: three steps to either side.
fn heat(interaction: f64, most: f64) -> &'static str {
    if interaction.abs() < 0.5 || most == 0.0 {
        return "as-sum";
    }
    match (interaction > 0.0, interaction.abs() / most) {
        (true, part) if part > 0.66 => "more3",
        (true, part) if part > 0.33 => "more2",
        (true, _) => "more1",
        (false, part) if part > 0.66 => "less3",
        (false, part) if part > 0.33 => "less2",
        (false, _) => "less1",
    }
}

/// Plots and tables of a run that has knobs.
pub fn section(ids: &mut Ids, run: &Run, knobs: &[Knob]) -> Markup {
    let ablation = Ablation::new(run, knobs);
    let defaults = knobs
        .iter()
        .map(|knob| knob.setting(knob.default.as_deref()));
    let plots: Vec<Dots> = METRICS
        .iter()
        .flat_map(|metric| {
            // No more marks in a row than can be told apart.
            let parts = ablation.benches.chunks(STYLES);
            parts.filter_map(|benches| ablation.alone(metric, benches))
        })
        .collect();
    html! {
        p {
            "Everything is compared with the defaults: "
            @for (index, default) in defaults.enumerate() {
                @if index > 0 { ", " }
                code { (default) }
            }
            "."
        }
        @if plots.is_empty() {
            p { "No setting changes anything by half an instruction." }
        }
        @for plot in &plots { (figure::wide(ids, plot)) }
        @if ablation.has_pairs() {
            @let tables: Vec<Markup> = ablation.benches.iter()
                .map(|bench| figure::scroll(&ablation.pairs(bench, HOOK_MEAN))).collect();
            h4 { "Pairs" }
            p {
                "What two settings change together (" code { (HOOK_MEAN) } "), and how far that is from "
                "the sum of what each changes alone. Less than the sum: they have a part of what they change in common."
            }
            @for table in tables.iter().take(1) { (table) }
            @if tables.len() > 1 {
                (figure::folded("The pairs with other traffic", &html! {
                    @for table in tables.iter().skip(1) { (table) }
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    fn with<T>(look: impl FnOnce(&Ablation<'_>) -> T) -> T {
        let run = synthetic::run(&synthetic::ablation());
        let knobs = run.knobs();
        look(&Ablation::new(&run, &knobs))
    }

    #[test]
    fn what_a_knob_changes_is_the_difference_from_the_defaults() {
        with(|ablation| {
            assert_eq!(ablation.benches.len(), 2);
            let plot = ablation.alone(HOOK_MEAN, &ablation.benches).unwrap();
            let changes: Vec<_> = plot
                .rows
                .iter()
                .map(|row| {
                    let mark = row.marks[0].as_ref().unwrap();
                    (row.name.as_str(), mark.value, mark.note.as_str())
                })
                .collect();
            assert_eq!(
                changes,
                [
                    ("pool = 0", 0.0, "(0 %)"),
                    ("rcu = 0", 60.0, "(+33.0 %)"),
                    ("zero_copy = 0", 9400.0, "(+5164.8 %)")
                ]
            );
            let first = ablation.alone(FIRST_PACKET, &ablation.benches).unwrap();
            assert_eq!(first.rows[0].marks[1].as_ref().unwrap().value, 700.0);
            // Nothing changes what was not measured.
            assert_eq!(ablation.alone(MEMORY_PER_FLOW, &ablation.benches), None);
        });
    }

    #[test]
    fn pairs_show_what_is_beyond_the_sum() {
        with(|ablation| {
            assert!(ablation.has_pairs());
            let text = ablation
                .pairs(&ablation.benches[0], HOOK_MEAN)
                .into_string();
            // 60 and 9,400 alone, 9,445 together.
            assert!(text.contains("+9,445"), "{text}");
            assert!(text.contains("15 less than their sum"), "{text}");
            assert!(text.contains("as their sum"), "{text}");
        });
    }
}
