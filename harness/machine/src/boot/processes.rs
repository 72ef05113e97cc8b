// SPDX-License-Identifier: MIT OR Apache-2.0

//! The processes of a running guest.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use duct::Handle;

use super::deadlines::POLL;
use super::lines::Lines;
use super::terms::Boot;
use crate::guest_root;
use crate::mp_table;
use crate::qemu;
use crate::repeatable::{self, Files};
use crate::tools::Tools;
use mutexlab_host::paths;
use mutexlab_host::pipe;
use mutexlab_model::accelerator::Accelerator;

/// A killed guest may take this long to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How often a file that grows is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Stand in QEMU's command line for the boot's temporary directory, whose name is random, and for the cache, which is elsewhere on each machine.
const RUN_VARIABLE: &str = "$RUN";
const CACHE_VARIABLE: &str = "$CACHE";

/// Says in the environment of a guest's processes where its console goes, which tells them from those of all other guests.
const LOG_VARIABLE: &str = "MUTEXLAB_CONSOLE_LOG";

/// The processes that there are of the guest whose console goes to `log`: the guard and all that it started, whatever their parents are
/// now. Those that come or go meanwhile may be missed.
pub fn of_guest(log: &Path) -> Vec<u32> {
    let mut entry = format!("{LOG_VARIABLE}=").into_bytes();
    entry.extend(log.as_os_str().as_bytes());
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        // That of others cannot be read, nor is it a guest of ours. A zombie has none.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|it| it == entry)
    })
    .collect()
}

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
    cache: PathBuf,
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
        let scratch = directory.path().join("tmp");
        create_directory(&scratch)?;
        let root = guest_root::of(
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
        let repeats = boot.accelerator == Accelerator::TcgIcount;
        let files = Files::below(directory.path());
        if repeats {
            root.pack(&files.root)?;
            // QEMU makes them, but not before somebody looks.
            for file in [&files.console, &files.events] {
                File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
            }
            let (plugin, surroundings) = (tools.plugin()?, &tools.surroundings);
            command.extend(repeatable::command(
                boot,
                &files,
                table,
                plugin,
                surroundings,
            )?);
        } else {
            let shared = directory.path().join("root");
            create_directory(&shared)?;
            root.lay_out(&shared)?;
            command.extend(tools.virtme.command(boot, &shared, table)?);
        }
        // A home of its own keeps the user's configuration of virtme-ng out.
        let handle = duct::cmd(harness, command)
            .stdin_file(leash_end)
            .stdout_file(output_end)
            .stderr_file(console_end)
            .env("PATH", tools.virtme.search_path())
            .env("HOME", &scratch)
            .env("TMPDIR", &scratch)
            .env(LOG_VARIABLE, boot.console_log)
            .unchecked()
            .start()
            .context("cannot start the guest's guard")?;
        let (sender, lines) = mpsc::channel();
        let running = Arc::new(AtomicBool::new(true));
        if repeats {
            follow(&files.events, sender.clone(), Line::Output, &running)?;
            follow(&files.console, sender.clone(), Line::Console, &running)?;
        }
        forward(output, sender.clone(), Line::Output);
        // Whoever has this pipe's other end is QEMU, or started it.
        let ended = move || running.store(false, Ordering::Release);
        forward_then(console, sender, Line::Console, ended);
        Ok(Self {
            handle,
            leash: Some(leash),
            lines,
            qemu: Vec::new(),
            cache: tools.surroundings.cache.clone(),
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
            self.qemu = arguments.unwrap_or_default();
            for argument in &mut self.qemu {
                *argument = placeless(argument, self.directory.path(), &self.cache);
            }
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

/// An argument of QEMU's without the places that are other ones in each run and on each machine.
fn placeless(argument: &str, run: &Path, cache: &Path) -> String {
    let (run, cache) = (run.to_string_lossy(), cache.to_string_lossy());
    let argument = argument.replace(&*run, RUN_VARIABLE);
    argument.replace(&*cache, CACHE_VARIABLE)
}

fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Sends the lines of `pipe` until its end.
fn forward(pipe: PipeReader, sender: Sender<Line>, kind: fn(String) -> Line) {
    forward_then(pipe, sender, kind, || {});
}

/// The same, and then does `ended`.
fn forward_then(
    pipe: PipeReader,
    sender: Sender<Line>,
    kind: fn(String) -> Line,
    ended: impl FnOnce() + Send + 'static,
) {
    thread::spawn(move || {
        let mut lines = Lines::of(pipe);
        while let Ok(Some(line)) = lines.next() {
            if sender.send(kind(line)).is_err() {
                break;
            }
        }
        ended();
    });
}

/// Sends the lines of a file that grows, until nothing is `running` any more that writes to it.
fn follow(
    path: &Path,
    sender: Sender<Line>,
    kind: fn(String) -> Line,
    running: &Arc<AtomicBool>,
) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let running = Arc::clone(running);
    thread::spawn(move || {
        let mut lines = Lines::of(file);
        loop {
            // What was written before it ended is read after that was seen.
            let goes_on = running.load(Ordering::Acquire);
            while let Ok(Some(line)) = lines.next_whole() {
                if sender.send(kind(line)).is_err() {
                    return;
                }
            }
            if !goes_on {
                if let Some(line) = lines.rest() {
                    let _ = sender.send(kind(line));
                }
                return;
            }
            thread::sleep(LOOK);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_command_line_names_no_place_of_this_machine() {
        let (run, cache) = (Path::new("/scratch/r1"), Path::new("/home/me/cache"));
        let of = |argument| placeless(argument, run, cache);
        assert_eq!(
            of("id=console,path=/scratch/r1/console"),
            "id=console,path=$RUN/console"
        );
        assert_eq!(
            of("/home/me/cache/images/7.3/bzImage"),
            "$CACHE/images/7.3/bzImage"
        );
        assert_eq!(of("-smp"), "-smp");
    }

    #[test]
    fn a_guests_processes_are_told_by_its_log() {
        let log = Path::new("/nowhere/of one guest.log");
        let mut child = Command::new("sleep")
            .arg("60")
            .env(LOG_VARIABLE, log)
            .spawn()
            .unwrap();
        // A process that has just begun to execute a program has no environment for a moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while of_guest(log).is_empty() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let (found, others) = (of_guest(log), of_guest(Path::new("/nowhere/of one")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [child.id()]);
        assert!(others.is_empty() && of_guest(log).is_empty());
    }
}
