// SPDX-License-Identifier: MIT OR Apache-2.0

//! A server of sockets notices what nobody redirects.

use std::thread;

use anyhow::{bail, ensure, Result};

use super::setup::PROTOCOLS;
use mutexlab_guest::measure::rig::QUIET;
use mutexlab_guest::net::layout::Layout;
use mutexlab_guest::traffic::closed_loop::ClosedLoop;
use mutexlab_guest::traffic::flows::Flows;
use mutexlab_guest::traffic::target::{Stop, Target};
use mutexlab_model::measured::Delivery;
use mutexlab_model::traffic::{Ends, Load, Payload, Traffic};

const TRAFFIC: Traffic = Traffic {
    ends: Ends::Stack,
    payload: Payload::Bytes(500),
    load: Load::Closed {
        round_trips: 1,
        burst: 1,
    },
    ..Traffic::USUAL
};

/// What is not redirected, but should be.
pub fn unredirected() -> Result<()> {
    for protocol in PROTOCOLS {
        let layout = Layout::new()?;
        // A link that has just come up drops what is sent until a worker of the kernel's has given it a
        // queue (linkwatch_do_dev()).
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
