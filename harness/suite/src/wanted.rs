// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a user wants tested: which tests, on which kernels, and where outcomes are told of.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{bail, Result};
use jiff::Timestamp;

use super::bench::Bench;
use super::functional::{Cpus, Dealing};
use super::outcome::{Outcomes, Shared};
use super::reports::Reports;
use super::selected::{How, Listed, Selected};
use super::subject_cells::WideKernel;
use super::text::Text;
use super::{bad_ends, instrument, lens, lens_cells, pages, shell, subject_cells};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_images::prepared::{Kernel, NamedTree};
use mutexlab_images::{Cache, Catalog, Flavour, KernelName};
use mutexlab_machine::agent::Agent;
use mutexlab_machine::stub::Stub;
use mutexlab_machine::tools::Tools;
use mutexlab_model::seed;
use mutexlab_results::outcome::Tally;

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
    /// Only the functional tests of this guest, such as `7.3:debug/2`.
    pub guest: Option<String>,
    /// How many CPUs guests with functional tests have.
    pub cpus: Cpus,
    /// What its random numbers come from, and those of others with functional tests.
    pub seed: Option<u32>,
    /// Where a debugger attaches to it.
    pub stub: Option<Stub>,
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

impl Wanted {
    /// The tests that would run, as JSON or for people.
    ///
    /// # Errors
    /// If the agent is missing, or no test is wanted.
    pub fn list(&self, repository: &Path, surroundings: &Surroundings) -> Result<Vec<Listed>> {
        Ok(self
            .select(&Agent::find(surroundings)?, repository)?
            .listed())
    }

    /// Runs the tests.
    ///
    /// # Errors
    /// If something is missing on this machine, an image does not build, a report cannot be
    /// written, or the user interrupts. Reports tell then what was not run.
    pub fn run(
        &self,
        repository: &Path,
        surroundings: &Surroundings,
        interrupt: &Interrupt,
    ) -> Result<Ran> {
        self.reports.check()?;
        let tools = Tools::find(surroundings)?;
        let cache = Cache::of(surroundings);
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
                &cache,
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
                Kernel::prepare(default, Flavour::Plain, &[], repository, &cache, interrupt)
            })
            .transpose()?;
        let bench = Bench {
            tools: &tools,
            interrupt,
            logs: repository.join("results/logs").join(run),
            repository: repository.to_owned(),
            seed: self.seed.unwrap_or(seed::USUAL),
            stub: self.stub.clone(),
            again: Some(self.again()),
        };
        let outcomes = Shared::new(Outcomes::new(started, self.reports.clone()));
        let how = How {
            jobs: self.jobs,
            trees: &self.trees,
            dealing: Dealing {
                cpus: self.cpus,
                each_looks_back: self.all || self.nightly,
            },
            guest: self.guest.as_deref(),
            wide: match self.nightly || !self.filters.is_empty() {
                true => WideKernel::Built,
                false => WideKernel::LeftOut,
            },
        };
        let ran = selected.run(&bench, &kernels, &how, &outcomes);
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
        if self.guest.is_some() {
            // What else there is has guests of its own.
            return Ok(Selected {
                functional,
                ..Selected::default()
            });
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

    /// The command that deals the same tests to the same guests of a kernel.
    fn again(&self) -> String {
        let mut words = vec!["mutexlab test".to_owned()];
        words.extend(self.filters.iter().map(|part| format!("--filter={part}")));
        words.extend(self.all.then(|| "--all".to_owned()));
        words.extend(self.nightly.then(|| "--nightly".to_owned()));
        let trees = self.trees.iter();
        words
            .extend(trees.map(|tree| format!("--tree {}={}", tree.name, tree.directory.display())));
        words.extend((self.cpus == Cpus::Two).then(|| "--two-cpus".to_owned()));
        words.extend(self.seed.map(|seed| format!("--seed {seed}")));
        words.join(" ")
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
