// SPDX-License-Identifier: MIT OR Apache-2.0

//! What traffic there can be: said once, for scenarios, which ask for it, and for the agent, which makes it.

use super::{
    Checksum, Cloned, Ends, Load, Part, Payload, Protocol, Traffic, Unfit, Usual as _, Way,
    MAX_PAYLOAD,
};
use crate::limits::{MAX_BURST, MAX_BURST_BYTES, MAX_FLOWS, MIN_PAYLOAD};

impl Traffic {
    /// Refuses what nobody can send: a payload that has no room for its label or does not fit into a packet, flows that
    /// the client cannot have, loads that there is no generator of.
    ///
    /// # Errors
    /// Only that.
    pub fn check(&self) -> Result<(), Unfit> {
        let unfit = |part, why: String| Err(Unfit { part, why });
        if let Payload::Bytes(length) = self.payload
            && !(MIN_PAYLOAD..=MAX_PAYLOAD).contains(&length)
        {
            let why = format!("{length} is not between {MIN_PAYLOAD} and {MAX_PAYLOAD}");
            return unfit(Part::Payload, why);
        }
        if !(1..=MAX_FLOWS).contains(&self.flows) {
            let why = format!("{} flows are not between 1 and {MAX_FLOWS}", self.flows);
            return unfit(Part::Flows, why);
        }
        let each = "there can be only 1 flow: each would need a socket";
        if self.flows != 1 && self.way == Way::Local {
            return unfit(Part::Flows, format!("with the way \"local\" {each}"));
        }
        if self.flows != 1 && self.ends == Ends::Stack {
            return unfit(Part::Flows, format!("between ends of the stack {each}"));
        }
        self.check_burst()?;
        let is_on_the_wire = (self.ends, self.way) == (Ends::Wire, Way::Forward);
        if self.load.is_open() && !is_on_the_wire {
            let why = "an open loop is of forwarded packets on the wire";
            return unfit(Part::Load, why.to_owned());
        }
        let is_of_bulk = (self.ends, self.protocol) == (Ends::Stack, Protocol::Tcp);
        if matches!(self.load, Load::Bulk { .. }) && !is_of_bulk {
            let why = "bulk is of TCP between ends of the stack";
            return unfit(Part::Load, why.to_owned());
        }
        match self.refusal() {
            Some((part, reason)) => unfit(
                part,
                format!("there is no traffic {}: {reason}", self.name()),
            ),
            None => Ok(()),
        }
    }

    fn check_burst(&self) -> Result<(), Unfit> {
        let burst = self.load.burst();
        if burst == 1 {
            return Ok(());
        }
        let unfit = |part, why: String| Err(Unfit { part, why });
        let kind = (self.ends, self.way, self.protocol);
        if kind != (Ends::Wire, Way::Forward, Protocol::Udp) || !(1..=MAX_BURST).contains(&burst) {
            let why =
                format!("a burst of {burst}: 1, or for forwarded UDP only at most {MAX_BURST}");
            return unfit(Part::Burst, why);
        }
        if self.flows != 1 {
            let why = "of bursts there can be only 1 flow: a burst is sent as one packet";
            return unfit(Part::Flows, why.to_owned());
        }
        match self.payload {
            Payload::Bytes(payload) if u32::from(payload) * burst <= MAX_BURST_BYTES => Ok(()),
            Payload::Bytes(payload) => {
                let why = format!(
                    "{burst} payloads of {payload} are more than {MAX_BURST_BYTES} bytes together"
                );
                unfit(Part::Burst, why)
            }
            Payload::Mix(_) => {
                let why = "the packets of a burst are all of one size";
                unfit(Part::Payload, why.to_owned())
            }
        }
    }

    /// Why there can be no packets of such a kind, and what of it is at fault; `None` if there can.
    fn refusal(&self) -> Option<(Part, &'static str)> {
        let (checksum, cloned) = (self.checksum, self.cloned);
        if checksum.is_usual() && cloned.is_usual() {
            return None;
        }
        let part = if cloned.is_usual() {
            Part::Checksum
        } else {
            Part::Cloned
        };
        let reason = if self.ends == Ends::Stack {
            "between sockets the kernel decides about checksums and clones"
        } else if !matches!(self.load, Load::Closed { burst: 1, .. }) {
            "checksum and cloned are for closed loops of single packets"
        } else if checksum == Checksum::Unnecessary && !cloned.is_usual() {
            "a device that verifies checksums delivers packets that nobody else holds"
        } else if cloned != Cloned::Payload {
            return None;
        } else if self.way == Way::Local {
            "the router's own TCP sockets send such clones in any case"
        } else if self.protocol != Protocol::Tcp {
            "only TCP sockets keep what they send"
        } else if self.flows != 1 || self.spread.is_some() {
            "there can be only 1 flow: each would need a socket"
        } else {
            return None;
        };
        Some((part, reason))
    }
}
