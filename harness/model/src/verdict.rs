// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a cell, a test or a boot ended, by whose fault it is.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How it ended. Only [`Verdict::Ok`] is a pass.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything was as it should be.
    Ok,
    /// Wall mode: too unstable to say anything.
    Noisy,
    /// A wrong result: a packet went astray, a test's assertion did not hold.
    Failed,
    /// The kernel complained: a warning, an oops, a report of KASAN or lockdep.
    Splat,
    /// The kernel panicked.
    Panic,
    /// The guest came up and then fell silent.
    Hang,
    /// The guest never came up.
    Boot,
    /// Our own machinery or the host failed; says nothing about the kernel or the module.
    Infra,
}

impl Verdict {
    /// The name in results and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Noisy => "noisy",
            Self::Failed => "failed",
            Self::Splat => "splat",
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::Boot => "boot",
            Self::Infra => "infra",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A verdict and, unless it is a pass, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub verdict: Verdict,
    /// Why, for a person; empty if it is a pass.
    pub reason: String,
}

impl Ending {
    /// A pass.
    pub const fn ok() -> Self {
        Self {
            verdict: Verdict::Ok,
            reason: String::new(),
        }
    }

    /// Anything else.
    pub fn bad(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            verdict,
            reason: reason.into(),
        }
    }

    /// Whether it is a pass.
    pub fn is_ok(&self) -> bool {
        self.verdict == Verdict::Ok
    }
}
