// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pseudo-terminals: pty(7).

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::libc;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt, Winsize};
use nix::unistd::setsid;

use crate::terminal::Size;

/// Requests of ioctl_tty(2).
mod request {
    use nix::libc;
    use nix::pty::Winsize;

    nix::ioctl_write_int_bad!(set_controlling_terminal, libc::TIOCSCTTY);
    nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);
}

/// A terminal that a program is at the other side of.
pub struct Pty {
    /// The side that is not the terminal: what is written to it is typed, and what is shown is read.
    pub master: File,
    path: PathBuf,
}

impl Pty {
    /// Makes one of the given size.
    ///
    /// # Errors
    /// If the system has no more, or no pts file system.
    pub fn new(size: Size) -> Result<Self> {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .context("cannot make a terminal")?;
        grantpt(&master)
            .and_then(|()| unlockpt(&master))
            .context("cannot unlock the terminal")?;
        let path = ptsname_r(&master).context("the terminal has no name")?;
        let pty = Self {
            master: OwnedFd::from(master).into(),
            path: path.into(),
        };
        resize(&pty.master, size)?;
        Ok(pty)
    }

    /// The terminal's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has `command` be the first of a session whose terminal it is. It stays open here for as long as
    /// `command` lives.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn attach(&self, command: &mut Command) -> Result<()> {
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(&self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))?;
        let copy = || terminal.try_clone().context("cannot copy a descriptor");
        command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
        // SAFETY: Between fork and exec the child does nothing but two system calls.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                request::set_controlling_terminal(libc::STDIN_FILENO, 0)?;
                Ok(())
            });
        }
        Ok(())
    }
}

/// Gives a terminal, of which `side` is either side, another size; its programs are told by SIGWINCH.
///
/// # Errors
/// If the system refuses.
pub fn resize(side: &File, Size { rows, columns }: Size) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: The descriptor is open, and the kernel reads a whole `Winsize`.
    unsafe { request::set_window_size(side.as_raw_fd(), &raw const size) }
        .map(drop)
        .context("cannot set the terminal's size")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_terminal_has_its_size_and_is_the_command_s_own() {
        let mut pty = Pty::new(Size {
            rows: 31,
            columns: 97,
        })
        .unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "stty size; tty; : </dev/tty && echo own"]);
        pty.attach(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut text = Vec::new();
        // EIO at the end.
        let _ = pty.master.read_to_end(&mut text);
        assert!(child.wait().unwrap().success());
        let expected = format!("31 97\r\n{}\r\nown\r\n", pty.path().display());
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
