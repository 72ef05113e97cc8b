// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a page says to do in a guest, all of it in one: a script of its commands, and what each of them printed.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};

use super::block::Step;
use super::likeness::compare;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::{leash, paths};

/// Where a guest sees this machine's files.
const HOST: &str = "/host";
const SCRIPT: &str = "script.sh";
/// Stands before and after what a command prints; no program prints it.
const MARK: char = '\u{1e}';

/// Has a guest go through `steps`, among the files of `files`.
///
/// # Errors
/// If one of them ends or prints otherwise than it should, or the guest cannot be had.
pub fn follow(steps: &[Step], files: &Path, interrupt: &Interrupt) -> Result<()> {
    let place = tempfile::tempdir().context("cannot create a temporary directory")?;
    let script = place.path().join(SCRIPT);
    fs::write(&script, script_of(steps, files))
        .with_context(|| format!("cannot write {}", script.display()))?;
    let script = format!("{HOST}{}", script.display());
    let program = paths::this_program();
    let words = ["shell", "--no-rules", "--", "sh", &script].map(OsString::from);
    let (shell, leash) = leash::tie([program.into_os_string()].into_iter().chain(words))?;
    let shell = shell
        .stdin_null()
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked();
    let ended = leash::hold(leash, interrupt, || shell.run());
    interrupt.check()?;
    let output = ended.context("cannot run a guest")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    judge(steps, &printed)?;
    ensure!(
        output.status.success(),
        "the guest ended with {}:\n{printed}",
        output.status
    );
    Ok(())
}

fn script_of(steps: &[Step], files: &Path) -> String {
    let mut script = format!("cp -r '{HOST}{}/.' . || exit\n", files.display());
    for step in steps {
        // In this shell itself, so that it remembers where it is and what runs in the background.
        writeln!(
            script,
            "printf '{MARK}'\n{{ {}\n}} 2>&1 </dev/null\nprintf '{MARK}%d{MARK}' $?",
            step.command
        )
        .expect("a string takes all");
    }
    script
}

/// What the script printed: nothing, then for each step what it printed and its exit code, each before a mark.
fn judge(steps: &[Step], printed: &str) -> Result<()> {
    let mut pieces = printed.split(MARK).skip(1);
    for step in steps {
        let command = &step.command;
        let (Some(said), Some(code)) = (pieces.next(), pieces.next()) else {
            anyhow::bail!("the guest did not come to {command}:\n{printed}");
        };
        ensure!(
            (code != "0") == step.fail,
            "{command}: ended with {code}, having printed\n{said}"
        );
        compare(&step.printed, said).with_context(|| command.clone())?;
        // Between two steps.
        pieces.next();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn step(command: &str, printed: &str, fail: bool) -> Step {
        Step {
            command: command.to_owned(),
            printed: printed.to_owned(),
            fail,
        }
    }

    /// What the script prints, but for the files.
    fn run(steps: &[Step]) -> String {
        let script = script_of(steps, Path::new("/nowhere"));
        let (_, script) = script.split_once('\n').unwrap();
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn steps_are_judged_one_by_one() {
        let good = [
            step("here=1; echo one", "one\n", false),
            step("echo $here >&2; false", "1\n", true),
            step("true # no more", "", false),
            step("echo two\\\necho three", "two…three\n", false),
        ];
        judge(&good, &run(&good)).unwrap();
        let printed = run(&good);
        for bad in [
            step("echo $here >&2; false", "1\n", false),
            step("echo $here >&2; false", "2\n", true),
        ] {
            let mut steps = good.clone();
            steps[1] = bad;
            assert!(judge(&steps, &printed).is_err());
        }
    }

    #[test]
    fn what_the_guest_did_not_come_to_is_told() {
        let steps = [step("true", "", false), step("exit 3", "", false)];
        let error = judge(&steps, &run(&steps)).unwrap_err();
        assert!(
            format!("{error:#}").contains("did not come to exit 3"),
            "{error:#}"
        );
    }
}
