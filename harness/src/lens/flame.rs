// SPDX-License-Identifier: MIT OR Apache-2.0

//! A call tree as a flame graph (B. Gregg, "The Flame Graph", ACM Queue 14(2), 2016): who called is
//! below, and width is instructions.

use maud::{html, Markup, PreEscaped};

use super::analysis::{Analysis, Reached};
use super::branches::{branches, depth, Branch};
use super::functions::View;
use super::names::short;
use super::objects::PROXY;
use crate::report::chart::{px, text};
use crate::table::decimals;

/// Pixels of a row.
const ROW: f64 = 18.0;
/// Pixels of text's height.
const FONT: f64 = 12.0;
/// What is narrower than so many pixels is not drawn.
const NARROWEST: f64 = 0.2;
/// What has no room for so many pixels of text has none.
const NO_TEXT: f64 = 24.0;
/// The module that measures.
const PROBE: &str = "mutex_probe";

/// Colours and letters, for a graph that stands alone as for one on a page.
pub const STYLE: &str = include_str!("flame.css");

/// A flame graph of so many pixels' width; nothing if nothing was executed.
pub fn svg(analysis: &Analysis, view: View, width: f64) -> Option<Markup> {
    let branches = branches(analysis, view);
    let whole: u64 = branches.iter().map(|branch| branch.total).sum();
    if whole == 0 {
        return None;
    }
    let rows = depth(&branches) + 1;
    let drawing = Drawing {
        analysis,
        scale: width / super::analysis::to_float(whole),
        height: super::analysis::to_float(rows as u64) * ROW,
    };
    let label = format!(
        "Flame graph: {} instructions a packet",
        decimals(analysis.per_packet(whole), 1)
    );
    Some(html! {
        svg xmlns="http://www.w3.org/2000/svg" class="flame" role="img" aria-label=(label)
            viewBox={ "0 0 " (px(width)) " " (px(drawing.height)) } {
            (drawing.block("all", whole, whole, 0.0, 0, "kernel"))
            (drawing.row(&branches, 0.0, 1))
        }
    })
}

/// The same as a file of its own.
pub fn file(analysis: &Analysis, view: View, width: f64) -> Option<String> {
    let drawn = svg(analysis, view, width)?.into_string();
    // Browsers take the style from within.
    let style = html! { style { (PreEscaped(STYLE)) } }.into_string();
    let (head, rest) = drawn.split_once('>')?;
    Some(format!("{head}>{style}{rest}\n"))
}

struct Drawing<'a> {
    analysis: &'a Analysis,
    /// Pixels an instruction.
    scale: f64,
    height: f64,
}

impl Drawing<'_> {
    fn row(&self, branches: &[Branch], start: f64, row: usize) -> Markup {
        let mut x = start;
        html! {
            @for branch in branches {
                @let left = x;
                @let width = super::analysis::to_float(branch.total) * self.scale;
                @let _ = x += width;
                @if width >= NARROWEST {
                    (self.branch(branch, left, row))
                    (self.row(&branch.children, left, row + 1))
                }
            }
        }
    }

    fn branch(&self, branch: &Branch, x: f64, row: usize) -> Markup {
        let function = &self.analysis.functions[branch.function as usize];
        let class = match (function.module.as_deref(), branch.entry) {
            (Some(PROXY), _) => "ours",
            (Some(PROBE), _) => "probe",
            (_, Reached::User) => "user",
            (_, Reached::Interrupt) => "interrupt",
            _ => "kernel",
        };
        let name = match branch.entry {
            Reached::Jump => format!("↪ {}", short(&function.name)),
            _ => short(&function.name),
        };
        self.block(&name, branch.own, branch.total, x, row, class)
    }

    fn block(&self, name: &str, own: u64, total: u64, x: f64, row: usize, class: &str) -> Markup {
        let width = super::analysis::to_float(total) * self.scale;
        let y = self.height - super::analysis::to_float(row as u64 + 1) * ROW;
        let per_packet = |count| decimals(self.analysis.per_packet(count), 1);
        let note = match own == total {
            true => format!("{name}: {} instructions a packet", per_packet(total)),
            false => format!(
                "{name}: {} instructions a packet, {} of them its own",
                per_packet(total),
                per_packet(own)
            ),
        };
        html! {
            g {
                title { (note) }
                rect class=(class) x=(px(x)) y=(px(y)) width=(px(width)) height=(px(ROW - 1.0)) {}
                @if width >= NO_TEXT {
                    text x=(px(x + 3.0)) y=(px(y + FONT + 1.0)) {
                        (text::fit(name, FONT, width - 6.0))
                    }
                }
            }
        }
    }
}
