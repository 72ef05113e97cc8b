// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is wrong with a text in TOML, as `file:line:column: what; did you mean …`.
//!
//! Must not know: what the text is about.

use anyhow::anyhow;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

mod wording;

/// A misspelt name is put right if at most this many letters are wrong.
const MAX_TYPOS: usize = 4;
/// A longer name, in characters, is not put right.
const MAX_NAME: usize = 256;

/// A step from a table or a list into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// To the value of a key.
    Key(String),
    /// To an element.
    Element(usize),
}

impl From<&str> for Place {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Place {
    fn from(index: usize) -> Self {
        Self::Element(index)
    }
}

/// What a well-formed text says and cannot mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it says so, from the outermost table.
    pub at: Vec<Place>,
    /// What is wrong.
    pub message: String,
}

impl Mistake {
    /// A fault at `key`, in which dots lead into tables.
    pub fn at(key: &str, message: impl Into<String>) -> Self {
        Self {
            at: key.split('.').map(Place::from).collect(),
            message: message.into(),
        }
    }

    /// The same at an element of the list there.
    #[must_use]
    pub fn element(mut self, index: usize) -> Self {
        self.at.push(Place::Element(index));
        self
    }

    /// The whole error.
    pub fn explain(&self, text: &str, file: &str) -> anyhow::Error {
        let place = place_of(&self.at, text, file);
        anyhow!("{place}: {}", wording::shortened(&self.message))
    }
}

/// File, line and column of what is at these places of `text`; the file alone, if nothing is there.
pub fn place_of(at: &[Place], text: &str, file: &str) -> String {
    match offset(text, at) {
        Some(offset) => place(text, offset, file),
        None => file.to_owned(),
    }
}

/// Where the text has what `path` leads to, or the last step of it that there is.
fn offset(text: &str, path: &[Place]) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut value: Option<&Spanned<DeValue<'_>>> = None;
    for step in path {
        let next = match (step, value.map(Spanned::get_ref)) {
            (Place::Key(key), None) => root.get_ref().get(key.as_str()),
            (Place::Key(key), Some(DeValue::Table(table))) => table.get(key.as_str()),
            (Place::Element(index), Some(DeValue::Array(array))) => array.get(*index),
            _ => None,
        };
        let Some(next) = next else { break };
        found = Some(next.span().start);
        value = Some(next);
    }
    found
}

/// What the parser found wrong.
pub fn syntax(error: &toml::de::Error, text: &str, file: &str) -> anyhow::Error {
    let hint = suggestion(error.message())
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default();
    let span = error.span();
    let there = span.clone().and_then(|span| text.get(span));
    let plain = wording::plain(error.message(), there.unwrap_or_default());
    let message = wording::shortened(&plain);
    let Some(span) = span else {
        return anyhow!("{file}: {message}{hint}");
    };
    let place = place(text, span.start, file);
    anyhow!("{place}: {message}{hint}")
}

/// An offset into the text as `file:line:column`.
pub fn place(text: &str, offset: usize, file: &str) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .chars()
        .rev()
        .take_while(|&char| char != '\n')
        .count()
        + 1;
    format!("{file}:{line}:{column}")
}

/// The valid name nearest to the wrong one in serde's "unknown field `a`, expected one of `b`,
/// `c`"; `None` for other errors, and if nothing is near.
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown ") {
        return None;
    }
    // Between backticks: every second piece.
    let mut names = message.split('`').skip(1).step_by(2);
    let wrong = names.next()?;
    nearest(wrong, names)
}

/// The one of `names` that `wrong` was probably meant to be.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = wrong.chars().count();
    // The distance takes the product of both lengths, in time and memory; who makes a name so long has not misspelt it.
    if length > MAX_NAME {
        return None;
    }
    names
        // Each letter that one has more than the other is a typo.
        .filter(|name| name.chars().count().abs_diff(length) <= MAX_TYPOS)
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|&(distance, name)| distance <= MAX_TYPOS.min(name.len() / 2))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_long_one_is_near_to_none() {
        let names = ["round-robin", "failover", "random"];
        let near = |wrong: &str| nearest(wrong, names.into_iter());
        assert_eq!(near("ranodm"), Some("random"));
        assert_eq!(near("roundrobin"), Some("round-robin"));
        assert_eq!(near("last"), None);
        let long = "x".repeat(1_000_000);
        let like_it = format!("{long}y");
        let many = std::iter::repeat_n(like_it.as_str(), 256).chain(names);
        let begin = Instant::now();
        assert_eq!(nearest(&long, many), None);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place_in_plain_words() {
        let explain = |text: &str| {
            let error = toml::from_str::<std::collections::BTreeMap<String, u8>>(text).unwrap_err();
            syntax(&error, text, "a.toml").to_string()
        };
        assert_eq!(
            explain("a = 1\nb = \"x\""),
            "a.toml:2:5: expected a whole number from 0 to 255, found the text \"x\""
        );
        let long = format!("a = \"{}\"", "x".repeat(1_000_000));
        assert!(explain(&long).len() < 300);
    }
}
