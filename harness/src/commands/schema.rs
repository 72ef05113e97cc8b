// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab schema`: JSON Schemas of the files that people and programs read and write.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use schemars::{schema_for, Schema};

use mutexlab_judge::claims::report::Report;
use mutexlab_results::record::Results;
use mutexlab_scenario::Scenario;

/// Print the JSON Schema of scenarios, of results or of claims
///
/// Editors complete scenarios with it: `just schema` keeps scenarios/schema.json, results/schema.json
/// and results/claims/schema.json as they are here.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    mutexlab schema scenario\n  \
    mutexlab schema results > results/schema.json")]
pub struct SchemaCommand {
    /// Of what
    of: SchemaOf,
}

/// What there is a schema of.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaOf {
    /// The files in scenarios/
    Scenario,
    /// The files in results/
    Results,
    /// The files in results/claims/, which `mutexlab claims --json` prints
    Claims,
}

impl SchemaOf {
    /// The schema, draft 2020-12.
    pub fn schema(self) -> Schema {
        match self {
            Self::Scenario => schema_for!(Scenario),
            Self::Results => schema_for!(Results),
            Self::Claims => schema_for!(Report<'_>),
        }
    }

    /// The schema as a file's text.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn text(self) -> Result<String> {
        let text = serde_json::to_string_pretty(&self.schema()).context("cannot write JSON")?;
        Ok(text + "\n")
    }
}

impl SchemaCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// If the schema cannot be written as JSON.
    pub fn run(&self) -> Result<()> {
        print!("{}", self.of.text()?);
        Ok(())
    }
}
