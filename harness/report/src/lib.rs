// SPDX-License-Identifier: MIT OR Apache-2.0

//! The report: results of many runs as one page with plots.
//!
//! Results are read by names and not into the types that they were written from, since they come
//! from many commits: a subject, a metric or a histogram that this program does not know is shown
//! like any other. What a chapter shows follows from what its run varied: subjects beside each
//! other as bars, numbers of flows or CPUs as curves, settings of the module as an ablation.
//!
//! [`terminal`] shows the same to somebody at a terminal.
//!
//! Must not know: guests. It decides nothing: judgements come from `mutexlab-judge`.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod ablation;
pub mod archive;
pub mod cell;
pub mod cells;
pub mod comparison;
pub mod curves;
pub mod glossary;
pub mod golden;
pub mod headlines;
pub mod history;
pub mod overview;
pub mod page;
pub mod percentiles;
pub mod provenance;
pub mod run;
pub mod subjects;
#[cfg(any(test, feature = "sample"))]
pub mod synthetic;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod traffic;
pub mod trend;
