// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's side: the agent, and what it says to the host.

pub mod protocol;
