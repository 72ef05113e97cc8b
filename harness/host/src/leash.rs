// SPDX-License-Identifier: MIT OR Apache-2.0

//! Long-running programs that end with us, together with all that they have started.

use std::ffi::OsString;
use std::io::PipeWriter;
use std::path::Path;
use std::process::Output;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use duct::Expression;

use crate::interrupt::Interrupt;
use crate::paths;

const POLL: Duration = Duration::from_millis(50);

/// A program below a [guard](crate::guard), to be started, and the leash that it is on: when that is dropped,
/// by whatever death of ours, the guard ends the program and its descendants. Its standard input is empty.
///
/// # Errors
/// If there cannot be another pipe.
pub fn tie<T: Into<OsString>>(
    arguments: impl IntoIterator<Item = T>,
) -> Result<(Expression, PipeWriter)> {
    let (leash_end, leash) = std::io::pipe().context("cannot create a pipe")?;
    let guard = ["guard", "--"].map(OsString::from);
    let arguments = guard
        .into_iter()
        .chain(arguments.into_iter().map(Into::into));
    let program = duct::cmd(paths::this_program(), arguments).stdin_file(leash_end);
    Ok((program, leash))
}

/// Holds a leash while `work` goes on, which runs the program to its end; lets it go before if the user
/// interrupts. Whether that was so, the caller can ask afterwards.
pub fn hold<T>(leash: PipeWriter, interrupt: &Interrupt, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (working, done) = mpsc::channel::<()>();
        scope.spawn(move || {
            while done.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                if interrupt.raised() {
                    break;
                }
            }
            drop(leash);
        });
        let result = work();
        drop(working);
        result
    })
}

/// Runs a program on a leash and returns what it printed; standard error goes where ours goes. If the user
/// interrupts, it is ended with all that it started.
///
/// # Errors
/// If it cannot be started, or the user interrupts. How it ended is for the caller to judge.
pub fn run(
    arguments: &[OsString],
    directory: &Path,
    environment: &[(&str, OsString)],
    interrupt: &Interrupt,
) -> Result<Output> {
    let (program, leash) = tie(arguments)?;
    let mut program = program.dir(directory).stdout_capture().unchecked();
    for (name, value) in environment {
        program = program.env(name, value);
    }
    let output = hold(leash, interrupt, || program.run()).context("cannot start a guard")?;
    interrupt.check()?;
    Ok(output)
}
