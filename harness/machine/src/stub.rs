// SPDX-License-Identifier: MIT OR Apache-2.0

//! QEMU's stub for debuggers.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{bail, Context, Result};

/// Where a debugger can attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stub {
    /// A port of TCP of this machine's loopback.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

impl FromStr for Stub {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('/') {
            let path = std::path::absolute(text).context("cannot find the current directory")?;
            return Ok(Self::Socket(path));
        }
        match text.parse() {
            Ok(port @ 1..) => Ok(Self::Port(port)),
            _ => bail!("{text:?} is neither a port of TCP, such as 1234, nor a path with a /"),
        }
    }
}

impl Stub {
    /// Arguments to QEMU: to open it, and to wait there before the first instruction.
    pub fn qemu_arguments(&self, waits: bool) -> Vec<String> {
        let mut arguments = vec!["-gdb".to_owned(), self.device()];
        if waits {
            arguments.push("-S".to_owned());
        }
        arguments
    }

    /// The command that attaches, with the symbols of a kernel.
    pub fn command(&self, vmlinux: &Path) -> String {
        let vmlinux = vmlinux.display();
        format!("gdb -q {vmlinux} -ex 'target remote {}'", self.target())
    }

    /// As QEMU is told.
    fn device(&self) -> String {
        match self {
            Self::Port(port) => format!("tcp:127.0.0.1:{port}"),
            Self::Socket(path) => format!("unix:{},server=on,wait=off", path.display()),
        }
    }

    /// As gdb is told.
    fn target(&self) -> String {
        match self {
            Self::Port(port) => format!("127.0.0.1:{port}"),
            Self::Socket(path) => path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_a_port_or_a_path() {
        assert_eq!("1234".parse::<Stub>().unwrap(), Stub::Port(1234));
        let path = PathBuf::from("/tmp/gdb");
        assert_eq!("/tmp/gdb".parse::<Stub>().unwrap(), Stub::Socket(path));
        for wrong in ["0", "65536", "7.3", "host:1234", ""] {
            assert!(wrong.parse::<Stub>().is_err(), "{wrong}");
        }
    }
}
