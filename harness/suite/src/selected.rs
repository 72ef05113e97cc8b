// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests that shall run, in the order and on the threads that they need.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{bail, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::bad_ends::BadEnd;
use super::bench::{Bench, INSTRUMENT};
use super::functional::{self, Dealing, Guest};
use super::instrument::Trial;
use super::outcome::{label, Ended, Outcomes, Shared};
use super::pages::Page;
use super::shell::ShellTest;
use super::subject_cells::{SubjectTest, WideKernel};
use super::{lanes, lens, lens_cells};
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{Cache, Flavour};
use mutexlab_machine::kvm;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_protocol::test_info::TestInfo;

/// What shall run.
#[derive(Default)]
pub struct Selected {
    pub functional: Vec<TestInfo>,
    pub bad_ends: Vec<BadEnd>,
    pub lens: bool,
    pub shell: Vec<ShellTest>,
    pub lens_trials: Vec<lens_cells::Trial>,
    pub subjects: Vec<SubjectTest>,
    pub pages: Vec<Page>,
    pub trials: Vec<Trial>,
}

/// How they shall run.
pub struct How<'a> {
    /// How many guests run side by side, if that is not left to the number of cores.
    pub jobs: Option<NonZeroUsize>,
    /// How functional tests are dealt to guests.
    pub dealing: Dealing,
    /// Only the functional tests of this guest.
    pub guest: Option<&'a str>,
    /// Kernel trees of the user's.
    pub trees: &'a [NamedTree],
    /// What becomes of subjects that need more of a kernel than those have that are measured.
    pub wide: WideKernel,
}

/// A test in the list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listed {
    /// Its name.
    pub test: String,
    /// What it shows; null if its name says it.
    pub about: Option<String>,
    /// What kind of test it is.
    pub kind: &'static str,
    /// Whether it runs only if named, or with --all.
    pub long: bool,
    /// Whether only a debug kernel can run it.
    pub needs_debug: bool,
}

impl Selected {
    /// The tests that would run.
    pub fn listed(&self) -> Vec<Listed> {
        let functional = self.functional.iter().map(|test| Listed {
            test: test.name.clone(),
            about: Some(test.about.clone()),
            kind: "functional",
            long: test.is_long,
            needs_debug: test.needs_debug,
        });
        let by_name = |test: &str, kind, needs_debug| Listed {
            test: test.to_owned(),
            about: None,
            kind,
            long: false,
            needs_debug,
        };
        let bad_ends =
            (self.bad_ends.iter()).map(|end| by_name(end.name(), "bad-end", end.needs_debug()));
        let lens = self.lens.then(|| by_name(lens::NAME, INSTRUMENT, false));
        let lens_trials = self.lens_trials.iter();
        let lens_trials = lens_trials.map(|trial| by_name(trial.name(), INSTRUMENT, false));
        let trials = (self.trials.iter()).map(|trial| by_name(trial.name, INSTRUMENT, false));
        let shell = (self.shell.iter()).map(|test| by_name(test.name(), INSTRUMENT, false));
        let pages = (self.pages.iter()).map(|page| by_name(page.name, INSTRUMENT, false));
        let subjects = self.subjects.iter().map(|test| Listed {
            long: true,
            ..by_name(&test.name, INSTRUMENT, false)
        });
        (functional.chain(bad_ends).chain(lens))
            .chain(shell)
            .chain(lens_trials)
            .chain(subjects)
            .chain(pages)
            .chain(trials)
            .collect()
    }

    /// Says in the outcomes what shall run where, and gives the functional tests as tasks.
    fn plan<'a>(
        &self,
        kernels: &'a [Kernel],
        plainest: &[&Kernel],
        how: &How<'_>,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<Task<'a>>> {
        let mut guests = Vec::new();
        for kernel in kernels {
            guests.extend(Guest::deal(kernel, &self.functional, how.dealing, outcomes));
        }
        if let Some(name) = how.guest {
            let names: Vec<String> = guests.iter().map(Guest::name).collect();
            guests.retain(|guest| guest.name() == name);
            if guests.is_empty() {
                bail!(
                    "no guest is called {name:?}: these tests have {}",
                    names.join(", ")
                );
            }
        }
        for guest in &guests {
            guest.plan(outcomes);
        }
        for end in &self.bad_ends {
            end.plan(plainest, outcomes);
        }
        if let (true, Some(first)) = (self.lens, plainest.first()) {
            outcomes.plan(&label(first), lens::NAME);
        }
        for test in &self.shell {
            outcomes.plan(INSTRUMENT, test.name());
        }
        for trial in &self.lens_trials {
            outcomes.plan(INSTRUMENT, trial.name());
        }
        for test in &self.subjects {
            outcomes.plan(INSTRUMENT, &test.name);
        }
        for page in &self.pages {
            outcomes.plan(INSTRUMENT, page.name);
        }
        for trial in &self.trials {
            outcomes.plan(INSTRUMENT, trial.name);
        }
        Ok(guests.into_iter().map(Task::Functional).collect())
    }

