// SPDX-License-Identifier: GPL-2.0

//! What rules ask of a connection's first packet beside where it goes.

use core::marker::PhantomData;

use crate::abi::proxy::Field;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::Header;
use crate::datapath::rules::{self, Name};
use crate::sys::hooks::Packet;

/// Of a packet of this IP version at one of our hooks.
pub(crate) struct Facts<'a, 'p, A> {
    packet: &'a Packet<'p>,
    guard: &'a ReadGuard,
    version: PhantomData<fn() -> A>,
}

impl<'a, 'p, A> Facts<'a, 'p, A> {
    #[inline(always)]
    pub(crate) fn new(packet: &'a Packet<'p>, guard: &'a ReadGuard) -> Self {
        Self {
            packet,
            guard,
            version: PhantomData,
        }
    }
}

/// So many processes at most are asked of those that one descends from.
const GENERATIONS: usize = 64;

// There is at least one, or nothing is known.
#[inline(always)]
fn any(numbers: impl Iterator<Item = u64>, mut is: impl FnMut(u64) -> bool) -> Option<bool> {
    let mut known = None;
    for number in numbers {
        if is(number) {
            return Some(true);
        }
        known = Some(false);
    }
    known
}

impl<A: Header> rules::Facts for Facts<'_, '_, A> {
    fn interface(&self) -> Name {
        self.packet.state.interface()
    }

    fn program(&self) -> Option<Name> {
        self.packet.state.program(self.guard)
    }

    #[inline(always)]
    fn any(&self, field: Field, mut is: impl FnMut(u64) -> bool) -> Option<bool> {
        let state = self.packet.state;
        let number = match field {
            Field::Mark => self.packet.skb.mark().into(),
            Field::Dscp => A::dscp(self.packet.skb.linear()).into(),
            _ if !state.is_own() => return None,
            Field::User => state.user()?.into(),
            Field::Group => state.group()?.into(),
            Field::ControlGroup => return any(state.control_groups(), is),
            Field::Process => {
                let mut all = state.processes(self.guard);
                let known = any(all.by_ref().take(GENERATIONS), is);
                // Of one that descends from more than these nobody knows that it is not one of the others'.
                return known.filter(|&is| is || all.next().is_none());
            }
            _ => return None,
        };
        Some(is(number))
    }
}
