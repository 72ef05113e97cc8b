// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab bisect`: which commit changed what a packet costs.

pub mod halving;
pub mod value;
