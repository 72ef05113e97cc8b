// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab schema`: JSON Schemas of the files that people and programs read and write, and of what commands print.

use crate::environment;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::document::{Document, Listed};
use super::json;
use mutexlab_draw::table::{Align, Table};

/// Print the JSON Schema of a file or of what a command prints, or list them
///
/// There is one for scenarios, which editors complete by it, and one for each document that a command prints
/// with `--json`. `just schema` keeps the files as they are here.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab schema               What there is, and in which file\n  \
    mutexlab schema compare       Of what `mutexlab compare --json` prints\n  \
    mutexlab schema --write       All of them into their files: `just schema`")]
pub struct SchemaCommand {
    /// Of what
    #[arg(value_name = "NAME", conflicts_with_all = ["json", "write"])]
    of: Option<Document>,
    /// Print the list as JSON
    #[arg(long, conflicts_with = "write")]
    json: bool,
    /// Write all of them into their files in the repository
    #[arg(long)]
    write: bool,
}

impl SchemaCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// If schemas or their list cannot be written.
    pub fn run(&self) -> Result<()> {
        if let Some(document) = self.of {
            print!("{}", document.schema_text()?);
            return Ok(());
        }
        if self.write {
            return write(&environment::repository()?);
        }
        let documents = Document::value_variants().iter();
        let listed: Vec<Listed> = documents.map(|document| document.listed()).collect();
        if self.json {
            return json::print(&listed);
        }
        print!("{}", table(&listed));
        Ok(())
    }
}

fn table(listed: &[Listed]) -> Table {
    let mut table = Table::new(&[
        ("schema", Align::Left),
        ("file", Align::Left),
        ("printed by", Align::Left),
    ]);
    for one in listed {
        let printed_by: Vec<String> = (one.printed_by.iter())
            .map(|command| format!("mutexlab {command} --json"))
            .collect();
        table.row([
            one.name.as_str().into(),
            one.file.display().to_string().as_str().into(),
            printed_by.join(", ").as_str().into(),
        ]);
    }
    table
}

fn write(repository: &Path) -> Result<()> {
    for document in Document::value_variants() {
        let (file, text) = (document.schema_file(), document.schema_text()?);
        let path = repository.join(&file);
        fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
