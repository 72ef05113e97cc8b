// SPDX-License-Identifier: MIT OR Apache-2.0

//! One cell: what its packets cost, and whether they arrived.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};

use super::client::Client;
use super::layout::{Layout, CLIENT_PORT, ROUTER_SERVER_LINK, UNMEASURED_PORT};
use super::offload::{self, Offload};
use super::pace;
use super::probe::{Probe, Snapshot};
use super::protocol::{
    Delivery, GuestCell, Measurement, Outcome, PathCost, Protocol, Subject, Traffic, Way,
};
use super::responder::{Responder, Served};
use super::stack_client::StackClient;
use super::subject::{self, Installed};
use super::traffic::{Stop, Target};
use super::tsc;
use super::wire_client::WireClient;

/// Round trips from which the cost of the probe itself is taken.
const CALIBRATION: u32 = 64;

/// Round trips of the flow that goes before the one that is measured.
const REHEARSAL: u32 = 8;

/// How long the kernel is left alone after a change, so that what it puts off (multicast
/// reports, RCU, what a process leaves behind) does not fall into the measurement.
const QUIET: Duration = Duration::from_millis(250);

/// How old a flow is when it is measured: conntrack takes UDP for a stream after two seconds
/// (nf_conntrack_udp_packet()), and treats it otherwise from then on.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures a cell, in namespaces of its own, so that it does not matter which cells were before
/// it. The probe's module must be loaded.
pub fn run(cell: &GuestCell) -> Outcome {
    let mut delivery = Delivery::default();
    match measure(cell, &mut delivery) {
        Ok(measurement) => Outcome::Ok(Box::new(measurement)),
        Err(Stop::Subject(reason)) => Outcome::Failed { reason, delivery },
        Err(Stop::Infra(error)) => Outcome::Infra {
            reason: format!("{error:#}"),
        },
    }
}

fn measure(cell: &GuestCell, delivery: &mut Delivery) -> Result<Measurement, Stop> {
    let traffic = &cell.traffic;
    traffic.check()?;
    let layout = Layout::new()?;
    let probe = Probe::open(&layout.router)?;
    if traffic.way == Way::Local {
        // Else the stack would leave its checksums to a device that there is not, and nobody
        // could tell a wrong one from an unfinished one.
        offload::set(
            &layout.router,
            &ROUTER_SERVER_LINK,
            Offload::TxChecksum,
            false,
        )?;
    }
    thread::sleep(QUIET);
    let empty = calibrate(&layout, &probe, traffic)?;

    let installed = Installed::up(cell.subject, &cell.parameters, traffic, &layout.router)
        .map_err(|error| blame(cell.subject, error))?;
    let target = subject::target(cell.subject);
    rehearse(&layout, traffic, target, delivery)?;
    *delivery = Delivery::default();
    thread::sleep(QUIET);
    let before = installed.counters()?;
    let measured = exchange(&layout, &probe, traffic, target, delivery)?;
    let counters = since(&before, installed.counters()?);
    if cell.subject != Subject::NftDnat {
        subject::ensure_no_conntrack(&layout.router)?;
    }
    installed
        .down(&layout.router)
        .map_err(|error| blame(cell.subject, error))?;
    drop(probe);
    layout.tear_down()?;

    verify(cell.subject, delivery)?;
    measured.snapshot.ensure_seen(traffic)?;
    let original = measured.snapshot.original.net_of(&empty.original)?;
    Ok(Measurement {
        delivery: *delivery,
        first_packet: measured
            .first
            .map(|ticks| ticks.saturating_sub(original.overhead)),
        original,
        reply: measured.snapshot.reply.net_of(&empty.reply)?,
        path: measured.path,
        counters,
    })
}

