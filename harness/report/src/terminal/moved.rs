// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions whose instructions moved, as a table.

use mutexlab_draw::table::{decimals, Align, Field, Style, Table};
use mutexlab_lens_analysis::difference::Pair;
use mutexlab_lens_analysis::moved::Moved;

/// Rows before the rest is only counted.
const SHOWN: usize = 12;

/// What is to be known of it.
pub const REMARK: &str =
    "Instructions of a function by itself, for each packet, counted by the lens (docs/lens.md). \
                          What two boots of one kernel do not count alike is left out.";

/// The table, with the greatest change first; `names` are those of the two sides.
pub fn table(moved: &[Moved], names: [&str; 2]) -> String {
    let [before, with_it] = names;
    let mut table = Table::new(&[
        ("function", Align::Left),
        ("where", Align::Left),
        (before, Align::Right),
        (with_it, Align::Right),
        ("difference", Align::Right),
    ]);
    for one in moved.iter().take(SHOWN) {
        let mut name = one.function.as_str();
        for (place, pair) in [("in hooks", one.hooks), ("outside", one.outside)] {
            if let Some(pair) = pair.filter(|pair| pair.change() != 0.0) {
                table.row(row(name, place, pair));
                name = "";
            }
        }
    }
    let mut text = table.to_string();
    if let Some(rest) = moved.get(SHOWN..).filter(|rest| !rest.is_empty()) {
        let change: f64 = rest.iter().map(Moved::change).sum();
        let change = signed(change);
        text += &format!("  and {} more functions, {change} in all\n", rest.len());
    }
    text
}

fn row(name: &str, place: &str, pair: Pair) -> [Field; 5] {
    let change = pair.change();
    let style = if change > 0.0 {
        Style::Bad
    } else {
        Style::Good
    };
    [
        name.into(),
        place.into(),
        decimals(pair.a, 2).into(),
        decimals(pair.b, 2).into(),
        Field::styled(signed(change), style),
    ]
}

fn signed(change: f64) -> String {
    let sign = if change > 0.0 { "+" } else { "" };
    format!("{sign}{}", decimals(change, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(function: &str, hooks: [f64; 2], outside: [f64; 2]) -> Moved {
        let pair = |[a, b]: [f64; 2]| Some(Pair { a, b });
        Moved {
            function: function.to_owned(),
            hooks: pair(hooks),
            outside: pair(outside),
        }
    }

    #[test]
    fn a_function_has_a_line_for_each_place_where_it_moved() {
        let both = of("nf_nat_inet_fn", [124.0, 127.0], [1.0, 2.0]);
        let text = table(
            &[both, of("ip_forward", [0.0; 2], [113.0, 111.5])],
            ["before", "after"],
        );
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0],
            ["function", "where", "before", "after", "difference"]
        );
        assert_eq!(
            lines[1],
            ["nf_nat_inet_fn", "in", "hooks", "124.00", "127.00", "+3.00"]
        );
        assert_eq!(lines[2], ["outside", "1.00", "2.00", "+1.00"]);
        assert_eq!(
            lines[3],
            ["ip_forward", "outside", "113.00", "111.50", "-1.50"]
        );
    }

    #[test]
    fn many_are_counted() {
        let moved = vec![of("f", [0.0, 1.0], [0.0; 2]); SHOWN + 3];
        let text = table(&moved, ["a", "b"]);
        assert!(
            text.ends_with("  and 3 more functions, +3.00 in all\n"),
            "{text}"
        );
    }
}
