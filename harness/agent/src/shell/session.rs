// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command that somebody runs in the guest, on a terminal of its own or on pipes, and all that
//! goes to it and comes from it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{bail, Context, Result};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use mutexlab_guest::net::namespace::Namespace;
use mutexlab_host::pty;
use mutexlab_host::pty::Pty;
use mutexlab_host::terminal;
use mutexlab_protocol::frame::Frame;
use mutexlab_protocol::shell_files::{NAMESPACE_VARIABLE, PROGRAMS, SHELL_RC};
use mutexlab_protocol::visit;
use mutexlab_protocol::visit::Visit;

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Better ones first.
const SHELLS: [&str; 2] = ["/bin/bash", "/usr/bin/bash"];
const LAST_SHELL: &str = "/bin/sh";
/// Exit codes of shells for a command that is not there, and for one that cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_RUN: i32 = 126;
/// What a terminal takes for the end of what is typed: Ctrl-D.
const END_OF_INPUT: u8 = 4;
/// How much is read at a time.
const PIECE: usize = 1 << 14;

/// The command line of a shell, for somebody at a terminal or to read commands from its input.
pub fn shell(interactive: bool) -> Vec<String> {
    let bash = SHELLS.into_iter().find(|path| Path::new(path).exists());
    let words: &[&str] = match (bash, interactive) {
        (Some(bash), true) => &[bash, "--noprofile", "--rcfile", SHELL_RC, "-i"],
        (None, true) => &[LAST_SHELL, "-i"],
        (bash, false) => &[bash.unwrap_or(LAST_SHELL), "-s"],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The host's end of what the command reads and writes.
struct Streams {
    input: Option<File>,
    output: File,
    /// If it is apart from the output.
    error: Option<File>,
    /// The terminal's side that is not the command's.
    terminal: Option<File>,
}

/// Runs what `visit` asks for in `namespace`, with `port` leading to the host, until it has ended
/// and the host has all that it wrote.
pub fn run(visit: &Visit, port: File, namespace: &Namespace) -> Result<()> {
    let mut writer = port.try_clone().context("cannot copy a descriptor")?;
    let (mut child, streams) = match start(visit, namespace) {
        Ok(started) => started,
        Err(error) => {
            let code = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(ErrorKind::NotFound) => NOT_FOUND,
                _ => NOT_RUN,
            };
            let text = format!("mutexlab: {error:#}\r\n");
            Frame::Error(text.into_bytes())
                .write(&mut writer)
                .context("cannot write to the host")?;
            let (sender, farewell) = mpsc::channel();
            listen(port, None, None, sender)?;
            return part(&mut writer, code, &farewell);
        }
    };
    let ended = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).context("no eventfd")?);
    let shared = Arc::new(Mutex::new(writer));
    let mut pumps = vec![pump(streams.output, Frame::Output, &shared, &ended)];
    if let Some(error) = streams.error {
        pumps.push(pump(error, Frame::Error, &shared, &ended));
    }
    let (sender, farewell) = mpsc::channel();
    listen(port, streams.input, streams.terminal, sender)?;
    let status = child.wait().context("cannot wait for the command")?;
    ended.write(1).context("cannot write to an eventfd")?;
    for pump in pumps {
        let Ok(sent) = pump.join() else {
            bail!("a thread that sends output has panicked");
        };
        sent.context("cannot write to the host")?;
    }
    let mut writer = shared.lock().unwrap_or_else(PoisonError::into_inner);
    part(&mut writer, code_of(status), &farewell)
}

/// Tells the host the exit code, and waits until it knows. A guest that goes down sooner may take
/// with it what is still on the way.
fn part(writer: &mut File, code: i32, farewell: &mpsc::Receiver<()>) -> Result<()> {
    Frame::Ended(code)
        .write(writer)
        .context("cannot write to the host")?;
    farewell.recv().context("the host has said no farewell")
}

