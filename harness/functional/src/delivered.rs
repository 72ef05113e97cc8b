// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets come to the router as the kind that their traffic says.

use anyhow::{bail, ensure, Context, Result};

use super::pinned::Pinned;
use super::setup::network;
use super::GuestTest;
use mutexlab_guest::measure::delivered::{ensure_status, prepare};
use mutexlab_model::traffic::{Checksum, Cloned, Family, Protocol, Traffic, Way};

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "packet-kinds",
        "packets come to the router with the checksum status and the clones that are asked for",
        kinds,
    )]
}

fn kinds() -> Result<()> {
    // As in a cell: what two CPUs receive has no order, and a stack acknowledges by itself.
    let _pinned = Pinned::to(0)?;
    let mut tried = 0;
    for traffic in all() {
        if traffic.check().is_err() {
            continue;
        }
        let layout = network()?;
        prepare(&layout, &traffic)?;
        ensure_status(&layout, &traffic).with_context(|| traffic.name())?;
        layout.tear_down()?;
        tried += 1;
    }
    ensure!(tried == 44, "{tried} kinds were tried");
    // The check sees what devices do, and not what was asked for.
    for (there, other) in [
        (Checksum::None, Checksum::Unnecessary),
        (Checksum::Unnecessary, Checksum::None),
    ] {
        let layout = network()?;
        prepare(&layout, &of(there))?;
        let Err(error) = ensure_status(&layout, &of(other)) else {
            bail!("{} passes for {}", there.name(), other.name());
        };
        let found = format!(
            "checksum status {} instead of {}",
            there.name(),
            other.name()
        );
        ensure!(error.to_string().contains(&found), "{error:#}");
        layout.tear_down()?;
    }
    Ok(())
}

const fn of(checksum: Checksum) -> Traffic {
    Traffic {
        checksum,
        ..Traffic::USUAL
    }
}

fn all() -> impl Iterator<Item = Traffic> {
    let mut all = Vec::new();
    for way in [Way::Forward, Way::Local] {
        for family in [Family::V4, Family::V6] {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                for checksum in [Checksum::None, Checksum::Partial, Checksum::Unnecessary] {
                    for cloned in [Cloned::No, Cloned::Payload, Cloned::Header] {
                        all.push(Traffic {
                            way,
                            family,
                            protocol,
                            checksum,
                            cloned,
                            ..Traffic::USUAL
                        });
                    }
                }
            }
        }
    }
    all.into_iter()
}
