// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all random numbers of a guest in virtual time come from.

/// The seed where nothing says otherwise.
pub const USUAL: u32 = 1;
