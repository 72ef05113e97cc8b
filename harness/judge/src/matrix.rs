// SPDX-License-Identifier: MIT OR Apache-2.0

//! Is the module right, and what does it cost, on every kernel?

pub mod row;
#[cfg(test)]
mod sample;
pub mod split;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use row::Row;
use split::Split;

/// All that comes of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Matrix<'a> {
    /// The kernel that the others are compared with.
    pub reference: &'a str,
    /// The file with the cells.
    pub results: &'a Path,
    /// How long what took, in seconds.
    pub seconds: Seconds,
    /// The kernels, in the catalogue's order.
    pub kernels: Vec<Row>,
    /// What a packet costs on them, part by part.
    pub splits: Vec<Split>,
}

/// How long what took, in seconds.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Seconds {
    /// Getting kernels and modules ready.
    pub prepare: f64,
    /// Measuring.
    pub bench: f64,
    /// Testing.
    pub test: f64,
}
