// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab test`: what can be shown only with a guest.
//!
//! Seven kinds of checks: the agent's functional tests of the module, where any splat fails them;
//! bad ends on purpose, where anything but the right verdict fails them; the self check, which
//! must hold, and must not when the agent measures wrong; the lens, which must see what arithmetic
//! says; subjects, each of which must lead packets as its directory says; pages of docs/, which are followed word by word; and `mutexlab shell`, before which
//! somebody is made to sit.
//!
//! Must not know: what a functional test does; the agent tells which there are, and runs them.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

mod bad_bench;
mod bad_ends;
mod bad_guests;
mod bench;
mod functional;
mod gone;
mod instrument;
mod junit;
mod ktap;
mod lanes;
mod lens;
mod lens_cells;
mod outcome;
mod pages;
mod record;
mod reports;
mod shell;
mod side_by_side;
mod subject_cells;
mod text;
mod typist;

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{bail, Result};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{Cache, Catalog, Flavour, KernelName};
use mutexlab_machine::agent::Agent;
use mutexlab_machine::kvm;
use mutexlab_machine::tools::Tools;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_protocol::test_info::TestInfo;

use mutexlab_results::outcome::Tally;
pub use outcome::label;
pub use reports::{Document, Place, Reports};
pub use side_by_side::{side_by_side, SideBySide};

use bad_ends::BadEnd;
use bench::{Bench, INSTRUMENT};
use instrument::Trial;
use outcome::{Ended, Outcomes, Shared};
use pages::Page;
use shell::ShellTest;
use subject_cells::{SubjectTest, WideKernel};
use text::Text;

/// What is wanted of a run of tests.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these kernels, each by its name and perhaps its flavour; all, if there is none.
    pub kernels: Vec<String>,
    /// Only tests with one of these in their names; all, if there is none.
    pub filters: Vec<String>,
    /// Also the tests that take long.
    pub all: bool,
    /// And those that are left to the night.
    pub nightly: bool,
    /// How many guests run side by side, if that is not left to the number of cores.
    pub jobs: Option<NonZeroUsize>,
    /// Kernel trees of the user's, instead of the catalog's of those names.
    pub trees: Vec<NamedTree>,
    /// Where outcomes are told of, too.
    pub reports: Reports,
}

/// What came of a run of tests.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Whether all passed.
    pub well: bool,
    /// The report that is for standard output, if one is.
    pub output: Option<String>,
    /// The outcomes as a table, and what is wrong.
    pub table: String,
}

/// What shall run.
struct Selected {
    functional: Vec<TestInfo>,
    bad_ends: Vec<BadEnd>,
    lens: bool,
    shell: Vec<ShellTest>,
    lens_trials: Vec<lens_cells::Trial>,
    subjects: Vec<SubjectTest>,
    pages: Vec<Page>,
    trials: Vec<Trial>,
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

impl Wanted {
    /// The tests that would run, as JSON or for people.
    ///
    /// # Errors
    /// If the agent is missing, or no test is wanted.
    pub fn list(&self, repository: &Path) -> Result<Vec<Listed>> {
        Ok(self.select(&Agent::find()?, repository)?.listed())
    }

    /// Runs the tests.
    ///
    /// # Errors
    /// If something is missing on this machine, an image does not build, a report cannot be
    /// written, or the user interrupts. Reports tell then what was not run.
    pub fn run(&self, repository: &Path, interrupt: &Interrupt) -> Result<Ran> {
        self.reports.check()?;
        let tools = Tools::find()?;
        let selected = self.select(&tools.agent, repository)?;
        let started = Timestamp::now();
        let run = started.strftime("%Y%m%dT%H%M%SZ-test").to_string();
        let catalog = Catalog::load(repository)?;
        let mut kernels = Vec::new();
        for KernelName { kernel, flavour } in self.choose(&catalog)? {
            kernels.push(Kernel::prepare(
                &kernel,
                flavour,
                &self.trees,
                repository,
                interrupt,
            )?);
            interrupt.check()?;
        }
        // These run this program, which would build it in the middle of a test, and in silence.
        let needs_plain =
            !(selected.shell.is_empty() && selected.trials.is_empty() && selected.pages.is_empty());
        let _plain = needs_plain
            .then(|| {
                let default = catalog.default_kernel();
                Kernel::prepare(default, Flavour::Plain, &[], repository, interrupt)
            })
            .transpose()?;
        let bench = Bench {
            tools: &tools,
            interrupt,
            logs: repository.join("results/logs").join(run),
            repository: repository.to_owned(),
        };
        let outcomes = Shared::new(Outcomes::new(started, self.reports.clone()));
        let ran = selected.run(&bench, &kernels, self, &outcomes);
        let outcomes = outcomes.lock();
        let output = outcomes.finish();
        ran?;
        Ok(Ran {
            well: Tally::of(outcomes.all()).is_well(),
            output: output?,
            table: Text(&outcomes).to_string(),
        })
    }

