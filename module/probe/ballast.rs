// SPDX-License-Identifier: GPL-2.0

//! Hooks of known cost between the probe's: the probe must measure exactly that.

use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::Family;
use crate::datapath::link::ReadGuard;
use crate::sys::ballast;
use crate::sys::hooks::{Hook, Hooknum, Packet, Registered, Registration, Verdict};
use crate::sys::net::Namespace;

struct Middle<const V6: bool, const LOCAL: bool>;

impl<const V6: bool, const LOCAL: bool> Hook for Middle<V6, LOCAL> {
    type Target = AtomicU16;
    const FAMILY: Family = if V6 { Family::V6 } else { Family::V4 };
    const HOOKNUM: Hooknum = if LOCAL {
        Hooknum::LocalOut
    } else {
        Hooknum::PreRouting
    };

    fn run(instructions: &AtomicU16, _: ReadGuard, _: Packet<'_>) -> Verdict {
        ballast::execute(instructions.load(Relaxed));
        Verdict::ACCEPT
    }
}

/// The hooks: each packet meets one, where its way begins.
pub(crate) struct Ballast {
    instructions: Arc<AtomicU16>,
    _hooks: Registered<AtomicU16>,
}

impl Ballast {
    /// Makes each packet of `net` cost a constant more.
    pub(crate) fn new(net: &Namespace) -> Result<Self> {
        let instructions = Arc::new(AtomicU16::new(0), GFP_KERNEL)?;
        // Before the proxy: as a later hook it might change routes, and so cost more than its instructions.
        const FIRST: i32 = i32::MIN + 1;
        let hooks = [
            Registration::new::<Middle<false, false>>(FIRST),
            Registration::new::<Middle<false, true>>(FIRST),
            Registration::new::<Middle<true, false>>(FIRST),
            Registration::new::<Middle<true, true>>(FIRST),
        ];
        Ok(Self {
            _hooks: Registered::new(net, instructions.clone(), hooks)?,
            instructions,
        })
    }

    /// From now on each packet takes `instructions` and the constant more.
    pub(crate) fn set(&self, instructions: u16) {
        self.instructions.store(instructions, Relaxed);
    }
}
