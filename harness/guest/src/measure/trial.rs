// SPDX-License-Identifier: MIT OR Apache-2.0

//! One run of packets that is measured, and what it showed.

use std::time::Duration;

use anyhow::{anyhow, Result};
use mutexlab_model::histogram::Histogram;
use mutexlab_model::measured::{Delivery, OpenLoop, PathCost};
use mutexlab_model::traffic::Traffic;
use mutexlab_protocol::Mischief;

use super::rig::SETTLED;
use crate::kernel::marks;
use crate::probe::{Probe, Snapshot};
use crate::traffic::flows::Flows;
use crate::traffic::open_loop::{Generator, Stream};
use crate::traffic::target::Stop;

/// Packets of an open loop before those that are measured.
const LEAD_IN: u32 = 64;

/// What there is about an exchange of packets beside its traffic.
#[derive(Clone, Copy)]
pub struct Treatment {
    /// How long flows have been there when they are measured.
    pub age: Duration,
    /// What the server does to its answers.
    pub mischief: Option<Mischief>,
    /// Whether the lens looks on.
    pub is_watched: bool,
}

impl Default for Treatment {
    fn default() -> Self {
        Self {
            age: SETTLED,
            mischief: None,
            is_watched: false,
        }
    }
}

impl Treatment {
    /// Those that are measured come next but for what goes before them.
    pub fn prepare(self) {
        if self.is_watched {
            marks::prepare();
        }
    }

    /// Those that are measured are sent by `send`.
    pub fn measured<T>(self, send: impl FnOnce() -> T) -> T {
        if self.is_watched {
            marks::window(send)
        } else {
            send()
        }
    }
}

/// What one exchange of packets showed.
pub struct Exchanged {
    pub snapshot: Snapshot,
    pub path: PathCost,
    pub round_trip: Option<Histogram>,
    pub open: Option<OpenLoop>,
    pub received: Vec<u64>,
}

impl Exchanged {
    /// Fails if the probe overlooked a packet that was measured.
    pub fn ensure_seen(&self, traffic: &Traffic) -> Result<()> {
        let packets = u64::from(traffic.load.packets()) * u64::from(traffic.load.burst());
        let (there, back) = match &self.open {
            // What is lost may be lost before the probe, and after it.
            Some(open) => (open.forward.arrived, open.round_trip.arrived),
            None => (packets, packets),
        };
        for (direction, samples, packets) in [
            ("from", &self.snapshot.original, there),
            ("to", &self.snapshot.reply, back),
        ] {
            let seen = samples.seen();
            // The stack's TCP may send segments without payload as well.
            if seen < packets {
                return Err(anyhow!(
                    "the probe saw {seen} packets {direction} the client of {packets}"
                ));
            }
        }
        Ok(())
    }
}

/// Measures the packets of `stream`.
pub fn in_open_loop(
    generator: &mut Generator,
    probe: &Probe,
    traffic: &Traffic,
    stream: &Stream,
    treatment: Treatment,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    treatment.prepare();
    let lead_in = Stream {
        packets: LEAD_IN,
        churn: 0,
        ..*stream
    };
    generator.run(&lead_in, delivery)?;
    let ports = Flows::in_all(traffic).ports();
    probe.reset(traffic.family, traffic.protocol, ports)?;
    let open = treatment.measured(|| generator.run(stream, delivery))?;
    Ok(Exchanged {
        snapshot: probe.snapshot()?,
        path: PathCost::default(),
        round_trip: None,
        open: Some(open),
        received: Vec::new(),
    })
}