    fn select(&self, agent: &Agent, repository: &Path) -> Result<Selected> {
        let mut functional = agent.tests()?;
        functional.retain(|test| self.wants(&test.name));
        // Who names a test wants it.
        if !self.nightly && self.filters.is_empty() {
            let before = functional.len();
            functional.retain(|test| !test.is_nightly && (self.all || !test.is_long));
            let left_out = before - functional.len();
            let how = if self.all {
                "--nightly"
            } else {
                "--all and --nightly"
            };
            log::info!("{left_out} tests are left out: {how} runs them, too");
        }
        if self.nightly || !self.filters.is_empty() {
            for test in &mut functional {
                test.wants_usual_kernel = false;
            }
        }
        let mut bad_ends = bad_ends::all();
        bad_ends.retain(|end| self.wants(end.name()));
        let mut trials = instrument::ALL.to_vec();
        trials.retain(|trial| self.wants(trial.name));
        let mut shell = shell::ALL.to_vec();
        shell.retain(|test| self.wants(test.name()));
        let lens = self.wants(lens::NAME);
        let mut lens_trials = lens_cells::Trial::ALL.to_vec();
        lens_trials.retain(|trial| self.wants(trial.name()));
        let mut subjects = subject_cells::all(repository)?;
        subjects.retain(|test| self.wants(&test.name));
        if !(self.all || self.nightly) && self.filters.is_empty() {
            subjects.clear();
        }
        let mut pages = pages::ALL.to_vec();
        pages.retain(|page| self.wants(page.name));
        let instrument = lens
            || !lens_trials.is_empty()
            || !pages.is_empty()
            || !subjects.is_empty()
            || !trials.is_empty()
            || !shell.is_empty();
        if functional.is_empty() && bad_ends.is_empty() && !instrument {
            bail!(
                "no test has any of {:?} in its name: see --list",
                self.filters
            );
        }
        Ok(Selected {
            functional,
            bad_ends,
            lens,
            shell,
            lens_trials,
            subjects,
            pages,
            trials,
        })
    }

    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| name.contains(part))
    }

    /// The kernels that are meant, in the catalogue's order.
    fn choose(&self, catalog: &Catalog) -> Result<Vec<KernelName>> {
        let mut wanted = Vec::new();
        for text in &self.kernels {
            let mut name: KernelName = text.parse()?;
            if !text.contains(':') {
                name.flavour = catalog.flavour_to_test(&name.kernel);
            }
            catalog.find(&name.kernel, name.flavour)?;
            wanted.push(name);
        }
        let is_wanted = |name: &KernelName| match wanted.is_empty() {
            true => name.flavour == catalog.flavour_to_test(&name.kernel),
            false => wanted.contains(name),
        };
        let names = catalog.kernels().iter().map(|kernel| &kernel.name);
        Ok(names.filter(|&name| is_wanted(name)).cloned().collect())
    }
}

