// SPDX-License-Identifier: GPL-2.0

//! Flows of a namespace, as they are told, and those that somebody ends.

use crate::abi::proxy::flow::{Flow, FlowFilter, FlowState, Redirection};
use crate::abi::proxy::{Endpoint, Family};
use crate::datapath::flow::Direction;
use crate::datapath::tuple::{Tuple, V4, V6};
use crate::datapath::walk::{Step, Walk};
use crate::flows::BUCKETS_AT_ONCE;
use crate::instance::{Instance, Version};
use crate::memory::FlowNode;
use crate::sys::netlink::Position;
use crate::sys::rcu;
use crate::sys::task;
use crate::sys::time;

/// Which flows are meant.
#[derive(Clone, Copy)]
pub(crate) struct Meant {
    /// Those of a context's rules: see [`ContextId::owner`](crate::hosted::ContextId::owner).
    pub(crate) owner: Option<u32>,
    /// Of these, the ones that are as it says.
    pub(crate) filter: FlowFilter,
}

impl Meant {
    fn has<A: Version>(&self, flow: &FlowNode<A>) -> bool {
        let tuple = flow.key(Direction::Original as usize);
        let (client, original) = ends(tuple);
        self.owner
            .is_none_or(|owner| !flow.is_direct() && flow.owner().context == owner)
            && self.filter.has(A::FAMILY, tuple.protocol, &client, &original)
    }
}

fn ends<A: Version>(tuple: &Tuple<A>) -> (Endpoint, Endpoint) {
    let end = |address: A, port: u16| Endpoint {
        address: address.to_bytes(),
        port: u16::from_be(port),
    };
    (
        end(tuple.source(), tuple.ports.source()),
        end(tuple.destination(), tuple.ports.destination()),
    )
}

fn describe<A: Version>(flow: &FlowNode<A>, now: u32) -> Flow {
    let tuple = flow.key(Direction::Original as usize);
    let (client, original) = ends(tuple);
    let redirection = (!flow.is_direct()).then(|| {
        let (upstream, source) = ends(flow.key(Direction::Reply as usize));
        let owner = flow.owner();
        Redirection {
            upstream,
            source,
            group: owner.upstream.group,
            member: owner.upstream.member,
        }
    });
    let [(sent, sent_bytes), (received, received_bytes)] =
        Direction::ALL.map(|direction| flow.counted(direction));
    let state = FlowState::from_number(flow.state() as u32);
    Flow {
        family: A::FAMILY,
        protocol: tuple.protocol,
        client,
        original,
        redirection,
        state: state.unwrap_or(FlowState::Closed),
        packets: [sent, received],
        bytes: [sent_bytes, received_bytes],
        idle: u64::from(flow.idle(now)).wrapping_mul(1000) / u64::from(time::HZ),
    }
}

/// The next flow of a dump that is meant, and the context that it is of; `position` is where the dump has come to. Sleeps.
pub(crate) fn next(
    instance: &Instance,
    position: &mut Position,
    meant: &Meant,
) -> Option<(u32, Flow)> {
    let [version, buckets, bucket, passed] = position;
    let mut walk = Walk {
        buckets: *buckets,
        bucket: *bucket,
        passed: *passed,
    };
    let found = loop {
        let found = match *version {
            0 => next_of::<V4>(instance, &mut walk, meant),
            1 => next_of::<V6>(instance, &mut walk, meant),
            _ => return None,
        };
        if found.is_some() {
            break found;
        }
        *version = version.wrapping_add(1);
        walk = Walk::default();
    };
    (*buckets, *bucket, *passed) = (walk.buckets, walk.bucket, walk.passed);
    found
}

fn next_of<A: Version>(
    instance: &Instance,
    walk: &mut Walk,
    meant: &Meant,
) -> Option<(u32, Flow)> {
    let now = time::jiffies();
    loop {
        let found = rcu::read(|guard| {
            let flows = A::flows(instance);
            match flows.step(guard, walk, BUCKETS_AT_ONCE, |flow| meant.has(flow)) {
                Step::Found(flow) => Some(Some((flow.owner().context, describe(flow, now)))),
                Step::More => None,
                Step::End => Some(None),
            }
        });
        match found {
            Some(found) => return found,
            None => task::pause(),
        }
    }
}

/// Removes the flows that are meant, and tells how many. Sleeps.
pub(crate) fn end(instance: &Instance, meant: &Meant) -> u64 {
    let of = |family: Family| meant.filter.family.is_none_or(|one| one == family);
    let v4 = match of(Family::V4) {
        true => V4::flows(instance).remove_if(instance, |flow| meant.has(flow)),
        false => 0,
    };
    let v6 = match of(Family::V6) {
        true => V6::flows(instance).remove_if(instance, |flow| meant.has(flow)),
        false => 0,
    };
    v4.wrapping_add(v6)
}
