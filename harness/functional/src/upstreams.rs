// SPDX-License-Identifier: MIT OR Apache-2.0

//! To which of several upstreams connections go, and how one in the client's own network answers.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use mprox_client::Configuration;
use mutex_abi::proxy::Selection;

use super::setup::{
    client_address, ensure_no_loss, original, upstream, Setup, FAMILIES, PROTOCOLS,
};
use super::sockets::{
    accept, answer, connect, ensure_silent, exchange_streams, listen, send, start_connecting, udp,
};
use super::GuestTest;
use mutexlab_guest::net::layout::mac_of;
use mutexlab_guest::net::layout::{CLIENT_LINK, ROUTER_CLIENT_LINK};
use mutexlab_guest::net::netlink::RouteSocket;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::{Context, Rule};
use mutexlab_guest::traffic::payload;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{
    Host, NEIGHBOUR, ROUTER_CLIENT_SIDE, UPSTREAM_PORT, WIRE_UPSTREAM,
};

/// All of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "upstream-round-robin",
            "connections are spread over several upstreams exactly",
            round_robin,
        ),
        GuestTest::single(
            "upstream-failover",
            "an upstream that refuses is passed over until it works again",
            failover,
        ),
        GuestTest::single(
            "upstream-failover-silent",
            "an upstream that says nothing is passed over",
            failover_of_a_silent_one,
        ),
        GuestTest::single(
            "upstream-hairpin",
            "an upstream in the client's own network answers by way of the router",
            hairpin,
        ),
    ]
}

/// An upstream at the server with the given port.
pub fn at_port(family: Family, port: u16) -> SocketAddr {
    let mut address = upstream(family);
    address.set_port(port);
    address
}

