// SPDX-License-Identifier: MIT OR Apache-2.0

//! What names in a file stand for on this machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use rustix::process::{pidfd_open, Pid, PidfdFlags};

/// Where names are looked up.
pub trait System {
    /// The number of a user.
    ///
    /// # Errors
    /// Why there is none.
    fn user(&self, name: &str) -> Result<u32, String>;

    /// The number of a group of users.
    ///
    /// # Errors
    /// Why there is none.
    fn group(&self, name: &str) -> Result<u32, String>;

    /// The inode number of a control group of version 2, by its path from the root that this process sees.
    ///
    /// # Errors
    /// Why there is none.
    fn control_group(&self, path: &str) -> Result<u64, String>;

    /// The inode number of a process's pidfd.
    ///
    /// # Errors
    /// Why there is none.
    fn process(&self, number: u32) -> Result<u64, String>;

    /// What a file says.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

/// Where cgroup2 is mounted, by `/proc/self/mountinfo`: proc_pid_mountinfo(5).
fn cgroup2_root(mounts: &str) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let is_cgroup2 = kind.split(' ').next()? == "cgroup2";
        is_cgroup2
            .then(|| mount.split(' ').nth(4))
            .flatten()
            .map(PathBuf::from)
    };
    mounts.lines().find_map(of_line)
}

/// The directory of a control group of version 2, which may not be there.
///
/// # Errors
/// If cgroup2 is not mounted.
pub fn control_group_directory(path: &str) -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = cgroup2_root(&mounts)
        .ok_or("control groups of version 2 are not mounted: no file system cgroup2 is")?;
    Ok(root.join(path.trim_start_matches('/')))
}

/// The path of the control group with this inode number, if this process sees it.
pub fn control_group_path(number: u64) -> Option<String> {
    let root = control_group_directory("").ok()?;
    let mut left = vec![root.clone()];
    while let Some(directory) = left.pop() {
        if fs::metadata(&directory).is_ok_and(|found| found.ino() == number) {
            let below = directory.strip_prefix(&root).ok()?;
            return Some(format!("/{}", below.display()));
        }
        // What goes meanwhile is not asked for.
        let inner = fs::read_dir(&directory).into_iter().flatten().flatten();
        let inner = inner.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir()));
        left.extend(inner.map(|one| one.path()));
    }
    None
}

/// The process whose pidfd has this inode number, if this process sees it.
pub fn process_of(number: u64) -> Option<u32> {
    let all = fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = all.filter_map(|one| one.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|process| Machine.process(*process) == Ok(number))
}

impl System for Machine {
    fn user(&self, name: &str) -> Result<u32, String> {
        match User::from_name(name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) => Err(format!("no user is called `{name}`")),
            Err(error) => Err(format!("cannot look the user `{name}` up: {error}")),
        }
    }

    fn group(&self, name: &str) -> Result<u32, String> {
        match Group::from_name(name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            Ok(None) => Err(format!("no group of users is called `{name}`")),
            Err(error) => Err(format!("cannot look the group `{name}` up: {error}")),
        }
    }

    fn control_group(&self, path: &str) -> Result<u64, String> {
        let directory = control_group_directory(path)?;
        match fs::metadata(&directory) {
            Ok(found) => Ok(found.ino()),
            Err(error) => Err(format!(
                "there is no control group `{path}`: {}: {error}",
                directory.display()
            )),
        }
    }

    fn process(&self, number: u32) -> Result<u64, String> {
        let none = || format!("there is no process {number}");
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.ok_or_else(none)?, PidfdFlags::empty()).map_err(|_| none())?;
        let found = File::from(pidfd).metadata();
        found
            .map(|found| found.ino())
            .map_err(|error| format!("{}: {error}", none()))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_where_it_is_mounted() {
        let hybrid = "\
24 1 0:22 / /sys rw - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls
";
        let found = cgroup2_root(hybrid);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_root(&hybrid.replace("cgroup2", "cgroup")), None);
    }

    #[test]
    fn this_machine_knows_root_and_this_process() {
        assert_eq!(Machine.user("root"), Ok(0));
        assert_eq!(Machine.group("root"), Ok(0));
        let error = Machine.user("nobody-of-this-name").unwrap_err();
        assert!(error.contains("no user is called"), "{error}");
        let own = Machine.process(std::process::id()).unwrap();
        // Before 6.9 all pidfds had the same number.
        if Machine.process(std::os::unix::process::parent_id()) != Ok(own) {
            assert_eq!(process_of(own), Some(std::process::id()));
        }
        assert_eq!(Machine.process(0), Err("there is no process 0".to_owned()));
        assert!(Machine.process(u32::MAX).is_err());
    }
}
