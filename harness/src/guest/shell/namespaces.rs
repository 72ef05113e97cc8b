// SPDX-License-Identifier: MIT OR Apache-2.0

//! Namespaces that have names, as `ip netns` knows them (ip-netns(8)).

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, Context, Result};
use clap::Args;
use nix::mount::{mount, MsFlags};
use nix::sched::{self, CloneFlags};

use super::super::namespace::Namespace;
use super::session;
use crate::shell_files::NAMESPACE_VARIABLE;

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

/// Run a command in a network namespace with a name; for `mutexlab shell`'s guests.
#[derive(Args, Debug)]
pub struct EnterCommand {
    /// The namespace
    namespace: String,
    /// The command and its arguments [default: a shell]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl EnterCommand {
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
        Err(error).with_context(|| format!("cannot start {program}"))
    }
}
