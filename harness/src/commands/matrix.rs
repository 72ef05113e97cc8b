// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab matrix`: is the module right, and what does it cost, on every kernel?

use crate::environment;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use super::json;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::Kernel;
use mutexlab_images::{Cache, Catalog, Flavour};
use mutexlab_measure::{jobs, measure_anew, Lab};
use mutexlab_model::verdict::Verdict;
use mutexlab_report::terminal;
use mutexlab_results::file;
use mutexlab_results::record::Selection;
use mutexlab_scenario::plan::Plan;
use mutexlab_scenario::ScenarioFile;
use mutexlab_suite;
use mutexlab_suite::SideBySide;

use mutexlab_judge::matrix::row::Row;
use mutexlab_judge::matrix::split;
use mutexlab_judge::matrix::{Matrix, Seconds};

/// What is measured.
const SCENARIO: &str = "scenarios/matrix.toml";

/// The tests that are made everywhere: those that find out most about a kernel for what they take.
/// Of redirection those in which each pair of protocol, IP version and way occurs once. `mutexlab
/// test` runs the others.
const TESTS: [&str; 9] = [
    "redirect-tcp-v4-forward",
    "redirect-tcp-v6-local",
    "redirect-udp-v4-local",
    "redirect-udp-v6-forward",
    "unmatched-pass",
    "rules-replaced",
    "two-contexts",
    "close-removes-flows",
    "no-leaks",
];

/// Test and measure on every kernel, and tell what is the module's and what the kernel's
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab matrix                        Every kernel of images/kernels.toml\n  \
    mutexlab matrix --kernel 7.2           One of them, and the default one to compare with\n  \
    mutexlab matrix --debug                The tests on debug kernels everywhere\n  \
    mutexlab matrix --json | jq '.kernels[] | [.kernel, .verdict]'\n\n\
The cells are those of scenarios/matrix.toml; their results are a file for `mutexlab compare` like any other.\n\n\
Exit codes: 0 if all is well, 1 if a test or a cell ended badly, 2 if it could not be found out, 130 if interrupted.")]
pub struct MatrixCommand {
    /// Only this kernel and the default one; may be given several times
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Test on debug kernels everywhere, and not on that of the default kernel alone
    #[arg(long)]
    debug: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl MatrixCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If something is missing on this machine, does not build, or the user interrupts.
    pub fn run(&self) -> Result<i32> {
        let repository = environment::repository()?;
        let catalog = Catalog::load(&repository)?;
        let names = self.names(&catalog)?;
        let scenario = self.scenario(&repository.join(SCENARIO), &names)?;
        let plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        let directory = repository.join("results");
        file::check_writable(&directory)?;
        let interrupt = Interrupt::install()?;

        let started = Instant::now();
        let surroundings = environment::surroundings()?;
        let lab = Lab::open(
            &repository,
            &surroundings,
            &scenario,
            &plan,
            &[],
            None,
            &interrupt,
        )?;
        let cache = Cache::of(&surroundings);
        let reference = catalog.default_kernel();
        let mut tested = Vec::new();
        for name in &names {
            let flavour = if self.debug {
                Flavour::Debug
            } else {
                catalog.flavour_to_test(name)
            };
            interrupt.check()?;
            tested.push(Kernel::prepare(
                name,
                flavour,
                &[],
                &repository,
                &cache,
                &interrupt,
            )?);
        }
        let prepare = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let jobs = jobs(None, scenario.scenario.mode)?;
        let all = Selection::default();
        let file = measure_anew(&lab, &scenario, &plan, all, &directory, jobs)?;
        let bench = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let outcomes = mutexlab_suite::side_by_side(&SideBySide {
            repository: &repository,
            logs: file.log_directory(),
            kernels: &tested,
            tests: &TESTS,
            surroundings: &surroundings,
            jobs,
            interrupt: &interrupt,
        })?;
        let test = started.elapsed().as_secs_f64();

        let results = file.results();
        let kernels: Vec<Row> = names
            .iter()
            .zip(&tested)
            .map(|(name, kernel)| {
                let suite = mutexlab_suite::label(kernel);
                let ours: Vec<_> = outcomes
                    .iter()
                    .filter(|outcome| outcome.suite == suite)
                    .collect();
                let planned = plan
                    .boots
                    .iter()
                    .filter(|boot| boot.kernel == *name)
                    .map(|boot| boot.cells.len())
                    .sum();
                Row::of(name, results, &ours, planned)
            })
            .collect();
        let path: PathBuf = file.path().to_owned();
        let matrix = Matrix {
            reference,
            results: &path,
            seconds: Seconds {
                prepare,
                bench,
                test,
            },
            kernels,
            splits: split::splits(&results.cells, reference),
        };
        if self.json {
            json::print(&matrix)?;
        } else {
            print!("\n{}", terminal::matrix::text(&matrix));
            println!(
                "\n{} (ready in {prepare:.0} s, measured in {bench:.0} s, tested in {test:.0} s)",
                path.display()
            );
        }
        let well = matrix.kernels.iter().all(|row| row.verdict == Verdict::Ok);
        Ok(i32::from(!well))
    }

