// SPDX-License-Identifier: GPL-2.0

//! The pure logic of the proxy: no kernel, no allocation, no panic, and no `unsafe` but in
//! [`link`], [`cache_set`] and [`stack`], which for that reason lie with the rest of it in `sys/`. So does
//! `host`, on which it runs in tests.
//!
//! The kernel compiles these files into `mutex_proxy.ko` and `mutex_probe.ko`; the host compiles
//! them as an ordinary crate, so that what is tested is what runs.

// In the kernel these are modules of one crate, on the host two crates.
#[cfg(MODULE)]
use crate::abi;
#[cfg(not(MODULE))]
use mutex_abi as abi;

pub mod address;
pub mod allocate;
pub mod batch;
#[path = "../sys/cache_set.rs"]
pub mod cache_set;
pub mod checksum;
pub mod configuration;
pub mod filter;
pub mod flow;
pub mod hash;
#[cfg(not(MODULE))]
#[doc(hidden)]
#[path = "../sys/host.rs"]
pub mod host;
pub mod icmp;
#[path = "../sys/keyed_slot.rs"]
pub mod keyed_slot;
#[path = "../sys/link.rs"]
pub mod link;
#[path = "../sys/arch/octave.rs"]
pub mod octave;
#[path = "../sys/arch/order.rs"]
pub mod order;
pub mod packet;
pub mod ports;
pub mod range;
pub mod ranges;
pub mod reopenings;
pub mod rules;
pub mod set;
pub mod sort;
#[path = "../sys/stack.rs"]
pub mod stack;
pub mod state;
pub mod table;
pub mod tcp;
pub mod translate;
pub mod tuple;
pub mod upstream;
pub mod walk;
#[path = "../sys/work_state.rs"]
pub mod work_state;
