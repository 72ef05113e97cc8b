// SPDX-License-Identifier: GPL-2.0

//! What the rules say of a packet on the slow path, and what is done with one that they block.

use super::SlowPacket;
use crate::abi::proxy::{HOOK_LOCAL_OUT, HOOK_PRE_ROUTING};
use crate::batch::Batched;
use crate::datapath::flow::Direction;
use crate::datapath::rules::{Decision, Scope, Search};
use crate::datapath::upstream::Moment;
use crate::facts::Facts;
use crate::instance::Counter;
use crate::memory::FlowNode;
use crate::parameters;
use crate::sys::hooks::{Packet, Verdict};
use crate::sys::random::random;
use crate::sys::time;

/// The index of `lo` in every namespace: LOOPBACK_IFINDEX of include/net/flow.h.
const LOOPBACK: u32 = 1;

/// Whether the packet is the machine's own and was asked about at LOCAL_OUT, where it is known whose it is.
#[inline(always)]
fn is_known_at_local_out<const LOCAL: bool>(packet: &Packet<'_>) -> bool {
    !LOCAL && packet.state.device() == LOOPBACK
}

impl<A: Batched> SlowPacket<'_, A> {
    // What the rules say of the packet. `AGAIN`: of one that no rule redirects. With one function for both, less of
    // it is inlined, and each first packet costs 50 instructions more.
    #[inline(always)]
    pub(super) fn decide<const LOCAL: bool, const AGAIN: bool>(
        &self,
        packet: &Packet<'_>,
    ) -> Decision<A> {
        let tuple = &self.headers.tuple;
        let scope = match AGAIN {
            true => Scope::Block,
            false if is_known_at_local_out::<LOCAL>(packet) => Scope::Redirect,
            false => Scope::All,
        };
        let hook = if LOCAL {
            HOOK_LOCAL_OUT
        } else {
            HOOK_PRE_ROUTING
        };
        let search = if parameters::perf_enable_rule_index() != 0 {
            Search::Indexed
        } else {
            Search::Linear
        };
        let client = || self.instance.client(tuple.source());
        let moment = |is_random| moment(is_random, client());
        let facts = Facts::<A>::new(packet, self.guard);
        let rules = A::rules(self.instance.rules.load(self.guard));
        rules.choose(search, hook, scope, tuple, &facts, moment)
    }

    // Drops a packet, and tells its sender if `tells`.
    #[cold]
    pub(super) fn block(&self, packet: &mut Packet<'_>, tells: bool) -> Verdict {
        if tells {
            packet.reject(self.headers.tuple.protocol);
        }
        self.instance.count(Counter::PacketsBlocked);
        Verdict::DROP
    }

    // What becomes of a packet that may begin another connection than its flow's, if that is blocked: another socket may have got the
    // ports since, whose it must not be. The flow stays, since the packet may be forged.
    pub(super) fn block_anew<const LOCAL: bool>(
        &self,
        packet: &mut Packet<'_>,
        flow: &FlowNode<A>,
        direction: Direction,
    ) -> Option<Verdict> {
        let segment = self.segment.as_ref()?;
        let asks = A::rules(self.instance.rules.load(self.guard)).block()
            && flow.may_begin_anew(direction, segment)
            && !is_known_at_local_out::<LOCAL>(packet);
        match asks.then(|| self.ask_again::<LOCAL>(packet))? {
            Decision::Block { tells } => Some(self.block(packet, tells)),
            Decision::Redirect(_) | Decision::Direct => None,
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn ask_again<const LOCAL: bool>(&self, packet: &Packet<'_>) -> Decision<A> {
        self.decide::<LOCAL, true>(packet)
    }
}

fn moment(is_random: bool, client: u32) -> Moment {
    Moment {
        now: time::jiffies(),
        second: time::HZ,
        client,
        retry: parameters::upstream_retry().saturating_mul(time::HZ),
        random: if is_random { random() } else { 0 },
    }
}
