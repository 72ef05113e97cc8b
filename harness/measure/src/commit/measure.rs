// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results of a commit: those that are there, or new ones.
//!
//! What is measured is the commit's proxy, with the present harness and probe: else a difference
//! could be that of what measures, and an old commit could not be asked a new question. Only if the
//! proxy has another interface, so that the two would not understand each other, is it measured by
//! its own harness.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::work_tree::WorkTree;
use mutexlab_host::git::{Commit, Repository};
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::leash;
use mutexlab_host::paths;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_images::prepared::NamedTree;
use mutexlab_machine::agent::Agent;
use mutexlab_machine::qemu;
use mutexlab_model::mode::Mode;
use mutexlab_results::closure::{Closure, DERIVATION};
use mutexlab_results::slim::Run;
use mutexlab_scenario::plan::Filter;
use mutexlab_scenario::ScenarioFile;
use mutexlab_subjects::Subjects;

/// Measures commits of one repository with one scenario.
#[derive(Debug)]
pub struct Measurer<'a> {
    /// Where they are.
    pub repository: &'a Repository,
    /// The scenario.
    pub scenario: &'a ScenarioFile,
    /// Only these cells.
    pub filter: Option<&'a Filter>,
    /// Kernel trees of the user's, instead of the catalog's of those names.
    pub trees: &'a [NamedTree],
    /// Measure also what there are results of.
    pub again: bool,
    /// Measure each commit by its own harness.
    pub own_harness: bool,
    /// What measures the present files' proxy.
    pub surroundings: &'a Surroundings,
    /// Ends measuring.
    pub interrupt: &'a Interrupt,
}

/// Results, and what is to be known of how they came about.
#[derive(Debug)]
pub struct Measured {
    /// The results.
    pub run: Run,
    /// Why a commit was measured by its own harness, if it was.
    pub own_harness: Option<String>,
}

