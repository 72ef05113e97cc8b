// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mprox diff`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mprox_client::{Configuration, ContextName, Set};
use mprox_file::ProxyFile;
use serde_json::json;

use super::{name_of, open, parse_name, say, without_right};
use crate::difference::{difference, Line};
use crate::told::{element, kind_name, set_names, Told};

/// Say what `mprox apply` would change
///
/// Against what the context of the file's name does now: upstreams, sets and rules, in their order. A line that begins with "-" would
/// go, one with "+" would come.
///
/// The exit code is 0 if nothing would change, 1 if something would, and 2 if that cannot be told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mprox diff /etc/mprox/home.toml                        What would change?\n  \
    mprox diff --name guests /tmp/new.toml                 For the context `guests`\n  \
    mprox diff home.toml >/dev/null || mprox apply home.toml    Apply what has changed")]
pub struct DiffCommand {
    /// The file
    file: PathBuf,
    /// The context's name [default: the file's, without directory and .toml]
    #[arg(long, value_parser = parse_name)]
    name: Option<ContextName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// diff(1): a difference, and trouble.
const DIFFERS: u8 = 1;
const TROUBLE: u8 = 2;

impl DiffCommand {
    pub fn run(&self) -> ExitCode {
        match self.compare() {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => DIFFERS.into(),
            Err(error) => {
                eprintln!("mprox: {error:#}");
                TROUBLE.into()
            }
        }
    }

    /// Whether all is the same.
    fn compare(&self) -> Result<bool> {
        let file = ProxyFile::load(&self.file)?;
        let name = name_of(self.name, &self.file)?;
        let now = match open()?.configuration(Some(&name)) {
            Ok(now) => Some(now),
            Err(error) if error.errno() == Some(nix::libc::ENOENT) => None,
            Err(error) => return Err(without_right(error)),
        };
        let nothing = Configuration::default();
        let changes = changes(now.as_ref().unwrap_or(&nothing), &file.configuration);
        let is_same = now.is_some() && changes.is_empty();
        if self.json {
            let of = |gone| -> Vec<&str> {
                let some = changes.iter().filter(|one| one.gone == gone);
                some.map(|one| one.text.as_str()).collect()
            };
            say(&json!({
                "context": format!("{name:?}"),
                "new": now.is_none(),
                "same": is_same,
                "removed": of(true),
                "added": of(false),
            }))?;
            return Ok(is_same);
        }
        match (is_same, &now) {
            (true, _) => say(&format_args!("{name:?}: nothing would change"))?,
            (false, None) => say(&format_args!("{name:?}: there is no such context yet"))?,
            (false, Some(_)) => say(&format_args!("{name:?}:"))?,
        }
        for Change { gone, text } in changes {
            let mark = if gone { '-' } else { '+' };
            say(&format_args!("{mark} {text}"))?;
        }
        Ok(is_same)
    }
}

/// A line that would go, or come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    gone: bool,
    text: String,
}

fn changes(old: &Configuration, new: &Configuration) -> Vec<Change> {
    let (was, is) = (Told::of(old), Told::of(new));
    let mut changes = changed_lines(&was.upstream_lines(), &is.upstream_lines());
    changes.extend(changed_sets(&old.sets, &new.sets));
    changes.extend(changed_lines(&was.rule_lines(), &is.rule_lines()));
    changes
}

fn changed_lines(old: &[String], new: &[String]) -> Vec<Change> {
    let changed = |line| {
        let (gone, text) = match line {
            Line::Gone(text) => (true, text),
            Line::New(text) => (false, text),
            Line::Same(_) => return None,
        };
        let text = text.to_owned();
        Some(Change { gone, text })
    };
    difference(old, new)
        .into_iter()
        .filter_map(changed)
        .collect()
}

/// Elements that would go or come; of a set that is new, or goes as a whole, one line.
fn changed_sets(old: &[Set], new: &[Set]) -> Vec<Change> {
    let names = |sets: &[Set]| -> Vec<String> { set_names(sets).collect() };
    let (was, is) = (names(old), names(new));
    let mut changes = Vec::new();
    for (set, name) in old.iter().zip(&was) {
        match is.iter().position(|other| other == name) {
            Some(at) => changes.extend(changed_elements(name, set, &new[at])),
            None => changes.push(whole(true, set, name)),
        }
    }
    let added = new.iter().zip(&is).filter(|(_, name)| !was.contains(name));
    changes.extend(added.map(|(set, name)| whole(false, set, name)));
    changes
}

fn whole(gone: bool, set: &Set, name: &str) -> Change {
    let count = set.elements.len();
    let text = format!("set {name}: {count} {}", kind_name(set.kind));
    Change { gone, text }
}

fn changed_elements(name: &str, old: &Set, new: &Set) -> Vec<Change> {
    let texts = |set: &Set| -> BTreeSet<String> { set.elements.iter().map(element).collect() };
    let (was, is) = (texts(old), texts(new));
    let change = |gone| {
        move |text: &String| Change {
            gone,
            text: format!("set {name}: {text}"),
        }
    };
    let gone = was.difference(&is).map(change(true));
    gone.chain(is.difference(&was).map(change(false))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mprox_file::Machine;

    use super::*;

    const FILE: &str = r#"
        [upstreams.web]
        servers = ["192.0.2.10:8080", "192.0.2.11:8080"]

        [sets.far]
        networks = ["203.0.113.0/25", "2001:db8:1::/48"]

        [[rule]]
        name = "lan"
        ip = 4
        to = "10.0.0.0/8"
        action = "direct"

        [[rule]]
        name = "web"
        ip = 4
        ports = 80
        via = "web"

        [[rule]]
        name = "far"
        ip = 4
        to = "@far"
        action = "reject"
    "#;

    fn said(edit: &[(&str, &str)]) -> Vec<String> {
        let read = |text: String| {
            let read = ProxyFile::parse("x.toml".to_owned(), text, Path::new(""), &Machine);
            read.unwrap().configuration
        };
        let mut text = FILE.to_owned();
        for (from, to) in edit {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let told = changes(&read(FILE.to_owned()), &read(text));
        let mark = |gone| if gone { '-' } else { '+' };
        told.iter()
            .map(|change| format!("{} {}", mark(change.gone), change.text))
            .collect()
    }

    #[test]
    fn what_changes_is_told_and_nothing_else() {
        assert!(said(&[]).is_empty());
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: [Case<'_>; 4] = [
            (
                &[("ports = 80", "ports = 81")],
                &[
                    "- rule web: ipv4 port 80 via web",
                    "+ rule web: ipv4 port 81 via web",
                ],
            ),
            (
                &[("192.0.2.11:8080\"]", "192.0.2.12:8080\"]\nweights = [1, 3]")],
                &[
                    "- upstreams web, round-robin: 192.0.2.10:8080, 192.0.2.11:8080",
                    "+ upstreams web, round-robin: 192.0.2.10:8080, 192.0.2.12:8080 weight 3",
                ],
            ),
            (
                &[("203.0.113.0/25", "203.0.113.0/24")],
                &[
                    "- set far: 203.0.113.0-203.0.113.127",
                    "+ set far: 203.0.113.0-203.0.113.255",
                ],
            ),
            (
                &[("sets.far", "sets.near"), ("@far", "@near")],
                &[
                    "- set far: 2 addresses",
                    "+ set near: 2 addresses",
                    "- rule far: ipv4 to @far reject",
                    "+ rule far: ipv4 to @near reject",
                ],
            ),
        ];
        for (edit, expected) in cases {
            assert_eq!(said(edit), expected);
        }
    }
}
