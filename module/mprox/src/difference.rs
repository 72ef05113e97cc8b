// SPDX-License-Identifier: MIT OR Apache-2.0

//! What differs between two lists of lines, in the order of both.

/// A line of one list, or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Of the first alone.
    Gone(&'a str),
    /// Of the second alone.
    New(&'a str),
    /// Of both.
    Same(&'a str),
}

/// The lines of both, as few as can be of only one: by their longest common subsequence.
pub fn difference<'a>(old: &'a [String], new: &'a [String]) -> Vec<Line<'a>> {
    let ahead = common(old.iter(), new.iter());
    let (old_rest, new_rest) = (&old[ahead..], &new[ahead..]);
    let behind = common(old_rest.iter().rev(), new_rest.iter().rev());
    let old_rest = &old_rest[..old_rest.len() - behind];
    let new_rest = &new_rest[..new_rest.len() - behind];
    let same = |lines: &'a [String]| lines.iter().map(|line| Line::Same(line));
    let mut lines: Vec<Line<'a>> = same(&old[..ahead]).collect();
    between(old_rest, new_rest, &mut lines);
    lines.extend(same(&old[old.len() - behind..]));
    lines
}

fn common<'a>(
    one: impl Iterator<Item = &'a String>,
    other: impl Iterator<Item = &'a String>,
) -> usize {
    one.zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

fn between<'a>(old: &'a [String], new: &'a [String], lines: &mut Vec<Line<'a>>) {
    // How many lines are common from here on, of either list.
    let width = new.len() + 1;
    let mut lengths = vec![0_u16; (old.len() + 1) * width];
    for (row, line) in old.iter().enumerate().rev() {
        for (column, other) in new.iter().enumerate().rev() {
            let at = row * width + column;
            lengths[at] = match line == other {
                true => lengths[at + width + 1].saturating_add(1),
                false => lengths[at + width].max(lengths[at + 1]),
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    while row < old.len() || column < new.len() {
        let at = row * width + column;
        match (old.get(row), new.get(column)) {
            (Some(one), Some(other)) if one == other => {
                lines.push(Line::Same(one));
                (row, column) = (row + 1, column + 1);
            }
            (Some(one), other) if other.is_none() || lengths[at + width] >= lengths[at + 1] => {
                lines.push(Line::Gone(one));
                row += 1;
            }
            (_, Some(other)) => {
                lines.push(Line::New(other));
                column += 1;
            }
            (_, None) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    fn said(old: &str, new: &str) -> String {
        let (old, new) = (lines(old), lines(new));
        let told = difference(&old, &new);
        // Each list is there, whole and in order.
        let of = |which: fn(&Line<'_>) -> bool| -> String {
            let all = told.iter().filter(|line| which(line));
            all.map(|line| match line {
                Line::Gone(text) | Line::New(text) | Line::Same(text) => *text,
            })
            .collect()
        };
        assert_eq!(of(|line| !matches!(line, Line::New(_))), old.concat());
        assert_eq!(of(|line| !matches!(line, Line::Gone(_))), new.concat());
        let mark = |line: &Line<'_>| match line {
            Line::Gone(text) => format!("-{text}"),
            Line::New(text) => format!("+{text}"),
            Line::Same(text) => (*text).to_owned(),
        };
        told.iter().map(mark).collect()
    }

    #[test]
    fn as_few_lines_as_can_be_differ() {
        for (old, new, expected) in [
            ("", "", ""),
            ("abc", "abc", "abc"),
            ("abc", "", "-a-b-c"),
            ("", "ab", "+a+b"),
            ("abc", "axc", "a-b+xc"),
            ("abcd", "acbd", "a-bc+bd"),
            ("abab", "ba", "-aba-b"),
        ] {
            assert_eq!(said(old, new), expected, "{old} and {new}");
        }
    }
}
