// SPDX-License-Identifier: MIT OR Apache-2.0

//! A call tree as a flame graph (B. Gregg, "The Flame Graph", ACM Queue 14(2), 2016): who called is
//! below, and width is instructions.

use maud::{html, Markup, PreEscaped};

use super::analysis::{to_float, Analysis, Reached};
use super::branches::{branches, depth, Branch};
use super::functions::View;
use super::names::short;
use super::objects::PROXY;
use mutexlab_draw::chart::{px, text};
use mutexlab_draw::table::decimals;

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
        scale: width / to_float(whole),
        height: to_float(rows as u64) * ROW,
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
        let mut end = start;
        let placed: Vec<(&Branch, f64)> = branches
            .iter()
            .map(|branch| {
                let x = end;
                end += self.width(branch.total);
                (branch, x)
            })
            .collect();
        html! {
            @for (branch, x) in placed {
                @if self.width(branch.total) >= NARROWEST {
                    (self.branch(branch, x, row))
                    (self.row(&branch.children, x, row + 1))
                }
            }
        }
    }

    fn width(&self, instructions: u64) -> f64 {
        to_float(instructions) * self.scale
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
        let width = self.width(total);
        let y = self.height - to_float(row as u64 + 1) * ROW;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::example;

    /// The widths of blocks by the names in their notes.
    fn blocks(svg: &str) -> Vec<(String, f64)> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let groups = document.descendants().filter(|node| node.has_tag_name("g"));
        groups
            .map(|group| {
                let child = |name| {
                    group
                        .children()
                        .find(|node| node.has_tag_name(name))
                        .unwrap()
                };
                let note = child("title").text().unwrap();
                let width = child("rect").attribute("width").unwrap();
                let name = note.split(": ").next().unwrap();
                (name.to_owned(), width.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn widths_are_instructions() {
        let analysis = example(|_| ());
        let blocks = blocks(&file(&analysis, View::Spans, 800.0).unwrap());
        // 400 instructions: 100 of the hook, 200 of run, and 100 of find.
        let expected = [
            ("all", 800.0),
            ("net_rx", 800.0),
            ("nf_hook_slow", 800.0),
            ("proxy::run", 600.0),
            ("↪ proxy::find", 200.0),
        ];
        let expected = expected.map(|(name, width)| (name.to_owned(), width));
        assert_eq!(blocks, expected);
    }

    #[test]
    fn nothing_is_not_drawn() {
        let nothing = example(|recording| {
            recording.code.clear();
            recording.instructions = vec![0];
        });
        assert_eq!(file(&nothing, View::Window, 800.0), None);
    }
}
