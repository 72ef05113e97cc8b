// SPDX-License-Identifier: MIT OR Apache-2.0

//! What was said of the optimizations, and what measuring says of it.

pub mod cells;
pub mod claim;
pub mod creation;
pub mod latency;
pub mod lookup;
pub mod report;
pub mod scaling;
pub mod steps;
pub mod throughput;
