// SPDX-License-Identifier: MIT OR Apache-2.0

//! Results: what is written to `results/*.json`, and how. `results/schema.json` describes the
//! format for other programs.

pub mod closure;
mod counters;
pub mod cpu;
pub mod derive;
pub mod file;
pub mod lens_metrics;
pub mod merge;
pub mod metrics;
pub mod outcome;
mod outline;
pub mod record;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod slim;
pub mod stability;
pub mod travel;
