// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is different in a guest that somebody sits in front of.

use std::path::PathBuf;

/// A boot's additions for somebody who looks around: such a guest goes on after its kernel has
/// complained, since that is what one may want to look at.
#[derive(Clone, Debug, Default)]
pub struct Attended {
    /// Arguments to QEMU behind all others. None may have a blank or a sign that a shell takes for
    /// its own.
    pub qemu: Vec<String>,
    /// Arguments to the kernel behind all others.
    pub kernel: Vec<String>,
    /// Memory in MiB, if it is not to be what others get.
    pub memory_mib: Option<u32>,
    /// A directory with its sockets, which goes when nothing runs any more.
    pub directory: PathBuf,
    /// The terminal that it changes, which is put right when nothing runs any more.
    pub terminal: Option<PathBuf>,
}
