// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plots as SVG, drawn here and not by a library: what makes them readable on a phone, without
//! colour and by a screen reader (labels at the lines, markers and dashes, styles by class so
//! that the page's dark mode and print apply) is what such libraries leave out.
//!
//! A plot is data; [`Plot::svg`] draws it for a given width, in CSS pixels of the same size as
//! its text, so that a plot for a phone is another drawing and not a shrunken one.

pub mod axis;
pub mod bars;
pub mod dots;
pub mod labels;
pub mod legend;
pub mod lines;
pub mod mark;
pub mod number;
pub mod scale;
pub mod text;
pub mod ticks;

use maud::{html, Markup};

/// The size of text in plots.
pub const FONT: f64 = 12.0;
/// The height of a line of text.
pub const LINE: f64 = 17.0;

/// Something that can be drawn.
pub trait Plot {
    /// What is shown, in a few words.
    fn title(&self) -> String;
    /// What is seen in it, for who cannot see it.
    fn description(&self) -> String;
    /// The drawing's body for a width, and its height.
    fn draw(&self, width: f64) -> (Markup, f64);
    /// The numbers behind it, a table.
    fn table(&self) -> Markup;

    /// The whole drawing. `id` must be unique on the page; `class` is for the page's style.
    fn svg(&self, id: &str, class: &str, width: f64) -> Markup {
        let (body, height) = self.draw(width);
        let (title, description) = (format!("{id}-title"), format!("{id}-desc"));
        html! {
            svg xmlns="http://www.w3.org/2000/svg" class=(class) role="img"
                viewBox={ "0 0 " (px(width)) " " (px(height)) }
                width=(px(width)) height=(px(height))
                aria-labelledby={ (title) " " (description) } {
                title id=(title) { (self.title()) }
                desc id=(description) { (self.description()) }
                (body)
            }
        }
    }
}

/// A coordinate as SVG has it: to a tenth of a pixel, without needless zeros.
pub fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0" } else { text }.to_owned()
}

/// Text at a place. `anchor` is `start`, `middle` or `end`.
pub fn label(x: f64, y: f64, anchor: &str, class: &str, text: &str) -> Markup {
    html! { text x=(px(x)) y=(px(y)) text-anchor=(anchor) class=(class) { (text) } }
}

/// The middle of a label as near to `x` as it can be without leaving a drawing of this width.
pub fn inside(x: f64, label: f64, width: f64) -> f64 {
    x.clamp(label / 2.0, (width - label / 2.0).max(label / 2.0))
}

/// A straight line.
pub fn line(from: (f64, f64), to: (f64, f64), class: &str) -> Markup {
    html! { line x1=(px(from.0)) y1=(px(from.1)) x2=(px(to.0)) y2=(px(to.1)) class=(class) {} }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short() {
        for (value, text) in [(1.0, "1"), (1.25, "1.2"), (-0.04, "0"), (-2.5, "-2.5")] {
            assert_eq!(px(value), text);
        }
    }
}
