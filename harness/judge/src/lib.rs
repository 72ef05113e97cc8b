// SPDX-License-Identifier: MIT OR Apache-2.0

//! TODO

pub mod bisect;
pub mod claims;
pub mod compare;
pub mod golden;
pub mod instrument;
pub mod matrix;
