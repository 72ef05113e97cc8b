// SPDX-License-Identifier: MIT OR Apache-2.0

//! Upstreams that are selected by their weights, and by the client's address.

use std::net::TcpListener;
use std::num::NonZeroU8;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use mprox_client::Configuration;
use mutex_abi::proxy::{Selection, Upstream};

use super::setup::{client_address, ensure_no_loss, original, Setup, FAMILIES};
use super::sockets::{accept, connect, is_readable, listen};
use super::upstreams::at_port;
use super::GuestTest;
use mutexlab_guest::proxy::context::{self, Context, Rule};
use mutexlab_model::traffic::{Family, Way};

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "upstream-weights",
            "connections are shared as the weights say, and each upstream counts its own",
            weights,
        ),
        GuestTest::single(
            "upstream-source-hash",
            "a client stays at its upstream, after a new load of the module, too, as long as that works",
            source_hash,
        ),
    ]
}

const PORTS: [u16; 3] = [7001, 7002, 7003];

fn configuration(selection: Selection, family: Family, weights: [u8; 3]) -> Result<Configuration> {
    let mut upstreams = Vec::new();
    for (port, weight) in PORTS.into_iter().zip(weights) {
        upstreams.push(Upstream {
            weight: NonZeroU8::new(weight).context("a weight is not zero")?,
            ..context::upstream(at_port(family, port), 0)
        });
    }
    let rule = Rule::any(family, &upstreams);
    Ok(context::configuration(selection, &[rule]))
}

/// What an upstream counts.
fn counted(context: &Context) -> Result<Vec<u64>> {
    let mut counted = context.client().counted(None)?.to_upstreams;
    counted.pop().context("there is no group")
}

/// How many connections wait at each.
fn arrived(listeners: &[TcpListener]) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for listener in listeners {
        let mut count = 0;
        while is_readable(listener, Duration::from_millis(10))? {
            accept(listener)?;
            count += 1;
        }
        counts.push(count);
    }
    Ok(counts)
}

fn listen_all(setup: &Setup, family: Family) -> Result<Vec<TcpListener>> {
    let ports = PORTS.into_iter();
    ports
        .map(|port| listen(&setup.layout.server, at_port(family, port)))
        .collect()
}

fn weights() -> Result<()> {
    const ROUNDS: u64 = 4;
    let setup = Setup::new()?;
    let context = setup.context(&[])?;
    for family in FAMILIES {
        let shares = [5, 1, 2];
        context.put(&configuration(Selection::RoundRobin, family, shares)?)?;
        let listeners = listen_all(&setup, family)?;
        let from = client_address(Way::Forward, family);
        let mut streams = Vec::new();
        for _ in 0..8 * ROUNDS {
            streams.push(connect(setup.client(Way::Forward), from, original(family))?);
        }
        let seen = arrived(&listeners)?;
        for (count, share) in seen.iter().zip(shares) {
            let expected = ROUNDS * u64::from(share);
            ensure!(
                count.abs_diff(expected) <= 2,
                "{family:?}: weights {shares:?}, connections {seen:?}"
            );
        }
        ensure!(
            counted(&context)? == seen,
            "{family:?}: {seen:?} arrived, and {:?} are counted",
            counted(&context)?
        );
        // Another configuration with the same upstreams counts on.
        let more = configuration(Selection::RoundRobin, family, shares)?;
        context.put(&more)?;
        ensure!(counted(&context)? == seen, "a new configuration forgot");
        ensure!(
            context.client().configuration(None)? == more,
            "weights are read back"
        );
    }
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

/// At which port all of some connections arrive.
fn place(setup: &Setup, family: Family, listeners: &[TcpListener]) -> Result<usize> {
    const TIMES: usize = 6;
    let from = client_address(Way::Forward, family);
    let mut streams = Vec::new();
    for _ in 0..TIMES {
        streams.push(connect(setup.client(Way::Forward), from, original(family))?);
    }
    let seen = arrived(listeners)?;
    match seen.iter().position(|count| *count == TIMES as u64) {
        Some(place) => Ok(place),
        None => bail!("{family:?}: a client's connections are at several upstreams: {seen:?}"),
    }
}

fn source_hash() -> Result<()> {
    let mut before = None;
    for _ in 0..2 {
        let setup = Setup::with_parameters(&[("upstream_retry", "2")])?;
        let context = setup.context(&[])?;
        let mut places = Vec::new();
        for family in FAMILIES {
            context.put(&configuration(Selection::SourceHash, family, [1, 2, 3])?)?;
            let mut listeners = listen_all(&setup, family)?;
            let mine = place(&setup, family, &listeners)?;
            places.push(mine);
            // It fails: two refusals mark it for this client.
            drop(listeners.remove(mine));
            let from = client_address(Way::Forward, family);
            let attempt = || connect(setup.client(Way::Forward), from, original(family));
            for _ in 0..2 {
                ensure!(attempt().is_err(), "{family:?}: nobody listens there");
            }
            let other = place(&setup, family, &listeners)?;
            let again = place(&setup, family, &listeners)?;
            ensure!(other == again, "{family:?}: it stays at the next one");
            let port = PORTS[mine];
            listeners.insert(mine, listen(&setup.layout.server, at_port(family, port))?);
            std::thread::sleep(Duration::from_secs(3));
            // The first one tries, and the answer brings the others.
            drop(attempt()?);
            arrived(&listeners)?;
            let back = place(&setup, family, &listeners)?;
            ensure!(
                back == mine,
                "{family:?}: it came back to {back}, not {mine}"
            );
        }
        // Other keys of hashes, and the same places.
        ensure!(
            before.as_ref().is_none_or(|before| *before == places),
            "{before:?} before, and {places:?} after a new load"
        );
        before = Some(places);
        drop(context);
        setup.finish()?;
    }
    Ok(())
}
