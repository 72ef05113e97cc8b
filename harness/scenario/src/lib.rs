// SPDX-License-Identifier: MIT OR Apache-2.0

//! A scenario: one question and what must be measured to answer it, from a TOML file, and the plan of its cells.
//!
//! Must not know: kernels' trees, guests, results. A mistake is told with its place.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod caches;
mod check;
mod file;
mod named;
mod parameter;
pub mod plan;
mod question;
#[cfg(test)]
mod tests;
mod throughput;
mod traffic;
mod values;

pub use file::ScenarioFile;
pub use named::Named;
pub use parameter::{ParameterValue, Parameters};
pub use question::{Combine, Exclusion, Scenario};
pub use throughput::SearchMatrix;
pub use toml_mistake::{nearest, place, syntax, Mistake, Place};
pub use traffic::TrafficMatrix;
pub use values::{FromNumber, Values};
