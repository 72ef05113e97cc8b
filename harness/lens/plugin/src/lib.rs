// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lens: a plugin of QEMU's that sees every instruction and every access to memory of a guest, and
//! tells where those of a packet go.
//!
//! It needs no symbols: what it records names addresses, which the harness turns into functions and
//! objects. Outside of windows it only looks for the marks of [`mutex_abi::marks`] in what is
//! translated, which costs little.
//!
//! - `plugin` is what QEMU calls, `api` what it offers: all `unsafe` code is there.
//! - `turns` keeps the virtual clock in step, lens or no lens: it is what makes a boot repeat. For that this library is loaded before QEMU (`preload`), which
//!   needs no plugin.
//! - [`watch`] puts together what is seen: [`calls`] follows who called whom, [`memory`] models the
//!   caches.
//!
//! What goes in and comes out is in the crate `mutexlab-lens-recording`.
//!
//! Must not know: anything but its settings.

mod api;
pub mod cache;
pub mod calls;
pub mod instruction;
pub mod line;
pub mod memory;
mod plugin;
// A test's program has its own.
#[cfg(not(test))]
mod preload;
mod ram;
pub mod recency;
pub mod sharing;
pub mod tree;
pub mod turns;
pub mod watch;
