// SPDX-License-Identifier: GPL-2.0

//! The hooks before and after all others, at every place of a packet's way.

use core::marker::PhantomData;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::Family;
use crate::datapath::link::ReadGuard;
use crate::meter::Meter;
use crate::sys::hooks::{self, Hook, Hooknum, Packet, Registration, Verdict};
use crate::sys::net::Namespace;

/// All hooks of one meter.
pub(crate) type Registered = hooks::Registered<Meter>;

const BEFORE: bool = false;
const AFTER: bool = true;

struct End<const V6: bool, const HOOKNUM: u8, const WHICH: bool>(PhantomData<()>);

const fn hooknum(number: u8) -> Hooknum {
    const PRE_ROUTING: u8 = Hooknum::PreRouting as u8;
    const LOCAL_IN: u8 = Hooknum::LocalIn as u8;
    const FORWARD: u8 = Hooknum::Forward as u8;
    const LOCAL_OUT: u8 = Hooknum::LocalOut as u8;
    match number {
        PRE_ROUTING => Hooknum::PreRouting,
        LOCAL_IN => Hooknum::LocalIn,
        FORWARD => Hooknum::Forward,
        LOCAL_OUT => Hooknum::LocalOut,
        _ => Hooknum::PostRouting,
    }
}

impl<const V6: bool, const HOOKNUM: u8, const WHICH: bool> Hook for End<V6, HOOKNUM, WHICH> {
    type Target = Meter;
    const FAMILY: Family = if V6 { Family::V6 } else { Family::V4 };
    const HOOKNUM: Hooknum = hooknum(HOOKNUM);

    fn run(meter: &Meter, _: ReadGuard, mut packet: Packet<'_>) -> Verdict {
        if WHICH == BEFORE {
            meter.before(Self::FAMILY, Self::HOOKNUM, &mut packet);
        } else {
            meter.after(Self::HOOKNUM, &packet);
        }
        Verdict::ACCEPT
    }
}

fn ends<const V6: bool, const HOOKNUM: u8>() -> [Registration<Meter>; 2] {
    // Of two hooks with one priority the one registered later runs first: conntrack's confirm has
    // the highest priority too, and is registered after the probe.
    [
        Registration::new::<End<V6, HOOKNUM, BEFORE>>(i32::MIN),
        Registration::new::<End<V6, HOOKNUM, AFTER>>(i32::MAX),
    ]
}

fn family<const V6: bool>() -> [[Registration<Meter>; 2]; 5] {
    [
        ends::<V6, { Hooknum::PreRouting as u8 }>(),
        ends::<V6, { Hooknum::LocalIn as u8 }>(),
        ends::<V6, { Hooknum::Forward as u8 }>(),
        ends::<V6, { Hooknum::LocalOut as u8 }>(),
        ends::<V6, { Hooknum::PostRouting as u8 }>(),
    ]
}

/// Puts the probe's hooks into `net`, for `meter`.
pub(crate) fn register(net: &Namespace, meter: Arc<Meter>) -> Result<Registered> {
    let all = Iterator::chain(family::<false>().into_iter(), family::<true>()).flatten();
    hooks::Registered::new(net, meter, all)
}
