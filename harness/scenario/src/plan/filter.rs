// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which cells of a scenario are chosen.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A choice of cells by their ids. Each word of it leaves those with this text in them, or, if it begins
/// with `!`, those without what follows: `module/ !tcp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Filter(String);

impl Filter {
    /// Whether the cell with this id is chosen.
    pub fn admits(&self, id: &str) -> bool {
        self.0
            .split_whitespace()
            .all(|word| match word.strip_prefix('!') {
                Some(part) => !id.contains(part),
                None => id.contains(word),
            })
    }
}

impl FromStr for Filter {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_chosen_by_what_is_in_their_ids_or_is_not() {
        let chosen = |filter: &str| {
            let Ok(filter) = filter.parse::<Filter>();
            [
                "7.3/1cpu/none/forward-v4-udp-64",
                "7.3/1cpu/module/local-v6-tcp-64",
            ]
            .map(|id| filter.admits(id))
        };
        assert_eq!(chosen("module/"), [false, true]);
        assert_eq!(chosen("!module/"), [true, false]);
        assert_eq!(chosen(""), [true, true]);
        assert_eq!(chosen("xyz"), [false, false]);
        assert_eq!(chosen("7.3 udp"), [true, false]);
        assert_eq!(chosen("7.3  !udp"), [false, true]);
        assert_eq!(chosen("!udp !tcp"), [false, false]);
    }
}
