// SPDX-License-Identifier: MIT OR Apache-2.0

//! One file a command, and what they have in common.

use std::io::Write;

use anyhow::{bail, Context, Result};
use mprox_client::{Client, Commit, ContextName, Error};
use mprox_file::ProxyFile;

pub mod apply;
pub mod check;
pub mod completions;
pub mod delete;
pub mod exec;
pub mod man;
pub mod run;
pub mod schema;
pub mod show;
pub mod stats;

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

/// The name that a file's context gets: its own without directory and `.toml`.
fn name_of(path: &std::path::Path) -> Result<ContextName> {
    let stem = path.file_stem().context("this is no file")?;
    let text = stem.to_string_lossy();
    match ContextName::new(text.as_bytes()) {
        Some(name) => Ok(name),
        None => bail!(
            "`{text}` cannot be a context's name, which is of letters, digits, '-', '_' and '.': give one by --name"
        ),
    }
}

/// A context's name on the command line.
fn parse_name(text: &str) -> Result<ContextName, String> {
    ContextName::new(text.as_bytes()).ok_or_else(|| {
        "a name is of letters, digits, '-', '_' and '.', 63 at most, and begins without a dot"
            .to_owned()
    })
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
