// SPDX-License-Identifier: MIT OR Apache-2.0

//! Searches of RFC 2544, as it is read today (RFC 9004): they send nothing, and say what to try next.

pub mod back_to_back;
pub mod throughput;