impl Selected {
    fn listed(&self) -> Vec<Listed> {
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
        outcomes: &mut Outcomes,
    ) -> Vec<Task<'a>> {
        let functional = kernels.iter().map(|kernel| {
            let tests = functional::plan(kernel, &self.functional, outcomes);
            Task::Functional(kernel, tests)
        });
        let functional = functional.collect();
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
        functional
    }

    /// Runs all of them.
    fn run(
        &self,
        bench: &Bench<'_>,
        kernels: &[Kernel],
        wanted: &Wanted,
        outcomes: &Shared,
    ) -> Result<()> {
        let mut plainest: Vec<&Kernel> = kernels.iter().collect();
        plainest.sort_by_key(|kernel| kernel.debug);
        let Some(&first) = plainest.first() else {
            bail!("no kernel to test with");
        };
        let functional = self.plan(kernels, &plainest, &mut outcomes.lock());
        outcomes.lock().save()?;
        let directory = Cache::new()?;
        let probe = kvm::probe(first, bench.tools, directory.directory(), bench.interrupt)?;
        let (how, cores_a_guest) = if probe.works {
            ("using KVM", functional::CPUS as usize)
        } else {
            ("emulating", 1)
        };
        log::info!("{how}: {}", probe.reason);
        let lanes = match wanted.jobs {
            Some(jobs) => jobs.get(),
            None => (available_parallelism()?.get() / cores_a_guest).max(1),
        };
        // Cells are measured on a kernel as it is meant to run.
        let plain = match first.debug && !(self.lens_trials.is_empty() && self.subjects.is_empty())
        {
            true => {
                let (repository, interrupt) = (&bench.repository, bench.interrupt);
                let flavour = Flavour::Plain;
                &Kernel::prepare(&first.name, flavour, &wanted.trees, repository, interrupt)?
            }
            false => first,
        };
        let under = Under {
            plainest: &plainest,
            first,
            plain,
            wide: match wanted.nightly || !wanted.filters.is_empty() {
                true => WideKernel::Built,
                false => WideKernel::LeftOut,
            },
            accelerator: probe.accelerator(),
        };
        // Those that take longest come first. What goes wrong in a guest on purpose looks at all processes
        // below this one: nothing runs beside it.
        let mut beside = functional;
        beside.extend(self.lens_trials.iter().map(Task::LensTrial));
        beside.extend(self.lens.then_some(Task::Lens));
        beside.extend(self.subjects.iter().map(Task::Subject));
        beside.extend(self.trials.iter().map(Task::Trial));
        beside.extend(self.pages.iter().map(Task::Page));
        let ends = |alone: bool| {
            let of_kind = move |end: &&BadEnd| end.runs_alone() == alone;
            self.bad_ends.iter().filter(of_kind).map(Task::BadEnd)
        };
        beside.extend(ends(false));
        let shell = self.shell.iter().map(Task::Shell);
        let run = |task: Task<'_>| task.run(bench, &under, outcomes);
        lanes::run(beside, lanes, bench.interrupt, run)?;
        lanes::run(ends(true).chain(shell), 1, bench.interrupt, run)
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
    /// Functional tests of a kernel, in one guest.
    Functional(&'a Kernel, Vec<TestInfo>),
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
            Self::Functional(kernel, tests) => {
                functional::run(bench, kernel, under.accelerator, &tests, outcomes)
            }
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

#[cfg(test)]
mod tests {
    use mutexlab_host::paths::repository_above;

    use super::*;

    /// The kernels that are chosen from those of the repository by these names.
    fn chosen(kernels: &[&str]) -> Result<Vec<String>> {
        let repository = repository_above(Path::new(env!("CARGO_MANIFEST_DIR")))?;
        let wanted = Wanted {
            kernels: kernels.iter().map(|&name| name.to_owned()).collect(),
            ..Wanted::default()
        };
        let names = wanted.choose(&Catalog::load(&repository)?)?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_the_default_kernel_has_its_checkers_unless_told() {
        assert_eq!(
            chosen(&[]).unwrap(),
            ["7.3:debug", "7.2:plain", "6.12:plain"]
        );
        assert_eq!(
            chosen(&["6.12:debug", "7.3"]).unwrap(),
            ["7.3:debug", "6.12:debug"]
        );
        assert_eq!(
            chosen(&["7.2", "7.2:debug"]).unwrap(),
            ["7.2:plain", "7.2:debug"]
        );
        let error = chosen(&["7.2:fast"]).unwrap_err().to_string();
        assert!(error.contains("flavour 'fast'"), "{error}");
        let error = chosen(&["2.6"]).unwrap_err().to_string();
        assert!(error.contains("6.12:debug"), "{error}");
    }
}
