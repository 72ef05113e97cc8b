// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines of a guest's log at warning level or above that are no complaint, each with the reason. Any other one ends
//! its cell or test as a splat. What warns of the modules does not belong here: it is to be mended.

/// A line that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownLine {
    /// How it begins.
    pub start: &'static str,
    /// Why it is no complaint.
    pub why: &'static str,
}

const fn known(start: &'static str, why: &'static str) -> KnownLine {
    KnownLine { start, why }
}

/// All of them.
pub const ALL: &[KnownLine] = &[
    known(
        "mutex_probe: loading out-of-tree module taints kernel.",
        "true of each module that is not built in the kernel's tree, and no fault; told once",
    ),
    known(
        "mutex_proxy: loading out-of-tree module taints kernel.",
        "the same",
    ),
];

/// Whether the line of a log, without its time stamp, is no complaint.
pub fn is_known(line: &str) -> bool {
    ALL.iter().any(|known| line.starts_with(known.start))
}
