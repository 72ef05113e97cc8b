// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functional tests: what the module does to real traffic, in a guest whose kernel checks
//! itself.

use anyhow::{Context, Result};

/// One functional test.
pub struct GuestTest {
    /// Its name.
    pub name: &'static str,
    /// A line about what it shows.
    pub about: &'static str,
    run: fn() -> Result<()>,
}

/// All functional tests, in the order in which they run by default.
pub const ALL: &[GuestTest] = &[];

/// Runs the test called `name`.
pub fn run(name: &str) -> Result<()> {
    let test = ALL
        .iter()
        .find(|test| test.name == name)
        .with_context(|| format!("there is no test {name}; see `mutexlab agent --list-tests`"))?;
    (test.run)()
}
