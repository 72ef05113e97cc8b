// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether a command printed what a page says.

use anyhow::{ensure, Result};

/// Stands for anything.
const ANYTHING: char = '…';

/// Fails unless the lines of `expected` occur in this order.
pub fn compare(expected: &str, printed: &str) -> Result<()> {
    let mut left = printed.lines();
    let wanted = expected.lines().filter(|line| {
        !line
            .trim_matches(|letter: char| letter == ANYTHING || letter.is_whitespace())
            .is_empty()
    });
    for line in wanted {
        ensure!(
            left.any(|there| is_like(line, there)),
            "the page has, and the command did not print in that order:\n{line}\nIt printed:\n{printed}"
        );
    }
    Ok(())
}

/// Whether a line is the page's, in which `…` stands for anything and it does not matter how wide a space is.
fn is_like(line: &str, there: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let there = squeeze(there);
    let mut rest = there.as_str();
    let pieces: Vec<String> = line.split(ANYTHING).map(squeeze).collect();
    let last = pieces.len() - 1;
    for (index, piece) in pieces.iter().enumerate() {
        let Some(at) = (match (index, index == last) {
            (0, true) => return there == *piece,
            (0, false) => rest.starts_with(piece.as_str()).then_some(0),
            (_, true) => {
                return rest.ends_with(piece.as_str());
            }
            (_, false) => rest.find(piece.as_str()),
        }) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_has_the_page_s_lines_in_their_order() {
        let printed = "one\n  two   2\n/x/y.toml:4: three (1.5 s)\n";
        for good in [
            "two 2\n",
            "one\n…\n…y.toml:4: three…\n",
            "o…e\n  two 2\n\n",
            "/x/…: three (…)\n",
        ] {
            assert!(compare(good, printed).is_ok(), "{good}");
        }
        for bad in [
            "two\n",
            "two 2\none\n",
            "…y.toml:5…\n",
            "one…two\n",
            "…three\n",
        ] {
            assert!(compare(bad, printed).is_err(), "{bad}");
        }
    }
}
