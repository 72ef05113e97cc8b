// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables on a terminal.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// How a text looks, where colour is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Headings.
    Bold,
    /// What is there for completeness.
    Dim,
    /// What is well.
    Good,
    /// What is not.
    Bad,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
        }
    }

    /// `text` in this style, if there are to be [colours](colour).
    pub fn paint(self, text: &str) -> String {
        if self == Self::Plain || !COLOURED.load(Ordering::Relaxed) {
            text.to_owned()
        } else {
            format!("{}{text}\x1b[0m", self.code())
        }
    }
}

/// Whether styles are shown.
static COLOURED: AtomicBool = AtomicBool::new(false);

/// Says whether styles are to be shown, as a program knows that prints; they are not unless it says so.
pub fn colour(yes: bool) {
    COLOURED.store(yes, Ordering::Relaxed);
}

/// One field of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    text: String,
    style: Style,
}

impl Field {
    /// A text in a style.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Field {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// A table with a head; rows may be shorter than the head.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<(String, Align)>,
    rows: Vec<Vec<Field>>,
}

impl Table {
    /// A table without rows.
    pub fn new(head: &[(&str, Align)]) -> Self {
        Self {
            head: head
                .iter()
                .map(|&(text, align)| (text.to_owned(), align))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, fields: impl IntoIterator<Item = Field>) {
        self.rows.push(fields.into_iter().collect());
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut put = |fields: &mut dyn Iterator<Item = String>| {
            let fields: Vec<String> = fields
                .map(|field| field.replace('|', "\\|").replace('\n', " "))
                .collect();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} |", fields.join(" | "));
        };
        put(&mut self.head.iter().map(|(text, _)| text.clone()));
        put(&mut self.head.iter().map(|(_, align)| {
            match align {
                Align::Left => ":--",
                Align::Right => "--:",
            }
            .to_owned()
        }));
        for row in &self.rows {
            put(&mut row.iter().map(|field| field.text.clone()));
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let head = self
            .head
            .get(column)
            .map_or(0, |(text, _)| text.chars().count());
        self.rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|field| field.text.chars().count())
            .fold(head, usize::max)
    }

    fn line(&self, fields: &[Field], widths: &[usize]) -> String {
        let mut line = String::new();
        let columns = fields.iter().zip(&self.head).zip(widths).enumerate();
        for (column, ((field, (_, align)), width)) in columns {
            let pad = " ".repeat(width - field.text.chars().count());
            let text = field.style.paint(&field.text);
            let gap = if column == 0 { "  " } else { "   " };
            // Writing to a string cannot fail.
            let _ = match align {
                Align::Left => write!(line, "{gap}{text}{pad}"),
                Align::Right => write!(line, "{gap}{pad}{text}"),
            };
        }
        line.trim_end().to_owned()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head: Vec<_> = self
            .head
            .iter()
            .map(|(text, _)| Field::styled(text.as_str(), Style::Bold))
            .collect();
        let widths: Vec<_> = (0..self.head.len())
            .map(|column| self.width(column))
            .collect();
        writeln!(formatter, "{}", self.line(&head, &widths))?;
        for row in &self.rows {
            writeln!(formatter, "{}", self.line(row, &widths))?;
        }
        Ok(())
    }
}

/// A number for people: thousands apart, and a decimal only where it says something.
pub fn number(value: f64) -> String {
    let digits = if value.abs() < 100.0 && value.fract().abs() > 0.05 {
        1
    } else {
        0
    };
    decimals(value, digits)
}

/// A number with thousands apart and so many decimals.
pub fn decimals(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, whole) = whole
        .strip_prefix('-')
        .map_or(("", whole), |rest| ("-", rest));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() {
        format!("{sign}{grouped}")
    } else {
        format!("{sign}{grouped}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[("name", Align::Left), ("n", Align::Right)]);
        table.row(["a".into(), "1,234".into()]);
        table.row(["longer".into(), "5".into()]);
        table.row(["x".into()]);
        assert_eq!(
            table.to_string(),
            "  name         n\n  a        1,234\n  longer       5\n  x\n"
        );
    }

    #[test]
    fn markdown_says_where_columns_are_aligned() {
        let mut table = Table::new(&[("name", Align::Left), ("n", Align::Right)]);
        table.row(["a|b".into(), "1".into()]);
        assert_eq!(
            table.markdown(),
            "| name | n |\n| :-- | --: |\n| a\\|b | 1 |\n"
        );
    }

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (7.25, "7.2"),
            (78.0, "78"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
