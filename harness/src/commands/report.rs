// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab report`: results as a page.

use crate::environment;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use crate::commands::report_measure;
use crate::commands::report_measure::MEASURED;
use mutexlab_host::git::Repository;
use mutexlab_report::archive::{Archive, Warning};
use mutexlab_report::golden;
use mutexlab_report::history::History;
use mutexlab_report::page::Page;

/// Write the results as one HTML page with plots, which needs no network and no script
///
/// Shows the newest results of each scenario, and what earlier ones and the golden counts tell of
/// other commits. Files that cannot be read are named on the page and left out.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab report                           All of results/, as target/report.html\n  \
    mutexlab report --measure                 Measure first what HEAD has no results of: `just report`\n  \
    mutexlab report results/2026*-flows.json  Some files\n  \
    mutexlab report ~/theirs -o theirs.html   The files of another directory")]
pub struct ReportCommand {
    /// Results files, or directories of them [default: results]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the page goes
    #[arg(short, long, value_name = "FILE", default_value = "target/report.html")]
    output: PathBuf,
    /// Print as JSON what the page shows and what it could not read
    #[arg(long)]
    json: bool,
    /// Measure the scenarios of the report first, as far as results/ has none of this commit
    #[arg(long, conflicts_with = "files")]
    measure: bool,
}

/// What the page shows, and what it could not read.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// Where the page is.
    page: &'a Path,
    /// How many files were understood.
    files: usize,
    /// What is shown: the newest results of each scenario on each kernel.
    scenarios: Vec<Shown<'a>>,
    /// What could not be read.
    warnings: Vec<Told<'a>>,
}

/// The results of one scenario on one kernel.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Shown<'a> {
    /// The scenario's name.
    scenario: &'a str,
    /// The kernel's name.
    kernel: &'a str,
    /// What time was counted in: `virtual` or `wall`.
    mode: &'a str,
    /// The commit, in full.
    commit: &'a str,
    /// Whether files differed from it.
    dirty: bool,
    /// When it began, RFC 3339, UTC.
    started: &'a str,
    /// The file that tells of it.
    file: &'a str,
    /// How many cells there are.
    cells: usize,
    /// How many of them ended well.
    cells_ok: usize,
}

/// Something that could not be read.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Told<'a> {
    /// What it is about, such as a file.
    about: &'a str,
    /// What is wrong.
    message: &'a str,
}

impl ReportCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// If the page cannot be written, or the user interrupts. What cannot be read is no error.
    pub fn run(&self) -> Result<()> {
        let repository = environment::repository()?;
        let files = if self.files.is_empty() {
            vec![repository.join("results")]
        } else {
            self.files.clone()
        };
        let mut archive = Archive::read(&files, &repository);
        let mut warnings = Vec::new();
        if self.measure {
            warnings = report_measure::missing(&repository, &archive)?;
            archive = Archive::read(&files, &repository);
        }
        let commits = Repository::new(&repository);
        let history = History::read(&commits).unwrap_or_else(|error| {
            let message = format!("no commit is known, so there are no trends: {error:#}");
            warnings.push(Warning::new("git", message));
            History::default()
        });
        let golden = golden::read(&commits, &history).unwrap_or_else(|error| {
            let message = format!("cannot read what commits recorded: {error:#}");
            warnings.push(Warning::new("results/golden", message));
            Vec::new()
        });
        let page = Page {
            archive: &archive,
            golden: &golden,
            history: &history,
            order: &MEASURED.map(|measured| measured.scenario),
            warnings: &warnings,
        };
        write(&self.output, &page.html())?;
        self.tell(&page, &warnings)
    }

    fn tell(&self, page: &Page<'_>, warnings: &[Warning]) -> Result<()> {
        let warnings = || page.archive.warnings.iter().chain(warnings);
        if self.json {
            let shown = page.runs().into_iter().map(|run| Shown {
                scenario: &run.scenario,
                kernel: &run.kernel,
                mode: &run.mode,
                commit: &run.commit,
                dirty: run.dirty,
                started: &run.started,
                file: &run.file,
                cells: run.cells.len(),
                cells_ok: run.cells_ok(),
            });
            let told = warnings().map(|warning| Told {
                about: &warning.about,
                message: &warning.message,
            });
            return json::print(&Document {
                page: &self.output,
                files: page.archive.files,
                scenarios: shown.collect(),
                warnings: told.collect(),
            });
        }
        for warning in warnings() {
            eprintln!("warning: {}: {}", warning.about, warning.message);
        }
        println!("{}", self.output.display());
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_report::synthetic;

    #[test]
    fn a_page_is_written_whatever_the_files_are() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let whole = synthetic::flows().to_string();
        let output = directory.path().join("new/report.html");
        let command = ReportCommand {
            files: vec![
                write("whole.json", &whole),
                write("cut.json", &whole[..whole.len() / 2]),
                write("newer.json", r#"{"schema": 1000}"#),
                directory.path().join("missing.json"),
            ],
            output: output.clone(),
            json: true,
            measure: false,
        };
        command.run().unwrap();
        let page = fs::read_to_string(output).unwrap();
        for part in [
            "What does the number of flows cost?",
            "cut.json",
            "schema 1000",
            "missing.json",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
