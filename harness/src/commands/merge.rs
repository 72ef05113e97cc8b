// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab merge`: one results file of the shards that several machines measured.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use mutexlab_results::file::ResultsFile;
use mutexlab_results::merge::{merge, missing};

/// Join the results of shards into one file
///
/// All must have been measured under the same conditions, apart from the machine in virtual mode,
/// where it does not matter.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab bench --shard 1/2     on one machine\n  \
    mutexlab bench --shard 2/2     on another\n  \
    mutexlab merge results/a.json results/b.json -o results/both.json\n\n\
Exit codes: 0 if all cells of the scenario are there, 1 if some are missing, 2 if the files cannot be joined.")]
pub struct MergeCommand {
    /// Results files
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Where the joined results go
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What came of joining results files.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Document<'a> {
    /// The joined file.
    file: &'a Path,
    /// How many files were joined.
    files: usize,
    /// How many cells there are now.
    cells: usize,
    /// Cells of the scenario that are in none of the files.
    missing: &'a [String],
}

impl MergeCommand {
    /// Runs the command and returns the exit code.
    ///
    /// # Errors
    /// If the files cannot be read, joined or written.
    pub fn run(&self) -> Result<i32> {
        let mut runs = Vec::new();
        for path in &self.files {
            let results = ResultsFile::open(path)?.into_results();
            runs.push((path.display().to_string(), results));
        }
        let merged = merge(runs)?;
        let (cells, missing) = (merged.cells.len(), missing(&merged)?);
        ResultsFile::write(&self.output, merged)?;
        if self.json {
            json::print(&Document {
                file: &self.output,
                files: self.files.len(),
                cells,
                missing: &missing,
            })?;
        } else {
            println!("{}", self.output.display());
            eprintln!("{cells} cells of {} files", self.files.len());
            for cell in &missing {
                eprintln!("missing: {cell}");
            }
        }
        Ok(i32::from(!missing.is_empty()))
    }
}
