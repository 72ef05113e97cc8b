// SPDX-License-Identifier: MIT OR Apache-2.0

//! An analysis as a page: one file that needs no other, and no network and no script.

use maud::{html, Markup, PreEscaped, DOCTYPE};
use mutexlab_lens_recording::recording::Costs;

use super::analysis::{to_float, Analysis, Object, Reached};
use super::branches::{branches, Branch};
use super::flame;
use super::functions::{rows, View};
use super::text;
use mutexlab_draw::figure::{folded, scroll};
use mutexlab_draw::table::decimals;

use mutexlab_draw::STYLE;
const OWN_STYLE: &str = include_str!("page.css");
/// The width of the page's text.
const WIDTH: f64 = 1160.0;
/// What is less than this part of all stands in no tree of the page.
const LEAST: f64 = 0.001;
/// And what is at least this part is open at first.
const OPEN: f64 = 0.2;

/// The page, always the same for the same analysis.
pub fn html(analysis: &Analysis) -> String {
    let title = format!("Where a packet's instructions go: {}", analysis.cell);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(flame::STYLE)) (PreEscaped(OWN_STYLE)) }
            }
            body {
                header {
                    p class="brand" { "mutexlab lens" }
                    h1 { "Where a packet’s instructions go" }
                    p class="head" { code { (analysis.cell) } " · commit " code { (analysis.commit) } }
                    p { (text::summary(analysis)) }
                }
                main {
                    section id="costs" {
                        h2 { "What a packet costs in netfilter’s hooks" }
                        (costs(analysis))
                        p class="note" { (text::notes(analysis)) }
                    }
                    (view(analysis, View::Spans, "spans", "Within the hooks"))
                    section id="objects" {
                        h2 { "Lines of memory" }
                        p class="note" {
                            "What packets read and wrote within the hooks. "
                            "Used: lines that a packet uses on the average. Shared: of the lines that it writes, those that another CPU uses, too. "
                            "Those with a * are " code { "mutex_proxy" } "’s."
                        }
                        (scroll(&objects(analysis, analysis.objects.iter().filter(|object| object.used > 0))))
                        @let transferred = analysis.transferred();
                        @if !transferred.is_empty() {
                            h3 { "Lines that come from other CPUs or have to be given up by them" }
                            (scroll(&objects(analysis, transferred.into_iter())))
                        }
                    }
                    (view(analysis, View::Window, "window", "The whole window, generator and receivers included"))
                }
                footer { p { "Made by mutexlab lens. docs/lens.md says how to read it." } }
            }
        }
    };
    page.into_string()
}

fn costs(analysis: &Analysis) -> Markup {
    let table = html! {
        table class="text" {
            thead { tr { th { "For each packet" } th { "" } } }
            tbody {
                @for (name, count) in text::counts(analysis) {
                    tr { th scope="row" { (name) } td { (decimals(analysis.per_packet(count), 2)) } }
                }
            }
        }
    };
    scroll(&table)
}

fn view(analysis: &Analysis, view: View, id: &str, heading: &str) -> Markup {
    let branches = branches(analysis, view);
    let whole: u64 = branches.iter().map(|branch| branch.total).sum();
    html! {
        section id=(id) {
            h2 { (heading) }
            @if let Some(svg) = flame::svg(analysis, view, WIDTH) {
                figure class="plot" { (svg) }
                p class="note" {
                    "Width is instructions; who called is below. Orange: " code { "mutex_proxy" }
                    ", violet: the probe that measures, red: interrupts, green: user space. ↪ was jumped to (a tail call)."
                }
            } @else {
                p { "No instruction of it was seen." }
            }
            (folded("The call tree", &html! { div class="tree" {
                @for branch in &branches { (tree(analysis, branch, whole)) }
            } }))
            (folded("Every function", &scroll(&functions(analysis, view))))
        }
    }
}

fn tree(analysis: &Analysis, branch: &Branch, whole: u64) -> Markup {
    let part = |count: u64| to_float(count) / to_float(whole);
    let function = &analysis.functions[branch.function as usize];
    let how = match branch.entry {
        Reached::Jump => " by a jump",
        Reached::Interrupt => " by an interrupt",
        Reached::SystemCall => " by a system call",
        Reached::Unseen => " running already",
        Reached::Root | Reached::Call | Reached::User => "",
    };
    let per_packet = |count| decimals(analysis.per_packet(count), 2);
    let line = html! {
        b { (per_packet(branch.total)) } " "
        code title=(function.name) { (text::function_name(function)) }
        small { (how) @if branch.own != branch.total { ", own " (per_packet(branch.own)) } }
    };
    let children: Vec<&Branch> = branch
        .children
        .iter()
        .filter(|child| part(child.total) >= LEAST)
        .collect();
    html! {
        @if children.is_empty() {
            p { (line) }
        } @else {
            details open[part(branch.total) >= OPEN] {
                summary { (line) }
                @for child in children { (tree(analysis, child, whole)) }
            }
        }
    }
}

fn functions(analysis: &Analysis, view: View) -> Markup {
    html! {
        table {
            thead { tr {
                th { "Function" } th { "own" } th { "with callees" }
                @for name in text::COSTS { th { (name) } }
            } }
            tbody {
                @for row in rows(analysis, view).iter().filter(|row| row.own != Costs::default()) {
                    tr {
                        th scope="row" title=(row.function.name) { code { (text::function_name(row.function)) } }
                        td { (text::field(analysis, row.own.instructions)) }
                        td { (text::field(analysis, row.inclusive)) }
                        @for field in text::cost_fields(analysis, &row.own) { td { (field) } }
                    }
                }
            }
        }
    }
}

fn objects<'a>(analysis: &Analysis, shown: impl Iterator<Item = &'a Object>) -> Markup {
    html! {
        table {
            thead { tr {
                th { "Object" } th { "used" } th { "written" } th { "shared" } th { "lines in all" }
                @for name in text::COSTS { th { (name) } }
            } }
            tbody {
                @for object in shown {
                    tr class=[object.identity.ours.then_some("ours")] {
                        th scope="row" { (text::object_name(object)) }
                        td { (text::field(analysis, object.used)) }
                        td { (text::field(analysis, object.written)) }
                        td { (text::field(analysis, object.shared_written)) }
                        td { (object.lines) }
                        @for field in text::cost_fields(analysis, &object.span) { td { (field) } }
                    }
                }
            }
        }
    }
}
