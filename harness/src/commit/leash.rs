// SPDX-License-Identifier: MIT OR Apache-2.0

//! Long-running programs that end with us.

use std::ffi::OsString;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::interrupt::Interrupt;
use crate::paths;

const POLL: Duration = Duration::from_millis(50);

/// Runs a program below a [guard](crate::guard) and returns what it printed; standard error goes
/// where ours goes. If the user interrupts, it is ended with all that it started.
///
/// # Errors
/// If it cannot be started, or the user interrupts. How it ended is for the caller to judge.
pub fn run(
    arguments: &[OsString],
    directory: &Path,
    environment: &[(&str, OsString)],
    interrupt: &Interrupt,
) -> Result<Output> {
    let (leash_end, leash) = std::io::pipe().context("cannot create a pipe")?;
    let guard = [OsString::from("guard"), OsString::from("--")];
    let mut command = duct::cmd(paths::this_program(), guard.iter().chain(arguments))
        .dir(directory)
        .stdin_file(leash_end)
        .stdout_capture()
        .unchecked();
    for (name, value) in environment {
        command = command.env(name, value);
    }
    let handle = command.start().context("cannot start a guard")?;
    loop {
        if let Some(output) = handle.try_wait().context("cannot wait for the guard")? {
            return Ok(output.clone());
        }
        if let Err(interrupted) = interrupt.check() {
            drop(leash);
            handle.wait().context("cannot wait for the guard")?;
            return Err(interrupted.into());
        }
        thread::sleep(POLL);
    }
}
