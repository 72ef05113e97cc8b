// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's functional tests, all in one boot of a kernel.

use std::time::Instant;

use anyhow::Result;

use super::outcome::{label, Outcomes};
use super::Bench;
use crate::boot::{Boot, Deadlines};
use crate::guest::protocol::{Event, Order, Work, VERSION};
use crate::guest::tests::GuestTest;
use crate::kernel::Kernel;
use crate::qemu::Accelerator;
use crate::verdict::{Ending, Verdict};

/// Two, so that what runs at the same time on different CPUs does.
const CPUS: u32 = 2;

/// Runs those of `tests` that `kernel` can run; each has an outcome afterwards.
pub fn run(
    bench: &Bench<'_>,
    kernel: &Kernel,
    accelerator: Accelerator,
    tests: &[GuestTest],
    outcomes: &mut Outcomes,
) -> Result<()> {
    let mut left: Vec<String> = tests
        .iter()
        .filter(|test| kernel.debug || !test.needs_debug)
        .map(|test| test.name.clone())
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    let order = Order {
        version: VERSION,
        work: Work::Test(left.clone()),
    };
    let log = format!("{}-functional.console.log", label(kernel).replace(':', "-"));
    let boot = Boot {
        kernel: &kernel.bzimage(),
        arguments: kernel.arguments(),
        cpus: CPUS,
        accelerator,
        order: &order,
        modules: kernel.modules.as_ref(),
        deadlines: if kernel.debug {
            Deadlines::DEBUG
        } else {
            Deadlines::PLAIN
        },
        lens: None,
        console_log: &bench.logs.join(log),
    };
    eprintln!(
        "booting {} with {CPUS} CPUs for {} tests",
        label(kernel),
        left.len()
    );
    let mut started = Instant::now();
    let booted = boot.run(bench.virtme, bench.interrupt, &mut |event| {
        match event {
            Event::TestStarted { .. } => started = Instant::now(),
            Event::TestEnded { name, failure } => {
                left.retain(|other| other != name);
                let ending = match failure {
                    None => Ending::ok(),
                    Some(reason) => Ending::bad(Verdict::Failed, reason),
                };
                outcomes.add(name, &label(kernel), ending, Some(started.elapsed()));
            }
            _ => {}
        }
        Ok(())
    })?;
    let ending = booted.ending;
    if matches!(ending.verdict, Verdict::Splat | Verdict::Panic) {
        // Console and events are not in step: it may have been the last test that ended.
        outcomes.spoil_last(&ending);
        for report in &booted.reports {
            eprintln!("{}", report.text.join("\n"));
        }
    } else if ending.is_ok() {
        for name in left {
            outcomes.add(
                &name,
                &label(kernel),
                Ending::bad(Verdict::Infra, "the agent left it out"),
                None,
            );
        }
        return Ok(());
    }
    if left.is_empty() {
        outcomes.add("going-down", &label(kernel), ending.clone(), None);
    }
    let mut reason = ending.reason;
    for name in left {
        outcomes.add(
            &name,
            &label(kernel),
            Ending::bad(ending.verdict, reason),
            None,
        );
        reason = "not run after that".to_owned();
    }
    Ok(())
}
