// SPDX-License-Identifier: GPL-2.0

//! The hooks before and after all others, at every place of a packet's way.

use core::marker::PhantomData;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::Family;
use crate::datapath::link::ReadGuard;
use crate::meter::Meter;
use crate::sys::hooks::{self, Hook, Packet, Place, Registration, Verdict};
use crate::sys::net::Namespace;

/// All hooks of one meter.
pub(crate) type Registered = hooks::Registered<Meter>;

const BEFORE: bool = false;
const AFTER: bool = true;

struct End<const V6: bool, const PLACE: u8, const WHICH: bool>(PhantomData<()>);

const fn place(number: u8) -> Place {
    const PRE_ROUTING: u8 = Place::PreRouting as u8;
    const LOCAL_IN: u8 = Place::LocalIn as u8;
    const FORWARD: u8 = Place::Forward as u8;
    const LOCAL_OUT: u8 = Place::LocalOut as u8;
    match number {
        PRE_ROUTING => Place::PreRouting,
        LOCAL_IN => Place::LocalIn,
        FORWARD => Place::Forward,
        LOCAL_OUT => Place::LocalOut,
        _ => Place::PostRouting,
    }
}

impl<const V6: bool, const PLACE: u8, const WHICH: bool> Hook for End<V6, PLACE, WHICH> {
    type Target = Meter;
    const FAMILY: Family = if V6 { Family::V6 } else { Family::V4 };
    const PLACE: Place = place(PLACE);

    fn run(meter: &Meter, _: ReadGuard, mut packet: Packet<'_>) -> Verdict {
        if WHICH == BEFORE {
            meter.before(Self::FAMILY, Self::PLACE, &mut packet);
        } else {
            meter.after(Self::PLACE, &packet);
        }
        Verdict::ACCEPT
    }
}

fn ends<const V6: bool, const PLACE: u8>() -> [Registration<Meter>; 2] {
    // Of two hooks with one priority the one registered later runs first: conntrack's confirm has
    // the highest priority too, and is registered after the probe.
    [
        Registration::new::<End<V6, PLACE, BEFORE>>(i32::MIN),
        Registration::new::<End<V6, PLACE, AFTER>>(i32::MAX),
    ]
}

fn family<const V6: bool>() -> [[Registration<Meter>; 2]; 5] {
    [
        ends::<V6, { Place::PreRouting as u8 }>(),
        ends::<V6, { Place::LocalIn as u8 }>(),
        ends::<V6, { Place::Forward as u8 }>(),
        ends::<V6, { Place::LocalOut as u8 }>(),
        ends::<V6, { Place::PostRouting as u8 }>(),
    ]
}

/// Puts the probe's hooks into `net`, for `meter`.
pub(crate) fn register(net: &Namespace, meter: Arc<Meter>) -> Result<Registered> {
    let all = Iterator::chain(family::<false>().into_iter(), family::<true>()).flatten();
    hooks::Registered::new(net, meter, all)
}
