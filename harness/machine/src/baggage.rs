// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest gets beside the agent and our modules.

use std::path::PathBuf;

use crate::program::Program;

/// Programs and files for a guest; none by default.
#[derive(Clone, Debug, Default)]
pub struct Baggage {
    /// Programs, with the libraries that they load.
    pub programs: Vec<Program>,
    /// Files, which may be run if they may here, with the libraries of those that are programs.
    pub files: Vec<Packed>,
}

/// A file for a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Where it lies in the guest.
    pub path: String,
    /// Where it lies here.
    pub file: PathBuf,
}
