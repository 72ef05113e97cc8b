// SPDX-License-Identifier: MIT OR Apache-2.0

//! The agent's functional tests, all in one boot of a kernel.

use std::time::Instant;

use anyhow::Result;

use super::bench::Bench;
use super::outcome::{label, Ended, Outcomes, Shared};
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::boot::{Boot, Deadlines};
use mutexlab_machine::console;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::test_info::TestInfo;
use mutexlab_protocol::{Event, Order, Work, VERSION};

/// Two, so that what runs at the same time on different CPUs does.
pub const CPUS: u32 = 2;

/// Why a kernel as it is meant to run is not asked for some.
pub const NEEDS_DEBUG: &str = "needs a debug kernel";

/// Why a kernel that could is not asked for some: a debug kernel takes ten times as long for what goes beside nft
/// packet by packet, and what nft and routing do there is told of 7.x.
const LEFT_TO_NIGHT: &str = "takes long on a debug kernel, or tells of 7.x: --nightly";

/// Plans `tests` on `kernel`, as far as it can run them, and gives those.
pub fn plan(kernel: &Kernel, tests: &[TestInfo], outcomes: &mut Outcomes) -> Vec<TestInfo> {
    let (run, skip): (Vec<_>, Vec<_>) = tests.iter().partition(|test| can_run(kernel, test));
    for test in &run {
        outcomes.plan(&label(kernel), &test.name);
    }
    for test in skip {
        let why = match test.wants_usual_kernel {
            true => LEFT_TO_NIGHT,
            false => NEEDS_DEBUG,
        };
        outcomes.skip(&label(kernel), &test.name, why);
    }
    run.into_iter().cloned().collect()
}

fn can_run(kernel: &Kernel, test: &TestInfo) -> bool {
    let usual = !kernel.debug && kernel.release.starts_with("7.");
    (kernel.debug || !test.needs_debug) && (usual || !test.wants_usual_kernel)
}

/// Runs `tests`; each has an outcome afterwards. If our own machinery ends the guest, which says
/// nothing about the tests, those that had not ended have one guest more.
pub fn run(
    bench: &Bench<'_>,
    kernel: &Kernel,
    accelerator: Accelerator,
    tests: &[TestInfo],
    outcomes: &Shared,
) -> Result<()> {
    if tests.is_empty() {
        return Ok(());
    }
    let all = tests.to_vec();
    let left = attempt(bench, kernel, accelerator, all, Try::First, outcomes)?;
    if !left.is_empty() {
        attempt(bench, kernel, accelerator, left, Try::Second, outcomes)?;
    }
    Ok(())
}

fn deadlines(kernel: &Kernel, tests: &[TestInfo]) -> Deadlines {
    let longer = tests.iter().map(|test| test.lasts).max();
    let longer = longer.unwrap_or_default();
    Deadlines::of(kernel.debug).for_tests(tests.len() as u32, longer)
}

/// Which guest it is for the same tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    First,
    Second,
}

/// Boots one guest for the tests called `left`. Returns those that shall have another one.
fn attempt(
    bench: &Bench<'_>,
    kernel: &Kernel,
    accelerator: Accelerator,
    mut left: Vec<TestInfo>,
    which: Try,
    outcomes: &Shared,
) -> Result<Vec<TestInfo>> {
    let order = Order {
        version: VERSION,
        work: Work::Test {
            names: left.iter().map(|test| test.name.clone()).collect(),
        },
    };
    let suite = label(kernel);
    let again = match which {
        Try::First => "",
        Try::Second => "-again",
    };
    let log_name = format!("{}-functional{again}.console.log", suite.replace(':', "-"));
    let log = bench.logs.join(log_name);
    let console_log = bench.shown(&log);
    let boot = Boot {
        cpus: CPUS,
        accelerator,
        deadlines: deadlines(kernel, &left),
        ..Boot::of(kernel, &order, &log)
    };
    log::info!("booting {suite} with {CPUS} CPUs for {} tests", left.len());
    let mut started = Instant::now();
    let mut last = None;
    let booted = boot.run(bench.tools, bench.interrupt, &mut |event| {
        match event {
            Event::TestStarted { .. } => started = Instant::now(),
            Event::TestEnded { name, failure } => {
                left.retain(|other| other.name != *name);
                let ending = match failure {
                    None => Ending::ok(),
                    Some(reason) => Ending::bad(Verdict::Failed, reason),
                };
                last = Some(name.clone());
                outcomes.lock().ended(Ended {
                    suite: &suite,
                    test: name,
                    ending,
                    took: Some(started.elapsed()),
                    console_log: Some(&console_log),
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    let ending = booted.ending;
    if matches!(ending.verdict, Verdict::Splat | Verdict::Panic) {
        // Console and events are not in step: it may have been the last test that ended.
        if let Some(last) = last.filter(|_| !console::in_step(&booted.reports)) {
            outcomes.lock().take_back(&suite, &last, &ending);
        }
        for report in &booted.reports {
            log::info!("{}", report.text.join("\n"));
        }
    } else if ending.is_ok() {
        for test in left {
            let why = "the agent left it out";
            outcomes.lock().not_run(&suite, &test.name, why);
        }
        return Ok(Vec::new());
    } else if ending.verdict == Verdict::Infra && which == Try::First && !left.is_empty() {
        log::info!("trying {} tests once more: {}", left.len(), ending.reason);
        for test in &left {
            let mut outcomes = outcomes.lock();
            outcomes.retry(&suite, &test.name, &ending, &console_log);
        }
        return Ok(left);
    }
    // Whatever ended the guest befell the test that was next, or it while it went down.
    let (next, rest) = match left.split_first() {
        Some((next, rest)) => (next.name.as_str(), rest),
        None => ("going-down", &[][..]),
    };
    let mut outcomes = outcomes.lock();
    outcomes.ended(Ended {
        suite: &suite,
        test: next,
        ending,
        took: None,
        console_log: Some(&console_log),
    })?;
    for test in rest {
        outcomes.not_run(&suite, &test.name, &format!("the guest ended with {next}"));
    }
    Ok(Vec::new())
}