/// What the probe costs on the way of `traffic` while nothing is between its hooks.
fn calibrate(layout: &Layout, probe: &Probe, traffic: &Traffic) -> Result<Snapshot> {
    let traffic = Traffic {
        warm_up: CALIBRATION,
        round_trips: CALIBRATION,
        ..*traffic
    };
    let mut delivery = Delivery::default();
    let exchanged = exchange(layout, probe, &traffic, Target::Original, &mut delivery);
    match exchanged {
        Ok(measured) => Ok(measured.snapshot),
        Err(Stop::Infra(error)) => Err(error),
        Err(Stop::Subject(reason)) => Err(anyhow!(reason)),
    }
    .context("cannot take the probe's own cost: traffic fails without any subject")
}

/// Sends a short flow of its own through the subject, so that what the kernel does once only, on
/// a packet or soon after (keys of hashes, the first slab of a cache), is behind it.
fn rehearse(
    layout: &Layout,
    traffic: &Traffic,
    target: Target,
    delivery: &mut Delivery,
) -> Result<(), Stop> {
    let mut closed_loop = ClosedLoop::new(layout, traffic, UNMEASURED_PORT, target)?;
    closed_loop.client.open(delivery)?;
    closed_loop.establish(delivery)?;
    closed_loop.round_trips(REHEARSAL, delivery)?;
    closed_loop.close(delivery)
}

/// What one exchange of packets showed.
struct Exchanged {
    /// Ticks of the first packet, the probe's included; None if an interrupt fell into it.
    first: Option<u64>,
    snapshot: Snapshot,
    path: PathCost,
}

/// Runs the whole closed loop of `traffic`: the first packet, the warm-up and what is measured.
/// The host hears nothing in between, since any word to it moves the guest's virtual clock.
fn exchange(
    layout: &Layout,
    probe: &Probe,
    traffic: &Traffic,
    target: Target,
    delivery: &mut Delivery,
) -> Result<Exchanged, Stop> {
    let mut closed_loop = ClosedLoop::new(layout, traffic, CLIENT_PORT, target)?;
    probe.reset(traffic.family, traffic.protocol)?;
    closed_loop.client.open(delivery)?;
    let first = probe.snapshot()?.original.median();
    closed_loop.establish(delivery)?;
    closed_loop.round_trips(traffic.warm_up, delivery)?;
    thread::sleep(SETTLED);
    closed_loop.paced_round_trips(REHEARSAL, delivery)?;

    probe.reset(traffic.family, traffic.protocol)?;
    let frames = closed_loop.responder.frames();
    let path = PathCost {
        ticks: closed_loop.paced_round_trips(traffic.round_trips, delivery)?,
        packets: closed_loop.responder.frames() - frames,
    };
    let snapshot = probe.snapshot()?;
    closed_loop.close(delivery)?;
    Ok(Exchanged {
        first,
        snapshot,
        path,
    })
}

/// A client and its responder, who take turns.
struct ClosedLoop {
    protocol: Protocol,
    client: Box<dyn Client>,
    responder: Responder,
}

impl ClosedLoop {
    fn new(layout: &Layout, traffic: &Traffic, port: u16, target: Target) -> Result<Self> {
        Ok(Self {
            protocol: traffic.protocol,
            client: match traffic.way {
                Way::Forward => Box::new(WireClient::new(layout, traffic, port)?),
                Way::Local => Box::new(StackClient::new(layout, traffic, port)?),
            },
            responder: Responder::new(layout, traffic, port, target)?,
        })
    }

    fn establish(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        match self.protocol {
            Protocol::Udp => {
                self.responder.serve_until(Served::Answered, delivery)?;
                self.client.establish(delivery)
            }
            Protocol::Tcp => {
                self.responder.serve_until(Served::Opened, delivery)?;
                self.client.establish(delivery)?;
                self.responder.serve_until(Served::Acknowledged, delivery)
            }
        }
    }

    fn round_trips(&mut self, count: u32, delivery: &mut Delivery) -> Result<(), Stop> {
        (0..count).try_for_each(|_| self.round_trip(delivery))
    }

