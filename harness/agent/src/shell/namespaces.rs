// SPDX-License-Identifier: MIT OR Apache-2.0

//! Namespaces that have names, as `ip netns` knows them (ip-netns(8)).

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, Context, Result};
use nix::mount::{mount, MsFlags};
use nix::sched::{self, CloneFlags};

use super::session;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_protocol::shell_files::NAMESPACE_VARIABLE;

/// Where they are.
const DIRECTORY: &str = "/run/netns";

/// Gives `namespace` its name.
pub fn publish(namespace: &Namespace) -> Result<()> {
    fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot create {DIRECTORY}"))?;
    let path = Path::new(DIRECTORY).join(namespace.name());
    File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    namespace.run(|| {
        mount(
            Some("/proc/thread-self/ns/net"),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("cannot mount {}", path.display()))
    })
}

/// A command in a network namespace that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The namespace.
    pub namespace: String,
    /// The command and its arguments; if there are none, a shell.
    pub command: Vec<OsString>,
}

impl Visit {
    /// Runs the command in the place of this process.
    ///
    /// # Errors
    /// If there is no such namespace, or the command cannot be started.
    pub fn run(&self) -> Result<()> {
        let path = Path::new(DIRECTORY).join(&self.namespace);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        sched::setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the network namespace {}", self.namespace))?;
        let words = if self.command.is_empty() {
            session::shell(true)
                .into_iter()
                .map(OsString::from)
                .collect()
        } else {
            self.command.clone()
        };
        let [program, arguments @ ..] = words.as_slice() else {
            bail!("no command given");
        };
        let error = Command::new(program)
            .args(arguments)
            .env(NAMESPACE_VARIABLE, &self.namespace)
            .exec();
        Err(error).with_context(|| format!("cannot start {}", program.display()))
    }
}
