// SPDX-License-Identifier: MIT OR Apache-2.0

//! What somebody wants who looks around in a guest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The port of virtio's over which the terminal goes.
pub const PORT: &str = "mutexlab.shell";
/// The tag of the host's files.
pub const HOST_FILES: &str = "mutexlab.host";

/// Width and height of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// What is to be run, with what, and before what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    /// Parameters of the module.
    pub parameters: BTreeMap<String, String>,
    /// Whether the module is to have rules that redirect.
    pub rules: bool,
    /// The command and its arguments; if there are none, a shell.
    pub command: Vec<String>,
    /// The terminal; without one, input and both outputs are pipes.
    pub terminal: Option<Size>,
    /// Variables of the environment, beside those that the guest sets.
    pub environment: BTreeMap<String, String>,
}
