// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a guest's kernel complained of.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One complaint of the kernel's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Complaint {
    /// What kind it is.
    pub kind: Kind,
    /// The line that says so, without its time stamp.
    pub title: String,
    /// The whole report, a line each, without time stamps.
    pub text: Vec<String>,
    /// When, in seconds of the guest's time; null if the console did not say.
    pub at: Option<f64>,
}

/// What kind a complaint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The kernel gave up.
    Panic,
    /// A fault in kernel mode, or `BUG()`.
    Oops,
    /// `WARN()`.
    Warning,
    /// The Kernel Address Sanitizer.
    Kasan,
    /// The Undefined Behaviour Sanitizer.
    Ubsan,
    /// The lock validator, PROVE_RCU included.
    Lockdep,
    /// Sleeping where it is forbidden.
    AtomicSleep,
    /// A reference count out of range.
    Refcount,
    /// A broken list, slab or object.
    Corruption,
    /// RCU stall, soft or hard lockup, hung task.
    Stall,
    /// Memory or a reference that nothing frees any more.
    Leak,
    /// No memory left, so that a process had to die.
    OutOfMemory,
    /// Any other line of the log at warning level or above.
    Logged,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Panic => "panic",
            Self::Oops => "oops",
            Self::Warning => "warning",
            Self::Kasan => "kasan",
            Self::Ubsan => "ubsan",
            Self::Lockdep => "lockdep",
            Self::AtomicSleep => "atomic-sleep",
            Self::Refcount => "refcount",
            Self::Corruption => "corruption",
            Self::Stall => "stall",
            Self::Leak => "leak",
            Self::OutOfMemory => "out-of-memory",
            Self::Logged => "logged",
        })
    }
}