    /// What is measured: the file as it is, or with the kernels that are meant, so that the results
    /// have all that their scenario asks for.
    fn scenario(&self, path: &Path, names: &[String]) -> Result<ScenarioFile> {
        let whole = ScenarioFile::load(path)?;
        if self.kernel.is_empty() {
            return Ok(whole);
        }
        let mut table: toml::Table = whole.text.parse().context("the scenario")?;
        table.insert("kernels".to_owned(), names.to_vec().into());
        ScenarioFile::parse(whole.name, whole.file, table.to_string())
    }

    /// The kernels that are meant, in the catalogue's order.
    fn names(&self, catalog: &Catalog) -> Result<Vec<String>> {
        for name in &self.kernel {
            catalog.find(name, Flavour::Plain)?;
        }
        let mut names: Vec<String> = catalog
            .kernels()
            .iter()
            .map(|kernel| kernel.name.kernel.clone())
            .filter(|name| {
                self.kernel.is_empty()
                    || self.kernel.contains(name)
                    || name == catalog.default_kernel()
            })
            .collect();
        names.dedup();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> PathBuf {
        mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn the_scenario_measures_every_kernel() {
        let catalog = Catalog::load(&repository()).unwrap();
        let scenario = ScenarioFile::load(&repository().join(SCENARIO)).unwrap();
        let plan = Plan::new(&scenario.scenario).unwrap();
        for kernel in catalog.kernels() {
            let name = kernel.name.kernel.as_str();
            assert!(plan.kernels().contains(&name), "{name}");
        }
    }

    #[test]
    fn fewer_kernels_are_another_scenario() {
        let command = MatrixCommand {
            kernel: vec!["6.12".to_owned()],
            debug: false,
            json: false,
        };
        let names = command
            .names(&Catalog::load(&repository()).unwrap())
            .unwrap();
        assert_eq!(names, ["7.3", "6.12"]);
        let path = repository().join(SCENARIO);
        let fewer = command.scenario(&path, &names).unwrap();
        let plan = Plan::new(&fewer.scenario).unwrap();
        assert_eq!(plan.kernels(), ["7.3", "6.12"]);
        let whole = Plan::new(&ScenarioFile::load(&path).unwrap().scenario).unwrap();
        let cells = |plan: &Plan, kernel: &str| -> Vec<String> {
            let boots = plan.boots.iter().filter(|boot| boot.kernel == kernel);
            boots
                .flat_map(|boot| boot.cells.iter().map(|cell| cell.id.clone()))
                .collect()
        };
        assert_eq!(cells(&plan, "6.12"), cells(&whole, "6.12"));
    }

    #[test]
    fn each_name_is_that_of_a_short_test() {
        let all = mutexlab_functional::all();
        for name in TESTS {
            let test = all.iter().find(|test| test.info.name == name);
            assert!(test.is_some_and(|test| !test.info.is_long), "{name}");
        }
    }
}
