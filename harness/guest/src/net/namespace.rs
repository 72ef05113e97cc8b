// SPDX-License-Identifier: MIT OR Apache-2.0

//! Network namespaces.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::panic;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{self, CloneFlags};

/// A network namespace, which lives as long as this value or anything opened in it.
pub struct Namespace {
    name: &'static str,
    descriptor: File,
}

impl Namespace {
    /// Makes an empty namespace. `name` is for messages only.
    pub fn new(name: &'static str) -> Result<Self> {
        let home = own()?;
        sched::unshare(CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot make the network namespace {name}"))?;
        let _visit = Visit { home };
        let descriptor = own()?;
        Ok(Self { name, descriptor })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs `work` in the namespace, and comes back. Sockets and devices opened by it stay in the namespace, and so do
    /// threads and programs that it starts.
    pub fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _visit = Visit::of(self)?;
        work()
    }

    /// The same in a thread of its own, for work that changes its thread: it may give away what it takes to come back, and
    /// have faults injected.
    pub fn run_apart<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let in_there = || {
            self.enter()?;
            work()
        };
        thread::scope(|scope| match scope.spawn(in_there).join() {
            Ok(result) => result,
            Err(payload) => panic::resume_unwind(payload),
        })
    }

    fn enter(&self) -> Result<()> {
        sched::setns(self.descriptor.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the network namespace {}", self.name))
    }

    /// Runs a program in the namespace to its end, and takes what it says on both streams. That it ends badly is for the
    /// caller to judge.
    pub fn output(&self, program: &duct::Expression) -> Result<std::process::Output> {
        // The child is made by this thread, and so is in its namespace.
        self.run(|| {
            Ok(program
                .stderr_to_stdout()
                .stdout_capture()
                .unchecked()
                .run()?)
        })
    }

    /// Sets a variable below /proc/sys/net.
    pub fn set_sysctl(&self, variable: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(variable);
        self.run(|| {
            fs::write(&path, value).with_context(|| {
                format!("cannot write {value} to {} ({})", path.display(), self.name)
            })
        })
    }

    /// Reads a variable below /proc/sys/net; None if this kernel does not have it.
    pub fn sysctl(&self, variable: &str) -> Result<Option<String>> {
        let path = Path::new("/proc/sys/net").join(variable);
        self.run(|| match fs::read_to_string(&path) {
            Ok(value) => Ok(Some(value.trim_end().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error)
                .with_context(|| format!("cannot read {} ({})", path.display(), self.name)),
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The calling thread's stay in another namespace, which ends when this is dropped.
struct Visit {
    home: File,
}

impl Visit {
    fn of(namespace: &Namespace) -> Result<Self> {
        let home = own()?;
        namespace.enter()?;
        Ok(Self { home })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let back = sched::setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET);
        // Whatever went on from here would measure the wrong machine.
        back.expect("the namespace that a thread comes from is there, and it was let out of it");
    }
}

/// The namespace of the calling thread. Not that of /proc/self, which is the main thread's.
fn own() -> Result<File> {
    const OWN: &str = "/proc/thread-self/ns/net";
    File::open(OWN).with_context(|| format!("cannot open {OWN}"))
}
