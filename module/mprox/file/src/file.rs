// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file, as it was read.

use std::path::Path;

use anyhow::{anyhow, Result};
use mprox_client::{Configuration, Item, Refused};
use toml_mistake::{place, place_of, syntax, Mistake, Place};

use crate::rules::{lower, Lowered};
use crate::system::{Machine, System};
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
    sets: Vec<Option<String>>,
    rules: Vec<usize>,
}

impl ProxyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or says what cannot be meant: with line and column.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = Machine
            .read(path)
            .map_err(|error| anyhow!("cannot read {name}: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
            let place = place(&before, before.len(), &name);
            anyhow!("{place}: this is not UTF-8, which TOML is written in")
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(name, text, directory, &Machine)
    }

    /// The same of a text; `path` names it in errors, other files are looked for from `directory` on, and names in `system`.
    ///
    /// # Errors
    /// As [`Self::load`], of what was read.
    pub fn parse(
        path: String,
        text: String,
        directory: &Path,
        system: &dyn System,
    ) -> Result<Self> {
        let read: FileText = toml::from_str(&text).map_err(|error| syntax(&error, &text, &path))?;
        let Lowered {
            configuration,
            groups,
            sets,
            rules,
        } = lower(&read, directory, system).map_err(|mistake| mistake.explain(&text, &path))?;
        Ok(Self {
            path,
            text,
            configuration,
            groups,
            sets: sets.into_iter().map(|set| Some(set?.0)).collect(),
            rules,
        })
    }

    /// Where the rule of the file stands that the configuration's rule of this number is of: file, line and column.
    pub fn place_of_rule(&self, number: usize) -> Option<String> {
        let rule = *self.rules.get(number)?;
        let at = [Place::Key("rule".to_owned()), Place::Element(rule)];
        Some(place_of(&at, &self.text, &self.path))
    }

    /// What the kernel said against it, with its place in the file.
    pub fn explain(&self, refused: &Refused) -> anyhow::Error {
        let at = match refused.item {
            Some(Item::Group(place)) => self.groups.get(place).map(|name| {
                let key = |text: &str| Place::Key(text.to_owned());
                vec![key("upstreams"), key(name)]
            }),
            Some(Item::Set(place)) => self.sets.get(place).and_then(|name| {
                let key = |text: &str| Place::Key(text.to_owned());
                Some(vec![key("sets"), key(name.as_ref()?)])
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
