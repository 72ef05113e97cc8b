// SPDX-License-Identifier: MIT OR Apache-2.0

//! A control group of version 2 for one command: cgroups(7), "Cgroups version 2".

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, Context, Result};
use mprox_file::control_group_directory;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

/// A control group below this process's own. It is removed when this is dropped, if no process is left in it.
#[derive(Debug)]
pub struct ControlGroup {
    own: PathBuf,
    below: PathBuf,
    /// Its inode number, which conditions of rules name it by.
    pub number: u64,
}

// This process's, by /proc/self/cgroup: the line of hierarchy 0.
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

// Whether some process is in the group, by its cgroup.events.
fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

impl ControlGroup {
    /// Makes one that nobody is in.
    ///
    /// # Errors
    /// If control groups of version 2 are not mounted, or this process may not make one.
    pub fn new() -> Result<Self> {
        let text =
            fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
        let path = own_path(&text).context("the kernel has no control groups of version 2")?;
        let own = control_group_directory(path).map_err(|message| anyhow!(message))?;
        let below = own.join(format!("mprox-exec-{}", std::process::id()));
        fs::create_dir(&below)
            .with_context(|| format!("cannot make the control group {}", below.display()))?;
        let made = fs::metadata(&below);
        let number = made
            .with_context(|| format!("cannot look at {}", below.display()))?
            .ino();
        Ok(Self { own, below, number })
    }

    fn put_self(&self, directory: &Path) -> Result<()> {
        let file = directory.join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("cannot write to {}", file.display()))
    }

    /// Does `work` in the group, so that the processes that it starts are born there.
    ///
    /// # Errors
    /// If this process may not change its group, and those of `work`. If it cannot go back, what it has started is killed with it: there
    /// would be nobody to wait for that.
    pub fn within<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.put_self(&self.below)?;
        let done = work();
        if let Err(error) = self.put_self(&self.own) {
            eprintln!("mprox: {error:#}: the command is ended");
            let _ = self.kill();
            return Err(error);
        }
        done
    }

    /// The processes that are in it.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn processes(&self) -> io::Result<usize> {
        Ok(fs::read_to_string(self.below.join("cgroup.procs"))?
            .lines()
            .count())
    }

    /// Whether nobody is in it any more, or not even below it; waits for that at most a second.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn wait_until_empty(&self) -> io::Result<bool> {
        let path = self.below.join("cgroup.events");
        let events = File::open(&path)?;
        if !is_populated(&fs::read_to_string(&path)?) {
            return Ok(true);
        }
        // Told of each change since it was read.
        let mut changed = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let second = PollTimeout::from(1000_u16);
        match poll(&mut changed, second) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(!is_populated(&fs::read_to_string(&path)?))
    }

    /// Kills all who are in it.
    ///
    /// # Errors
    /// If the kernel cannot, as before 5.14.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.below.join("cgroup.kill"), "1")
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_events_are_read() {
        let hybrid = "2:net_cls:/x\n1:name=systemd:/user.slice\n0::/user.slice/user-0.slice\n";
        assert_eq!(own_path(hybrid), Some("/user.slice/user-0.slice"));
        assert_eq!(own_path("1:net_cls:/x\n"), None);
        assert!(is_populated("populated 1\nfrozen 0\n"));
        assert!(!is_populated("populated 0\nfrozen 1\n"));
    }
}
