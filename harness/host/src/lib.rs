// SPDX-License-Identifier: MIT OR Apache-2.0

//! TODO

pub mod git;
pub mod guard;
pub mod hash;
pub mod interrupt;
pub mod json;
pub mod leash;
pub mod parent;
pub mod paths;
pub mod pipe;
pub mod pty;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
pub mod terminal;
