// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is measured: how each subject is put up, asked and taken down.

mod daemon;
mod declared;
pub mod direct;
pub mod installation;
pub mod installed;
mod module;
