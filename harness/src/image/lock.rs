// SPDX-License-Identifier: MIT OR Apache-2.0

//! One process at a time.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// A lock on a file, alone or with others, held until it is dropped or its process ends in
/// whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for the lock on the file `path`, which it makes, and says so if it has to wait;
    /// `what` is what the other process is doing then.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn acquire(path: &Path, what: &str) -> Result<Lock> {
        Self::wait(
            path,
            what,
            FlockArg::LockExclusiveNonblock,
            FlockArg::LockExclusive,
        )
    }

    /// As [`Lock::acquire`], with others who want it shared, too: nobody has it alone meanwhile.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn shared(path: &Path, what: &str) -> Result<Lock> {
        Self::wait(
            path,
            what,
            FlockArg::LockSharedNonblock,
            FlockArg::LockShared,
        )
    }

    /// The lock alone, if nobody has it.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn try_acquire(path: &Path) -> Result<Option<Lock>> {
        match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Lock { _file: file })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => {
                Err(errno).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    fn wait(path: &Path, what: &str, at_once: FlockArg, patiently: FlockArg) -> Result<Lock> {
        let lock = match Flock::lock(open(path)?, at_once) {
            Err((file, Errno::EWOULDBLOCK)) => {
                eprintln!(
                    "waiting for another process that is {what} (lock {})",
                    path.display()
                );
                Flock::lock(file, patiently)
            }
            other => other,
        };
        match lock {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, errno)) => {
                Err(errno).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

// The descriptor is closed on exec, so that no child outlives us with the lock.
fn open(path: &Path) -> Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    }
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open the lock {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/lock");
        let first = Lock::acquire(&path, "testing").unwrap();
        let entered = AtomicBool::new(false);
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let _second = Lock::acquire(&path, "testing").unwrap();
                entered.store(true, Ordering::SeqCst);
            });
            thread::sleep(Duration::from_millis(100));
            assert!(!entered.load(Ordering::SeqCst));
            drop(first);
            second.join().unwrap();
        });
        assert!(entered.load(Ordering::SeqCst));
    }

    #[test]
    fn some_share_what_nobody_has_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = Lock::shared(&path, "testing").unwrap();
        let second = Lock::shared(&path, "testing").unwrap();
        drop(first);
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        drop(second);
        assert!(Lock::try_acquire(&path).unwrap().is_some());
    }
}
