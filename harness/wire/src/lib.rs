// SPDX-License-Identifier: MIT OR Apache-2.0

//! TODO

pub mod checksum;
pub mod frame;
pub mod mutate;
