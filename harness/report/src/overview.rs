// SPDX-License-Identifier: MIT OR Apache-2.0

//! The answer in a few numbers, and whether they can be trusted.

use maud::{html, Markup};

use super::archive::Warning;
use super::cells::{whole, Delivery};
use super::comparison::{self, Contest};
use super::glossary;
use super::history::History;
use super::run::Run;
use super::subjects::OURS;
use mutexlab_draw::chart::number;
use mutexlab_draw::figure;
use mutexlab_results::metric::HOOK_MEAN;

/// The least and the greatest of some numbers.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

fn told((low, high): (f64, f64)) -> String {
    let (low, high) = (number::plain(low), number::plain(high));
    if low == high {
        low
    } else {
        format!("{low} – {high}")
    }
}

/// What ours costs beside the others, over all traffic of the first run that has ours.
fn headline(run: &Run) -> Option<Markup> {
    let contests = comparison::contests(run, &run.knobs());
    let ours = range(contests.iter().filter_map(|c| c.value(OURS, HOOK_MEAN)))?;
    let unit = contests
        .iter()
        .flat_map(|contest| &contest.cells)
        .find_map(|cell| cell.metric(HOOK_MEAN))
        .map(|metric| glossary::unit(&metric.unit))?;
    let mut others: Vec<&str> = Vec::new();
    for cell in contests.iter().flat_map(|contest| &contest.cells) {
        if cell.subject != OURS && !others.contains(&cell.subject.as_str()) {
            others.push(&cell.subject);
        }
    }
    let of = |subject: &str| {
        range(
            contests
                .iter()
                .filter_map(|contest| contest.value(subject, HOOK_MEAN)),
        )
    };
    let times = |subject: &str| {
        let ratio = |contest: &Contest<'_>| {
            let (ours, theirs) = (
                contest.value(OURS, HOOK_MEAN)?,
                contest.value(subject, HOOK_MEAN)?,
            );
            (ours > 0.0 && theirs > 0.0).then_some(theirs / ours)
        };
        range(contests.iter().filter_map(ratio))
    };
    Some(html! {
        p class="question" { (run.question) }
        div class="tiles" {
            div class="tile ours" {
                p class="who" { (OURS) }
                p class="figure" { (told(ours)) }
                p class="unit" { (unit) }
            }
            @for other in &others {
                @if let Some(range) = of(other) {
                    div class="tile" {
                        p class="who" { (other) }
                        p class="figure" { (told(range)) }
                        p class="unit" {
                            (unit)
                            @if let Some((low, high)) = times(other) {
                                ", " b { (times_told(low, high)) }
                            }
                        }
                    }
                }
            }
        }
        p class="note" {
            "Hook cost: what a packet of an established flow spends in netfilter's hooks, mean of both "
            "directions, the least and the greatest over " (contests.len()) " kinds of traffic (scenario "
            code { (run.scenario) } ", Linux " (run.release) "). "
            @if run.mode == "virtual" {
                "Counted in instructions, the same on any machine; an instruction count does not see cache "
                "misses."
            } @else {
                "Times are those of this machine."
            }
        }
    })
}

fn times_told(low: f64, high: f64) -> String {
    let ratio = |value| number::ratio(value, 1.0).unwrap_or_default();
    let (low, high) = (ratio(low), ratio(high));
    if low == high {
        format!("{low}× ours")
    } else {
        format!("{low} – {high}× ours")
    }
}

/// What is shown first.
pub fn section(runs: &[&Run], history: &History, warnings: &[Warning]) -> Markup {
    let headline = runs.iter().find_map(|run| headline(run));
    html! {
        section id="overview" {
            h2 { "Overview" }
            @match headline {
                Some(headline) => (headline),
                None => p { "No results beside each other yet: " code { "./just report" } " measures them." },
            }
            (figure::scroll(&runs_table(runs, history)))
            (bad_ends(runs))
            (warnings_list(warnings))
        }
    }
}

fn runs_table(runs: &[&Run], history: &History) -> Markup {
    html! {
        table class="text" {
            caption { "What this report shows" }
            thead { tr {
                th scope="col" { "scenario" } th scope="col" { "kernel" } th scope="col" { "mode" }
                th scope="col" { "commit" } th scope="col" { "age" }
                th scope="col" { "cells ok" } th scope="col" { "packets sent" }
                th scope="col" { "every packet accounted for" }
            } }
            tbody {
                @for run in runs {
                    @let delivery = run.cells.iter().filter_map(Delivery::of)
                        .fold(Delivery::default(), Delivery::plus);
                    tr {
                        th scope="row" { a href={ "#" (anchor(run)) } { (run.scenario) } }
                        td { (run.release) }
                        td { (run.mode) }
                        td { code { (run.short_commit()) } }
                        td { (age(run, history)) }
                        td class={ "verdict " (if run.cells_ok() == run.cells.len() { "ok" } else { "bad" }) } {
                            (run.cells_ok()) " of " (run.cells.len())
                        }
                        td { (whole(delivery.sent)) }
                        td { (accounted(&delivery)) }
                    }
                }
            }
        }
    }
}

fn accounted(delivery: &Delivery) -> String {
    if delivery.sent == 0 {
        return "nothing was heard".to_owned();
    }
    if delivery.is_whole() {
        return "yes".to_owned();
    }
    format!(
        "no: {} arrived, {} answered, {} damaged",
        whole(delivery.arrived),
        whole(delivery.replies),
        whole(delivery.damaged)
    )
}

fn age(run: &Run, history: &History) -> String {
    let dirty = if run.dirty { ", files differed" } else { "" };
    match history.behind(&run.commit) {
        Some(0) => format!("HEAD{dirty}"),
        Some(1) => format!("1 commit before HEAD{dirty}"),
        Some(number) => format!("{number} commits before HEAD{dirty}"),
        None => format!("not of this branch{dirty}"),
    }
}

/// Where a run's chapter is.
pub fn anchor(run: &Run) -> String {
    let text = format!("{}-{}-{}", run.scenario, run.mode, run.kernel);
    let safe = |char: char| match char {
        char if char.is_ascii_alphanumeric() || char == '-' => char,
        _ => '-',
    };
    format!("run-{}", text.chars().map(safe).collect::<String>())
}

/// Cells and boots that did not end well.
fn bad_ends(runs: &[&Run]) -> Markup {
    let cells = runs.iter().flat_map(|run| {
        let of = move |cell: &super::cell::Cell| {
            let reasons = cell
                .bad
                .iter()
                .map(|(verdict, reason)| (verdict.clone(), cell.id.clone(), reason.clone()));
            reasons.collect::<Vec<_>>()
        };
        run.cells.iter().flat_map(of)
    });
    let boots = runs.iter().flat_map(|run| {
        run.bad_boots.iter().map(|[id, verdict, reason, console]| {
            (
                verdict.clone(),
                id.clone(),
                format!("{reason} (console: {console})"),
            )
        })
    });
    let all: Vec<_> = cells.chain(boots).collect();
    html! {
        @if !all.is_empty() {
            h3 { "What did not end well" }
            ul class="bad-ends" {
                @for (verdict, what, reason) in &all {
                    li { b { (verdict) } " " code { (what) } ": " (reason) }
                }
            }
        }
    }
}

fn warnings_list(warnings: &[Warning]) -> Markup {
    html! {
        @if !warnings.is_empty() {
            div class="warnings" {
                h3 id="warnings" { "Warnings" }
                ul {
                    @for warning in warnings {
                        li { code { (warning.about) } ": " (warning.message) }
                    }
                }
            }
        }
    }
}
