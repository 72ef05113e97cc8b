// SPDX-License-Identifier: MIT OR Apache-2.0

//! Some functional tests on many kernels at once.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::outcome::{label, Outcome, Outcomes};
use super::reports::Reports;
use super::{functional, Bench};
use crate::image::Cache;
use crate::interrupt::Interrupt;
use crate::kernel::Kernel;
use crate::qemu::Accelerator;
use crate::virtme::Virtme;
use crate::{guest, kvm};

/// What shall run where.
pub struct SideBySide<'a> {
    /// The repository that the kernels' modules are of.
    pub repository: &'a Path,
    /// Where console logs go.
    pub logs: PathBuf,
    /// The kernels, each in one boot.
    pub kernels: &'a [Kernel],
    /// The tests' names.
    pub tests: &'a [&'a str],
    /// How many guests run at once.
    pub jobs: usize,
    /// Whether someone asked to end.
    pub interrupt: &'a Interrupt,
}

/// Runs them, and gives how each test ended on each kernel, in the order of the kernels.
///
/// # Errors
/// If a guest cannot be started, or the user interrupts.
pub fn side_by_side(wanted: &SideBySide<'_>) -> Result<Vec<Outcome>> {
    let virtme = Virtme::find()?;
    let plainest = wanted.kernels.iter().min_by_key(|kernel| kernel.debug);
    let plainest = plainest.context("no kernel to test with")?;
    let cache = Cache::new()?;
    let accelerator =
        kvm::probe(plainest, &virtme, cache.directory(), wanted.interrupt)?.accelerator();
    let bench = Bench {
        virtme: &virtme,
        interrupt: wanted.interrupt,
        repository: wanted.repository.to_owned(),
        logs: wanted.logs.clone(),
    };
    let queue = Mutex::new(wanted.kernels.iter().collect::<VecDeque<_>>());
    // A thread that panicked takes the program down with it: what it left behind a lock is of no
    // interest.
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let work = || -> Result<Vec<Outcome>> {
        let mut ended = Vec::new();
        while let Some(kernel) = next() {
            ended.extend(test(&bench, kernel, accelerator, wanted.tests)?);
        }
        Ok(ended)
    };
    let ended = std::thread::scope(|scope| {
        let guests = wanted.jobs.clamp(1, wanted.kernels.len());
        let threads: Vec<_> = (0..guests).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let mut all: Vec<Outcome> = ended.into_iter().flatten().collect();
    let place = |suite: &str| {
        wanted
            .kernels
            .iter()
            .position(|kernel| label(kernel) == suite)
    };
    all.sort_by_key(|outcome| place(&outcome.suite));
    Ok(all)
}

fn test(
    bench: &Bench<'_>,
    kernel: &Kernel,
    accelerator: Accelerator,
    names: &[&str],
) -> Result<Vec<Outcome>> {
    let mut tests = guest::tests::all();
    tests.retain(|test| names.contains(&test.name.as_str()));
    let mut outcomes = Outcomes::new(Timestamp::now(), Reports::default());
    functional::plan(kernel, &tests, &mut outcomes);
    functional::run(bench, kernel, accelerator, &tests, &mut outcomes)?;
    Ok(outcomes.all().to_vec())
}
