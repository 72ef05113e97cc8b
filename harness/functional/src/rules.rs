// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which connections rules are for, and which are left alone.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;

use anyhow::{anyhow, ensure, Context as _, Result};
use mutex_abi::proxy::{HOOK_LOCAL_OUT, MAX_RULES};
use nix::errno::Errno;

use super::setup::{client_address, ensure_no_loss, original, upstream, Setup, FAMILIES, WAYS};
use super::sockets::{accept, answer, connect, ensure_silent, exchange_streams, listen, send, udp};
use super::GuestTest;
use mutexlab_guest::net::layout::{ROUTER_CLIENT_LINK, ROUTER_SERVER_LINK};
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::{Context, Rule};
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{ORIGINAL, ROUTER_CLIENT_SIDE, UPSTREAM_PORT};

/// Whether rules are found by their index.
const RULE_INDEX: &str = "/sys/module/mutex_proxy/parameters/perf_enable_rule_index";

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
            "rule-many",
            "of thousands of rules the first that matches decides, found by the index and without",
            many,
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
    ]
}

/// One rule that sends everything of a version to [`upstream`], but for answers of servers over
/// UDP: those go to ports of clients.
fn everything(family: Family) -> Rule {
    Rule::any(family, &[context::upstream(upstream(family), 0)]).ports(1, 9_999)
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
        stats.flows_created - stats.flows_direct == expected,
        "expected {expected} redirected flows so far, got {stats:?}"
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
            IpAddr::V4(address) => (u32::from(address) | 0x80).to_be_bytes().into(),
            IpAddr::V6(address) => (u128::from(address) | 1 << 63).to_be_bytes().into(),
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

/// As many rules as there may be, of which the last redirects everything; and with one before it that lets a port by, at
/// the places where words of bit vectors begin and end.
fn many() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&[])?;
    let others = |family| {
        let to = [context::upstream(upstream(family), 0)];
        (0..MAX_RULES as u16).map(move |number| {
            let [high, low] = number.to_be_bytes();
            let rule = Rule::any(family, &to);
            let rule = match number % 4 {
                0 => rule.ports(20_000 + number, 30_000 + number),
                1 => rule.at(HOOK_LOCAL_OUT).ports(30_000, 30_000 + number),
                _ => rule,
            };
            // Of 203.0.113.0/24 (RFC 5737) and 2001:db8::/32 (RFC 3849), where nobody is.
            let (place, bits): (IpAddr, u8) = match family {
                Family::V4 => ([203, 0, 113, low].into(), 32),
                Family::V6 => ([0x2001, 0xdb8, 0xff, number, 0, 0, 0, 0].into(), 128),
            };
            match number % 3 {
                0 => rule.from(place, bits - 1),
                1 => rule.through(&format!("no{high}-{low}")),
                _ => rule.towards(place, bits - u8::from(low % 2 == 0)),
            }
        })
    };
    let mut flows = 0;
    for family in FAMILIES {
        let last = MAX_RULES - 1;
        let mut rules: Vec<Rule> = others(family).collect();
        rules[last] = everything(family);
        for (index, let_by) in [
            (1, None),
            (0, None),
            (1, Some(64)),
            (1, Some(last - 1)),
            (0, Some(127)),
        ] {
            fs::write(RULE_INDEX, index.to_string()).context(RULE_INDEX)?;
            let mut rules = rules.clone();
            if let Some(place) = let_by {
                rules[place] = Rule::any(family, &[]).to(original(family));
            }
            context.configure(&rules)?;
            for way in WAYS {
                let expected = if let_by.is_none() { upstream } else { original };
                ensure_arrives(&setup, way, family, expected(family))
                    .with_context(|| format!("index {index}, let by at {let_by:?}"))?;
                flows += if let_by.is_none() { 2 } else { 0 };
                ensure_flows(&context, flows)?;
            }
        }
        // Another context may not have one more.
        let beyond = setup.context(&[])?;
        let error = beyond.configure(&[everything(family)]).err();
        ensure!(
            error.as_ref().and_then(mprox_client::Error::errno) == Some(Errno::ENOSPC as i32),
            "expected ENOSPC beyond {MAX_RULES} rules, got {error:?}"
        );
    }
    drop(context);
    setup.finish()
}

/// Two contexts that redirect everything, with an upstream each, of which one keeps ports.
fn upstreams_are_left_alone() -> Result<()> {
    let setup = Setup::new()?;
    let first = setup.context(
        &FAMILIES.map(|family| Rule::any(family, &[context::upstream(upstream(family), 0)])),
    )?;
    // The other address of the server, with its ports kept.
    let second = setup.context(&FAMILIES.map(|family| {
        let keeps = context::upstream(ORIGINAL.socket(family, 0), 0);
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
            Rule::any(family, &[context::upstream(relay, 0)]),
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
                0 => return Ok(to.shutdown(Shutdown::Write)?),
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