fn code_of(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn start(visit: &Visit, namespace: &Namespace) -> Result<(Child, Streams)> {
    let words = if visit.command.is_empty() {
        shell(visit.terminal.is_some())
    } else {
        visit.command.clone()
    };
    let [program, arguments @ ..] = words.as_slice() else {
        bail!("no command given");
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/root")
        .envs(&visit.environment)
        .env("PATH", format!("{PROGRAMS}:{SEARCH_PATH}"))
        .env("HOME", "/root")
        .env("USER", "root")
        .env("ENV", SHELL_RC)
        .env(NAMESPACE_VARIABLE, namespace.name());
    let terminal = match visit.terminal {
        Some(size) => {
            let pty = Pty::new(told(size))?;
            pty.attach(&mut command)?;
            Some(pty.master)
        }
        None => {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            None
        }
    };
    let mut child = namespace.run(|| {
        command
            .spawn()
            .with_context(|| format!("cannot run {program}"))
    })?;
    let streams = match terminal {
        Some(terminal) => {
            let copy = || terminal.try_clone().context("cannot copy a descriptor");
            Streams {
                input: Some(copy()?),
                output: copy()?,
                error: None,
                terminal: Some(terminal),
            }
        }
        None => Streams {
            input: child.stdin.take().map(|pipe| OwnedFd::from(pipe).into()),
            output: File::from(OwnedFd::from(child.stdout.take().context("no pipe")?)),
            error: child.stderr.take().map(|pipe| OwnedFd::from(pipe).into()),
            terminal: None,
        },
    };
    Ok((child, streams))
}

/// Sends what comes `from` there to the host until it ends, or until `ended` is raised and nothing
/// more is there: who was left behind in the background may keep it open.
fn pump(
    mut from: File,
    frame: fn(Vec<u8>) -> Frame,
    port: &Arc<Mutex<File>>,
    ended: &Arc<EventFd>,
) -> JoinHandle<io::Result<()>> {
    let (port, ended) = (Arc::clone(port), Arc::clone(ended));
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let mut ready = [
                PollFd::new(from.as_fd(), PollFlags::POLLIN),
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut ready, PollTimeout::NONE)?;
            if !ready[0].any().unwrap_or(false) {
                return Ok(());
            }
            match from.read(&mut buffer) {
                Ok(length @ 1..) => {
                    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
                    frame(buffer[..length].to_vec()).write(&mut *port)?;
                }
                // A terminal whose other side nobody has open any more gives EIO.
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    })
}

/// Takes what the host says, until it says farewell, which is passed on.
fn listen(
    mut port: File,
    mut input: Option<File>,
    terminal: Option<File>,
    farewell: Sender<()>,
) -> Result<()> {
    let mut take = move || -> Result<()> {
        while let Some(frame) = Frame::read(&mut port)? {
            match frame {
                Frame::Input(bytes) => {
                    if let Some(to) = &mut input
                        && to.write_all(&bytes).is_err()
                    {
                        // It reads no more.
                        input = None;
                    }
                }
                Frame::InputEnd => match (&terminal, &mut input) {
                    (Some(_), Some(to)) => to.write_all(&[END_OF_INPUT])?,
                    _ => input = None,
                },
                Frame::Size(size) => {
                    if let Some(terminal) = &terminal {
                        pty::resize(terminal, told(size))?;
                    }
                }
                Frame::Farewell => {
                    // Nobody waits for it if the agent has given up meanwhile.
                    let _ = farewell.send(());
                    break;
                }
                Frame::Output(_) | Frame::Error(_) | Frame::Ended(_) => {}
            }
        }
        Ok(())
    };
    thread::Builder::new()
        .spawn(move || {
            if let Err(error) = take() {
                eprintln!("mutexlab shell: cannot read from the host: {error:#}");
            }
        })
        .map(drop)
        .context("cannot start a thread")
}

/// The size that the host told of.
fn told(visit::Size { rows, columns }: visit::Size) -> terminal::Size {
    terminal::Size { rows, columns }
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(code_of(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code_of(ExitStatus::from_raw(libc::SIGTERM)), 128 + 15);
    }
}
