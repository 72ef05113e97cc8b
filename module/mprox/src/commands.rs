// SPDX-License-Identifier: MIT OR Apache-2.0

//! One file a command, and what they have in common.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use mprox_client::{Client, Commit, ContextName, Error};
use mprox_file::ProxyFile;

pub mod apply;
pub mod check;
pub mod completions;
pub mod delete;
pub mod diff;
pub mod doctor;
pub mod exec;
pub mod flows;
pub mod man;
pub mod monitor;
pub mod run;
pub mod schema;
pub mod show;
pub mod stats;
pub mod sysdump;
pub mod top;
pub mod why;

/// Prints a line, and says if that cannot be done. That nobody reads any more is no failure.
fn say(line: &dyn std::fmt::Display) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{line}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write what there is to say")
        }
        _ => Ok(()),
    }
}

/// What the kernel says of a request for which somebody may lack the right.
fn without_right(error: Error) -> anyhow::Error {
    match error.errno() {
        Some(nix::libc::EPERM) => {
            anyhow::anyhow!("this needs CAP_NET_ADMIN in the network namespace: try sudo")
        }
        _ => error.into(),
    }
}

/// A socket of the module's family.
fn open() -> Result<Client> {
    Client::open().map_err(|error| match error {
        Error::NoModule => {
            anyhow::anyhow!("the module is not there: `modprobe mutex_proxy` loads it")
        }
        other => other.into(),
    })
}

/// Stages and commits what a file says; how often its context was configured by then.
fn put(client: &mut Client, file: &ProxyFile, commit: &Commit) -> Result<u32> {
    let done = client
        .stage(&file.configuration)
        .and_then(|()| client.commit(commit));
    done.map_err(|error| match error {
        Error::Refused(refused) if refused.errno != nix::libc::EPERM => file.explain(&refused),
        other => without_right(other),
    })
}

const NAMES: &str = "letters, digits, '-', '_' and '.', 63 at most, and begins without a dot";

/// The name that a file's context gets: the one that was asked for, or the file's own without directory and `.toml`.
fn name_of(asked: Option<ContextName>, path: &Path) -> Result<ContextName> {
    if let Some(name) = asked {
        return Ok(name);
    }
    let file = path
        .file_name()
        .with_context(|| format!("{} is no file", path.display()))?;
    let bytes = file.as_bytes();
    let stem = bytes.strip_suffix(b".toml").unwrap_or(bytes);
    ContextName::new(stem).with_context(|| {
        format!(
            "the context would be called `{}`, as the file is, and a name is of {NAMES}: give one by --name",
            String::from_utf8_lossy(stem)
        )
    })
}

/// A context's name on the command line.
fn parse_name(text: &str) -> Result<ContextName, String> {
    ContextName::new(text.as_bytes()).ok_or_else(|| format!("a name is of {NAMES}"))
}

/// What the kernel says of a context that is asked for by name.
fn explain(error: Error, name: &ContextName) -> anyhow::Error {
    match error.errno() {
        Some(nix::libc::ENOENT) => {
            anyhow::anyhow!(
                "there is no context `{name:?}` in this network namespace: `mprox show` lists them"
            )
        }
        _ => without_right(error),
    }
}

/// `1 rule`, `2 rules`.
fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// What a file comes to, in words.
fn sizes(file: &ProxyFile) -> String {
    let configuration = &file.configuration;
    let upstreams = configuration
        .groups
        .iter()
        .map(|group| group.upstreams.len());
    format!(
        "{}, {}",
        count(configuration.rules.len(), "rule"),
        count(upstreams.sum(), "upstream")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_called_as_its_file_without_toml() {
        let name = |path: &str| name_of(None, Path::new(path)).map(|name| format!("{name:?}"));
        for (path, expected) in [
            ("/etc/mprox/home.toml", "home"),
            ("home", "home"),
            ("home.net.toml", "home.net"),
            ("home.v2", "home.v2"),
            ("home.toml.bak", "home.toml.bak"),
        ] {
            assert_eq!(name(path).unwrap(), expected);
        }
        let long = format!("{}.toml", "x".repeat(64));
        for path in ["my rules.toml", ".toml", ".hidden.toml", "é.toml", &long] {
            let error = name(path).unwrap_err().to_string();
            assert!(error.contains("give one by --name"), "{path}: {error}");
        }
        assert!(name("/").is_err() && name("..").is_err());
        let asked = ContextName::new(b"guests");
        assert_eq!(name_of(asked, Path::new("my rules.toml")).ok(), asked);
    }
}
