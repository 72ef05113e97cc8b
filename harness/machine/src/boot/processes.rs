// SPDX-License-Identifier: MIT OR Apache-2.0

//! The processes of a running guest.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use duct::Handle;

use super::deadlines::POLL;
use super::terms::Boot;
use crate::guest_root;
use crate::mp_table;
use crate::qemu;
use crate::tools::Tools;
use mutexlab_host::paths;
use mutexlab_host::pipe;

/// A killed guest may take this long to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Stands in QEMU's command line for the boot's temporary directory, whose name is random.
const RUN_VARIABLE: &str = "$RUN";

/// A line from the guest.
pub enum Line {
    /// From the kernel, from QEMU or from virtme-ng.
    Console(String),
    /// From the agent.
    Output(String),
}

/// The processes of a running guest. Dropping it ends them: the pipe to the guard closes.
pub struct Guest {
    handle: Handle,
    leash: Option<PipeWriter>,
    /// What it says, as it comes.
    pub lines: Receiver<Line>,
    /// QEMU's command line; empty until it is known.
    pub qemu: Vec<String>,
    // The last field: the guest's root goes when nothing uses it any more.
    directory: tempfile::TempDir,
}

impl Guest {
    /// Makes the guest's root and starts all that runs it.
    ///
    /// # Errors
    /// If files cannot be written, or the guard not be started.
    pub fn start(boot: &Boot<'_>, tools: &Tools) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("mutexlab-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let root = directory.path().join("root");
        let scratch = directory.path().join("tmp");
        for path in [&root, &scratch] {
            fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        guest_root::build(
            &root,
            boot.order,
            boot.modules,
            &tools.agent,
            boot.baggage,
            &tools.surroundings,
        )?;
        let table = directory.path().join("mp-table");
        let table = if boot.cpus > mp_table::FIRMWARE_MAX {
            fs::write(&table, mp_table::bytes(boot.cpus))
                .with_context(|| format!("cannot write {}", table.display()))?;
            Some(table.as_path())
        } else {
            None
        };

        let pipe = || pipe::roomy().context("cannot create a pipe");
        let (leash_end, leash) = pipe()?;
        let (output, output_end) = pipe()?;
        let (console, console_end) = pipe()?;
        let harness = paths::this_program();
        let mut command = vec!["guard".into(), "--remove".into(), directory.path().into()];
        if let Some(attended) = boot.attended {
            command.extend(["--remove".into(), attended.directory.clone().into()]);
            if let Some(terminal) = &attended.terminal {
                command.extend(["--terminal".into(), terminal.into()]);
            }
        }
        command.push("--".into());
        command.extend(tools.virtme.command(boot, &root, table)?);
        // A home of its own keeps the user's configuration of virtme-ng out.
        let handle = duct::cmd(harness, command)
            .stdin_file(leash_end)
            .stdout_file(output_end)
            .stderr_file(console_end)
            .env("PATH", tools.virtme.search_path())
            .env("HOME", &scratch)
            .env("TMPDIR", &scratch)
            .unchecked()
            .start()
            .context("cannot start the guest's guard")?;
        let (sender, lines) = mpsc::channel();
        forward(output, sender.clone(), Line::Output);
        forward(console, sender, Line::Console);
        Ok(Self {
            handle,
            leash: Some(leash),
            lines,
            qemu: Vec::new(),
            directory,
        })
    }

    /// Notes QEMU's command line once it runs.
    pub fn note_qemu(&mut self) {
        if self.qemu.is_empty() {
            let arguments = self
                .handle
                .pids()
                .into_iter()
                .find_map(qemu::command_line_below);
            let directory = self.directory.path().to_string_lossy();
            self.qemu = arguments
                .unwrap_or_default()
                .iter()
                .map(|argument| argument.replace(&*directory, RUN_VARIABLE))
                .collect();
        }
    }

    /// Lets the leash go and waits until the guard has ended everything.
    ///
    /// # Errors
    /// If something survives it.
    pub fn stop(mut self) -> Result<()> {
        self.leash = None;
        let deadline = Instant::now() + KILL_DEADLINE;
        while self
            .handle
            .try_wait()
            .context("cannot wait for the guard")?
            .is_none()
        {
            if Instant::now() > deadline {
                anyhow::bail!(
                    "the guard (process {:?}) does not end: look at it with `ps f`",
                    self.handle.pids()
                );
            }
            thread::sleep(POLL);
        }
        self.directory
            .close()
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .context("cannot remove the guest's root")
    }
}

/// Sends the lines of `pipe` until its end.
fn forward(pipe: PipeReader, sender: Sender<Line>, kind: fn(String) -> Line) {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut bytes) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if sender.send(kind(line)).is_err() {
                break;
            }
        }
    });
}
