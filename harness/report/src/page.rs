// SPDX-License-Identifier: MIT OR Apache-2.0

//! The page as a whole: one file that needs no other, and no network and no script.

use maud::{html, Markup, PreEscaped, DOCTYPE};

use super::ablation;
use super::archive::{Archive, Warning};
use super::cells;
use super::comparison;
use super::curves;
use super::glossary;
use super::golden::Golden;
use super::headlines;
use super::history::History;
use super::overview;
use super::percentiles;
use super::provenance;
use super::run::Run;
use super::subjects::Styles;
use super::trend::Trend;
use mutexlab_draw::chart::Plot;
use mutexlab_draw::figure;
use mutexlab_draw::figure::Ids;

use mutexlab_draw::STYLE;
/// So many plots of a kind are shown at once; the others when they are asked for.
const SHOWN: usize = 6;

/// All that a page is made of.
pub struct Page<'a> {
    /// The results.
    pub archive: &'a Archive,
    /// What commits recorded.
    pub golden: &'a [Golden],
    /// The commits.
    pub history: &'a History,
    /// Scenarios that come first, in their order.
    pub order: &'a [&'a str],
    /// What went wrong beside the archive's own warnings.
    pub warnings: &'a [Warning],
}

impl Page<'_> {
    /// The runs that have a chapter.
    pub fn runs(&self) -> Vec<&Run> {
        self.archive.newest(self.history, self.order)
    }

    /// The page, always the same for the same input.
    pub fn html(&self) -> String {
        let runs = self.runs();
        let mut ids = Ids::default();
        let names = runs
            .iter()
            .flat_map(|run| &run.cells)
            .map(|cell| cell.subject.as_str());
        let mut styles = Styles::new(names);
        let mut warnings = self.archive.warnings.clone();
        warnings.extend_from_slice(self.warnings);
        warnings.extend(self.strangers(&runs));
        let trends: Vec<Trend<'_>> = runs
            .iter()
            .filter_map(|run| Trend::new(run, self.archive, self.golden, self.history))
            .collect();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title()) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        p class="brand" { "mutexlab" }
                        h1 { "What a packet costs" }
                        @if let Some(head) = self.history.head() {
                            p class="head" { code { (head.short()) } " " (head.subject) " · " (head.day) }
                        }
                        (navigation(&runs, !trends.is_empty()))
                    }
                    main {
                        (overview::section(&runs, self.history, &warnings))
                        @if !trends.is_empty() {
                            section id="trend" {
                                h2 { "Over commits" }
                                @for trend in &trends { (trend.section(&mut ids, self.history)) }
                            }
                        }
                        @for run in &runs { (chapter(&mut ids, &mut styles, run)) }
                        (glossary::section(&runs))
                    }
                    footer {
                        p { "Made by mutexlab from " (self.archive.files) " files of results. docs/measuring.md says how the numbers come about." }
                    }
                }
            }
        };
        page.into_string()
    }

    fn title(&self) -> String {
        let head = self.history.head().map(|commit| commit.short());
        format!(
            "mutexlab: what a packet costs, {}",
            head.unwrap_or("no commit")
        )
    }

    /// Results that no trend can show.
    fn strangers(&self, shown: &[&Run]) -> Option<Warning> {
        let mut commits: Vec<String> = self
            .archive
            .runs
            .iter()
            .filter(|run| self.history.position(&run.commit).is_none())
            // Said where it is shown.
            .filter(|run| !shown.iter().any(|shown| std::ptr::eq(*shown, *run)))
            .map(Run::short_commit)
            .collect();
        commits.sort();
        commits.dedup();
        let message = "results of these commits are not of this branch's history, and in no trend";
        (!commits.is_empty()).then(|| Warning::new(commits.join(", "), message))
    }
}

fn navigation(runs: &[&Run], trend: bool) -> Markup {
    html! {
        nav aria-label="Sections" {
            ul {
                li { a href="#overview" { "Overview" } }
                @if trend { li { a href="#trend" { "Over commits" } } }
                @for run in runs {
                    li { a href={ "#" (overview::anchor(run)) } { (chapter_name(run, runs)) } }
                }
                li { a href="#glossary" { "Every metric" } }
            }
        }
    }
}

