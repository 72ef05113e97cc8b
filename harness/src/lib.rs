// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reproducible performance engineering for in-kernel networking: the host's program, and the
//! agent that it runs in the guest.

pub mod boot;
pub mod console;
pub mod guard;
pub mod guest;
pub mod guest_root;
pub mod interrupt;
pub mod paths;
pub mod qemu;
pub mod verdict;
pub mod virtme;
