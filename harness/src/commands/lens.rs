// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `lens`.

use crate::environment;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use clap::Args;

use super::json;
use mutexlab_host::git::Repository;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::NamedTree;
use mutexlab_lens_analysis::analysis::Analysis;
use mutexlab_lens_analysis::difference::Difference;
use mutexlab_lens_analysis::functions::View;
use mutexlab_lens_analysis::{file_name, flame, page, text};
use mutexlab_measure::commit::WorkTree;
use mutexlab_measure::{jobs, measure_anew, Lab};
use mutexlab_model::verdict::Verdict;
use mutexlab_results::file;
use mutexlab_results::record::Selection;
use mutexlab_scenario::plan::{Filter, Plan};
use mutexlab_scenario::ScenarioFile;

/// Pixels of a flame graph that stands alone.
const WIDTH: f64 = 1600.0;

/// See where the instructions and the cache lines of a packet go
///
/// Runs cells of a scenario with the lens, a plugin of QEMU's that sees every instruction and every
/// access to memory. Writes for each cell a page, flame graphs, a table and all of it as JSON.
/// docs/lens.md says how to read them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab lens --cell module/forward-v4-udp      One cell of scenarios/quick.toml\n  \
    mutexlab lens scenarios/flows.toml --cell 1000flows --output /tmp/flows\n  \
    mutexlab lens --diff HEAD~1 . --cell module/forward-v4-udp\n                                                  \
    What your changes cost, by symbol\n  \
    mutexlab lens --diff old/a.json new/a.json      What differs between two runs\n\n\
Exit codes: 0 if all is well, 1 if a cell ended badly, 2 if the lens could not run, 130 if interrupted.")]
pub struct LensCommand {
    /// The scenario whose cells are run
    #[arg(value_name = "SCENARIO", default_value = "scenarios/quick.toml")]
    scenario: PathBuf,
    /// Only cells with this in their names, or with '!' before it those without; of several words, all count
    #[arg(long, value_name = "PART")]
    cell: Option<Filter>,
    /// Where everything is written
    #[arg(long, short, value_name = "DIRECTORY", default_value = "target/lens")]
    output: PathBuf,
    /// Tell what differs: A and B are analyses (JSON files that this wrote) or commits, whose proxies are
    /// run; `.` is the files as they are
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    diff: Option<Vec<String>>,
    /// Show every function and object, not only the first
    #[arg(long)]
    all: bool,
    /// Print JSON: a list of the analyses, or of the differences
    #[arg(long)]
    json: bool,
    /// How many guests run side by side [default: one a core]
    #[arg(long, short, value_name = "GUESTS")]
    jobs: Option<NonZeroUsize>,
    /// Boot a kernel tree that you have built instead of the catalog's kernel of that name
    #[arg(long, value_name = "NAME=DIRECTORY")]
    tree: Vec<NamedTree>,
}

/// What running cells gave.
struct Seen {
    analyses: Vec<Analysis>,
    /// Cells that ended badly: name, verdict and reason.
    bad: Vec<String>,
}

