// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent: it does what the order says, tells the host, and powers the guest off.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use nix::sys::reboot::{reboot, RebootMode};
use nix::sys::utsname::uname;
use nix::unistd::{sysconf, SysconfVar};

use crate::shell;
use crate::tell::tell;
use mutexlab_guest::kernel::log::KernelLog;
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_guest::kernel::{entropy, locked, tsc};
use mutexlab_guest::probe::micro;
use mutexlab_guest::traffic::pace::Pace;
use mutexlab_guest::traffic::placement;
use mutexlab_guest::{fault, measure, patterns};

use mutexlab_protocol::{
    Event, Order, Outcome, Task, Work, AGENT_GAVE_UP, GUEST_ARGUMENT, PROBE_MODULE_PATH, VERSION,
};

/// Carries out the order in the file `path` and powers the guest off, whatever happens.
///
/// Fails only outside of a guest, where there is nothing to power off.
pub fn run(path: &Path) -> Result<Infallible> {
    ensure_guest()?;
    let carried_out = KernelLog::from_now_on().and_then(|mut log| {
        carry_out(path, &mut log).inspect_err(|_| {
            // The first error is the one that is told; this one may say why there was one.
            let _ = ensure_no_complaint(&mut log);
        })
    });
    if let Err(error) = carried_out {
        eprintln!("{AGENT_GAVE_UP}{error:#}");
    }
    // QEMU is told not to reboot, and a kernel without ACPI has no other way to end it.
    reboot(RebootMode::RB_AUTOBOOT).context("cannot power the guest off")
}

/// Tells the host what the log complains of, from its begin on: for an agent that ended before it could.
///
/// Fails if it complains of anything.
pub fn look_at_log() -> Result<()> {
    ensure_guest()?;
    ensure_no_complaint(&mut KernelLog::open()?)
}

/// Refuses to run on a machine that somebody may want to keep.
pub fn ensure_guest() -> Result<()> {
    let path = "/proc/cmdline";
    let command_line = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let is_guest = command_line
        .split_whitespace()
        .any(|argument| argument == GUEST_ARGUMENT || argument.starts_with("virtme"));
    if !is_guest {
        bail!(
            "this is not a guest: the agent changes the network, loads modules and powers the \
             machine off; `mutexlab bench` and `mutexlab test` start it where it belongs"
        );
    }
    Ok(())
}

fn carry_out(path: &Path, log: &mut KernelLog) -> Result<()> {
    locked::keep()?;
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let order: Order = serde_json::from_slice(&text)
        .with_context(|| format!("cannot understand {}", path.display()))?;
    if order.version != VERSION {
        bail!(
            "{} is of version {}, but this agent speaks {VERSION}",
            path.display(),
            order.version
        );
    }
    tell(&Event::Up {
        version: VERSION,
        kernel: uname()
            .context("cannot ask for the kernel's release")?
            .release()
            .to_string_lossy()
            .into_owned(),
        cpus: sysconf(SysconfVar::_NPROCESSORS_ONLN)
            .ok()
            .flatten()
            .and_then(|count| usize::try_from(count).ok())
            .context("cannot count the CPUs")?,
        tsc_khz: tsc::frequency(),
    })?;
    ensure_no_complaint(log)?;
    match order.work {
        Work::Boot => {}
        Work::Measure { mode, tasks } => measure_all(Pace::of(mode), &tasks, log)?,
        Work::Micro => measure_steps()?,
        Work::Patterns(patterns) => {
            for pattern in patterns {
                let ticks = patterns::run(pattern)?;
                tell(&Event::Pattern { pattern, ticks })?;
            }
        }
        Work::Test { names } => test_all(&names, log)?,
        Work::Fault(fault) => fault::commit(fault)?,
        // Whoever looks around may do what they like.
        Work::Shell(visit) => {
            shell::open(&visit)?;
            return tell(&Event::Done);
        }
    }
    ensure_no_complaint(log)?;
    tell(&Event::Done)
}

/// Fails, and tells the host of it, if the log has complaints that are new. After that nothing ends as if
/// all were well: the host decides by the order of events whose complaints they are.
fn ensure_no_complaint(log: &mut KernelLog) -> Result<()> {
    let lines = log.complaints()?;
    if lines.is_empty() {
        return Ok(());
    }
    let count = lines.len();
    tell(&Event::Complaints { lines })?;
    bail!("the log has {count} complaints")
}

fn measure_all(pace: Pace, tasks: &[Task], log: &mut KernelLog) -> Result<()> {
    // Client, responder and subject on one CPU: only so is each packet's way one piece. Flows that are
    // spread over CPUs take all three along.
    placement::stay_on(0)?;
    entropy::provide()?;
    // Loaded before anything that it measures, and kept, so that its hooks are outermost.
    let probe = LoadedModule::load(PROBE_MODULE_PATH, &Parameters::new());
    for task in tasks {
        tell(&Event::CellStarted {
            id: task.cell.id.clone(),
        })?;
        let outcome = match &probe {
            Ok(_) => measure::run(task, pace),
            Err(error) => Outcome::Infra {
                reason: format!("{error:#}"),
            },
        };
        ensure_no_complaint(log)?;
        tell(&Event::CellEnded {
            id: task.cell.id.clone(),
            outcome,
        })?;
    }
    probe?.unload()
}

fn measure_steps() -> Result<()> {
    placement::stay_on(0)?;
    let probe = LoadedModule::load(PROBE_MODULE_PATH, &Parameters::new())?;
    tell(&Event::Steps {
        steps: micro::measure()?,
    })?;
    probe.unload()
}

fn test_all(names: &[String], log: &mut KernelLog) -> Result<()> {
    for name in names {
        tell(&Event::TestStarted { name: name.clone() })?;
        let failure = mutexlab_functional::run(name)
            .err()
            .map(|error| format!("{error:#}"));
        ensure_no_complaint(log)?;
        tell(&Event::TestEnded {
            name: name.clone(),
            failure,
        })?;
    }
    Ok(())
}
