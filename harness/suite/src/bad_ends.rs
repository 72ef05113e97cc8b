// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bad ends on purpose, of guests and of the harness: each must be told as what it is, in time, and leave
//! nothing running.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::bad_bench::{self, BadBench};
use super::bad_guests::{self, BadGuest};
use super::bench::Bench;
use super::functional::NEEDS_DEBUG;
use super::gone::all_gone;
use super::outcome::{label, Ended, Outcomes, Shared};
use mutexlab_host::guard;
use mutexlab_host::interrupt;
use mutexlab_host::paths;
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::qemu;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::EVENT_PREFIX;

/// How long another run of tests may take until its guest is there: modules may have to be built.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// A way to end badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEnd {
    /// A guest goes wrong.
    Guest(BadGuest),
    /// The harness gets a signal.
    HarnessStopped(&'static str, Signal),
    /// A run of tests is interrupted.
    TestsInterrupted,
    /// A bench loses guests, or is killed.
    Bench(BadBench),
}

/// All of them.
pub fn all() -> Vec<BadEnd> {
    let guests = bad_guests::ALL.map(BadEnd::Guest);
    let harness = [
        BadEnd::HarnessStopped("killed-harness-leaves-no-guest", Signal::SIGKILL),
        BadEnd::HarnessStopped("interrupted-harness-leaves-no-guest", Signal::SIGINT),
        BadEnd::HarnessStopped("terminated-harness-leaves-no-guest", Signal::SIGTERM),
        BadEnd::TestsInterrupted,
    ];
    let benches = bad_bench::ALL.map(BadEnd::Bench);
    guests.into_iter().chain(harness).chain(benches).collect()
}

impl BadEnd {
    /// Its name as a test.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guest(guest) => guest.name,
            Self::HarnessStopped(name, _) => name,
            Self::Bench(bench) => bench.name(),
            Self::TestsInterrupted => "interrupted-tests-are-no-passes",
        }
    }

    /// Whether only a kernel with its checkers can go wrong this way.
    pub fn needs_debug(self) -> bool {
        matches!(self, Self::Guest(guest) if guest.needs_debug())
    }

    /// The first of `kernels`, the plainest first, on which it can happen.
    pub fn choose<'a>(self, kernels: &[&'a Kernel]) -> Option<&'a Kernel> {
        let fits = |kernel: &&&Kernel| kernel.debug || !self.needs_debug();
        kernels.iter().find(fits).copied()
    }

    /// Plans it on the kernel that was chosen, or says that there is none.
    pub fn plan(self, kernels: &[&Kernel], outcomes: &mut Outcomes) {
        match (self.choose(kernels), kernels.first()) {
            (Some(kernel), _) => outcomes.plan(&label(kernel), self.name()),
            // With --kernel there may be no debug kernel among those that were asked for.
            (None, Some(kernel)) => outcomes.skip(&label(kernel), self.name(), NEEDS_DEBUG),
            (None, None) => {}
        }
    }

    /// Has it happen on `kernel`.
    pub fn run(self, bench: &Bench<'_>, kernel: &Kernel, outcomes: &Shared) -> Result<()> {
        let started = Instant::now();
        let ending = match self {
            Self::Guest(guest) => guest.run(bench, kernel)?,
            Self::Bench(bad) => bad.run(bench, kernel)?,
            Self::HarnessStopped(name, signal) => {
                stop_harness(bench, name, signal, &kernel.bzimage())?
            }
            Self::TestsInterrupted => interrupt_tests(bench, kernel)?,
        };
        outcomes.lock().ended(Ended {
            suite: &label(kernel),
            test: self.name(),
            ending,
            took: Some(started.elapsed()),
            console_log: Some(&bench.shown(&bench.console_log(self.name()))),
        })
    }
}

/// Stops another harness in the middle of a boot, and looks whether something of it survives.
fn stop_harness(bench: &Bench<'_>, name: &str, signal: Signal, bzimage: &Path) -> Result<Ending> {
    let harness = paths::this_program();
    fs::create_dir_all(&bench.logs)
        .with_context(|| format!("cannot create {}", bench.logs.display()))?;
    let mut child = Command::new(&harness)
        .args(["boot", "--work", r#"{"fault":"silence"}"#, "--log"])
        .arg(bench.console_log(name))
        .arg(bzimage)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", harness.display()))?;
    let up = wait_until_up(&mut child);
    let descendants = guard::descendants(child.id());
    let guest_ran = qemu::command_line_below(child.id()).is_some();
    signal::kill(Pid::from_raw(child.id() as i32), signal)
        .with_context(|| format!("cannot send {signal} to the other harness"))?;
    let status = child.wait().context("cannot wait for the other harness")?;
    if !up || !guest_ran {
        return Ok(Ending::bad(
            Verdict::Infra,
            "the other harness's guest did not come up",
        ));
    }
    // SIGKILL leaves it no word; the others it takes as a request to clean up.
    let expected = (signal != Signal::SIGKILL).then_some(interrupt::EXIT_CODE);
    if status.code() != expected {
        let reason = format!("the harness ended as {status}; expected exit code {expected:?}");
        return Ok(Ending::bad(Verdict::Failed, reason));
    }
    Ok(match all_gone(&descendants) {
        Ok(()) => Ending::ok(),
        Err(fault) => Ending::bad(Verdict::Failed, format!("after {signal} {fault}")),
    })
}

/// Interrupts another harness while a test of its runs, and reads what its report says of that.
fn interrupt_tests(bench: &Bench<'_>, kernel: &Kernel) -> Result<Ending> {
    const TEST: &str = "silence-is-hang";
    let harness = paths::this_program();
    fs::create_dir_all(&bench.logs)
        .with_context(|| format!("cannot create {}", bench.logs.display()))?;
    let report = bench.logs.join("interrupted.ktap");
    let mut child = Command::new(&harness)
        .args(["test", "--filter", TEST, "--kernel", &kernel.name, "--tree"])
        .arg(format!("{}={}", kernel.name, kernel.directory.display()))
        .arg("--ktap")
        .arg(&report)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", harness.display()))?;
    let deadline = Instant::now() + START_DEADLINE;
    while qemu::command_line_below(child.id()).is_none() {
        let ended = child.try_wait().context("cannot ask for the other run")?;
        if ended.is_some() || Instant::now() > deadline {
            // It may be gone already.
            let _ = child.kill();
            child.wait().context("cannot wait for the other run")?;
            let reason = "the other run of tests started no guest";
            return Ok(Ending::bad(Verdict::Infra, reason));
        }
        thread::sleep(Duration::from_millis(100));
    }
    signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)
        .context("cannot interrupt the other run")?;
    let status = child.wait().context("cannot wait for the other run")?;
    let said =
        fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    let expected = format!("not ok 1 {TEST} # ERROR not run");
    Ok(if status.code() != Some(interrupt::EXIT_CODE) {
        let reason = format!("the interrupted run ended as {status}");
        Ending::bad(Verdict::Failed, reason)
    } else if !said.contains(&expected) {
        Ending::bad(
            Verdict::Failed,
            format!("its report lacks {expected:?}:\n{said}"),
        )
    } else {
        Ending::ok()
    })
}

/// Reads the other harness's output until its guest is up; false if it ends before.
fn wait_until_up(child: &mut Child) -> bool {
    let Some(output) = child.stdout.take() else {
        return false;
    };
    BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .any(|line| line.starts_with(EVENT_PREFIX))
}
