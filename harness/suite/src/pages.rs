// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pages of docs/ that can be followed word by word: files are written, commands run, and what they print is compared.
//!
//! A block whose first line names a file after the language (`toml ../mine/a.toml`) is that file. A block `sh` is commands, `sh fails`
//! those that must fail. A block `text` after it is what they print: its lines occur in this order, `…` stands for anything. A block
//! `console guest` is what somebody types after the prompt of `mutexlab shell --no-rules`, with what each command prints; of
//! `console guest fails`, the last one must fail. All of a page's are in one guest, which has the page's files.

mod block;
mod likeness;
mod session;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use self::block::{blocks, Block};
use self::likeness::compare;
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
pub const ALL: [Page; 3] = [
    Page {
        name: "page-your-own-datapath",
        file: "docs/your-own-datapath.md",
    },
    Page {
        name: "page-readme",
        file: "README.md",
    },
    Page {
        name: "page-recipes",
        file: "docs/recipes.md",
    },
];

/// What stands in commands for this program.
const PROGRAMS: [&str; 2] = ["./just ", "target/release/mutexlab "];
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
        let mut steps = Vec::new();
        let blocks = blocks(&text)?;
        // A guest has all of them from its beginning on.
        let once = (blocks.iter()).any(|block| matches!(block, Block::Session(_)));
        for block in blocks {
            match block {
                Block::File { path, text } => {
                    let path = here.join(path);
                    ensure!(
                        !(once && path.exists()),
                        "{} is there twice",
                        path.display()
                    );
                    let parent = path.parent().unwrap_or(&here);
                    fs::create_dir_all(parent)
                        .and_then(|()| fs::write(&path, text))
                        .with_context(|| format!("cannot write {}", path.display()))?;
                }
                Block::Commands { text, fail } => printed = run(&text, fail, &here, interrupt)?,
                Block::Printed(expected) => compare(&expected, &printed)?,
                Block::Session(more) => steps.extend(more),
            }
        }
        match steps.as_slice() {
            [] => Ok(()),
            steps => session::follow(steps, &here, interrupt),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_there_and_says_what_is_printed() {
        let repository = paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        for page in ALL {
            let text = fs::read_to_string(repository.join(page.file)).unwrap();
            let says = |block: &Block| match block {
                Block::Printed(_) => true,
                Block::Session(steps) => steps.iter().any(|step| !step.printed.is_empty()),
                Block::File { .. } | Block::Commands { .. } => false,
            };
            assert!(blocks(&text).unwrap().iter().any(says), "{}", page.file);
        }
    }
}
