// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab test`: what can be shown only with a guest.
//!
//! Four kinds of checks: the agent's functional tests of the module, where any splat fails them;
//! bad ends on purpose, where anything but the right verdict fails them; the self check, which
//! must hold, and must not when the agent measures wrong; and the lens, which must see what arithmetic
//! says.

mod bad_ends;
mod functional;
mod instrument;
mod lens;
mod outcome;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{bail, Result};
use clap::Args;
use jiff::Timestamp;

use crate::guest;
use crate::image::{Cache, Catalog, Flavour};
use crate::interrupt::Interrupt;
use crate::kernel::{Kernel, NamedTree};
use crate::virtme::Virtme;
use crate::{kvm, paths};

use outcome::Outcomes;

/// Run the tests that need a guest
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab test                           What takes a few minutes, on every kernel\n  \
    mutexlab test --all                     The long tests, too\n  \
    mutexlab test --kernel 6.12             On one kernel only\n  \
    mutexlab test --filter redirect-udp     Only the tests with this in their names\n  \
    mutexlab test --list                    What there is\n\n\
Exit codes: 0 if all passed, 1 if not, 2 if the tests could not run, 130 if interrupted.")]
pub struct TestCommand {
    /// Only this kernel; may be given several times
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Only tests with this in their names; may be given several times
    #[arg(long, value_name = "PART")]
    filter: Vec<String>,
    /// Also the tests that take long: floods, thousands of flows, bad links, faults
    #[arg(long)]
    all: bool,
    /// Print the tests' names, and run none
    #[arg(long)]
    list: bool,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
}

/// What every test gets.
struct Bench<'a> {
    virtme: &'a Virtme,
    interrupt: &'a Interrupt,
    /// Where console logs go.
    logs: PathBuf,
}

impl TestCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If something is missing on this machine, an image does not build, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let mut tests = guest::tests::all();
        tests.retain(|test| self.wants(&test.name));
        // Who names a test wants it.
        if !self.all && self.filter.is_empty() {
            let before = tests.len();
            tests.retain(|test| !test.is_long);
            let left_out = before - tests.len();
            eprintln!("{left_out} long tests are left out: --all runs them, too");
        }
        let bad_ends: Vec<_> = bad_ends::ALL
            .iter()
            .filter(|end| self.wants(end.name()))
            .collect();
        let trials: Vec<_> = instrument::ALL
            .iter()
            .filter(|trial| self.wants(trial.name))
            .collect();
        let lens = self.wants(lens::NAME);
        if tests.is_empty() && bad_ends.is_empty() && trials.is_empty() && !lens {
            bail!(
                "no test has any of {:?} in its name: see --list",
                self.filter
            );
        }
        if self.list {
            tests.iter().for_each(|test| println!("{}", test.name));
            bad_ends.iter().for_each(|end| println!("{}", end.name()));
            trials.iter().for_each(|trial| println!("{}", trial.name));
            if lens {
                println!("{}", lens::NAME);
            }
            return Ok(0);
        }
        let repository = paths::repository()?;
        let interrupt = Interrupt::install()?;
        let virtme = Virtme::find()?;
        let run = Timestamp::now().strftime("%Y%m%dT%H%M%SZ-test").to_string();
        let bench = Bench {
            virtme: &virtme,
            interrupt: &interrupt,
            logs: repository.join("results/logs").join(run),
        };
        let mut kernels = Vec::new();
        for (name, flavour) in self.choose(&Catalog::load(&repository)?)? {
            kernels.push(Kernel::prepare(&name, flavour, &self.tree, &repository)?);
            interrupt.check()?;
        }
        let Some(plainest) = kernels.iter().min_by_key(|kernel| kernel.debug) else {
            bail!("no kernel to test with");
        };
        let probe = kvm::probe(plainest, &virtme, Cache::new()?.directory(), &interrupt)?;
        eprintln!(
            "{}: {}",
            if probe.works {
                "using KVM"
            } else {
                "emulating"
            },
            probe.reason
        );

        let mut outcomes = Outcomes::new();
        for kernel in &kernels {
            functional::run(&bench, kernel, probe.accelerator(), &tests, &mut outcomes)?;
        }
        for end in bad_ends {
            let kernel = if end.needs_debug() {
                kernels.iter().find(|kernel| kernel.debug)
            } else {
                Some(plainest)
            };
            // With --kernel there may be no debug kernel among those that were asked for.
            match kernel {
                Some(kernel) => end.run(&bench, kernel, &mut outcomes)?,
                None => eprintln!("not run: {} needs the debug kernel", end.name()),
            }
        }
        for trial in trials {
            interrupt.check()?;
            let started = Instant::now();
            let ending = trial.run()?;
            outcomes.add(trial.name, "", ending, Some(started.elapsed()));
        }
        if lens {
            lens::run(&bench, plainest, &mut outcomes)?;
        }
        println!("\n{outcomes}");
        if outcomes.failed() > 0 {
            println!("console logs: {}", bench.logs.display());
        }
        println!("{} passed, {} failed", outcomes.passed(), outcomes.failed());
        Ok(i32::from(outcomes.failed() > 0))
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part))
    }

    /// The default kernel with all its checkers, the others as they are meant to run.
    fn choose(&self, catalog: &Catalog) -> Result<Vec<(String, Flavour)>> {
        let default = catalog.default_kernel();
        for name in &self.kernel {
            catalog.find(name, Flavour::Plain)?;
        }
        let mut names: Vec<&str> = catalog
            .kernels()
            .iter()
            .map(|kernel| kernel.name.kernel.as_str())
            .filter(|&name| {
                self.kernel.is_empty() || self.kernel.iter().any(|wanted| wanted == name)
            })
            .collect();
        names.dedup();
        Ok(names
            .into_iter()
            .map(|name| {
                let flavour = if name == default {
                    Flavour::Debug
                } else {
                    Flavour::Plain
                };
                (name.to_owned(), flavour)
            })
            .collect())
    }
}
