// SPDX-License-Identifier: MIT OR Apache-2.0

//! Some functional tests on many kernels at once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::bench::Bench;
use super::functional::{self, Dealing, Guest};
use super::lanes;
use super::outcome::{Outcomes, Shared};
use super::reports::Reports;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_images::prepared::Kernel;
use mutexlab_machine::kvm;
use mutexlab_machine::tools::Tools;
use mutexlab_model::seed;
use mutexlab_results::outcome::Outcome;

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
    /// Where programs and kernels are.
    pub surroundings: &'a Surroundings,
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
    let tools = Tools::find(wanted.surroundings)?;
    let plainest = wanted.kernels.iter().min_by_key(|kernel| kernel.debug);
    let plainest = plainest.context("no kernel to test with")?;
    let accelerator = functional::accelerator(&kvm::probe(plainest, &tools, wanted.interrupt)?);
    let bench = Bench {
        tools: &tools,
        interrupt: wanted.interrupt,
        repository: wanted.repository.to_owned(),
        logs: wanted.logs.clone(),
        seed: seed::USUAL,
        stub: None,
        // A filter takes parts of names: these tests alone cannot be asked for.
        again: None,
    };
    let mut tests = tools.agent.tests()?;
    tests.retain(|test| wanted.tests.contains(&test.name.as_str()));
    let mut outcomes = Outcomes::new(Timestamp::now(), Reports::default());
    let mut guests = Vec::new();
    for kernel in wanted.kernels {
        guests.extend(Guest::deal(
            kernel,
            &tests,
            Dealing::default(),
            &mut outcomes,
        ));
    }
    for guest in &guests {
        guest.plan(&mut outcomes);
    }
    let outcomes = Shared::new(outcomes);
    let test = |guest: Guest<'_>| guest.run(&bench, accelerator, &outcomes);
    lanes::run(guests, wanted.jobs, wanted.interrupt, test)?;
    let all = outcomes.lock().all().to_vec();
    Ok(all)
}