/// Three upstreams and as many flows for each, of both protocols; a fourth is not the rule's.
fn round_robin() -> Result<()> {
    const EACH: usize = 8;
    let setup = Setup::new()?;
    let context = setup.context(&[])?;
    for family in FAMILIES {
        let ports = [7001, 7002, 7003];
        let upstreams = ports.map(|port| context::upstream(at_port(family, port), 0));
        let elsewhere = Rule::any(family, &[context::upstream(upstream(family), 0)]).ports(9, 9);
        let rule = Rule::any(family, &upstreams);
        context.put(&context::configuration(
            Selection::RoundRobin,
            &[elsewhere, rule],
        ))?;
        let listeners = listen_all(&setup, family, &ports)?;
        let from = client_address(Way::Forward, family);
        let mut streams = Vec::new();
        for _ in 0..EACH * ports.len() {
            streams.push(connect(setup.client(Way::Forward), from, original(family))?);
        }
        for (listener, port) in listeners.iter().zip(ports) {
            for _ in 0..EACH {
                accept(listener).with_context(|| format!("upstream {port}"))?;
            }
            ensure_silent(listener, &format!("upstream {port}, with its share,"))?;
        }
        // UDP: as many rounds again, each to the three in turn.
        let servers = ports
            .map(|port| udp(&setup.layout.server, at_port(family, port)))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        // They stay, so that each has a port of its own, and its flow is a new one.
        let mut clients = Vec::new();
        for sequence in 0..EACH as u32 {
            for server in &servers {
                let client = udp(setup.client(Way::Forward), from)?;
                let label = Label { flow: 3, sequence };
                let seen = send(&client, original(family), server, label, 64)?;
                answer(server, seen, &client, original(family), label, 64)?;
                clients.push(client);
            }
        }
    }
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

fn listen_all(setup: &Setup, family: Family, ports: &[u16]) -> Result<Vec<TcpListener>> {
    let listeners = ports.iter();
    listeners
        .map(|&port| listen(&setup.layout.server, at_port(family, port)))
        .collect()
}

/// Two upstreams of one rule, by preference.
pub fn by_preference(first: SocketAddr, second: SocketAddr, family: Family) -> Configuration {
    // Not the first in the list is preferred, but the one of the lowest priority.
    let upstreams = [context::upstream(second, 7), context::upstream(first, 3)];
    context::configuration(Selection::Failover, &[Rule::any(family, &upstreams)])
}

const RETRY: Duration = Duration::from_secs(2);

fn failover() -> Result<()> {
    let setup = Setup::with_parameters(&[("upstream_retry", "2")])?;
    let context = setup.context(&[])?;
    for family in FAMILIES {
        let (first, second) = (at_port(family, 7001), at_port(family, 7002));
        context.put(&by_preference(first, second, family))?;
        let from = client_address(Way::Forward, family);
        let attempt = || connect(setup.client(Way::Forward), from, original(family));
        let backup = listen(&setup.layout.server, second)?;
        // Two of them mark it for the only client that there is.
        for _ in 0..2 {
            ensure!(
                attempt().is_err(),
                "the preferred upstream does not listen; expected a refusal"
            );
        }
        let refused = Instant::now();
        for _ in 0..3 {
            let _client = attempt().context("after a refusal")?;
            accept(&backup).context("backup")?;
        }
        // A configuration with other rules and the same upstreams forgets nothing of them.
        let mut others = by_preference(first, second, family);
        others
            .rules
            .insert(0, Rule::any(family, &[]).ports(9, 9).record);
        context.put(&others)?;
        if refused.elapsed() < RETRY / 2 {
            let _client = attempt().context("after another configuration")?;
            accept(&backup).context("after another configuration")?;
        }
        let preferred = listen(&setup.layout.server, first)?;
        if refused.elapsed() < RETRY / 2 {
            let _client = attempt()?;
            accept(&backup).context("before it is time to try the other again")?;
        }
        thread::sleep(RETRY);
        for _ in 0..3 {
            let _client = attempt()?;
            accept(&preferred).context("preferred, after it has come back")?;
        }
        ensure_silent(&backup, "the backup")?;

        // It refuses when it is tried again, too.
        drop(preferred);
        for _ in 0..2 {
            ensure!(attempt().is_err(), "expected another refusal");
        }
        thread::sleep(RETRY);
        ensure!(attempt().is_err(), "expected it to be tried again");
        let _client = attempt().context("after another refusal")?;
        accept(&backup).context("backup")?;
    }
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

fn failover_of_a_silent_one() -> Result<()> {
    let setup = Setup::with_parameters(&[("tcp_syn_timeout", "1"), ("gc_interval", "1")])?;
    for family in FAMILIES {
        let context = setup.context(&[])?;
        let nobody = WIRE_UPSTREAM.socket(family, UPSTREAM_PORT);
        context.put(&by_preference(nobody, upstream(family), family))?;
        let from = client_address(Way::Forward, family);
        let client = setup.client(Way::Forward);
        // Given up before they are sent again; two of them mark it for their client.
        for count in 1..=2 {
            let abandoned = client.run(|| start_connecting(from, original(family)))?;
            drop(abandoned);
            ensure_flows_go(&context, count)?;
        }
        let listener = listen(&setup.layout.server, upstream(family))?;
        let _client = connect(client, from, original(family))?;
        accept(&listener).context("the other upstream")?;
        ensure_no_loss(&context.stats()?)?;
    }
    setup.finish()
}

fn ensure_flows_go(context: &Context, count: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stats = context.stats()?;
        if stats.flows_created == count && stats.flows_current == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "expected {count} flows, collected by now; got {stats:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// The upstream is a neighbour of the client: in the same network, here even on the same machine,
/// which would not take the client's own address for a sender's.
fn hairpin() -> Result<()> {
    let setup = Setup::new()?;
    let layout = &setup.layout;
    let mut client_links = RouteSocket::open(&layout.client)?;
    let mut router_links = RouteSocket::open(&layout.router)?;
    for family in FAMILIES {
        let prefix = if family == Family::V4 { 24 } else { 64 };
        let address = NEIGHBOUR.address(family);
        client_links.add_address(CLIENT_LINK.index, address, prefix)?;
        router_links.add_neighbour(ROUTER_CLIENT_LINK.index, address, mac_of(NEIGHBOUR))?;
    }
    layout
        .router
        .set_sysctl("ipv4/conf/all/send_redirects", "1")?;
    layout.router.set_sysctl(
        &format!("ipv4/conf/{}/send_redirects", ROUTER_CLIENT_LINK.name),
        "1",
    )?;
    let context = setup.context(&FAMILIES.map(|family| {
        let neighbour = NEIGHBOUR.socket(family, UPSTREAM_PORT);
        Rule::any(family, &[context::upstream(neighbour, 0)]).to(original(family))
    }))?;
    for family in FAMILIES {
        for protocol in PROTOCOLS {
            turn_back(&setup, &NEIGHBOUR, protocol, family)
                .with_context(|| format!("{protocol:?} {family:?}"))?;
        }
    }
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure!(
        stats.flows_created == 8,
        "expected two flows of each protocol and version, got {stats:?}"
    );
    let messages = layout
        .router
        .run(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    ensure!(
        !messages.contains("OutType5"),
        "the router told of a better way, to an address that its clients do not know: {messages}"
    );
    drop(context);
    setup.finish()
}

/// Two clients with the same port at different addresses of the client's network.
fn turn_back(setup: &Setup, upstream: &Host, protocol: Protocol, family: Family) -> Result<()> {
    let network = &setup.layout.client;
    let at = upstream.socket(family, UPSTREAM_PORT);
    let to = original(family);
    let router = ROUTER_CLIENT_SIDE.address(family);
    let mut ports = Vec::new();
    let mut kept = Vec::new();
    let clients = [
        client_address(Way::Forward, family),
        upstream.socket(family, 0),
    ];
    match protocol {
        Protocol::Tcp => {
            let listener = listen(network, at)?;
            for mut from in clients {
                from.set_port(41_000);
                let client = connect(network, from, to)?;
                let (accepted, seen) = accept(&listener)?;
                ensure!(
                    seen.ip() == router,
                    "the upstream sees {seen}; expected {router}"
                );
                exchange_streams(&client, &accepted, 300_000)?;
                ports.push(seen.port());
                kept.push((client, accepted));
            }
        }
        Protocol::Udp => {
            let server = udp(network, at)?;
            for (mut from, flow) in clients.into_iter().zip(1..) {
                from.set_port(41_000);
                let client = udp(network, from)?;
                for (sequence, length) in [8, 512, 1400].into_iter().enumerate() {
                    let label = Label {
                        flow,
                        sequence: sequence as u32,
                    };
                    let length = length.max(payload::MIN);
                    let seen = send(&client, to, &server, label, length)?;
                    ensure!(
                        seen.ip() == router,
                        "the upstream sees {seen}; expected {router}"
                    );
                    answer(&server, seen, &client, to, label, length)?;
                    ports.push(seen.port());
                }
            }
            ports.dedup();
        }
    }
    ensure!(
        ports.len() == 2 && ports[0] != ports[1] && ports.iter().all(|port| *port < 32_768),
        "the upstream sees ports {ports:?}; expected two, none of them one of the router's sockets"
    );
    Ok(())
}
