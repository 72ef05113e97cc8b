// SPDX-License-Identifier: GPL-2.0

//! What happens to a packet.

use core::marker::PhantomData;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::proxy::{Family, Protocol, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
use crate::datapath::flow::Side;
use crate::datapath::link::ReadGuard;
use crate::datapath::packet::{self, parse_v4, parse_v6, Parsed};
use crate::datapath::tcp::State;
use crate::datapath::translate::{translate, DeviceSum};
use crate::flows::{Entry, Refused};
use crate::instance::{Counter, Instance};
use crate::sys::hooks::{self, Hook, Packet, Place, Registration, Verdict};
use crate::sys::net::Namespace;
use crate::sys::time;

/// After fragments were put together (-400) and the raw tables (-300), before connection tracking
/// (-200): packets of our flows are translated here in both directions and marked untracked, so
/// that connection tracking never sees one direction before and one after translation.
const PRIORITY: i32 = -250;

struct Redirect<const V6: bool, const LOCAL: bool>(PhantomData<()>);

impl<const V6: bool, const LOCAL: bool> Hook for Redirect<V6, LOCAL> {
    type Target = Instance;
    const FAMILY: Family = if V6 { Family::V6 } else { Family::V4 };
    const PLACE: Place = if LOCAL {
        Place::LocalOut
    } else {
        Place::PreRouting
    };

    #[inline(always)]
    fn run(instance: &Instance, guard: &ReadGuard, packet: &mut Packet<'_>) -> Verdict {
        let Some(headers) = read::<V6>(instance, packet) else {
            return Verdict::Accept;
        };
        match instance.flows.find(guard, &headers.tuple) {
            Some((flow, side)) if !starts_again(flow, side, &headers) => {
                pass(instance, packet, &headers, flow, side)
            }
            found => begin::<LOCAL>(
                instance,
                guard,
                packet,
                &headers,
                found.map(|(flow, _)| flow),
            ),
        }
    }
}

#[inline(always)]
fn read<const V6: bool>(instance: &Instance, packet: &mut Packet<'_>) -> Option<packet::Packet> {
    // Each round asks for more bytes than the last, of at most packet::MAX_HEADERS and a header.
    loop {
        let bytes = packet.skb.linear();
        match if V6 { parse_v6(bytes) } else { parse_v4(bytes) } {
            Parsed::Transport(headers) => return Some(headers),
            Parsed::Other => return None,
            Parsed::Short(needed) if packet.skb.pull(needed) => {}
            Parsed::Short(_) | Parsed::Malformed => {
                instance.count(Counter::Malformed);
                return None;
            }
        }
    }
}

// A client that uses the ports of a closed connection anew: it may have another upstream by now.
#[inline(always)]
fn starts_again(flow: &Entry, side: Side, headers: &packet::Packet) -> bool {
    headers.flags.opens()
        && side == Side::Original
        && headers.tuple.protocol() == Protocol::Tcp
        && flow.state() == State::Closed
}

#[cold]
fn begin<const LOCAL: bool>(
    instance: &Instance,
    guard: &ReadGuard,
    packet: &mut Packet<'_>,
    headers: &packet::Packet,
    closed: Option<&Entry>,
) -> Verdict {
    if let Some(flow) = closed {
        instance.flows.remove(guard, flow, instance);
    }
    // A connection that was there before the rule goes on as it began.
    if headers.tuple.protocol() == Protocol::Tcp && !headers.flags.opens() {
        return Verdict::Accept;
    }
    let hook = if LOCAL {
        HOOK_LOCAL_OUT
    } else {
        HOOK_PRE_ROUTING
    };
    let Some((rule, upstream)) = instance.rules.load(guard).find(hook, &headers.tuple) else {
        return Verdict::Accept;
    };
    match instance
        .flows
        .create(guard, &headers.tuple, &upstream, rule.owner)
    {
        Ok((flow, created)) => {
            if created {
                instance.count(Counter::FlowsCreated);
            }
            pass(instance, packet, headers, flow, Side::Original)
        }
        Err(refused) => {
            // Sent on untranslated, the packet would reach a server that it must not reach.
            instance.count(match refused {
                Refused::NoMemory => Counter::DroppedNoMemory,
                Refused::TableFull => Counter::DroppedTableFull,
                Refused::NoPort => Counter::DroppedNoPort,
            });
            Verdict::Drop
        }
    }
}

// Translates a packet of `flow` and sends it on.
#[inline(always)]
fn pass(
    instance: &Instance,
    packet: &mut Packet<'_>,
    headers: &packet::Packet,
    flow: &Entry,
    side: Side,
) -> Verdict {
    let length = packet.skb.len();
    let offload = packet.skb.offload();
    let change = flow.change(side);
    let translated = packet
        .skb
        .writable(headers.translated())
        .and_then(|bytes| translate(bytes, headers, &flow.translated(side), change, offload));
    match translated {
        Some(DeviceSum::Stays) => {}
        Some(DeviceSum::Less(delta)) => packet.skb.correct_sum(delta),
        Some(DeviceSum::Forget) => packet.skb.forget_sum(),
        None => {
            instance.count(Counter::DroppedNoMemory);
            return Verdict::Drop;
        }
    }
    packet.skb.untrack();
    flow.note(side, headers.flags, length, time::jiffies());
    instance.add(Counter::Bytes, length.into());
    match side {
        Side::Original => instance.count(Counter::PacketsOriginal),
        Side::Reply => instance.count(Counter::PacketsReply),
    }
    // Packets that pass through find their way after this hook; the machine's own have a route to
    // the original destination by now.
    if packet.place == Place::LocalOut && side == Side::Original && !packet.reroute(flow.family()) {
        instance.count(Counter::DroppedNoRoute);
        return Verdict::Drop;
    }
    Verdict::Accept
}

/// Puts the proxy's hooks into `net`.
pub(crate) fn register(
    net: &Namespace,
    instance: Arc<Instance>,
) -> Result<hooks::Registered<Instance>> {
    let hooks = [
        Registration::new::<Redirect<false, false>>(PRIORITY),
        Registration::new::<Redirect<true, false>>(PRIORITY),
        Registration::new::<Redirect<false, true>>(PRIORITY),
        Registration::new::<Redirect<true, true>>(PRIORITY),
    ];
    hooks::Registered::new(net, instance, hooks)
}
