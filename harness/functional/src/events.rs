// SPDX-License-Identifier: MIT OR Apache-2.0

//! What those are told who listen to the netlink family's events.

use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use mprox_client::{Commit, ContextName, Error, Event, Monitor};
use nix::errno::Errno;

use super::context::{keep_capabilities, CAP_NET_ADMIN};
use super::setup::{all_rules, client_address, original, upstream, Setup};
use super::sockets::{
    accept, connect, ensure_silent, is_readable, listen, start_connecting, PATIENCE,
};
use super::upstreams::{at_port, by_preference};
use super::GuestTest;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_model::traffic::{Family, Way};

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "events-of-upstreams",
            "who listens is told of upstreams that fail and work again, and of contexts that are deleted; another namespace is not",
            of_upstreams,
        ),
        GuestTest::single(
            "events-of-a-full-table",
            "who listens is told that the table is full, now and then",
            of_a_full_table,
        ),
        GuestTest::single(
            "events-need-capability",
            "to listen takes CAP_NET_ADMIN",
            need_capability,
        ),
    ]
}

fn open(namespace: &Namespace) -> Result<Monitor> {
    namespace.run(|| Ok(Monitor::open()?))
}

fn next(monitor: &mut Monitor, what: &str) -> Result<Event> {
    ensure!(is_readable(monitor, PATIENCE)?, "nobody told of {what}");
    monitor.wait().with_context(|| what.to_owned())
}

fn of_upstreams() -> Result<()> {
    let family = Family::V4;
    let setup = Setup::with_parameters(&[("upstream_retry", "2")])?;
    let mut monitor = open(&setup.layout.router)?;
    let elsewhere = open(&setup.layout.client)?;
    let name = ContextName::new(b"home").context("no name")?;
    let (first, second) = (at_port(family, 7001), at_port(family, 7002));
    let mut client = setup
        .layout
        .router
        .run(|| Ok(mprox_client::Client::open()?))?;
    client.stage(&by_preference(first, second, family))?;
    client.commit(&Commit {
        context: Some(name),
        ..Commit::default()
    })?;
    let backup = listen(&setup.layout.server, second)?;
    let from = client_address(Way::Forward, family);
    let attempt = || connect(setup.client(Way::Forward), from, original(family));
    for _ in 0..2 {
        ensure!(attempt().is_err(), "nobody listens at {first}");
    }
    let is_of = |event: &Event, is: bool| match event {
        Event::Upstream {
            context,
            upstream,
            works,
        } => *context == Some(name) && upstream.port == first.port() && *works == is,
        _ => false,
    };
    let event = next(&mut monitor, "an upstream that fails")?;
    ensure!(is_of(&event, false), "expected a failure, got {event:?}");
    let stream = attempt()?;
    accept(&backup)?;
    let found = listen(&setup.layout.server, first)?;
    std::thread::sleep(Duration::from_secs(3));
    let again = attempt()?;
    accept(&found)?;
    let event = next(&mut monitor, "an upstream that works again")?;
    ensure!(is_of(&event, true), "expected a recovery, got {event:?}");
    client.delete(&name)?;
    let event = next(&mut monitor, "a context that is deleted")?;
    ensure!(
        event == Event::ContextGone { name },
        "expected its end, got {event:?}"
    );
    std::thread::sleep(Duration::from_secs(2));
    ensure_silent(&monitor, "the listener")?;
    ensure_silent(&elsewhere, "a listener in another namespace")?;
    drop((stream, again, client, monitor, elsewhere));
    setup.finish()
}

fn of_a_full_table() -> Result<()> {
    const FLOWS: usize = 4;
    let family = Family::V4;
    let setup = Setup::with_parameters(&[("max_flows", &FLOWS.to_string())])?;
    let context = setup.context(&all_rules())?;
    let mut monitor = open(&setup.layout.router)?;
    let server = listen(&setup.layout.server, upstream(family))?;
    let from = client_address(Way::Forward, family);
    let begin = || {
        let client = setup.client(Way::Forward);
        client.run(|| start_connecting(from, original(family)))
    };
    // Until the listener is known, old losses are nobody's news.
    std::thread::sleep(Duration::from_secs(2));
    let mut held = Vec::new();
    for _ in 0..FLOWS {
        let client = connect(setup.client(Way::Forward), from, original(family))?;
        held.push((client, accept(&server)?));
    }
    let refused = begin()?;
    let event = next(&mut monitor, "a full table")?;
    let Event::TableFull { packets } = event else {
        bail!("expected a full table, got {event:?}");
    };
    ensure!(packets > 0, "no packet was dropped");
    drop((refused, held, context, monitor));
    setup.finish()
}

fn need_capability() -> Result<()> {
    let setup = Setup::new()?;
    let result = setup.layout.router.run_apart(|| {
        keep_capabilities(|kept| kept & !CAP_NET_ADMIN).context("cannot drop CAP_NET_ADMIN")?;
        Ok(Monitor::open().map(drop))
    })?;
    let errno = result.as_ref().err().and_then(Error::errno);
    ensure!(
        errno == Some(Errno::EPERM as i32),
        "expected EPERM without CAP_NET_ADMIN, got {result:?}"
    );
    setup.finish()
}