/// The scenario, and whatever tells it from others of its name.
fn chapter_name(run: &Run, runs: &[&Run]) -> String {
    let mut name = run.scenario.clone();
    let namesakes = || runs.iter().filter(|other| other.scenario == run.scenario);
    if namesakes().any(|other| other.kernel != run.kernel) {
        name.push_str(&format!(" {}", run.kernel));
    }
    if namesakes().any(|other| other.mode != run.mode) {
        name.push_str(&format!(" {}", run.mode));
    }
    name
}

fn borrowed(plots: &[Box<dyn Plot>]) -> impl Iterator<Item = &dyn Plot> {
    plots.iter().map(|plot| &**plot)
}

/// The first plots, and the others when they are asked for.
fn some_cards(ids: &mut Ids, plots: &[Box<dyn Plot>], what: &str) -> Markup {
    // A row of a few is not worth hiding.
    let shown = if plots.len() <= SHOWN + 3 {
        plots.len()
    } else {
        SHOWN
    };
    let (shown, others) = plots.split_at(shown);
    html! {
        (figure::cards(ids, borrowed(shown)))
        @if !others.is_empty() {
            (figure::folded(&format!("{} more {what}", others.len()),
                &figure::cards(ids, borrowed(others))))
        }
    }
}

/// All about one run.
fn chapter(ids: &mut Ids, styles: &mut Styles, run: &Run) -> Markup {
    let knobs = run.knobs();
    let curves = curves::plots(run, &knobs, styles);
    let bars = if curves.is_empty() {
        comparison::plots(run, &knobs, styles)
    } else {
        Vec::new()
    };
    let percentiles = percentiles::plots(run, &knobs, styles);
    let zero = headlines::zero(run);
    html! {
        section id=(overview::anchor(run)) {
            h2 { (run.question) }
            p class="note" {
                "Scenario " code { (run.scenario) } ", Linux " (run.release) ", "
                (run.cells_ok()) " of " (run.cells.len()) " cells ok, at commit "
                code { (run.short_commit()) }
                @if run.dirty { " with files that differed" }
                "."
            }
            @if !knobs.is_empty() { (ablation::section(ids, run, &knobs)) }
            @if !curves.is_empty() {
                h3 { "Curves" }
                (some_cards(ids, &curves, "curves"))
            }
            @if !bars.is_empty() {
                h3 { "Beside each other" }
                @if !knobs.is_empty() { p class="note" { "With all defaults." } }
                (some_cards(ids, &bars, "comparisons"))
            }
            @if !zero.is_empty() {
                p class="note" {
                    "Zero in every cell: "
                    @for (index, name) in zero.iter().enumerate() {
                        @if index > 0 { ", " }
                        code { (name) }
                    }
                    "."
                }
            }
            (percentile_plots(ids, &percentiles))
            (figure::folded(&format!("All {} cells", run.cells.len()), &figure::scroll(&cells::table(run, &knobs))))
            (provenance::folded(run))
        }
    }
}

fn percentile_plots(ids: &mut Ids, plots: &percentiles::Percentiles) -> Markup {
    html! {
        @if !plots.curved.is_empty() || !plots.level.is_empty() {
            h3 { "Percentiles" }
        }
        @if !plots.level.is_empty() {
            p class="note" {
                @if plots.curved.is_empty() { "In all " (plots.level.len()) " plots" }
                @else { "In " (plots.level.len()) " of " (plots.level.len() + plots.curved.len()) " plots" }
                " every packet costs the same, to within 1 %: the lines are level."
            }
        }
        @if !plots.curved.is_empty() { (some_cards(ids, &plots.curved, "plots of percentiles")) }
        @if !plots.level.is_empty() {
            (figure::folded(&format!("{} plots with level lines", plots.level.len()),
                &figure::cards(ids, borrowed(&plots.level))))
        }
    }
}
