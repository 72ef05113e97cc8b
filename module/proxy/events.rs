// SPDX-License-Identifier: GPL-2.0

//! Tells those who listen what has happened in a namespace since it was looked at last. Packets are not asked: who looks is the
//! work that also removes idle flows.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::abi::netlink::context::ContextName;
use crate::abi::netlink::event::Event;
use crate::abi::proxy::Upstream;
use crate::datapath::tuple::{V4, V6};
use crate::instance::{Counter, Instance, Version};
use crate::sys::net::Namespace;
use crate::sys::netlink;
use crate::sys::rcu;

/// How many upstreams of an IP version are told of at a time; others wait for the next.
const AT_ONCE: usize = 8;

/// What was told.
pub(crate) struct Told {
    // How many packets were dropped by then because the table was full; `UNHEARD`: nobody has listened.
    dropped: AtomicU64,
}

const UNHEARD: u64 = u64::MAX;

impl Told {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Self {
            dropped: AtomicU64::new(UNHEARD),
        }
    }

    /// Looks, and tells. One task at a time. Sleeps.
    pub(crate) fn look(&self, instance: &Instance, net: &Namespace) {
        if !netlink::is_heard(net) {
            self.dropped.store(UNHEARD, Relaxed);
            return;
        }
        let counts = instance.by_cpu(Counter::DroppedTableFull);
        let dropped = counts.fold(0, u64::wrapping_add);
        match self.dropped.load(Relaxed) {
            UNHEARD => {}
            before if before == dropped => {}
            before => {
                let packets = dropped.wrapping_sub(before);
                tell(net, &Event::TableFull { packets });
            }
        }
        self.dropped.store(dropped, Relaxed);
        upstreams::<V4>(instance, net);
        upstreams::<V6>(instance, net);
    }
}

fn upstreams<A: Version>(instance: &Instance, net: &Namespace) {
    let mut news: [Option<(u32, Upstream, bool)>; AT_ONCE] = [None; AT_ONCE];
    rcu::read(|guard| {
        let rules = A::rules(instance.rules.load(guard));
        let mut all = rules.pools().iter().flat_map(|pool| {
            let owner = pool.owner;
            pool.news().map(move |(upstream, works)| (owner, upstream, works))
        });
        // What has no place stays news.
        for place in &mut news {
            *place = all.next();
        }
    });
    for (owner, upstream, works) in news.into_iter().flatten() {
        let context = instance.name_of(owner);
        let event = Event::Upstream {
            context,
            upstream,
            works,
        };
        tell(net, &event);
    }
}

fn tell(net: &Namespace, event: &Event) {
    netlink::tell(net, event.command() as u8, |writer| event.write(writer));
}

/// Tells that a context has gone. Sleeps.
pub(crate) fn context_gone(net: &Namespace, name: ContextName) {
    if netlink::is_heard(net) {
        tell(net, &Event::ContextGone { name });
    }
}
