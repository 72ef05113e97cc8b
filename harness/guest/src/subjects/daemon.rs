// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs of a subject's that stay, such as a proxy in user space.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::kernel::resident::Resident;
use crate::net::namespace::Namespace;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::datapath::Daemon;

/// How long a program may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// A process that ends when this is dropped.
pub struct Process {
    child: Child,
    // Kept, so that it need not wait for the host.
    files: Vec<Resident>,
}

impl Process {
    /// Starts `daemon` in `namespace`, and waits until it listens.
    pub fn start(daemon: &Daemon, namespace: &Namespace, family: Family) -> Result<Self> {
        let name = &daemon.program;
        ensure!(
            Path::new(name).exists(),
            "there is no {name} in the guest's root"
        );
        let mut command = Command::new(name);
        command
            .args(&daemon.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        // The child is made by this thread, and so is in its namespace.
        let child = namespace.run(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {name}"))
        })?;
        let mut process = Self {
            child,
            files: Vec::new(),
        };
        if let Some(mut stdin) = process.child.stdin.take() {
            // Closed afterwards: that is the input's end.
            stdin
                .write_all(daemon.input.as_bytes())
                .with_context(|| format!("{name} does not read"))?;
        }
        if let Some(port) = daemon.listens {
            process.wait_until_it_listens(name, namespace, family, port)?;
        }
        // It may have ended, or have left what it does to another process, which nobody would end.
        if let Some(status) = process
            .child
            .try_wait()
            .context("cannot ask for a process")?
        {
            anyhow::bail!("{name} does not stay: {status}; have it run in the foreground");
        }
        if daemon.resident {
            process.files = Resident::of_process(process.child.id())?;
        }
        Ok(process)
    }

    fn wait_until_it_listens(
        &mut self,
        name: &str,
        namespace: &Namespace,
        family: Family,
        port: u16,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !listens(namespace, family, port)? {
            if let Some(status) = self.child.try_wait().context("cannot ask for a process")? {
                anyhow::bail!("{name} ended before it listened: {status}");
            }
            ensure!(
                Instant::now() < deadline,
                "{name} does not listen at port {port} after {PATIENCE:?}"
            );
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The time that it has spent, in and for it: without interrupts that came while nothing ran, but with the
    /// softirqs that it ran.
    pub fn cpu_time(&self) -> Result<Duration> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        let clock = clock_getcpuclockid(pid).context("a process has no clock")?;
        Ok(clock_gettime(clock)
            .context("cannot read a process's clock")?
            .into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether something listens at a port of TCP in `namespace`.
fn listens(namespace: &Namespace, family: Family, port: u16) -> Result<bool> {
    // Not /proc/net: that is the main thread's. A socket of IPv6 may be for both.
    let paths: &[&str] = match family {
        Family::V4 => &["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
        Family::V6 => &["/proc/thread-self/net/tcp6"],
    };
    namespace.run(|| {
        for path in paths {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            if has_listener(&text, port) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Lines have a number, the local address and port, the remote one, and the state, in hexadecimal
/// digits: proc_net_tcp.rst.
fn has_listener(text: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    text.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next(), words.next(), words.next());
        local.is_some_and(|local| local.ends_with(&port)) && state == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
                    \x20  0: 00000000:0C39 00000000:0000 0A 00000000:00000000\n\
                    \x20  1: 016433C6:0438 026433C6:9C40 01 00000000:00000000\n";
        assert!(has_listener(text, 3129));
        assert!(!has_listener(text, 1080), "that one is a connection");
        assert!(!has_listener(text, 7));
    }
}