    /// One round trip between two ticks of the kernel's clock, again and again; returns the time
    /// of all round trips, without the time between them. What the kernel does once a tick only,
    /// such as renewing a time-out, is then done by the first packet of every round trip, and not
    /// by as many packets as ticks happen to fall into the run.
    fn paced_round_trips(&mut self, count: u32, delivery: &mut Delivery) -> Result<u64, Stop> {
        let mut ticks = 0;
        for _ in 0..count {
            pace::until_between_ticks()?;
            let start = tsc::now();
            self.round_trip(delivery)?;
            ticks += tsc::now() - start;
        }
        Ok(ticks)
    }

    fn round_trip(&mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        self.client.send(delivery)?;
        self.responder.serve_until(Served::Answered, delivery)?;
        self.client.receive(delivery)
    }

    fn close(mut self, delivery: &mut Delivery) -> Result<(), Stop> {
        self.responder.finish()?;
        self.client.close(delivery)?;
        match self.protocol {
            Protocol::Udp => Ok(()),
            Protocol::Tcp => self.responder.serve_until(Served::Closed, delivery),
        }
    }
}

impl Snapshot {
    /// Fails if the probe overlooked a packet that was measured.
    fn ensure_seen(&self, traffic: &Traffic) -> Result<()> {
        for (direction, samples) in [("from", &self.original), ("to", &self.reply)] {
            let seen = samples.seen();
            // The stack's TCP may send segments without payload as well.
            if seen < u64::from(traffic.round_trips) {
                return Err(anyhow!(
                    "the probe saw {seen} packets {direction} the client of {}",
                    traffic.round_trips
                ));
            }
        }
        Ok(())
    }
}

/// What counters rose by since `before`.
fn since(
    before: &BTreeMap<String, u64>,
    mut counters: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    for (name, count) in &mut counters {
        *count = count.saturating_sub(before.get(name).copied().unwrap_or_default());
    }
    counters
}

/// Fails unless every packet arrived where it should and every answer came back from where the
/// client had sent to.
fn verify(subject: Subject, delivery: &Delivery) -> Result<(), Stop> {
    let (there, elsewhere) = match subject::target(subject) {
        Target::Original => (delivery.at_original, delivery.at_upstream),
        Target::Upstream => (delivery.at_upstream, delivery.at_original),
    };
    let all = [there, delivery.replies, delivery.replies_from_original];
    let none = [elsewhere, delivery.bad_payload, delivery.bad_checksum];
    if all.iter().any(|&count| count != delivery.sent) || none.iter().any(|&count| count != 0) {
        return Err(Stop::Subject(format!("packets went astray: {delivery:?}")));
    }
    Ok(())
}

/// A module that cannot be put up or taken down is wrong itself; any other subject is the
/// kernel's.
fn blame(subject: Subject, error: anyhow::Error) -> Stop {
    if subject.is_module() {
        Stop::Subject(format!("{error:#}"))
    } else {
        Stop::Infra(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Delivery = Delivery {
        sent: 3,
        at_upstream: 3,
        at_original: 0,
        replies: 3,
        replies_from_original: 3,
        bad_payload: 0,
        bad_checksum: 0,
    };

    #[test]
    fn only_complete_delivery_passes() {
        assert!(verify(Subject::Module, &GOOD).is_ok());
        assert!(verify(Subject::NftDnat, &GOOD).is_ok());
        assert!(verify(Subject::None, &GOOD).is_err());
        for bad in [
            Delivery { sent: 4, ..GOOD },
            Delivery {
                at_upstream: 2,
                ..GOOD
            },
            Delivery {
                at_original: 1,
                ..GOOD
            },
            Delivery { replies: 4, ..GOOD },
            Delivery {
                replies_from_original: 2,
                ..GOOD
            },
            Delivery {
                bad_payload: 1,
                ..GOOD
            },
            Delivery {
                bad_checksum: 1,
                ..GOOD
            },
        ] {
            assert!(verify(Subject::Module, &bad).is_err(), "{bad:?}");
        }
    }
}
