// SPDX-License-Identifier: MIT OR Apache-2.0

//! What time is counted in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What time is counted in. Results of different modes are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Instructions: the same on every machine.
    Virtual,
    /// Real time: many boots and statistics, and KVM that works.
    Wall,
}
