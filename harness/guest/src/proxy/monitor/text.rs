// SPDX-License-Identifier: MIT OR Apache-2.0

//! The form of these files: a title, and lines of a name and numbers.

use std::str::Split;

use anyhow::{ensure, Context, Result};

/// The lines after the first one, which must be `title`.
pub fn lines<'a>(text: &'a str, title: &str) -> Result<Split<'a, char>> {
    let text = text
        .strip_suffix('\n')
        .context("the text does not end with its last line")?;
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    ensure!(
        first == title,
        "the first line is {first:?}; expected {title:?}"
    );
    Ok(lines)
}

pub fn cpus(line: &str) -> Result<Vec<u32>> {
    let (name, numbers) = words(line)?;
    ensure!(name == "cpus", "expected the CPUs");
    ensure!(!numbers.is_empty(), "there is no CPU");
    ensure!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "the CPUs do not ascend"
    );
    numbers
        .into_iter()
        .map(|cpu| u32::try_from(cpu).context("no CPU has such a number"))
        .collect()
}

/// A name and the numbers after it.
pub fn words(line: &str) -> Result<(&str, Vec<u64>)> {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    ensure!(
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
        "{name:?} is no name"
    );
    let numbers = words.map(number).collect::<Result<_>>()?;
    Ok((name, numbers))
}

pub fn number(word: &str) -> Result<u64> {
    // The standard library takes a plus sign, too.
    ensure!(
        word.bytes().all(|byte| byte.is_ascii_digit()),
        "{word:?} is no number"
    );
    word.parse()
        .with_context(|| format!("{word:?} is no number of 64 bits"))
}
