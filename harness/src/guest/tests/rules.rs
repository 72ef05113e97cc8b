// SPDX-License-Identifier: MIT OR Apache-2.0

//! What rules say: which connections they are for, and to which of several upstreams those go.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use mutex_abi::proxy::{Selection, HOOK_LOCAL_OUT};

use super::setup::{
    client_address, ensure_no_loss, original, upstream, Setup, FAMILIES, PROTOCOLS, WAYS,
};
use super::sockets::{accept, answer, connect, ensure_silent, exchange_streams, listen, send, udp};
use super::GuestTest;
use crate::guest::layout::{
    Host, CLIENT_LINK, NEIGHBOUR, ORIGINAL, ROUTER_CLIENT_LINK, ROUTER_CLIENT_SIDE,
    ROUTER_SERVER_LINK, UPSTREAM_PORT, WIRE_UPSTREAM,
};
use crate::guest::netlink::RouteSocket;
use crate::guest::payload::Label;
use crate::guest::protocol::{Family, Protocol, Way};
use crate::guest::proxy::{self, encode, Context, Rule};

/// All of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "rule-bypass",
            "a bypass inside a redirected range leaves connections alone",
            bypass,
        ),
        GuestTest::single(
            "rule-source",
            "a rule is for connections from its source network only",
            source,
        ),
        GuestTest::single(
            "rule-interface",
            "a rule is for connections through its interface only",
            interface,
        ),
        GuestTest::single(
            "rule-round-robin",
            "connections are spread over several upstreams exactly",
            round_robin,
        ),
        GuestTest::single(
            "rule-failover",
            "an upstream that refuses is passed over until it works again",
            failover,
        ),
        GuestTest::single(
            "rule-failover-silent",
            "an upstream that says nothing is passed over",
            failover_of_a_silent_one,
        ),
        GuestTest::single(
            "rule-loop-free",
            "connections to an upstream of any context are never redirected",
            upstreams_are_left_alone,
        ),
        GuestTest::single(
            "rule-relay",
            "a relay on the router that is the upstream reaches the original destination",
            relay,
        ),
        GuestTest::single(
            "rule-hairpin",
            "an upstream in the client's own network answers by way of the router",
            hairpin,
        ),
    ]
}

/// An upstream at the server with the given port.
fn at_port(family: Family, port: u16) -> SocketAddr {
    let mut address = upstream(family);
    address.set_port(port);
    address
}

/// One rule that sends everything of a version to [`upstream`], but for answers of servers over
/// UDP: those go to ports of clients.
fn everything(family: Family) -> Rule {
    Rule::any(family, &[proxy::upstream(upstream(family), 0)]).ports(1, 9_999)
}

/// A round trip of a new flow over UDP and one over TCP, to [`original`]. Both must arrive at
/// `server`, and nowhere else than there.
fn ensure_arrives(setup: &Setup, way: Way, family: Family, server: SocketAddr) -> Result<()> {
    let to = original(family);
    let from = client_address(way, family);
    ensure_arrives_from(setup, way, from, to, server)
        .with_context(|| format!("{family:?} {way:?} from {from} to {to}, expected at {server}"))
}

fn ensure_arrives_from(
    setup: &Setup,
    way: Way,
    from: SocketAddr,
    to: SocketAddr,
    server: SocketAddr,
) -> Result<()> {
    let label = Label {
        flow: 1,
        sequence: 0,
    };
    let at = udp(&setup.layout.server, server)?;
    let client = udp(setup.client(way), from)?;
    let seen = send(&client, to, &at, label, 64).context("UDP")?;
    answer(&at, seen, &client, to, label, 64).context("UDP")?;

    let listener = listen(&setup.layout.server, server)?;
    let client = connect(setup.client(way), from, to)?;
    let (accepted, _) = accept(&listener).context("TCP")?;
    exchange_streams(&client, &accepted, 100_000).context("TCP")
}

fn ensure_flows(context: &Context, expected: u64) -> Result<()> {
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure!(
        stats.flows_created == expected,
        "expected {expected} flows so far, got {stats:?}"
    );
    Ok(())
}

/// A bypass of one port, of one protocol, before a redirection of everything.
fn bypass() -> Result<()> {
    let setup = Setup::new()?;
    let mut flows = 0;
    let context = setup.context(&[])?;
    for family in FAMILIES {
        let all = everything(family);
        let let_by = Rule::any(family, &[]).to(original(family));
        let beside = Rule::any(family, &[]).ports(8, 9);
        for way in WAYS {
            context.configure(&[let_by.clone(), all.clone()])?;
            ensure_arrives(&setup, way, family, original(family))?;
            ensure_flows(&context, flows)?;
            context.configure(&[beside.clone(), all.clone()])?;
            ensure_arrives(&setup, way, family, upstream(family))?;
            flows += 2;
            ensure_flows(&context, flows)?;
        }
        // One protocol let by, the other not.
        let udp_only = let_by.over(Protocol::Udp);
        context.configure(&[udp_only, all])?;
        let from = client_address(Way::Forward, family);
        let decoy = listen(&setup.layout.server, original(family))?;
        let listener = listen(&setup.layout.server, upstream(family))?;
        let _client = connect(setup.client(Way::Forward), from, original(family))?;
        accept(&listener)?;
        ensure_silent(&decoy, "the original destination")?;
        flows += 1;
        let client = udp(setup.client(Way::Forward), from)?;
        let server = udp(&setup.layout.server, original(family))?;
        let label = Label {
            flow: 2,
            sequence: 0,
        };
        send(&client, original(family), &server, label, 64)?;
        ensure_flows(&context, flows)?;
    }
    drop(context);
    setup.finish()
}

