// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a program prints.

use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};

/// What `command` prints on its standard output; the other one stays ours.
///
/// # Errors
/// If it cannot be run, fails, or prints what is not UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} prints no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_named() {
        let text = output(Command::new("echo").arg("a")).unwrap();
        assert_eq!(text, "a\n");
        let error = output(&mut Command::new("false")).unwrap_err();
        assert_eq!(error.to_string(), "false failed: exit status: 1");
        let error = output(&mut Command::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.to_string(), "cannot run /nowhere/at/all");
    }
}
