// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages of docs/ that can be followed word by word: files are written, commands run, and what they print is compared.
//!
//! A block whose first line names a file after the language (`toml ../mine/a.toml`) is that file. A block `sh` is commands, `sh fails`
//! those that must fail. A block `text` after it is what they print: its lines occur in this order, `…` stands for anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::bench::{Bench, INSTRUMENT};
use super::outcome::{Ended, Shared};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::{leash, paths};
use mutexlab_model::verdict::{Ending, Verdict};

/// A page that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The test's name.
    pub name: &'static str,
    /// The page, below the repository.
    file: &'static str,
}

/// All of them.
pub const ALL: [Page; 1] = [Page {
    name: "page-your-own-datapath",
    file: "docs/your-own-datapath.md",
}];

/// What stands in commands for this program.
const PROGRAMS: [&str; 2] = ["./just ", "target/release/mutexlab "];
/// Stands for anything.
const ANYTHING: char = '…';

/// A block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Block {
    File { path: PathBuf, text: String },
    Commands { text: String, fail: bool },
    Printed(String),
}

impl Page {
    /// Follows it in a directory of its own within the repository.
    ///
    /// # Errors
    /// If the user interrupts, or the outcome cannot be told.
    pub fn run(&self, bench: &Bench<'_>, outcomes: &Shared) -> Result<()> {
        let started = Instant::now();
        let followed = self.follow(&bench.repository, bench.interrupt);
        bench.interrupt.check()?;
        let ending = match followed {
            Ok(()) => Ending::ok(),
            Err(error) => Ending::bad(Verdict::Failed, format!("{error:#}")),
        };
        outcomes.lock().ended(Ended {
            suite: INSTRUMENT,
            test: self.name,
            ending,
            took: Some(started.elapsed()),
            console_log: None,
        })
    }

    fn follow(&self, repository: &Path, interrupt: &Interrupt) -> Result<()> {
        let path = repository.join(self.file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let target = repository.join("target");
        let place = fs::create_dir_all(&target)
            .and_then(|()| tempfile::tempdir_in(&target))
            .with_context(|| format!("cannot create a directory in {}", target.display()))?;
        // Stands for the checkout: what is beside it is beside this.
        let here = place.path().join("checkout");
        fs::create_dir(&here).with_context(|| format!("cannot create {}", here.display()))?;
        let mut printed = String::new();
        for block in blocks(&text) {
            match block {
                Block::File { path, text } => {
                    let path = here.join(path);
                    let parent = path.parent().unwrap_or(&here);
                    fs::create_dir_all(parent)
                        .and_then(|()| fs::write(&path, text))
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
                Block::Commands { text, fail } => printed = run(&text, fail, &here, interrupt)?,
                Block::Printed(expected) => compare(&expected, &printed)?,
            }
        }
        Ok(())
    }
}

/// Runs commands; what they printed.
fn run(commands: &str, fail: bool, here: &Path, interrupt: &Interrupt) -> Result<String> {
    let program = format!("{} ", paths::this_program().display());
    let script = PROGRAMS.iter().fold(commands.to_owned(), |text, name| {
        text.replace(name, &program)
    });
    // What it starts goes with it, whatever ends us.
    let (shell, leash) = leash::tie(["sh", "-ec", &script])?;
    let shell = shell
        .dir(here)
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked();
    let ended = leash::hold(leash, interrupt, || shell.run());
    interrupt.check()?;
    let output = ended.context("cannot run sh")?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() != fail,
        "{} ended with {}:\n{printed}",
        commands.trim_end(),
        output.status
    );
    Ok(printed)
}

/// Fails unless the lines of `expected` occur in this order.
fn compare(expected: &str, printed: &str) -> Result<()> {
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

/// The blocks of a page that mean something.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(head) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let text = body.join("\n") + "\n";
        let mut words = head.split_whitespace();
        blocks.extend(match (words.next(), words.next()) {
            (Some("sh"), then) => Some(Block::Commands {
                text,
                fail: then == Some("fails"),
            }),
            (Some("text"), None) => Some(Block::Printed(text)),
            (Some(_), Some(path)) => Some(Block::File {
                path: path.into(),
                text,
            }),
            _ => None,
        });
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_files_commands_and_what_they_print() {
        let page = "x\n```toml ../a.toml\nb = 1\n```\n```sh\nls\n```\n\n```text\na.toml\n```\n```sh fails\nfalse\n```\n```\nno\n```\n";
        let expected = [
            Block::File {
                path: "../a.toml".into(),
                text: "b = 1\n".into(),
            },
            Block::Commands {
                text: "ls\n".into(),
                fail: false,
            },
            Block::Printed("a.toml\n".into()),
            Block::Commands {
                text: "false\n".into(),
                fail: true,
            },
        ];
        assert_eq!(blocks(page), expected);
    }

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

    #[test]
    fn every_page_is_there() {
        let repository = paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        for page in ALL {
            let text = fs::read_to_string(repository.join(page.file)).unwrap();
            let blocks = blocks(&text);
            assert!(blocks
                .iter()
                .any(|block| matches!(block, Block::Printed(_))));
        }
    }
}
