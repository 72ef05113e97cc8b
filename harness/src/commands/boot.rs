// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab boot`: one boot by hand.

use crate::environment;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_machine::baggage::Baggage;
use mutexlab_machine::boot::{Boot, Deadlines};
use mutexlab_machine::qemu::Lens;
use mutexlab_machine::tools::Tools;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::complaint::Complaint;
use mutexlab_model::seed;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::{Event, Order, Work, EVENT_PREFIX, VERSION};

/// Boot a kernel, have the agent do one piece of work, and tell how it ended
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab boot linux/arch/x86/boot/bzImage\n  \
    mutexlab boot --work '{\"fault\": \"panic\"}' linux/arch/x86/boot/bzImage\n  \
    mutexlab boot --icount --lens settings.json linux/arch/x86/boot/bzImage\n\n\
Exit codes: 0 if the guest ended well, 1 if not.")]
pub struct BootCommand {
    /// The kernel
    #[arg(value_name = "BZIMAGE")]
    kernel: PathBuf,
    /// The work, as JSON
    #[arg(long, value_name = "JSON", default_value = "\"boot\"")]
    work: String,
    /// Number of CPUs
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    cpus: u32,
    /// Where the console goes
    #[arg(long, value_name = "FILE", default_value = "console.log")]
    log: PathBuf,
    /// Count instructions instead of time
    #[arg(long)]
    icount: bool,
    /// What random numbers come from: counting instructions, boots of one seed are the same boot
    #[arg(long, value_name = "NUMBER", default_value_t = seed::USUAL)]
    seed: u32,
    /// Load the lens, a plugin of QEMU's, with the settings in this JSON file
    #[arg(long, value_name = "FILE")]
    lens: Option<PathBuf>,
    /// Print JSON, when the guest has ended, instead of events as they come
    #[arg(long)]
    json: bool,
}

/// A boot, and what the agent told in it.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// How the guest ended.
    verdict: Verdict,
    /// Why, unless it ended well.
    reason: &'a str,
    /// How long it took, in time of the host.
    seconds: f64,
    /// What its console printed.
    console_log: &'a Path,
    /// QEMU's command line; empty if it was not started.
    qemu: &'a [String],
    /// What the kernel complained of.
    reports: &'a [Complaint],
    /// What the agent told, in order.
    events: &'a [Event],
}

impl BootCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If the work is not understood, the guest cannot be started, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let work: Work = serde_json::from_str(&self.work)
            .with_context(|| format!("{} is no work", self.work))?;
        let order = Order {
            version: VERSION,
            work,
        };
        let kernel = std::path::absolute(&self.kernel).context("cannot find the kernel")?;
        let lens = match &self.lens {
            Some(settings) => Some(Lens::new(settings)?),
            None => None,
        };
        let boot = Boot {
            kernel,
            arguments: &[],
            cpus: self.cpus,
            accelerator: if self.icount {
                Accelerator::TcgIcount
            } else {
                Accelerator::Tcg
            },
            seed: self.seed,
            stub: None,
            order: &order,
            modules: None,
            baggage: &Baggage::default(),
            deadlines: Deadlines::PLAIN,
            lens: lens.as_ref(),
            attended: None,
            console_log: &self.log,
        };
        let mut events = Vec::new();
        let booted = boot.run(
            &Tools::find(&environment::surroundings()?)?,
            &Interrupt::install()?,
            &mut |event| {
                if self.json {
                    events.push(event.clone());
                } else {
                    let event = serde_json::to_string(event).context("cannot write JSON")?;
                    println!("{EVENT_PREFIX}{event}");
                }
                Ok(())
            },
        )?;
        let seconds = booted.duration.as_secs_f64();
        let Ending { verdict, reason } = &booted.ending;
        if self.json {
            json::print(&Document {
                verdict: *verdict,
                reason,
                seconds,
                console_log: &self.log,
                qemu: &booted.qemu,
                reports: &booted.reports,
                events: &events,
            })?;
        } else {
            println!("{verdict} after {seconds:.1} s {reason}");
            if !booted.ending.is_ok() {
                println!("console log: {}", self.log.display());
            }
        }
        Ok(i32::from(!booted.ending.is_ok()))
    }
}
