// SPDX-License-Identifier: MIT OR Apache-2.0

//! Patterns of access whose costs arithmetic tells, for the lens to look at.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the lines lie that are accessed: a place that programs do not use.
pub const BUFFER: u64 = 0x6000_0000_0000;
/// Bytes of a line.
pub const LINE: u64 = 64;
/// How many of them there are.
pub const LINES: u64 = 4096;
/// How many turns each of two CPUs takes while the lens looks on.
pub const TURNS: u64 = 50;

/// What is done while the lens looks on, on CPU 0 and perhaps CPU 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(deny_unknown_fields)]
pub enum Pattern {
    /// So many instructions and a constant.
    Instructions(u64),
    /// So many system calls.
    SystemCalls(u64),
    /// The first word of each of so many lines is read, one after the other, again and again.
    Sweep {
        /// How many lines.
        lines: u64,
        /// How often.
        times: u64,
    },
    /// Two CPUs take turns to do something with a line of memory.
    Turns(Turn),
}

/// What two CPUs do in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// Add to the same word, atomically.
    AddToOne,
    /// Write to two words of the same line, one each.
    WriteBeside,
    /// Write to two lines, one each.
    WriteApart,
    /// CPU 0 writes a word, CPU 1 reads it.
    Tell,
    /// Read the same word.
    ReadOne,
}

impl Pattern {
    /// What the lens is tested with.
    pub const ALL: [Self; 11] = [
        Self::Instructions(0),
        Self::Instructions(12_345),
        Self::SystemCalls(37),
        Self::Sweep {
            lines: 256,
            times: 5,
        },
        Self::Sweep {
            lines: 1024,
            times: 5,
        },
        Self::Sweep {
            lines: 4096,
            times: 5,
        },
        Self::Turns(Turn::AddToOne),
        Self::Turns(Turn::WriteBeside),
        Self::Turns(Turn::WriteApart),
        Self::Turns(Turn::Tell),
        Self::Turns(Turn::ReadOne),
    ];
}
