// SPDX-License-Identifier: MIT OR Apache-2.0

//! A line of a guest's log, and whether it is a complaint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::known_lines;

/// A warning's level (linux/kern_levels.h).
pub const WARNING: u8 = 4;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// Its level: 4 is a warning, 0 the worst.
    pub level: u8,
    /// When it was written, in seconds of the guest's time.
    pub at: f64,
    /// The line.
    pub text: String,
}

impl LogLine {
    /// Whether it is a complaint: a warning or worse that is not [known](known_lines).
    pub fn is_complaint(&self) -> bool {
        // What frames a report says nothing: the line in it does.
        let frames = !self.text.is_empty() && self.text.bytes().all(|byte| byte == b'=');
        self.level <= WARNING && !frames && !known_lines::is_known(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_that_are_not_known_are_complaints() {
        let line = |level, text: &str| LogLine {
            level,
            at: 0.0,
            text: text.to_owned(),
        };
        assert!(line(4, "something").is_complaint());
        assert!(line(0, "something").is_complaint());
        assert!(!line(5, "something").is_complaint());
        assert!(!line(3, "==================").is_complaint());
        for known in known_lines::ALL {
            assert!(!known.why.is_empty());
            assert!(!line(4, known.start).is_complaint());
            // Not in the middle of another one.
            assert!(line(4, &format!("x {}", known.start)).is_complaint());
        }
    }
}
