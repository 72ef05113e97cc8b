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

fn one<T>(known: Option<T>, is: impl FnMut(u128) -> bool) -> Option<bool>
where
    u128: From<T>,
{
    known.map(u128::from).map(is)
}

// There is at least one, or nothing is known.
fn any(numbers: impl Iterator<Item = u64>, mut is: impl FnMut(u128) -> bool) -> Option<bool> {
    let mut numbers = numbers.peekable();
    numbers.peek()?;
    Some(numbers.any(|number| is(number.into())))
}

impl<A: Header> rules::Facts for Facts<'_, '_, A> {
    fn interface(&self) -> Name {
        self.packet.state.interface()
    }

    fn any(&self, field: Field, is: impl FnMut(u128) -> bool) -> Option<bool> {
        let state = self.packet.state;
        match field {
            Field::Mark => one(Some(self.packet.skb.mark()), is),
            Field::Dscp => one(Some(A::dscp(self.packet.skb.linear())), is),
            Field::User if state.is_own() => one(state.user(), is),
            Field::Group if state.is_own() => one(state.group(), is),
            Field::ControlGroup if state.is_own() => any(state.control_groups(), is),
            Field::Process => any(state.processes(self.guard), is),
            Field::Program => one(
                state.program(self.guard).map(u128::from_be_bytes),
                is,
            ),
            _ => None,
        }
    }
}
