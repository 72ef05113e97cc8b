// SPDX-License-Identifier: MIT OR Apache-2.0

//! What traffic there can be.

use anyhow::{bail, Result};

use super::{
    Checksum, Cloned, Ends, Load, Payload, Protocol, Traffic, Usual as _, Way, MAX_PAYLOAD,
};
use crate::limits::{MAX_BURST, MAX_FLOWS, MIN_PAYLOAD};

impl Traffic {
    /// Refuses a payload that cannot be labelled or does not fit into a packet, and a number of
    /// flows that the client cannot have.
    ///
    /// # Errors
    /// Only that.
    pub fn check(&self) -> Result<()> {
        if let Payload::Bytes(length) = self.payload
            && !(MIN_PAYLOAD..=MAX_PAYLOAD).contains(&length)
        {
            bail!("a payload of {length} bytes is not between {MIN_PAYLOAD} and {MAX_PAYLOAD}");
        }
        if let Some(reason) = self.refusal() {
            bail!("there is no traffic {}: {reason}", self.name());
        }
        let flows = self.flows;
        let open = self.load.is_open();
        if open && (self.ends, self.way) != (Ends::Wire, Way::Forward) {
            bail!("an open loop is of forwarded packets on the wire");
        }
        let max = match (self.ends, self.way) {
            (Ends::Wire, Way::Forward) => MAX_FLOWS,
            _ => 1,
        };
        if !(1..=max).contains(&flows) {
            bail!("{flows} flows are not between 1 and {max}");
        }
        let bursts = self.ends == Ends::Wire
            && (self.way, self.protocol, flows) == (Way::Forward, Protocol::Udp, 1);
        let max = if bursts { MAX_BURST } else { 1 };
        if !(1..=max).contains(&self.load.burst()) {
            bail!(
                "a burst of {} packets is not between 1 and {max}",
                self.load.burst()
            );
        }
        Ok(())
    }

    /// Why there can be no packets of such a kind; `None` if there can.
    pub fn refusal(&self) -> Option<&'static str> {
        let (checksum, cloned) = (self.checksum, self.cloned);
        if checksum.is_usual() && cloned.is_usual() {
            return None;
        }
        if self.ends == Ends::Stack {
            return Some("between sockets the kernel decides about checksums and clones");
        }
        if !matches!(self.load, Load::Closed { burst: 1, .. }) {
            return Some("checksum and cloned are for closed loops of single packets");
        }
        if checksum == Checksum::Unnecessary && !cloned.is_usual() {
            return Some(
                "a device that verifies checksums delivers packets that nobody else holds",
            );
        }
        match (cloned, self.way) {
            (Cloned::Payload, Way::Local) => {
                Some("the router's own TCP sockets send such clones in any case")
            }
            (Cloned::Payload, Way::Forward) if self.protocol != Protocol::Tcp => {
                Some("only TCP sockets keep what they send")
            }
            (Cloned::Payload, Way::Forward) if self.flows != 1 || self.spread.is_some() => {
                Some("there can be only 1 flow: each would need a socket")
            }
            _ => None,
        }
    }
}
