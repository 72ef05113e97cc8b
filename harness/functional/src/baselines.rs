// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whatever is compared redirects traffic between sockets, and a server notices what does not.

use std::thread;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::setup::{FAMILIES, PROTOCOLS, WAYS};
use super::GuestTest;
use mutexlab_guest::kernel::module::Parameters;
use mutexlab_guest::measure::rig::QUIET;
use mutexlab_guest::measure::sockets::cut_segments;
use mutexlab_guest::measure::verify;
use mutexlab_guest::net::layout::Layout;
use mutexlab_guest::subjects::installed;
use mutexlab_guest::subjects::installed::Installed;
use mutexlab_guest::traffic::bulk::BulkStream;
use mutexlab_guest::traffic::closed_loop::ClosedLoop;
use mutexlab_guest::traffic::flows::Flows;
use mutexlab_guest::traffic::target::{Arrival, Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Ends, Family, Load, Payload, Protocol, Traffic, Way};

const ROUND_TRIPS: u32 = 20;
/// Bytes of a stream: a part and a piece of one.
const STREAM: u64 = (1 << 20) + 12_345;

const TRAFFIC: Traffic = Traffic {
    ends: Ends::Stack,
    protocol: Protocol::Tcp,
    payload: Payload::Bytes(500),
    load: closed(),
    ..Traffic::USUAL
};

/// One test for each subject, and those of the instrument itself.
pub fn tests() -> Vec<GuestTest> {
    let test = |subject: Subject| {
        let test = GuestTest::new(
            format!("baseline-{}", subject.name()),
            format!(
                "messages and streams between sockets arrive where {} has them arrive",
                subject.name()
            ),
            move || all_traffic(subject),
        )
        .needing(subject);
        match subject.is_module() {
            true => test.long(),
            false => test.of_others().long(),
        }
    };
    let mut tests: Vec<GuestTest> = Subject::ALL.map(test).into();
    tests.push(GuestTest::single(
        "baseline-astray",
        "a server of sockets notices what nobody redirects",
        astray,
    ));
    tests
}

/// Whatever of this the subject can have: messages, and a stream on the usual way.
fn all_traffic(subject: Subject) -> Result<()> {
    let mut count = 0;
    for way in WAYS {
        for family in FAMILIES {
            for protocol in PROTOCOLS {
                let usual = (way, family, protocol) == (Way::Forward, Family::V4, Protocol::Tcp);
                let stream = usual.then_some(Load::Bulk { bytes: STREAM });
                for load in [Some(closed()), stream].into_iter().flatten() {
                    let traffic = Traffic {
                        way,
                        family,
                        protocol,
                        load,
                        ..TRAFFIC
                    };
                    if subject.refusal(&traffic).is_some() {
                        continue;
                    }
                    run(subject, &traffic).with_context(|| traffic.name())?;
                    count += 1;
                }
            }
        }
    }
    ensure!(
        count > 1,
        "there is nothing that {} can have",
        subject.name()
    );
    Ok(())
}

const fn closed() -> Load {
    Load::Closed {
        round_trips: ROUND_TRIPS,
        burst: 1,
    }
}

fn run(subject: Subject, traffic: &Traffic) -> Result<()> {
    let layout = Layout::new()?;
    cut_segments(&layout)?;
    let installed = Installed::up(subject, &Parameters::new(), traffic, &layout)?;
    // A link that has just come up drops what is sent until a worker of the kernel's has given it a
    // queue (linkwatch_do_dev()).
    thread::sleep(QUIET);
    let arrival = installed::arrival(subject);
    let mut delivery = Delivery::default();
    let sent = match traffic.load {
        Load::Bulk { bytes } => {
            let mut stream =
                BulkStream::open(&layout, traffic, arrival, &mut delivery).map_err(told)?;
            let cost = stream
                .measure(&layout, bytes, &mut delivery)
                .map_err(told)?;
            ensure!(
                cost.bytes == bytes && cost.frame_bytes > bytes && cost.frames > bytes / 1_448,
                "{cost:?} of {bytes} bytes: more than fits in so many frames"
            );
            installed.ensure_at_work(&layout.router)?;
            2
        }
        _ => {
            round_trips(&layout, traffic, arrival, &mut delivery, &|| {
                installed.ensure_at_work(&layout.router)
            })?;
            // The first datagram is what makes a flow of UDP.
            u64::from(ROUND_TRIPS) + u64::from(traffic.protocol == Protocol::Udp)
        }
    };
    verify(subject, traffic, &delivery).map_err(told)?;
    ensure!(
        delivery.sent == sent,
        "{sent} messages went as {delivery:?}"
    );
    installed.down(&layout.router)?;
    layout.tear_down()
}

fn round_trips(
    layout: &Layout,
    traffic: &Traffic,
    arrival: Arrival,
    delivery: &mut Delivery,
    at_work: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let mut closed_loop = ClosedLoop::new(layout, traffic, Flows::measured(traffic), arrival)?;
    let mut go = || {
        closed_loop.open(0..1, delivery)?;
        closed_loop.establish(0..1, delivery)?;
        closed_loop.round_trips((0..ROUND_TRIPS).map(|_| 0), delivery)?;
        at_work()?;
        closed_loop.close(0, delivery)
    };
    go().map_err(told)
}

/// What is not redirected, but should be.
fn astray() -> Result<()> {
    for protocol in PROTOCOLS {
        let layout = Layout::new()?;
        // See above.
        thread::sleep(QUIET);
        let traffic = Traffic {
            protocol,
            ..TRAFFIC
        };
        let mut delivery = Delivery::default();
        let mut closed_loop = ClosedLoop::new(
            &layout,
            &traffic,
            Flows::measured(&traffic),
            Target::Upstream,
        )?;
        let mut go = || {
            closed_loop.open(0..1, &mut delivery)?;
            closed_loop.establish(0..1, &mut delivery)
        };
        match go() {
            Err(Stop::Subject(reason)) if reason.contains("came to the original destination") => {}
            other => bail!("{protocol:?} without any subject went as {other:?}"),
        }
        ensure!(delivery.at_original == 1, "{protocol:?}: {delivery:?}");
        layout.tear_down()?;
    }
    Ok(())
}

fn told(stop: Stop) -> anyhow::Error {
    match stop {
        Stop::Subject(reason) => anyhow!(reason),
        Stop::Infra(error) => error,
    }
}
