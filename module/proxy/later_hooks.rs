// SPDX-License-Identifier: GPL-2.0

//! Whether hooks come after ours that may change where packets go which come in.
//!
//! Nobody is told of hooks that come and go: they are looked for now and then. Where there are
//! any, packets of established flows leave the fast path: the hooks are run before the packet's
//! route is taken or looked up, as they would have been without ours.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::abi::proxy::Family;
use crate::batch::Batched;
use crate::datapath::tuple::{V4, V6};
use crate::instance::Instance;
use crate::parameters;
use crate::redirect::Redirect;
use crate::sys::later_hooks::LaterHooks;
use crate::sys::net::Namespace;
use crate::sys::rcu;

/// For each version of IP.
pub(crate) struct LaterHooksFound {
    v4: AtomicBool,
    v6: AtomicBool,
}

impl LaterHooksFound {
    /// None, as far as is known.
    pub(crate) const fn new() -> Self {
        Self {
            v4: AtomicBool::new(false),
            v6: AtomicBool::new(false),
        }
    }

    fn of(&self, family: Family) -> &AtomicBool {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Whether there were any when they were looked for last.
    pub(crate) fn are_there(&self, family: Family) -> bool {
        self.of(family).load(Relaxed)
    }

    // Takes note, and of whether any namespace has some: packets ask that first.
    fn set(&self, family: Family, there: bool) {
        if self.of(family).swap(there, Relaxed) != there {
            parameters::count_later_hooks(there);
        }
    }
}

impl Drop for LaterHooksFound {
    fn drop(&mut self) {
        for family in [Family::V4, Family::V6] {
            self.set(family, false);
        }
    }
}

/// Looks for them. Sleeps; called by one task at a time.
pub(crate) fn look(instance: &Instance, net: &Namespace) {
    look_at::<V4>(instance, net);
    look_at::<V6>(instance, net);
}

fn look_at<A: Batched>(instance: &Instance, net: &Namespace) {
    let there = rcu::read(|guard| {
        LaterHooks::in_namespace::<Redirect<A, false>>(guard, net, instance)
            .is_some_and(LaterHooks::may_change_routes)
    });
    instance.later_hooks.set(A::FAMILY, there);
}
