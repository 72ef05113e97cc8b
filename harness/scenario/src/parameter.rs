// SPDX-License-Identifier: MIT OR Apache-2.0

//! Values of the module's parameters.

use std::fmt::{self, Display};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::values::FromNumber;

/// A value of a module parameter; sysfs takes them all as text.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ParameterValue {
    /// `true` is `Y` to the kernel.
    Bool(bool),
    /// A number.
    Integer(i64),
    /// Anything else.
    Text(String),
}

impl Display for ParameterValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(true) => formatter.write_str("Y"),
            Self::Bool(false) => formatter.write_str("N"),
            Self::Integer(number) => number.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
        }
    }
}

impl FromNumber for ParameterValue {
    fn from_number(number: u32) -> Option<Self> {
        Some(Self::Integer(number.into()))
    }
}