    /// Runs all of them.
    pub fn run(
        &self,
        bench: &Bench<'_>,
        kernels: &[Kernel],
        how: &How<'_>,
        outcomes: &Shared,
    ) -> Result<()> {
        let mut plainest: Vec<&Kernel> = kernels.iter().collect();
        plainest.sort_by_key(|kernel| kernel.debug);
        let Some(&first) = plainest.first() else {
            bail!("no kernel to test with");
        };
        let functional = self.plan(kernels, &plainest, how, &mut outcomes.lock())?;
        outcomes.lock().save()?;
        let probe = kvm::probe(first, bench.tools, bench.interrupt)?;
        let (by, cores_a_guest) = if probe.works {
            ("using KVM", functional::CPUS as usize)
        } else {
            ("emulating", 1)
        };
        log::info!("{by}: {}", probe.reason);
        let lanes = match how.jobs {
            Some(jobs) => jobs.get(),
            None => (available_parallelism()?.get() / cores_a_guest).max(1),
        };
        // Cells are measured on a kernel as it is meant to run.
        let plain = match first.debug && !(self.lens_trials.is_empty() && self.subjects.is_empty())
        {
            true => {
                let (repository, interrupt) = (&bench.repository, bench.interrupt);
                let flavour = Flavour::Plain;
                let cache = Cache::of(&bench.tools.surroundings);
                let trees = how.trees;
                &Kernel::prepare(&first.name, flavour, trees, repository, &cache, interrupt)?
            }
            false => first,
        };
        let under = Under {
            plainest: &plainest,
            first,
            plain,
            wide: how.wide,
            accelerator: functional::accelerator(&probe),
        };
        // Those that take longest come first.
        let lens_trials = self.lens_trials.iter().map(Task::LensTrial);
        let others = lens_trials
            .chain(self.lens.then_some(Task::Lens))
            .chain(self.subjects.iter().map(Task::Subject))
            .chain(self.trials.iter().map(Task::Trial))
            .chain(self.pages.iter().map(Task::Page))
            .chain(self.bad_ends.iter().map(Task::BadEnd))
            .chain(self.shell.iter().map(Task::Shell));
        let tasks = functional.into_iter().chain(others);
        let run = |task: Task<'_>| task.run(bench, &under, outcomes);
        lanes::run(tasks, lanes, bench.interrupt, run)
    }
}

/// What tests run under.
struct Under<'a> {
    /// The kernels, the plainest first.
    plainest: &'a [&'a Kernel],
    /// The first of them.
    first: &'a Kernel,
    /// What cells are measured on.
    plain: &'a Kernel,
    /// What becomes of subjects that this lacks something for.
    wide: WideKernel,
    /// Of the functional tests' guests.
    accelerator: Accelerator,
}

/// What one thread does at a time.
enum Task<'a> {
    /// Functional tests of a kernel that share a guest.
    Functional(Guest<'a>),
    BadEnd(&'a BadEnd),
    Lens,
    LensTrial(&'a lens_cells::Trial),
    Shell(&'a ShellTest),
    Subject(&'a SubjectTest),
    Page(&'a Page),
    Trial(&'a Trial),
}

impl Task<'_> {
    fn run(self, bench: &Bench<'_>, under: &Under<'_>, outcomes: &Shared) -> Result<()> {
        match self {
            Self::Functional(guest) => guest.run(bench, under.accelerator, outcomes),
            Self::BadEnd(end) => match end.choose(under.plainest) {
                Some(kernel) => end.run(bench, kernel, outcomes),
                None => Ok(()),
            },
            Self::Lens => lens::run(bench, under.first, outcomes),
            Self::LensTrial(trial) => trial.run(bench, under.plain, outcomes),
            Self::Shell(test) => test.run(outcomes),
            Self::Subject(test) => test.run(bench, under.plain, under.wide, outcomes),
            Self::Page(page) => page.run(bench, outcomes),
            Self::Trial(trial) => {
                let started = Instant::now();
                let ending = trial.run()?;
                outcomes.lock().ended(Ended {
                    suite: INSTRUMENT,
                    test: trial.name,
                    ending,
                    took: Some(started.elapsed()),
                    console_log: None,
                })
            }
        }
    }
}
