// SPDX-License-Identifier: MIT OR Apache-2.0

//! One process at a time.

use std::{
    fs::{self, File},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use mutexlab_host::interrupt::Interrupt;

/// How often a lock that another process has is asked for. flock(2) itself would wait without an
/// end: a signal that raises a flag does not end it.
const POLL: Duration = Duration::from_millis(100);

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
    /// If the file cannot be made or locked, or the user interrupts.
    pub fn acquire(path: &Path, what: &str, interrupt: &Interrupt) -> Result<Lock> {
        Self::wait(path, what, FlockArg::LockExclusiveNonblock, interrupt)
    }

    /// As [`Lock::acquire`], with others who want it shared, too: nobody has it alone meanwhile.
    ///
    /// # Errors
    /// If the file cannot be made or locked, or the user interrupts.
    pub fn shared(path: &Path, what: &str, interrupt: &Interrupt) -> Result<Lock> {
        Self::wait(path, what, FlockArg::LockSharedNonblock, interrupt)
    }

    /// The lock alone, if nobody has it.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn try_acquire(path: &Path) -> Result<Option<Lock>> {
        Ok(attempt(open(path)?, path, FlockArg::LockExclusiveNonblock)?.ok())
    }

    fn wait(path: &Path, what: &str, how: FlockArg, interrupt: &Interrupt) -> Result<Lock> {
        let mut file = match attempt(open(path)?, path, how)? {
            Ok(lock) => return Ok(lock),
            Err(file) => file,
        };
        log::info!(
            "waiting for another process that is {what} (lock {})",
            path.display()
        );
        loop {
            interrupt.check()?;
            thread::sleep(POLL);
            file = match attempt(file, path, how)? {
                Ok(lock) => return Ok(lock),
                Err(file) => file,
            };
        }
    }
}

/// The lock on `file`, or the file again if another process has it.
fn attempt(file: File, path: &Path, how: FlockArg) -> Result<Result<Lock, File>> {
    match Flock::lock(file, how) {
        Ok(file) => Ok(Ok(Lock { _file: file })),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, errno)) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use mutexlab_host::interrupt::Interrupted;

    #[test]
    fn the_second_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/lock");
        let interrupt = Interrupt::install().unwrap();
        let first = Lock::acquire(&path, "testing", &interrupt).unwrap();
        let entered = AtomicBool::new(false);
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let _second = Lock::acquire(&path, "testing", &interrupt).unwrap();
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
        let interrupt = Interrupt::install().unwrap();
        let first = Lock::shared(&path, "testing", &interrupt).unwrap();
        let second = Lock::shared(&path, "testing", &interrupt).unwrap();
        drop(first);
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        drop(second);
        assert!(Lock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let interrupt = Interrupt::install().unwrap();
        let _first = Lock::acquire(&path, "testing", &interrupt).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| Lock::shared(&path, "testing", &interrupt));
            thread::sleep(Duration::from_millis(50));
            interrupt.raise();
            let error = second.join().unwrap().unwrap_err();
            assert!(error.is::<Interrupted>(), "{error:#}");
        });
    }
}
