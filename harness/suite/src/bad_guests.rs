// SPDX-License-Identifier: MIT OR Apache-2.0

//! Guests that go wrong on purpose, and what must be said of each.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::bench::Bench;
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::boot::{processes, Boot, Deadlines};
use mutexlab_machine::guest_root::ModuleFiles;
use mutexlab_machine::qemu;
use mutexlab_model::subject::{ModuleRules, Subject};
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::datapath::Datapath;
use mutexlab_protocol::{Event, Fault, GuestCell, Order, Outcome, Sabotage, Task, Work, VERSION};
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;

/// When to give up on a guest that never comes up; short, since it is meant not to.
const UP_DEADLINE: Duration = Duration::from_secs(6);
/// When to give up on one that falls silent, as it is meant to.
const SILENCE_DEADLINE: Duration = Duration::from_secs(5);
/// How much later than its deadline a guest may end.
const LATENESS: Duration = Duration::from_secs(5);
/// How much of a kernel is overwritten to make it one that does not boot.
const HOLE: usize = 1 << 16;
/// The scenario of which a cell is measured.
const SCENARIO: &str = "scenarios/quick.toml";

/// A guest that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadGuest {
    /// Its name as a test.
    pub name: &'static str,
    /// What is wrong with it.
    what: Wrong,
    /// How it must end.
    verdict: Verdict,
    /// What the reason must say.
    says: &'static str,
}

/// What is wrong with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// The agent commits it.
    Agent(Fault),
    /// The agent runs out of memory; what the guest has is made small first.
    Memory,
    /// A cell of the module's is measured, with this done to it.
    Cell(Spoilt),
    /// The kernel has a hole.
    HoleInKernel,
    /// What shall boot is no kernel.
    NoKernel,
    /// The kernel finds no root file system.
    NoRoot,
    /// The kernel is not that of the modules.
    OtherKernel,
    /// QEMU is killed.
    QemuKilled,
}

/// What is done to a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoilt {
    /// A parameter has a value that the module refuses.
    Parameter,
    /// The module's file says that it is another kernel's.
    VersionMagic,
    /// The module is in use when it is to go.
    Held,
    /// A warning is logged while it is measured.
    Logs,
}

/// All of them.
pub const ALL: [BadGuest; 19] = [
    guest(
        "warning-is-splat",
        Wrong::Agent(Fault::Warning),
        Verdict::Splat,
        "warning: WARNING",
    ),
    guest(
        "logged-warning-is-splat",
        Wrong::Agent(Fault::LoggedWarning),
        Verdict::Splat,
        "logged: <4>mutexlab: a warning on purpose",
    ),
    guest(
        "logged-warning-before-a-crash-is-splat",
        Wrong::Agent(Fault::LoggedWarningAndCrash),
        Verdict::Splat,
        "logged: <4>mutexlab: a warning on purpose",
    ),
    guest(
        "logged-warning-of-a-cell-is-splat",
        Wrong::Cell(Spoilt::Logs),
        Verdict::Splat,
        "logged: <4>mutexlab: a warning on purpose",
    ),
    guest(
        "kasan-report-is-splat",
        Wrong::Agent(Fault::UseAfterFree),
        Verdict::Splat,
        "use-after-free",
    ),
    guest(
        "out-of-memory-is-splat",
        Wrong::Memory,
        Verdict::Splat,
        "Out of memory: Killed process",
    ),
    guest(
        "panic-is-panic",
        Wrong::Agent(Fault::Panic),
        Verdict::Panic,
        "sysrq",
    ),
    guest(
        "silence-is-hang",
        Wrong::Agent(Fault::Silence),
        Verdict::Hang,
        "no sign of life",
    ),
    guest(
        "lockup-is-hang",
        Wrong::Agent(Fault::Lockup),
        Verdict::Hang,
        "no sign of life",
    ),
    guest(
        "agent-exit-is-infra",
        Wrong::Agent(Fault::AgentExit),
        Verdict::Infra,
        "code 1",
    ),
    guest(
        "agent-crash-is-infra",
        Wrong::Agent(Fault::AgentCrash),
        Verdict::Infra,
        "SIGABRT",
    ),
    guest(
        "killed-qemu-is-infra",
        Wrong::QemuKilled,
        Verdict::Infra,
        "QEMU ended",
    ),
    guest(
        "damaged-kernel-is-boot",
        Wrong::HoleInKernel,
        Verdict::Boot,
        "not up after",
    ),
    guest(
        "no-kernel-is-boot",
        Wrong::NoKernel,
        Verdict::Boot,
        "it is no kernel",
    ),
    guest(
        "kernel-without-root-is-boot",
        Wrong::NoRoot,
        Verdict::Boot,
        "before the agent was up: Kernel panic",
    ),
    guest(
        "other-kernel-is-boot",
        Wrong::OtherKernel,
        Verdict::Boot,
        "of another tree",
    ),
    guest(
        "refused-parameter-is-failed",
        Wrong::Cell(Spoilt::Parameter),
        Verdict::Failed,
        "cannot load",
    ),
    guest(
        "refused-module-is-infra",
        Wrong::Cell(Spoilt::VersionMagic),
        Verdict::Infra,
        "ENOEXEC",
    ),
    guest(
        "held-module-is-failed",
        Wrong::Cell(Spoilt::Held),
        Verdict::Failed,
        "cannot unload",
    ),
];

