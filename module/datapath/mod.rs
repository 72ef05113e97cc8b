// SPDX-License-Identifier: GPL-2.0

//! The pure logic of the proxy: no kernel, no `unsafe`, no allocation, no panic.
//!
//! The kernel compiles these files into `mutex_proxy.ko` and `mutex_probe.ko`; the host compiles
//! them as an ordinary crate, so that what is tested is what runs.

pub mod histogram;
