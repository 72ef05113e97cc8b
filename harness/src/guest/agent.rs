// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent: it does what the order says, tells the host, and powers the guest off.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{bail, Context, Result};
use nix::sys::mman::{mlockall, MlockAllFlags};
use nix::sys::reboot::{reboot, RebootMode};
use nix::sys::utsname::uname;
use nix::unistd::{sysconf, SysconfVar};

use super::kmod::{LoadedModule, Parameters};
use super::pace::Pace;
use super::protocol::{
    Event, GuestCell, Order, Outcome, Work, EVENT_PREFIX, PROBE_MODULE_PATH, VERSION,
};
use super::{entropy, fault, measure, micro, placement, shell, tests, tsc};

/// What stands on the console before the reason why an order was not carried out.
pub const GAVE_UP: &str = "mutexlab agent: ";

/// Carries out the order in the file `path` and powers the guest off, whatever happens.
///
/// Fails only outside of a guest, where there is nothing to power off.
pub fn run(path: &Path) -> Result<Infallible> {
    ensure_guest()?;
    if let Err(error) = carry_out(path) {
        eprintln!("{GAVE_UP}{error:#}");
    }
    // QEMU is told not to reboot, and a kernel without ACPI has no other way to end it.
    reboot(RebootMode::RB_AUTOBOOT).context("cannot power the guest off")
}

/// Refuses to run on a machine that somebody may want to keep.
fn ensure_guest() -> Result<()> {
    let path = "/proc/cmdline";
    let command_line = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let is_guest = command_line
        .split_whitespace()
        .any(|argument| argument.starts_with("virtme"));
    if !is_guest {
        bail!(
            "this is not a guest: the agent changes the network, loads modules and powers the \
             machine off; `mutexlab bench` and `mutexlab test` start it where it belongs"
        );
    }
    Ok(())
}

fn carry_out(path: &Path) -> Result<()> {
    // A page that has to come from the host while a packet is on its way would be measured with
    // it.
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
        .context("cannot keep the agent in memory")?;
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
    match order.work {
        Work::Boot => {}
        Work::Measure { mode, cells } => measure_all(Pace::of(mode), &cells)?,
        Work::Micro => measure_steps()?,
        Work::Patterns(patterns) => {
            for pattern in patterns {
                let ticks = pattern.run()?;
                tell(&Event::Pattern { pattern, ticks })?;
            }
        }
        Work::Test(names) => test_all(&names)?,
        Work::Fault(fault) => fault::commit(fault)?,
        Work::Shell(visit) => shell::open(&visit)?,
    }
    tell(&Event::Done)
}

fn measure_all(pace: Pace, cells: &[GuestCell]) -> Result<()> {
    // Client, responder and subject on one CPU: only so is each packet's way one piece. Flows that are
    // spread over CPUs take all three along.
    placement::stay_on(0)?;
    entropy::provide()?;
    // Loaded before anything that it measures, and kept, so that its hooks are outermost.
    let probe = LoadedModule::load(PROBE_MODULE_PATH, &Parameters::new());
    for cell in cells {
        tell(&Event::CellStarted {
            id: cell.id.clone(),
        })?;
        let outcome = match &probe {
            Ok(_) => measure::run(cell, pace),
            Err(error) => Outcome::Infra {
                reason: format!("{error:#}"),
            },
        };
        tell(&Event::CellEnded {
            id: cell.id.clone(),
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

fn test_all(names: &[String]) -> Result<()> {
    for name in names {
        tell(&Event::TestStarted { name: name.clone() })?;
        let failure = tests::run(name).err().map(|error| format!("{error:#}"));
        tell(&Event::TestEnded {
            name: name.clone(),
            failure,
        })?;
    }
    Ok(())
}

/// Tells the host.
pub(super) fn tell(event: &Event) -> Result<()> {
    let line = serde_json::to_string(event).context("cannot write an event as JSON")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{EVENT_PREFIX}{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to the standard output")
}