const fn guest(name: &'static str, what: Wrong, verdict: Verdict, says: &'static str) -> BadGuest {
    BadGuest {
        name,
        what,
        verdict,
        says,
    }
}

impl BadGuest {
    /// Whether only a kernel with its checkers can go wrong this way: they have LKDTM, too.
    pub const fn needs_debug(self) -> bool {
        matches!(
            self.what,
            Wrong::Agent(Fault::Warning | Fault::Lockup | Fault::UseAfterFree)
        )
    }

    /// Boots it; passes if it ends as it must, in time, and leaves no process.
    ///
    /// # Errors
    /// If a guest cannot be started, or the user interrupts.
    pub fn run(self, bench: &Bench<'_>, kernel: &Kernel) -> Result<Ending> {
        let order = Order {
            version: VERSION,
            work: self.work(bench, kernel)?,
        };
        let bzimage = self.bzimage(bench, kernel)?;
        let modules = self.modules(bench, kernel)?;
        let mut arguments = kernel.arguments().to_vec();
        match self.what {
            // The agent, which keeps itself in memory, is what takes it.
            Wrong::Memory => arguments.push("mem=256M"),
            Wrong::NoRoot => arguments.push("rdinit=/no-such-program"),
            _ => {}
        }
        let usual = Deadlines::of(kernel.debug);
        let deadlines = Deadlines {
            up: match self.what {
                Wrong::HoleInKernel => UP_DEADLINE,
                _ => usual.up,
            },
            silence: match self.what {
                Wrong::Agent(Fault::Silence | Fault::Lockup) => SILENCE_DEADLINE,
                _ => usual.silence,
            },
            ..usual
        };
        let log = bench.console_log(self.name);
        let boot = Boot {
            kernel: bzimage,
            arguments: &arguments,
            modules: modules.as_ref(),
            deadlines,
            ..Boot::of(kernel, &order, &log)
        };
        let started = Instant::now();
        let last_event = Cell::new(None);
        let mut heard = Ending::ok();
        let ended = boot
            .run(bench.tools, bench.interrupt, &mut |event| {
                last_event.set(Some(Instant::now()));
                if self.what == Wrong::QemuKilled {
                    kill_qemu(&log)?;
                }
                if let Event::CellEnded { outcome, .. } = event {
                    heard = ending_of(outcome);
                }
                Ok(())
            })?
            .ending;
        let (since, allowed) = match last_event.get() {
            Some(event) => (event, deadlines.silence),
            None => (started, deadlines.up),
        };
        let took = since.elapsed();
        let left = processes::of_guest(&log);
        let ended = if ended.is_ok() { heard } else { ended };
        let fault = if ended.verdict != self.verdict {
            let expected = self.verdict;
            format!(
                "ended as {}, not as {expected}: {}",
                ended.verdict, ended.reason
            )
        } else if !ended.reason.contains(self.says) {
            format!("its reason does not say {:?}: {}", self.says, ended.reason)
        } else if took > allowed + LATENESS {
            format!("ended after {took:?}, where {allowed:?} are the deadline")
        } else if !left.is_empty() {
            format!("it left processes behind: {left:?}")
        } else {
            return Ok(Ending::ok());
        };
        Ok(Ending::bad(Verdict::Failed, fault))
    }

