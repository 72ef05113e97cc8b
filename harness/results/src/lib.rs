// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results: what is written to `results/*.json`, and how it is read again. `results/schema.json` describes the
//! format for other programs.
//!
//! Must not know: how a number came about; it holds no kernel, QEMU or program, only what is told of them.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod closure;
mod counters;
pub mod cpu;
pub mod derive;
pub mod file;
pub mod lens_metrics;
pub mod merge;
pub mod metric;
pub mod metrics;
pub mod outcome;
mod outline;
pub mod record;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod slim;
pub mod stability;
pub mod travel;