impl Measurer<'_> {
    /// The results of a commit: the newest there are, or new ones.
    ///
    /// # Errors
    /// If the commit cannot be measured, or the user interrupts.
    pub fn commit(&self, commit: &Commit) -> Result<Measured> {
        let agent = Agent::find(self.surroundings)?;
        let plugin = match self.scenario.scenario.mode {
            Mode::Virtual => {
                let plugin = qemu::plugin(self.surroundings)?;
                Some(plugin.sha256().as_str().to_owned())
            }
            Mode::Wall => None,
        };
        let subjects = Subjects::of(self.scenario, self.repository.directory())?.hashes();
        let by_present = |run: &Run| {
            let Closure {
                subjects: measured,
                agent_sha256,
                plugin_sha256,
                derivation,
                ..
            } = &run.closure;
            agent_sha256.as_deref() == Some(agent.sha256().as_str())
                && *plugin_sha256 == plugin
                && *derivation == Some(DERIVATION)
                // Results of before subjects were directories are of another agent.
                && (measured.is_empty() || *measured == subjects)
        };
        if !self.own_harness
            && let Some(run) = self.known(commit, by_present)?
        {
            return Ok(Measured {
                run,
                own_harness: None,
            });
        }
        let tree = WorkTree::of(self.repository, commit, self.interrupt)?;
        let why = if self.own_harness {
            Some("that was asked for".to_owned())
        } else {
            tree.other_interface()?.map(|file| {
                format!(
                    "{} is another there, so that this harness and its proxy would not \
                     understand each other",
                    file.display()
                )
            })
        };
        let Some(why) = why else {
            return Ok(Measured {
                run: self.proxy_in(commit, &tree)?,
                own_harness: None,
            });
        };
        let by_its_own = |run: &Run| run.closure.harness.is_none();
        let run = match self.known(commit, by_its_own)? {
            Some(run) => run,
            None => self.by_own_harness(commit, &tree, None)?,
        };
        Ok(Measured {
            run,
            own_harness: Some(why),
        })
    }

    /// New results of a commit's proxy, with the present harness.
    ///
    /// # Errors
    /// If it cannot be measured, or the user interrupts.
    pub fn proxy(&self, commit: &Commit) -> Result<Run> {
        let tree = WorkTree::of(self.repository, commit, self.interrupt)?;
        self.proxy_in(commit, &tree)
    }

    /// New results of one commit's proxy, with another's harness.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn two(&self, harness: &Commit, proxy: &Commit) -> Result<Run> {
        let tree = WorkTree::of(self.repository, harness, self.interrupt)?;
        let beside = tree.beside(proxy)?;
        self.by_own_harness(harness, &tree, Some(&beside))
    }

    fn proxy_in(&self, commit: &Commit, tree: &WorkTree<'_>) -> Result<Run> {
        let mut run = self.bench(&paths::this_program(), self.repository.directory());
        run.extend(["--module-source".into(), tree.directory().into()]);
        log::info!("measuring the proxy of {}", commit.short());
        Run::read(&self.measure(&run, self.repository.directory())?)
    }

    /// New results of the files as they are now, committed or not.
    ///
    /// # Errors
    /// If they cannot be measured, or the user interrupts.
    pub fn files(&self) -> Result<Run> {
        let directory = self.repository.directory();
        log::info!("measuring the files as they are");
        Run::read(&self.measure(&self.bench(&paths::this_program(), directory), directory)?)
    }

    /// The newest complete results of a commit that are of the scenario as it is now.
    fn known(&self, commit: &Commit, acceptable: impl Fn(&Run) -> bool) -> Result<Option<Run>> {
        if self.again {
            return Ok(None);
        }
        let middle = format!("-{}-", commit.short());
        let end = format!("-{}.json", self.scenario.name);
        for path in results_in(&self.repository.directory().join("results"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.contains(&middle) || !name.ends_with(&end) {
                continue;
            }
            // What cannot be read is of no use, and no reason not to measure.
            let Ok(run) = Run::read(&path) else {
                continue;
            };
            let closure = &run.closure;
            if closure.commit == commit.hash
                && !closure.dirty
                && closure.scenario_text == self.scenario.text
                && acceptable(&run)
                && run.is_complete(self.scenario, self.filter)?
            {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// The command that measures the scenario.
    fn bench(&self, program: &Path, directory: &Path) -> Vec<OsString> {
        // A path relative to where the user is would be another elsewhere.
        let scenario = fs::canonicalize(&self.scenario.file)
            .unwrap_or_else(|_| directory.join(&self.scenario.file));
        let mut command = vec![program.into(), "bench".into(), scenario.into()];
        if let Some(filter) = self.filter {
            command.extend(["--filter".into(), filter.to_string().into()]);
        }
        for tree in self.trees {
            let mut named = OsString::from(format!("{}=", tree.name));
            named.push(fs::canonicalize(&tree.directory).unwrap_or(tree.directory.clone()));
            command.extend(["--tree".into(), named]);
        }
        command
    }

    /// Runs a bench and returns the results file that it names last.
    fn measure(&self, command: &[OsString], directory: &Path) -> Result<PathBuf> {
        let output = leash::run(command, directory, &[], self.interrupt)?;
        // 1: a cell ended badly, which its verdict tells.
        if !matches!(output.status.code(), Some(0 | 1)) {
            bail!("mutexlab bench ended with {}: see above", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let path = Path::new(text.lines().last().unwrap_or_default()).to_owned();
        if !path.is_file() {
            bail!(
                "mutexlab bench names no results file, but {}",
                path.display()
            );
        }
        Ok(path)
    }

    /// Builds the harness of a work tree, has it measure its proxy or that of `proxy`, and takes its
    /// results.
    fn by_own_harness(
        &self,
        commit: &Commit,
        tree: &WorkTree<'_>,
        proxy: Option<&WorkTree<'_>>,
    ) -> Result<Run> {
        log::info!("building the harness of {}", commit.short());
        let target = tree.target();
        let build = ["cargo", "build", "--release"].map(OsString::from);
        let environment = [("CARGO_TARGET_DIR", target.clone().into_os_string())];
        let output = leash::run(&build, tree.directory(), &environment, self.interrupt)?;
        if !output.status.success() {
            bail!(
                "the harness of {} does not build: see above",
                commit.short()
            );
        }
        log::info!("measuring {} by its own harness", commit.short());
        let mut command = self.bench(&target.join("release/mutexlab"), tree.directory());
        if let Some(proxy) = proxy {
            command.extend(["--module-source".into(), proxy.directory().into()]);
        }
        let path = self.measure(&command, tree.directory())?;
        let results = self.repository.directory().join("results");
        let mut kept = path.clone();
        for (from, to) in moves(&path, &results) {
            if from.exists() {
                let directory = to.parent().unwrap_or(&results);
                fs::create_dir_all(directory)
                    .and_then(|()| fs::rename(&from, &to))
                    .with_context(|| {
                        format!("cannot move {} to {}", from.display(), to.display())
                    })?;
            }
            kept = to;
        }
        Run::read(&kept)
    }
}

/// What belongs to a results file, and where it goes: its logs, and at last itself.
fn moves(path: &Path, results: &Path) -> [(PathBuf, PathBuf); 2] {
    let logs = Path::new("logs").join(path.file_stem().unwrap_or_default());
    [
        (path.with_file_name("").join(&logs), results.join(&logs)),
        (
            path.to_owned(),
            results.join(path.file_name().unwrap_or_default()),
        ),
    ]
}

/// The results files in a directory, the newest first: names begin with the time.
fn results_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("cannot read {}", directory.display()))?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}