impl LensCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If the scenario is wrong, something is missing on this machine, files cannot be written, or the
    /// user interrupts.
    pub fn run(&self) -> Result<i32> {
        match self.diff.as_deref() {
            Some([a, b]) => self.compare(a, b),
            _ => self.look(),
        }
    }

    fn look(&self) -> Result<i32> {
        let interrupt = Interrupt::install()?;
        let seen = self.measure(None, &self.output, &interrupt)?;
        for analysis in &seen.analyses {
            let written = write(analysis, &self.output)?;
            if self.json {
                continue;
            }
            let most = if self.all { usize::MAX } else { text::SHOWN };
            println!("{}", text::text(analysis, most));
            for path in written {
                println!("{}", path.display());
            }
            println!();
        }
        if self.json {
            json::print(&seen.analyses)?;
        }
        Ok(seen.exit_code())
    }

    fn compare(&self, a: &str, b: &str) -> Result<i32> {
        let a = self.side("A", a)?;
        let b = self.side("B", b)?;
        let mut compared = Vec::new();
        for before in &a.analyses {
            // Files may be of cells with different parameters: there is but one on each side.
            let single = a.analyses.len() == 1 && b.analyses.len() == 1;
            let same = |after: &&Analysis| single || after.cell == before.cell;
            let Some(after) = b.analyses.iter().find(same) else {
                continue;
            };
            let difference = Difference::of(before, after)?;
            if !self.json {
                println!("A: {}, commit {}", before.cell, before.commit);
                println!("B: {}, commit {}\n", after.cell, after.commit);
                println!("{}", difference.text());
            }
            compared.push(difference);
        }
        if compared.is_empty() {
            bail!("no cell was seen on both sides");
        }
        if self.json {
            json::print(&compared)?;
        }
        Ok(a.exit_code().max(b.exit_code()))
    }

    /// The analyses of a file, or of a commit's proxy.
    fn side(&self, side: &str, name: &str) -> Result<Seen> {
        let path = Path::new(name);
        if path.is_file() {
            return Ok(Seen {
                analyses: vec![Analysis::read(path)?],
                bad: Vec::new(),
            });
        }
        let interrupt = Interrupt::install()?;
        let output = self.output.join(side.to_lowercase());
        if name == "." {
            return self.measure(None, &output, &interrupt);
        }
        let repository = Repository::new(&environment::repository()?);
        let commit = repository.commit(name)?;
        let tree = WorkTree::of(&repository, &commit, &interrupt)?;
        if let Some(file) = tree.other_interface()? {
            bail!(
                "{} is another at {}, so that this harness and its proxy would not understand each other: \
                 check that commit out, run its own `mutexlab lens`, and compare the JSON files",
                file.display(),
                commit.short()
            );
        }
        self.measure(Some(tree.directory()), &output, &interrupt)
    }

    /// Runs the cells that are wanted, once each.
    fn measure(
        &self,
        module_source: Option<&Path>,
        output: &Path,
        interrupt: &Interrupt,
    ) -> Result<Seen> {
        let repository = environment::repository()?;
        let mut scenario = ScenarioFile::load(&self.scenario)?;
        scenario.look()?;
        scenario.scenario.boots = 1;
        let mut plan = Plan::new(&scenario.scenario).map_err(|fault| scenario.explain(&fault))?;
        if let Some(filter) = &self.cell {
            plan.retain(|_, cell| filter.admits(&cell.id));
            if plan.boots.is_empty() {
                bail!(
                    "no cell of {} is of the filter {filter}: `mutexlab bench --plan {}` lists them",
                    scenario.name,
                    self.scenario.display()
                );
            }
        }
        file::check_writable(output)?;
        let surroundings = environment::surroundings()?;
        let lab = Lab::open(
            &repository,
            &surroundings,
            &scenario,
            &plan,
            &self.tree,
            module_source,
            interrupt,
        )?;
        let selection = Selection {
            filter: self.cell.clone(),
            shard: None,
        };
        let jobs = jobs(self.jobs, scenario.scenario.mode)?;
        let results = measure_anew(&lab, &scenario, &plan, selection, output, jobs)?;
        let mut seen = Seen {
            analyses: Vec::new(),
            bad: Vec::new(),
        };
        for cell in &results.results().cells {
            if cell.verdict == Verdict::Ok {
                let name = file_name(&cell.id, cell.repetition);
                let path = results.log_directory().join(name);
                seen.analyses.push(Analysis::read(&path)?);
            } else {
                let reason = cell.reason.as_deref().unwrap_or("nobody knows why");
                seen.bad
                    .push(format!("{}: {}: {reason}", cell.id, cell.verdict));
            }
        }
        Ok(seen)
    }
}

impl Seen {
    /// 1 if a cell ended badly, of which it tells.
    fn exit_code(&self) -> i32 {
        for line in &self.bad {
            eprintln!("{line}");
        }
        i32::from(!self.bad.is_empty())
    }
}

/// Writes all there is of an analysis; where.
fn write(analysis: &Analysis, directory: &Path) -> Result<Vec<PathBuf>> {
    let stem = analysis.cell.replace('/', "-");
    let mut files = vec![
        ("html", Some(page::html(analysis))),
        ("txt", Some(text::text(analysis, usize::MAX))),
        ("spans.svg", flame::file(analysis, View::Spans, WIDTH)),
        ("window.svg", flame::file(analysis, View::Window, WIDTH)),
    ];
    files.retain(|(_, content)| content.is_some());
    let mut written = Vec::new();
    for (extension, content) in files {
        let path = directory.join(format!("{stem}.{extension}"));
        fs::write(&path, content.unwrap_or_default())
            .with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    let path = directory.join(format!("{stem}.json"));
    analysis.write(&path)?;
    written.push(path);
    Ok(written)
}