    fn work(self, bench: &Bench<'_>, kernel: &Kernel) -> Result<Work> {
        Ok(match self.what {
            Wrong::Agent(fault) => Work::Fault(fault),
            Wrong::Memory => Work::Fault(Fault::OutOfMemory),
            Wrong::QemuKilled => Work::Fault(Fault::Silence),
            Wrong::HoleInKernel | Wrong::NoKernel | Wrong::NoRoot | Wrong::OtherKernel => {
                Work::Boot
            }
            Wrong::Cell(spoilt) => {
                let scenario = ScenarioFile::load(&bench.repository.join(SCENARIO))?;
                let mut cell = a_cell_of_the_module(&scenario)
                    .with_context(|| format!("{SCENARIO} has no cell of the module's"))?;
                match spoilt {
                    Spoilt::Parameter => {
                        let name = refusable(kernel)?;
                        cell.parameters.insert(name, "no-number".to_owned());
                    }
                    Spoilt::Held => cell.sabotage = Some(Sabotage::HoldModule),
                    Spoilt::Logs => cell.sabotage = Some(Sabotage::LogWarning),
                    Spoilt::VersionMagic => {}
                }
                Work::Measure {
                    mode: scenario.scenario.mode,
                    tasks: vec![Task {
                        cell,
                        datapath: Datapath::module(ModuleRules::Redirect),
                    }],
                }
            }
        })
    }

    fn bzimage(self, bench: &Bench<'_>, kernel: &Kernel) -> Result<PathBuf> {
        match self.what {
            Wrong::HoleInKernel => {
                altered(bench, &kernel.bzimage(), "bzImage-with-a-hole", |bytes| {
                    // Its first code runs, finds the rest broken, and stops, as a kernel does that hangs
                    // before it can print.
                    let middle = bytes.len() / 2;
                    let hole = bytes.iter_mut().skip(middle).take(HOLE);
                    hole.for_each(|byte| *byte = 0);
                })
            }
            Wrong::NoKernel => Ok(kernel.config()),
            _ => Ok(kernel.bzimage()),
        }
    }

    fn modules(self, bench: &Bench<'_>, kernel: &Kernel) -> Result<Option<ModuleFiles>> {
        let Some(mut files) = kernel.modules.clone() else {
            return Ok(None);
        };
        match self.what {
            Wrong::OtherKernel => files.release = format!("not-{}", kernel.release),
            Wrong::Cell(Spoilt::VersionMagic) => {
                // Of the same length: the kernel reads it in place.
                let magic = format!("vermagic={}", kernel.release);
                let other = format!("vermagic={}", "9".repeat(kernel.release.len()));
                files.proxy = altered(bench, &files.proxy, "mutex_proxy.ko", |bytes| {
                    let found = bytes
                        .windows(magic.len())
                        .position(|part| part == magic.as_bytes());
                    if let Some(place) = found {
                        bytes[place..][..magic.len()].copy_from_slice(other.as_bytes());
                    }
                })?;
            }
            _ => {}
        }
        Ok(Some(files))
    }
}

/// A copy of a file, beside the logs, with a change.
fn altered(
    bench: &Bench<'_>,
    file: &Path,
    name: &str,
    alter: impl FnOnce(&mut Vec<u8>),
) -> Result<PathBuf> {
    let mut bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    alter(&mut bytes);
    fs::create_dir_all(&bench.logs)
        .with_context(|| format!("cannot create {}", bench.logs.display()))?;
    let copy = bench.logs.join(name);
    fs::write(&copy, bytes).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

fn a_cell_of_the_module(scenario: &ScenarioFile) -> Option<GuestCell> {
    let plan = Plan::new(&scenario.scenario).ok()?;
    let mut cells = plan.boots.into_iter().flat_map(|boot| boot.cells);
    cells.find(|cell| cell.subject == Subject::MODULE)
}

/// A parameter of the module's that is a number.
fn refusable(kernel: &Kernel) -> Result<String> {
    let files = kernel
        .modules
        .as_ref()
        .context("the kernel has no modules")?;
    mutexlab_images::modules::parameters(&files.proxy)?
        .into_iter()
        .find(|name| name == "hash_seed")
        .context("the module has no parameter hash_seed")
}

fn ending_of(outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Ok(_) => Ending::ok(),
        Outcome::Failed { reason, .. } => Ending::bad(Verdict::Failed, reason),
        Outcome::Infra { reason } => Ending::bad(Verdict::Infra, reason),
    }
}

fn kill_qemu(log: &Path) -> Result<()> {
    let mut processes = processes::of_guest(log).into_iter();
    let qemu = processes.find(|&pid| qemu::has_guest(pid));
    let qemu = qemu.context("QEMU does not run")?;
    signal::kill(Pid::from_raw(qemu.cast_signed()), Signal::SIGKILL).context("cannot kill QEMU")
}
