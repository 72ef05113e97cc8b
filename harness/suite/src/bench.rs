// SPDX-License-Identifier: MIT OR Apache-2.0

//! What tests are run with.

use std::path::{Path, PathBuf};

use mutexlab_host::interrupt::Interrupt;
use mutexlab_machine::stub::Stub;
use mutexlab_machine::tools::Tools;

/// What the tests of the instrument stand under, which choose their kernel themselves.
pub const INSTRUMENT: &str = "instrument";

/// What every test gets.
pub struct Bench<'a> {
    /// What boots guests.
    pub tools: &'a Tools,
    /// Whether the user wants no more.
    pub interrupt: &'a Interrupt,
    /// The repository.
    pub repository: PathBuf,
    /// Where console logs go.
    pub logs: PathBuf,
    /// What random numbers of guests with functional tests come from.
    pub seed: u32,
    /// Where a debugger attaches to them.
    pub stub: Option<Stub>,
    /// The command that deals the same tests to guests, without a kernel's name and a guest's; `None` if there is none.
    pub again: Option<String>,
}

impl Bench<'_> {
    /// A path as people are told it: from the repository on.
    pub fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.repository)
            .unwrap_or(path)
            .to_owned()
    }

    /// Where the console of a test's guest goes.
    pub fn console_log(&self, test: &str) -> PathBuf {
        self.logs.join(format!("{test}.console.log"))
    }
}
