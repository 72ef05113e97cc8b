// SPDX-License-Identifier: GPL-2.0

//! `mutex_proxy.ko`: redirects connections to upstream servers, transparently.

use kernel::prelude::*;

// What the two modules share, and the host has as crates: each module uses its own part of it.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../abi/mod.rs"]
mod abi;
#[allow(dead_code, unreachable_pub)]
#[path = "../datapath/mod.rs"]
mod datapath;
#[allow(dead_code)]
#[path = "../sys/parameters.rs"]
mod parameters;
#[allow(dead_code)]
#[path = "../sys/mod.rs"]
mod sys;

mod batch;
mod control;
mod events;
mod expiry;
mod facts;
mod flows;
mod hosted;
mod icmp;
mod instance;
mod later_hooks;
mod memory;
mod monitor;
mod redirect;
mod registry;
mod reinject;
mod route_lookup;
mod rule_set;
#[cfg(shared_counter)]
mod shared_counter;
mod slots;
mod slow_path;
mod told;

sys::version::kernel_module! {
    { type: ProxyModule, name: "mutex_proxy", }
    { description: "Transparent proxy", }
}

struct ProxyModule {
    _family: sys::netlink::Registered<control::Control>,
}

impl kernel::Module for ProxyModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _family: sys::netlink::Registered::new(control::Control::new()?)?,
        })
    }
}
