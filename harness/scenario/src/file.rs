// SPDX-License-Identifier: MIT OR Apache-2.0

//! A scenario's file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::question::Scenario;
use toml_mistake::{self as explain, Mistake};

/// A scenario with the text that it came from, which goes into the results.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// The file's name without directory and `.toml`.
    pub name: String,
    /// The file, as errors name it.
    pub file: String,
    /// The whole text.
    pub text: String,
    /// Where directories that it names are looked for: where it lies itself.
    pub directory: PathBuf,
    /// What it says.
    pub scenario: Scenario,
}

impl ScenarioFile {
    /// Reads a scenario.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, names a key that does not exist, or asks for nothing.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {}", path.display()))?;
        let name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .with_context(|| format!("{} is no file name", path.display()))?;
        let mut file = Self::parse(name, path.display().to_string(), text)?;
        file.directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(file)
    }

    /// A scenario called `name` from its text; `file` names it in errors. Directories that it names are looked
    /// for in the current one.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(name: String, file: String, text: String) -> Result<Self> {
        Ok(Self {
            directory: PathBuf::new(),
            scenario: parse(&text, &file)?,
            name,
            file,
            text,
        })
    }

    /// Has the lens look on, if it does not already.
    ///
    /// # Errors
    /// If it cannot look on what this asks for.
    pub fn look(&mut self) -> Result<()> {
        self.scenario.lens.get_or_insert_default();
        self.scenario.check().map_err(|fault| self.explain(&fault))
    }

    /// `fault` with its place in the text.
    pub fn explain(&self, fault: &Mistake) -> anyhow::Error {
        fault.explain(&self.text, &self.file)
    }
}

/// Parses a scenario's text; `file` names it in errors.
pub(super) fn parse(text: &str, file: &str) -> Result<Scenario> {
    let scenario: Scenario =
        toml::from_str(text).map_err(|error| explain::syntax(&error, text, file))?;
    scenario
        .check()
        .map_err(|fault| fault.explain(text, file))?;
    Ok(scenario)
}