/// Rules for the client's address, its network, and the half of that in which it is not.
fn source() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&[])?;
    for family in FAMILIES {
        let client = client_address(Way::Forward, family).ip();
        let (bits, network) = match family {
            Family::V4 => (32, 24),
            Family::V6 => (128, 64),
        };
        let high = match client {
            std::net::IpAddr::V4(address) => (u32::from(address) | 0x80).to_be_bytes().into(),
            std::net::IpAddr::V6(address) => (u128::from(address) | 1 << 63).to_be_bytes().into(),
        };
        for (source, prefix, matches) in [
            (client, bits, true),
            (client, network, true),
            (client, 0, true),
            (high, network + 1, false),
            (ROUTER_CLIENT_SIDE.address(family), bits, false),
        ] {
            context.configure(&[everything(family).from(source, prefix)])?;
            let expected = if matches { upstream } else { original };
            ensure_arrives(&setup, Way::Forward, family, expected(family))
                .with_context(|| format!("source {source}/{prefix}"))?;
            // The router's own packets come from another network.
            let expected = if prefix == 0 { upstream } else { original };
            ensure_arrives(&setup, Way::Local, family, expected(family))
                .with_context(|| format!("source {source}/{prefix}"))?;
        }
    }
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

/// Packets passing through come in at the one interface, the machine's own go out at the other.
fn interface() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&[])?;
    let similar = &ROUTER_CLIENT_LINK.name[..ROUTER_CLIENT_LINK.name.len() - 1];
    for family in FAMILIES {
        for (name, redirected) in [
            (ROUTER_CLIENT_LINK.name, Some(Way::Forward)),
            (ROUTER_SERVER_LINK.name, Some(Way::Local)),
            (similar, None),
        ] {
            context.configure(&[everything(family).through(name)])?;
            for way in WAYS {
                let expected = if redirected == Some(way) {
                    upstream
                } else {
                    original
                };
                ensure_arrives(&setup, way, family, expected(family))
                    .with_context(|| format!("interface {name}"))?;
            }
        }
    }
    ensure_no_loss(&context.stats()?)?;
    drop(context);
    setup.finish()
}

