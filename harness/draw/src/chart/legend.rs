// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the styles stand for, where labels at the lines have no room.

use maud::{html, Markup};

use super::{label, line, mark, px, text, FONT, LINE};

/// Room of a sample of the line, with its marker.
const SAMPLE: f64 = 34.0;
/// Between two entries.
const GAP: f64 = 18.0;

/// Entries (style, name) in rows that fit into `width`, beginning at (`left`, `top`), and the
/// height that they take. `lines` says whether the series are lines or only markers.
pub fn draw(
    entries: &[(usize, String)],
    left: f64,
    top: f64,
    width: f64,
    lines: bool,
) -> (Markup, f64) {
    if entries.is_empty() {
        return (html! {}, 0.0);
    }
    let sample = if lines { SAMPLE } else { 14.0 };
    let (mut x, mut y) = (left, top + LINE);
    let mut placed = Vec::new();
    for (style, name) in entries {
        let name = text::fit(name, FONT, width - sample);
        let room = sample + text::width(&name, FONT);
        if x > left && x + room > left + width {
            x = left;
            y += LINE;
        }
        placed.push((*style, name, x, y));
        x += room + GAP;
    }
    let drawn = html! {
        @for (style, name, x, y) in &placed {
            @if lines {
                (line_sample(*style, *x, y - 4.0))
            } @else {
                (mark::marker(*style, x + 5.0, y - 4.0, false, None))
            }
            (label(x + sample, *y, "start", "name", name))
        }
    };
    (drawn, y - top + 5.0)
}

/// A short piece of a style's line with its marker.
pub fn line_sample(style: usize, x: f64, y: f64) -> Markup {
    html! {
        @if let Some(dashes) = mark::dashes(style) {
            path class={ "curve " (mark::class(style)) } stroke-dasharray=(dashes)
                d={ "M" (px(x)) " " (px(y)) "h28" } {}
        } @else {
            (line((x, y), (x + 28.0, y), &format!("curve {}", mark::class(style))))
        }
        (mark::marker(style, x + 14.0, y, false, None))
    }
}
