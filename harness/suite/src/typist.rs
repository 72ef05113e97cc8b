// SPDX-License-Identifier: MIT OR Apache-2.0

//! Somebody at a terminal, who types and reads.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::termios::{tcgetattr, Termios};

use mutexlab_host::pty::Pty;
use mutexlab_host::terminal::Size;

/// How long they wait for anything; modules may have to be built.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long after a program's end they look whether the terminal is as it was.
const AFTERWARDS: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// A program at a terminal of its own, and who sits there.
pub struct Typist {
    /// The program.
    pub child: Child,
    /// The terminal.
    pub pty: Pty,
    before: Termios,
    /// What was shown and not yet waited for.
    shown: Vec<u8>,
}

impl Typist {
    /// Starts a program.
    pub fn start(mut command: Command) -> Result<Self> {
        let pty = Pty::new(Size {
            rows: 24,
            columns: 80,
        })?;
        let before = tcgetattr(&pty.master).context("cannot read a terminal's settings")?;
        pty.attach(&mut command)?;
        let child = command
            .env("TERM", "dumb")
            .spawn()
            .context("cannot start a shell")?;
        Ok(Self {
            child,
            pty,
            before,
            shown: Vec::new(),
        })
    }

    /// Types.
    pub fn write(&mut self, text: &str) -> Result<()> {
        (self.pty.master.write_all(text.as_bytes())).context("cannot type")
    }

    /// Reads until `text` is shown.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self
                .shown
                .windows(text.len())
                .position(|part| part == text.as_bytes());
            if let Some(at) = found {
                self.shown.drain(..at + text.len());
                return Ok(());
            }
            if !self.read()? || Instant::now() > deadline {
                let shown = String::from_utf8_lossy(&self.shown);
                bail!("waited for {text:?} in vain; there is {shown:?}");
            }
        }
    }

    /// Whether the terminal's settings are those that it had before the program.
    pub fn is_as_before(&self) -> Result<bool> {
        let now = tcgetattr(&self.pty.master).context("cannot read a terminal's settings")?;
        Ok(now == self.before)
    }

    /// Waits until the program has ended, with `code` or by a signal, and the terminal is as it was.
    pub fn ended_with(mut self, code: Option<i32>) -> Result<()> {
        let status = self.wait()?;
        ensure!(status.code() == code, "it ended with {status}");
        let deadline = Instant::now() + AFTERWARDS;
        while !self.is_as_before()? {
            ensure!(
                Instant::now() < deadline,
                "the terminal is not as it was before"
            );
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Somebody has to read, or else it could not end.
            self.read()?;
            if let Some(status) = self.child.try_wait().context("cannot wait for it")? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "it does not end");
        }
    }

    /// Takes in what is shown within a moment; false if nobody has the terminal open.
    fn read(&mut self) -> Result<bool> {
        let mut ready = [PollFd::new(self.pty.master.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(POLL).context("too long a time-out")?;
        match poll(&mut ready, timeout) {
            // A signal interrupts it, such as SIGCHLD once this process has waited for a download.
            Ok(0) | Err(Errno::EINTR) => return Ok(true),
            waited => waited.context("cannot wait for a terminal")?,
        };
        let mut buffer = [0; 4096];
        // EIO says that nobody has it open.
        let Ok(length @ 1..) = self.pty.master.read(&mut buffer) else {
            thread::sleep(POLL);
            return Ok(false);
        };
        self.shown.extend(&buffer[..length]);
        Ok(true)
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        // It may have ended; its guard ends its guest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::Arc;

    use nix::sys::pthread::{pthread_kill, pthread_self};
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn a_signal_does_not_end_the_wait() {
        let seen = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR2, Arc::clone(&seen)).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.3; echo awake"]);
        let mut typist = Typist::start(command).unwrap();
        let (waiting, who) = (AtomicBool::new(true), pthread_self());
        let waited = thread::scope(|scope| {
            scope.spawn(|| {
                while waiting.load(Ordering::Relaxed) {
                    pthread_kill(who, Signal::SIGUSR2).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let waited = typist.wait_for("awake");
            waiting.store(false, Ordering::Relaxed);
            waited
        });
        waited.unwrap();
        assert!(seen.load(Ordering::Relaxed));
    }
}
