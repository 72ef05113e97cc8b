// SPDX-License-Identifier: MIT OR Apache-2.0

//! What stands in for a source that is gone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was taken instead of a pinned source that is gone: another version, hence another kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// Debian's package.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The suite that had it.
    pub suite: String,
    /// Who signed the suite's index; null if that could not be checked.
    pub signed_by: Option<String>,
}

impl StandIn {
    /// One line that says what it is and how far it can be trusted.
    pub fn describe(&self) -> String {
        let signed = match &self.signed_by {
            Some(who) => format!("index signed by {who}"),
            None => "NOBODY'S SIGNATURE WAS CHECKED".to_owned(),
        };
        format!(
            "{} {} of {} ({signed})",
            self.package, self.version, self.suite
        )
    }
}
