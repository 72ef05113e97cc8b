// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file, as it was read.

use std::fs;
use std::path::Path;

use anyhow::{anyhow, Context, Result};
use mprox_client::{Configuration, Item, Refused};
use toml_mistake::{syntax, Mistake, Place};

use crate::rules::{lower, Lowered};
use crate::text::FileText;

/// A file that makes sense, with what it says for the kernel.
#[derive(Clone, Debug)]
pub struct ProxyFile {
    /// Its path, as messages name it.
    pub path: String,
    text: String,
    /// What the kernel is told.
    pub configuration: Configuration,
    // For each of the configuration's groups and rules, what of the file it is of.
    groups: Vec<String>,
    rules: Vec<usize>,
}

impl ProxyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or says what cannot be meant: with line and column.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path.display().to_string(), text)
    }

    /// The same of a text; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Self::load`], of what was read.
    pub fn parse(path: String, text: String) -> Result<Self> {
        let read: FileText = toml::from_str(&text).map_err(|error| syntax(&error, &text, &path))?;
        let Lowered {
            configuration,
            groups,
            rules,
        } = lower(&read).map_err(|mistake| mistake.explain(&text, &path))?;
        Ok(Self {
            path,
            text,
            configuration,
            groups,
            rules,
        })
    }

    /// What the kernel said against it, with its place in the file.
    pub fn explain(&self, refused: &Refused) -> anyhow::Error {
        let at = match refused.item {
            Some(Item::Group(place)) => self.groups.get(place).map(|name| {
                let key = |text: &str| Place::Key(text.to_owned());
                vec![key("upstreams"), key(name)]
            }),
            Some(Item::Rule(place)) => self
                .rules
                .get(place)
                .map(|rule| vec![Place::Key("rule".to_owned()), Place::Element(*rule)]),
            None => None,
        };
        let errno = std::io::Error::from_raw_os_error(refused.errno);
        let message = match &refused.message {
            Some(message) => format!("the kernel refuses it: {message}"),
            None => format!("the kernel refuses it: {errno}"),
        };
        match at {
            Some(at) => Mistake { at, message }.explain(&self.text, &self.path),
            None => anyhow!("{}: {message}", self.path),
        }
    }
}
