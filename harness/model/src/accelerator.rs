// SPDX-License-Identifier: MIT OR Apache-2.0

//! What executes a guest's instructions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the guest's instructions are executed, and what its clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// Emulated, one instruction a nanosecond: exact and the same everywhere, on one host thread.
    TcgIcount,
    /// Emulated, in real time, on one host thread.
    Tcg,
    /// Executed by the host's CPU.
    Kvm,
}
