// SPDX-License-Identifier: MIT OR Apache-2.0

//! Other programs of administration, asked for what they know.

use std::io;
use std::process::{Command, Output};

/// Where such programs are, which not everybody looks for there.
const DIRECTORIES: &str = "/usr/sbin:/sbin";

/// Runs a program to its end, and takes what it prints.
///
/// # Errors
/// If it is not there, or cannot be started.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<Output> {
    #[expect(
        clippy::disallowed_methods,
        reason = "where this program itself looks for others"
    )]
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(arguments)
        .env("PATH", format!("{path}:{DIRECTORIES}"))
        .output()
}
