// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab test`: what can be shown only with a guest.
//!
//! Five kinds of checks: the agent's functional tests of the module, where any splat fails them;
//! bad ends on purpose, where anything but the right verdict fails them; the self check, which
//! must hold, and must not when the agent measures wrong; the lens, which must see what arithmetic
//! says; and `mutexlab shell`, before which somebody is made to sit.
//!
//! Must not know: what a functional test does; the agent tells which there are, and runs them.

mod bad_bench;
mod bad_ends;
mod bad_guests;
mod functional;
mod instrument;
mod junit;
mod ktap;
mod lanes;
mod lens;
mod lens_cells;
mod outcome;
mod reports;
mod shell;
mod side_by_side;
mod text;
mod typist;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Instant;

use anyhow::{bail, Result};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::{json, paths};
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{Cache, Catalog, Flavour, KernelName};
use mutexlab_machine::agent::Agent;
use mutexlab_machine::kvm;
use mutexlab_machine::tools::Tools;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_protocol::test_info::TestInfo;

use mutexlab_results::outcome::Tally;
pub use outcome::label;
pub use side_by_side::{side_by_side, SideBySide};

use bad_ends::BadEnd;
use instrument::Trial;
use outcome::{Ended, Outcomes, Shared};
use reports::Reports;
use shell::ShellTest;
use text::Text;

/// What the tests of the instrument stand under, which choose their kernel themselves.
const INSTRUMENT: &str = "instrument";

/// Run the tests that need a guest
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab test                           What takes a few minutes, on every kernel\n  \
    mutexlab test --all                     The long tests, too\n  \
    mutexlab test --kernel 6.12             On one kernel only\n  \
    mutexlab test --kernel 6.12:debug       With KASAN, lockdep and their like\n  \
    mutexlab test --filter redirect-udp     Only the tests with this in their names\n  \
    mutexlab test --list                    What there is\n  \
    mutexlab test --junit tests.xml         And a report for a CI system\n  \
    mutexlab test --ktap - | kunit.py parse The outcomes for the kernel's tools\n\n\
Exit codes: 0 if all passed, 1 if not, 2 if the tests could not run, 130 if interrupted.")]
pub struct TestCommand {
    /// Only this kernel, with its checkers if it is the default one, or in the flavour that is named; may be
    /// given several times
    #[arg(long, value_name = "NAME[:FLAVOUR]")]
    kernel: Vec<String>,
    /// Only tests with this in their names; may be given several times
    #[arg(long, value_name = "PART")]
    filter: Vec<String>,
    /// Also the tests that take long: floods, thousands of flows, bad links, faults
    #[arg(long)]
    all: bool,
    /// And those that are left to the night: nft alone with the packets of other tests, and random ones by the dozen
    #[arg(long)]
    nightly: bool,
    /// Print the tests' names, and run none
    #[arg(long)]
    list: bool,
    /// How many guests run side by side [default: one a core, or under KVM one for two cores]
    #[arg(long, short, value_name = "GUESTS")]
    jobs: Option<NonZeroUsize>,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
    #[command(flatten)]
    reports: Reports,
}

/// What every test gets.
struct Bench<'a> {
    tools: &'a Tools,
    interrupt: &'a Interrupt,
    repository: PathBuf,
    /// Where console logs go.
    logs: PathBuf,
}

impl Bench<'_> {
    /// A path as people are told it: from the repository on.
    fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.repository)
            .unwrap_or(path)
            .to_owned()
    }
}

/// What shall run.
struct Selected {
    functional: Vec<TestInfo>,
    bad_ends: Vec<BadEnd>,
    lens: bool,
    shell: Vec<ShellTest>,
    lens_trials: Vec<lens_cells::Trial>,
    trials: Vec<Trial>,
}

/// A test in the list, as JSON.
#[derive(Serialize)]
struct Listed<'a> {
    test: &'a str,
    /// What it shows; null if its name says it.
    about: Option<&'a str>,
    kind: &'static str,
    /// Whether it runs only if named, or with --all.
    long: bool,
    needs_debug: bool,
}

