// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plots on the page: each with its title, and the table of its numbers behind it.

use maud::{html, Markup};

use super::chart::Plot;

/// The width of the page's text, which a wide plot fills.
const WIDE: f64 = 1160.0;
/// The width of a plot on a phone, and of one of several beside each other.
const NARROW: f64 = 366.0;

/// Gives ids, each once on a page.
#[derive(Debug, Default)]
pub struct Ids(u32);

impl Ids {
    /// The next one.
    pub fn fresh(&mut self) -> String {
        self.0 += 1;
        format!("plot{}", self.0)
    }
}

/// A plot that fills the page; on a phone another drawing of it is shown.
pub fn wide(ids: &mut Ids, plot: &dyn Plot) -> Markup {
    html! {
        figure class="plot" {
            figcaption { (plot.title()) }
            (plot.svg(&ids.fresh(), "only-wide", WIDE))
            (plot.svg(&ids.fresh(), "only-narrow", NARROW))
            (numbers(plot))
        }
    }
}

/// Plots beside each other, as many as there is room for.
pub fn cards<'a>(ids: &mut Ids, plots: impl IntoIterator<Item = &'a dyn Plot>) -> Markup {
    html! {
        div class="cards" {
            @for plot in plots {
                figure class="plot card" {
                    figcaption { (plot.title()) }
                    (plot.svg(&ids.fresh(), "small", NARROW))
                    (numbers(plot))
                }
            }
        }
    }
}

fn numbers(plot: &dyn Plot) -> Markup {
    folded("The numbers", &scroll(&plot.table()))
}

/// What opens when it is asked for.
pub fn folded(summary: &str, content: &Markup) -> Markup {
    html! { details { summary { (summary) } (content) } }
}

/// A wide table scrolls in itself, and not the page. It can be reached by keyboard.
pub fn scroll(table: &Markup) -> Markup {
    html! { div class="scroll" tabindex="0" role="region" aria-label="Table" { (table) } }
}
