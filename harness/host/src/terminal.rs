// SPDX-License-Identifier: MIT OR Apache-2.0

//! The terminal that somebody sits at: made raw, so that each key goes where it should, and put right
//! again whatever happens.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::libc;
use nix::pty::Winsize;
use nix::sys::termios::{cfmakeraw, tcgetattr, tcsetattr, SetArg, Termios};
use nix::unistd::ttyname;

/// Requests of ioctl_tty(2).
mod request {
    use nix::libc;
    use nix::pty::Winsize;

    nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, Winsize);
}

/// Ends what a program may have begun on a terminal that it cannot end any more: bracketed paste, a hidden
/// cursor, the alternate screen (xterm's control sequences).
pub const TIDY: &str = "\x1b[?2004l\x1b[?25h\x1b[?47l\r\n";

/// Width and height of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// A terminal with the settings that it had.
pub struct Saved {
    terminal: File,
    /// Its name; in a container it may have none.
    path: Option<PathBuf>,
    settings: Termios,
}

impl Saved {
    /// That of standard input, if somebody sits there: `None` if either standard stream is none.
    ///
    /// # Errors
    /// If its settings cannot be read.
    pub fn of_standard_streams() -> Result<Option<Self>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let terminal = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("cannot copy a descriptor")?;
        Self::new(terminal.into(), ttyname(io::stdin()).ok()).map(Some)
    }

    /// The terminal called `path`. It does not become this process's.
    ///
    /// # Errors
    /// If it cannot be opened, or is none.
    pub fn of(path: &Path) -> Result<Self> {
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(path)
            .with_context(|| format!("cannot open the terminal {}", path.display()))?;
        Self::new(terminal, Some(path.to_owned()))
    }

    fn new(terminal: File, path: Option<PathBuf>) -> Result<Self> {
        let settings = tcgetattr(&terminal).context("cannot read the terminal's settings")?;
        Ok(Self {
            terminal,
            path,
            settings,
        })
    }

    /// Another handle for the same.
    ///
    /// # Errors
    /// If there are too many.
    pub fn try_clone(&self) -> Result<Self> {
        let terminal = self.terminal.try_clone();
        Ok(Self {
            terminal: terminal.context("cannot copy a descriptor")?,
            path: self.path.clone(),
            settings: self.settings.clone(),
        })
    }

    /// Its name, by which other processes find it, if it has one here.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Its size now.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn size(&self) -> Result<Size> {
        let mut size = Winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: The descriptor is open, and there is room for a whole `Winsize`.
        unsafe { request::window_size(self.terminal.as_raw_fd(), &raw mut size) }
            .context("cannot read the terminal's size")?;
        Ok(Size {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }

    /// Makes it raw for as long as what is returned lives.
    ///
    /// # Errors
    /// If it refuses.
    pub fn make_raw(&self) -> Result<Raw<'_>> {
        self.set(&self.raw_settings())?;
        Ok(Raw(self))
    }

    /// Gives it back the settings that it had, if it is still raw. Who has set something else since knows
    /// better.
    ///
    /// # Errors
    /// If it is gone, or refuses.
    pub fn put_right(&self) -> Result<()> {
        let now = tcgetattr(&self.terminal).context("cannot read the terminal's settings")?;
        if now == self.raw_settings() {
            self.set(&self.settings)?;
        }
        Ok(())
    }

    fn raw_settings(&self) -> Termios {
        let mut raw = self.settings.clone();
        cfmakeraw(&mut raw);
        raw
    }

    fn set(&self, settings: &Termios) -> Result<()> {
        tcsetattr(&self.terminal, SetArg::TCSADRAIN, settings).context("cannot set up the terminal")
    }
}

/// A terminal that is raw until this is dropped.
pub struct Raw<'a>(&'a Saved);

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // It goes with its window.
        let _ = self.0.set(&self.0.settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pty::Pty;
    use nix::sys::termios::LocalFlags;

    const SIZE: Size = Size {
        rows: 20,
        columns: 70,
    };

    fn terminal() -> (Pty, Saved) {
        let pty = Pty::new(SIZE).unwrap();
        let saved = Saved::of(pty.path()).unwrap();
        assert_eq!(saved.size().unwrap(), SIZE);
        (pty, saved)
    }

    #[test]
    fn a_raw_terminal_is_put_right_when_it_is_let_go() {
        let (_pty, saved) = terminal();
        let raw = saved.make_raw().unwrap();
        let now = tcgetattr(&saved.terminal).unwrap();
        assert!(!now.local_flags.contains(LocalFlags::ISIG));
        drop(raw);
        assert_eq!(tcgetattr(&saved.terminal).unwrap(), saved.settings);
    }

    #[test]
    fn only_a_raw_terminal_is_put_right_by_others() {
        let (_pty, saved) = terminal();
        std::mem::forget(saved.make_raw().unwrap());
        saved.put_right().unwrap();
        assert_eq!(tcgetattr(&saved.terminal).unwrap(), saved.settings);
        let mut other = saved.settings.clone();
        other.local_flags.remove(LocalFlags::ECHO);
        saved.set(&other).unwrap();
        saved.put_right().unwrap();
        assert_eq!(tcgetattr(&saved.terminal).unwrap(), other);
    }
}