impl TestCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If something is missing on this machine, an image does not build, a report cannot be
    /// written, or the user interrupts. Reports tell then what was not run.
    pub fn run(&self) -> Result<i32> {
        self.reports.check()?;
        let tools = Tools::find()?;
        let selected = self.select(&tools.agent)?;
        if self.list {
            return selected.list(&self.reports).map(|()| 0);
        }
        let repository = paths::repository()?;
        let interrupt = Interrupt::install()?;
        let started = Timestamp::now();
        let run = started.strftime("%Y%m%dT%H%M%SZ-test").to_string();
        let catalog = Catalog::load(&repository)?;
        let mut kernels = Vec::new();
        for KernelName { kernel, flavour } in self.choose(&catalog)? {
            kernels.push(Kernel::prepare(
                &kernel,
                flavour,
                &self.tree,
                &repository,
                &interrupt,
            )?);
            interrupt.check()?;
        }
        // These run this program, which would build it in the middle of a test, and in silence.
        let needs_plain = !selected.shell.is_empty() || !selected.trials.is_empty();
        let _plain = needs_plain
            .then(|| {
                let default = catalog.default_kernel();
                Kernel::prepare(default, Flavour::Plain, &[], &repository, &interrupt)
            })
            .transpose()?;
        let bench = Bench {
            tools: &tools,
            interrupt: &interrupt,
            logs: repository.join("results/logs").join(run),
            repository,
        };
        let outcomes = Shared::new(Outcomes::new(started, self.reports.clone()));
        let ran = selected.run(&bench, &kernels, self, &outcomes);
        let outcomes = outcomes.lock();
        let told = outcomes.finish();
        ran?;
        told?;
        let tally = Tally::of(outcomes.all());
        if self.reports.take_output() {
            eprint!("\n{}", Text(&outcomes));
        } else {
            print!("\n{}", Text(&outcomes));
        }
        Ok(i32::from(!tally.is_well()))
    }

    fn select(&self, agent: &Agent) -> Result<Selected> {
        let mut functional = agent.tests()?;
        functional.retain(|test| self.wants(&test.name));
        // Who names a test wants it.
        if !self.nightly && self.filter.is_empty() {
            let before = functional.len();
            functional.retain(|test| !test.is_nightly && (self.all || !test.is_long));
            let left_out = before - functional.len();
            let how = if self.all {
                "--nightly"
            } else {
                "--all and --nightly"
            };
            eprintln!("{left_out} tests are left out: {how} runs them, too");
        }
        if self.nightly || !self.filter.is_empty() {
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
        let instrument = lens || !lens_trials.is_empty() || !trials.is_empty() || !shell.is_empty();
        if functional.is_empty() && bad_ends.is_empty() && !instrument {
            bail!(
                "no test has any of {:?} in its name: see --list",
                self.filter
            );
        }
        Ok(Selected {
            functional,
            bad_ends,
            lens,
            shell,
            lens_trials,
            trials,
        })
    }

    fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part))
    }

    /// The kernels that are meant, in the catalogue's order.
    fn choose(&self, catalog: &Catalog) -> Result<Vec<KernelName>> {
        let mut wanted = Vec::new();
        for text in &self.kernel {
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
    fn list(&self, reports: &Reports) -> Result<()> {
        let listed = self.listed();
        if reports.is_json() {
            return json::print(&listed);
        }
        listed.iter().for_each(|listed| println!("{}", listed.test));
        Ok(())
    }

    fn listed(&self) -> Vec<Listed<'_>> {
        let functional = self.functional.iter().map(|test| Listed {
            test: &test.name,
            about: Some(&test.about),
            kind: "functional",
            long: test.is_long,
            needs_debug: test.needs_debug,
        });
        let by_name = |test, kind, needs_debug| Listed {
            test,
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
        (functional.chain(bad_ends).chain(lens))
            .chain(shell)
            .chain(lens_trials)
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
        command: &TestCommand,
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
        eprintln!("{how}: {}", probe.reason);
        let lanes = match command.jobs {
            Some(jobs) => jobs.get(),
            None => (available_parallelism()?.get() / cores_a_guest).max(1),
        };
        // Cells are measured on a kernel as it is meant to run.
        let plain = match first.debug && !self.lens_trials.is_empty() {
            true => {
                let (repository, interrupt) = (&bench.repository, bench.interrupt);
                let flavour = Flavour::Plain;
                &Kernel::prepare(&first.name, flavour, &command.tree, repository, interrupt)?
            }
            false => first,
        };
        let under = Under {
            plainest: &plainest,
            first,
            plain,
            accelerator: probe.accelerator(),
        };
        // Those that take longest come first. What goes wrong in a guest on purpose looks at all processes
        // below this one: nothing runs beside it.
        let mut beside = functional;
        beside.extend(self.lens_trials.iter().map(Task::LensTrial));
        beside.extend(self.lens.then_some(Task::Lens));
        beside.extend(self.trials.iter().map(Task::Trial));
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: TestCommand,
    }

    /// The kernels that a command line chooses from those of the repository.
    fn chosen(line: &str) -> Result<Vec<String>> {
        let repository =
            mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let words = std::iter::once("test").chain(line.split_whitespace());
        let names = Line::parse_from(words)
            .command
            .choose(&Catalog::load(&repository)?)?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_the_default_kernel_has_its_checkers_unless_told() {
        assert_eq!(
            chosen("").unwrap(),
            ["7.3:debug", "7.2:plain", "6.12:plain"]
        );
        assert_eq!(
            chosen("--kernel 6.12:debug --kernel 7.3").unwrap(),
            ["7.3:debug", "6.12:debug"]
        );
        assert_eq!(
            chosen("--kernel 7.2 --kernel 7.2:debug").unwrap(),
            ["7.2:plain", "7.2:debug"]
        );
        let error = chosen("--kernel 7.2:fast").unwrap_err().to_string();
        assert!(error.contains("flavour 'fast'"), "{error}");
        let error = chosen("--kernel 2.6").unwrap_err().to_string();
        assert!(error.contains("6.12:debug"), "{error}");
    }
}