/// Three upstreams and as many flows for each, of both protocols; a fourth is not the rule's.
fn round_robin() -> Result<()> {
    const EACH: usize = 8;
    let setup = Setup::new()?;
    let context = setup.context(&[])?;
    for family in FAMILIES {
        let ports = [7001, 7002, 7003];
        let upstreams = ports.map(|port| proxy::upstream(at_port(family, port), 0));
        let elsewhere = everything(family).ports(9, 9);
        let rule = Rule::any(family, &upstreams);
        context.write(&encode(Selection::RoundRobin, &[elsewhere, rule]))?;
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
        for sequence in 0..EACH as u32 {
            for server in &servers {
                let client = udp(setup.client(Way::Forward), from)?;
                let label = Label { flow: 3, sequence };
                let seen = send(&client, original(family), server, label, 64)?;
                answer(server, seen, &client, original(family), label, 64)?;
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
fn by_preference(first: SocketAddr, second: SocketAddr, family: Family) -> Vec<u8> {
    // Not the first in the list is preferred, but the one of the lowest priority.
    let upstreams = [proxy::upstream(second, 7), proxy::upstream(first, 3)];
    encode(Selection::Failover, &[Rule::any(family, &upstreams)])
}

const RETRY: Duration = Duration::from_secs(2);

fn failover() -> Result<()> {
    let setup = Setup::with_parameters(&[("upstream_retry", "2")])?;
    let context = setup.context(&[])?;
    for family in FAMILIES {
        let (first, second) = (at_port(family, 7001), at_port(family, 7002));
        context.write(&by_preference(first, second, family))?;
        let from = client_address(Way::Forward, family);
        let attempt = || connect(setup.client(Way::Forward), from, original(family));
        let backup = listen(&setup.layout.server, second)?;
        let refused = Instant::now();
        ensure!(
            attempt().is_err(),
            "the preferred upstream does not listen; expected a refusal"
        );
        for _ in 0..3 {
            let _client = attempt().context("after a refusal")?;
            accept(&backup).context("backup")?;
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
        ensure!(attempt().is_err(), "expected another refusal");
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
        context.write(&by_preference(nobody, upstream(family), family))?;
        let from = client_address(Way::Forward, family);
        let client = setup.client(Way::Forward);
        // Given up before it is sent again.
        let abandoned = client.run(|| {
            let address = match family {
                Family::V4 => nix::sys::socket::AddressFamily::Inet,
                Family::V6 => nix::sys::socket::AddressFamily::Inet6,
            };
            start_connecting(address, from, original(family))
        })?;
        drop(abandoned);
        ensure_flow_goes(&context)?;
        let listener = listen(&setup.layout.server, upstream(family))?;
        let _client = connect(client, from, original(family))?;
        accept(&listener).context("the other upstream")?;
        ensure_no_loss(&context.stats()?)?;
    }
    setup.finish()
}

/// Sends a SYN and does not wait for the answer.
fn start_connecting(
    family: nix::sys::socket::AddressFamily,
    from: SocketAddr,
    to: SocketAddr,
) -> Result<std::os::fd::OwnedFd> {
    use nix::errno::Errno;
    use nix::sys::socket::{self, SockFlag, SockType, SockaddrStorage};
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Stream, flags, None)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Err(Errno::EINPROGRESS) => Ok(socket),
        other => Err(anyhow!(
            "expected the connection to be under way: {other:?}"
        )),
    }
}

fn ensure_flow_goes(context: &Context) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stats = context.stats()?;
        if stats.flows_created == 1 && stats.flows_current == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "expected one flow, collected by now; got {stats:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Two contexts that redirect everything, with an upstream each, of which one keeps ports.
fn upstreams_are_left_alone() -> Result<()> {
    let setup = Setup::new()?;
    let first = setup.context(
        &FAMILIES.map(|family| Rule::any(family, &[proxy::upstream(upstream(family), 0)])),
    )?;
    // The other address of the server, with its ports kept.
    let second = setup.context(&FAMILIES.map(|family| {
        let keeps = proxy::upstream(ORIGINAL.socket(family, 0), 0);
        Rule::any(family, &[keeps]).ports(100, 200)
    }))?;
    for family in FAMILIES {
        for way in WAYS {
            let from = client_address(way, family);
            for to in [upstream(family), ORIGINAL.socket(family, 150)] {
                ensure_arrives_from(&setup, way, from, to, to)
                    .with_context(|| format!("{way:?} straight to {to}"))?;
            }
        }
    }
    ensure_flows(&first, 0)?;
    // Not all of that address is the upstream.
    let to = ORIGINAL.socket(Family::V4, 201);
    let from = client_address(Way::Forward, Family::V4);
    ensure_arrives_from(&setup, Way::Forward, from, to, upstream(Family::V4))?;
    ensure_flows(&first, 2)?;
    drop(second);
    drop(first);
    setup.finish()
}

/// The router itself is the upstream: it answers for the original destination and goes on to it,
/// past its own rule by a bypass of what comes from its own address.
fn relay() -> Result<()> {
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    for family in FAMILIES {
        let relay = ROUTER_CLIENT_SIDE.socket(family, UPSTREAM_PORT);
        let own = client_address(Way::Local, family);
        let bits = if family == Family::V4 { 32 } else { 128 };
        let context = setup.context(&[
            Rule::any(family, &[])
                .from(own.ip(), bits)
                .at(HOOK_LOCAL_OUT),
            Rule::any(family, &[proxy::upstream(relay, 0)]),
        ])?;
        let listener = listen(router, relay)?;
        let server = listen(&setup.layout.server, original(family))?;
        let from = client_address(Way::Forward, family);
        let client = connect(setup.client(Way::Forward), from, original(family))?;
        let (near, peer) = accept(&listener).context("relay")?;
        ensure!(
            peer == client.local_addr()?,
            "the relay sees {peer}; expected the client"
        );
        let far = connect(router, own, original(family)).context("from the relay")?;
        let (accepted, _) = accept(&server).context("the relay's own connection")?;
        let passed = thread::spawn(move || copy_both_ways(&near, &far));
        exchange_streams(&client, &accepted, 300_000)?;
        passed.join().map_err(|_| anyhow!("the relay panicked"))??;
        ensure_flows(&context, 1)?;
        drop(context);
    }
    setup.finish()
}

fn copy_both_ways(one: &TcpStream, other: &TcpStream) -> Result<()> {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok(to.shutdown(std::net::Shutdown::Write)?),
                length => to.write_all(&buffer[..length])?,
            }
        }
    };
    thread::scope(|scope| {
        let back = scope.spawn(|| copy(other, one));
        copy(one, other)?;
        back.join().map_err(|_| anyhow!("a thread panicked"))?
    })
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
        router_links.add_neighbour(ROUTER_CLIENT_LINK.index, address, NEIGHBOUR.mac)?;
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
        Rule::any(family, &[proxy::upstream(neighbour, 0)]).to(original(family))
    }))?;
    for family in FAMILIES {
        for protocol in PROTOCOLS {
            turn_back(&setup, &NEIGHBOUR, protocol, family)
                .with_context(|| format!("{protocol:?} {family:?}"))?;
        }
    }
    // Two flows of TCP and two of UDP for each version.
    ensure_flows(&context, 8)?;
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
                    let length = length.max(crate::guest::payload::MIN);
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
