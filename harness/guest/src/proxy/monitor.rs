// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the module tells of a namespace in /proc/net/mutex_proxy/.

mod latency;
mod stats;

use std::fs::File;
use std::io;
use std::str::Split;

use anyhow::{ensure, Context, Result};

use crate::net::namespace::Namespace;
pub use latency::{Histogram, Latency};
pub use stats::Stats;

/// The directory, for the namespace of the thread that looks at it. /proc/net is that of the
/// process's first thread.
pub const DIRECTORY: &str = "/proc/thread-self/net/mutex_proxy";

/// Opens the file called `name` of `namespace`; `None` if there is no such file.
pub fn open(namespace: &Namespace, name: &str) -> Result<Option<File>> {
    let path = format!("{DIRECTORY}/{name}");
    namespace.run(|| match File::open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot open {path} ({})", namespace.name()))
        }
    })
}

/// The lines after the first one, which must be `title`.
fn lines<'a>(text: &'a str, title: &str) -> Result<Split<'a, char>> {
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

fn cpus(line: &str) -> Result<Vec<u32>> {
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
fn words(line: &str) -> Result<(&str, Vec<u64>)> {
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

fn number(word: &str) -> Result<u64> {
    // The standard library takes a plus sign, too.
    ensure!(
        word.bytes().all(|byte| byte.is_ascii_digit()),
        "{word:?} is no number"
    );
    word.parse()
        .with_context(|| format!("{word:?} is no number of 64 bits"))
}
