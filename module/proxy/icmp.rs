// SPDX-License-Identifier: GPL-2.0

//! What happens to a message of ICMP or ICMPv6.

use crate::datapath::icmp::{is_error, Error, ICMP_HEADER, REACH};
use crate::datapath::link::ReadGuard;
use crate::instance::{Counter, Instance};
use crate::route_lookup::{count_dropped, lookup_route_icmp, Routed};
use crate::sys::hooks::{Packet, Verdict};

/// Translates a message that starts `at` bytes from the IP header if it is an error about a packet of
/// a flow. The flow's state stays: such an error may be forged.
#[cold]
pub(crate) fn pass<A: Routed, const LOCAL: bool>(
    instance: &Instance,
    guard: &ReadGuard,
    packet: &mut Packet<'_>,
    at: usize,
) -> Verdict {
    let Some(error) = read::<A>(packet, at) else {
        return Verdict::ACCEPT;
    };
    let from = error.from();
    let Some((flow, direction)) = A::flows(instance).lookup(guard, &from) else {
        return Verdict::ACCEPT;
    };
    if flow.is_direct() {
        return Verdict::ACCEPT;
    }
    let to = flow.key(direction.other() as usize).reverse();
    let offload = packet.skb.offload(at, false);
    let sum = if packet.skb.unshare(error.end()) {
        let bytes = packet.skb.writable(error.end());
        bytes.and_then(|bytes| error.translate(bytes, &to, offload))
    } else {
        None
    };
    let Some(sum) = sum else {
        instance.count(Counter::DroppedNoMemory);
        return Verdict::DROP;
    };
    packet.skb.fix_checksum(sum);
    packet.skb.untrack();
    instance.count(Counter::IcmpTranslated);
    // The machine's own messages have a route already.
    if LOCAL && from.destination() == to.destination() {
        return Verdict::ACCEPT;
    }
    match lookup_route_icmp::<A, LOCAL>(packet, error.reporter) {
        Ok(_) => Verdict::ACCEPT,
        Err(dropped) => count_dropped(instance, dropped),
    }
}

// Of a message that is no error, only as much is made linear as shows that.
fn read<A: Routed>(packet: &mut Packet<'_>, at: usize) -> Option<Error<A>> {
    if !packet.skb.pull(at.wrapping_add(ICMP_HEADER))
        || !is_error::<A>(packet.skb.linear().get(at..)?)
    {
        return None;
    }
    let reach = at.wrapping_add(REACH).min(packet.skb.len() as usize);
    if !packet.skb.pull(reach) {
        return None;
    }
    Error::read(packet.skb.linear(), at)
}
