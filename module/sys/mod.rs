// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers for what the kernel crate lacks. All `unsafe` of the modules is here.

#[allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
// Made by the build: not there when the sources are formatted.
#[rustfmt::skip]
#[path = "bindings_generated.rs"]
mod bindings;

pub(crate) mod arch;
pub(crate) mod ballast;
pub(crate) mod cache;
pub(crate) mod counters;
#[cfg(probe)]
pub(crate) mod device;
#[cfg(probe)]
pub(crate) mod hash_mix;
pub(crate) mod hooks;
pub(crate) mod latency;
pub(crate) mod later_hooks;
mod layout;
pub(crate) mod lock;
#[cfg(probe)]
pub(crate) mod marks;
#[cfg(probe)]
pub(crate) mod memory;
#[cfg(probe)]
pub(crate) mod micro;
pub(crate) mod net;
#[cfg(not(probe))]
pub(crate) mod netlink;
pub(crate) mod percpu;
pub(crate) mod pool;
pub(crate) mod prefetch;
#[cfg(not(probe))]
pub(crate) mod procfs;
pub(crate) mod random;
pub(crate) mod rcu;
pub(crate) mod route;
pub(crate) mod skb;
pub(crate) mod skb_queue;
pub(crate) mod slab;
pub(crate) mod static_key;
pub(crate) mod task;
pub(crate) mod tasklet;
pub(crate) mod time;
pub(crate) mod try_lock;
pub(crate) mod version;
pub(crate) mod window;
pub(crate) mod work;
pub(crate) mod zeroed;
