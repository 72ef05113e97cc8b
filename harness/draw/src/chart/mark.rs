// SPDX-License-Identifier: MIT OR Apache-2.0

//! How series are told apart: by colour, by the shape of their markers and by their dashes, each
//! of which is enough.

use maud::{html, Markup};

use super::px;

/// How many styles there are; the page's style sheet has a colour for each.
pub const STYLES: usize = 8;

/// The class that carries a style's colour.
pub fn class(style: usize) -> String {
    format!("s{}", style % STYLES)
}

/// A style's `stroke-dasharray`; none for a line that is drawn through.
pub fn dashes(style: usize) -> Option<&'static str> {
    // Two solid lines differ in colour and marker.
    match style % STYLES {
        1 => Some("7 4"),
        2 => Some("2 3"),
        3 => Some("9 3 2 3"),
        4 => Some("12 4"),
        5 => Some("4 2 1 2"),
        6 => Some("1 3"),
        7 => Some("5 2 5 6"),
        _ => None,
    }
}

/// A style's marker around a place. `hollow` ones are not filled; `note` is shown when a pointer
/// rests on it.
pub fn marker(style: usize, x: f64, y: f64, hollow: bool, note: Option<&str>) -> Markup {
    let shape = |points: &[(f64, f64)]| {
        let mut path = String::new();
        for (index, (dx, dy)) in points.iter().enumerate() {
            path.push(if index == 0 { 'M' } else { 'L' });
            path.push_str(&format!("{} {}", px(x + dx), px(y + dy)));
        }
        path + "Z"
    };
    let path = match style % STYLES {
        0 => circle(x, y, 4.0),
        1 => shape(&[(-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)]),
        2 => shape(&[(0.0, -4.8), (4.6, 3.6), (-4.6, 3.6)]),
        3 => shape(&[(0.0, -5.2), (5.2, 0.0), (0.0, 5.2), (-5.2, 0.0)]),
        4 => shape(&[(0.0, 4.8), (4.6, -3.6), (-4.6, -3.6)]),
        5 => cross(x, y),
        6 => shape(&[(-5.0, -2.2), (5.0, -2.2), (5.0, 2.2), (-5.0, 2.2)]),
        _ => shape(&[(-2.2, -5.0), (2.2, -5.0), (2.2, 5.0), (-2.2, 5.0)]),
    };
    let class = format!(
        "mark {}{}",
        class(style),
        if hollow { " hollow" } else { "" }
    );
    html! {
        path class=(class) d=(path) {
            @if let Some(note) = note { title { (note) } }
        }
    }
}

fn circle(x: f64, y: f64, radius: f64) -> String {
    let radius = px(radius);
    format!(
        "M{} {}a{radius} {radius} 0 1 0 8 0a{radius} {radius} 0 1 0 -8 0Z",
        px(x - 4.0),
        px(y)
    )
}

/// A plus as an outline, so that it can be hollow, too.
fn cross(x: f64, y: f64) -> String {
    format!(
        "M{} {}h3v-3.5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3Z",
        px(x - 5.0 + 0.5),
        px(y - 1.5)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_style_has_its_own_marker_dashes_and_class() {
        let markers: BTreeSet<_> = (0..STYLES)
            .map(|style| {
                let text = marker(style, 50.0, 50.0, false, None).into_string();
                text.split(" d=").nth(1).map(str::to_owned)
            })
            .collect();
        assert_eq!(markers.len(), STYLES);
        let dashes: BTreeSet<_> = (0..STYLES).map(dashes).collect();
        assert_eq!(dashes.len(), STYLES);
        assert_eq!(class(STYLES), class(0));
    }

    #[test]
    fn notes_are_escaped() {
        let text = marker(0, 0.0, 0.0, false, Some("<b>&")).into_string();
        assert!(text.contains("&lt;b&gt;&amp;"), "{text}");
    }
}
