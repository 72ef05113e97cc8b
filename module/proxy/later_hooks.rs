// SPDX-License-Identifier: GPL-2.0

//! Whether there are later hooks at PRE_ROUTING that may change routes.
//!
//! The kernel does not tell of hooks that come and go, so they are looked for at least once a second. Where
//! there are any, all packets take the slow path: it runs these hooks inside ours, and looks a packet's route
//! up again if they changed what that depends on.

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

/// What was found, for each version of IP.
pub(crate) struct LaterHooksFound {
    v4: AtomicBool,
    v6: AtomicBool,
}

impl LaterHooksFound {
    /// Before the first look: none.
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

    /// Whether the last look found any.
    pub(crate) fn are_there(&self, family: Family) -> bool {
        self.of(family).load(Relaxed)
    }

    // Takes note, here and in the static key that packets ask first, which is on while any namespace has some.
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

/// Looks for such hooks. Sleeps; called by one task at a time.
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
