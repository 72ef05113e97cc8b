// SPDX-License-Identifier: MIT OR Apache-2.0

//! One boot in which the probe's module measures single steps.

use std::path::Path;

use anyhow::{bail, Context, Result};

use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::boot::{Boot, Deadlines};
use mutexlab_machine::tools::Tools;
use mutexlab_protocol::{Event, Order, StepTimes, Work, VERSION};

/// Has single steps of the datapath measured in instructions, on one CPU of `kernel`.
///
/// # Errors
/// If the guest cannot be started or ends badly, or the user interrupts.
pub fn steps(
    kernel: &Kernel,
    tools: &Tools,
    interrupt: &Interrupt,
    console_log: &Path,
) -> Result<Vec<StepTimes>> {
    let order = Order {
        version: VERSION,
        work: Work::Micro,
    };
    let boot = Boot {
        deadlines: Deadlines::PLAIN,
        ..Boot::of(kernel, &order, console_log)
    };
    let mut measured = None;
    let booted = boot.run(tools, interrupt, &mut |event| {
        if let Event::Steps { steps } = event {
            measured = Some(steps.clone());
        }
        Ok(())
    })?;
    if !booted.ending.is_ok() {
        bail!(
            "the boot that measures single steps ended badly ({}): {}; its console is in {}",
            booted.ending.verdict,
            booted.ending.reason,
            console_log.display()
        );
    }
    measured.context("the agent left the steps out")
}
