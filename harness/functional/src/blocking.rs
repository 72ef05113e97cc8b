// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules that block: what begins anew does not get through, and what was begun goes on. And how often each rule was the first to match.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use anyhow::{ensure, Context as _, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::util::MacAddr;

use super::landing::Landing;
use super::senders::{condition, range, redirecting, As, Asked};
use super::setup::{client_address, original, FAMILIES, WAYS};
use super::sockets::{
    accept, connect, connect_here, exchange_streams, is_readable, listen, udp, PATIENCE, SILENCE,
};
use super::untouched::with_body;
use super::GuestTest;
use mutex_abi::proxy::{Action, Field, Selection, HOOK_LOCAL_OUT};
use mutexlab_guest::net::layout::{mac_of, CLIENT_LINK, SERVER_LINK};
use mutexlab_guest::proxy::context::{configuration, Rule};
use mutexlab_guest::traffic::channel::Channel;
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::{ORIGINAL_PORT, ROUTER_CLIENT_SIDE, WIRE_CLIENT, WIRE_ORIGINAL};
use mutexlab_wire::frame::{Header, Hop, Transport};

/// Another user than root.
const SOMEBODY: u32 = 1000;

/// All of this file.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "rule-block",
            "a rule drops connections, or refuses them, and what was begun before goes on",
            block,
        ),
        GuestTest::single(
            "rule-block-shared",
            "a rule drops what goes to broadcast and multicast, too",
            shared,
        ),
        GuestTest::single(
            "rule-block-unreadable",
            "what cannot be read does not pass a rule that drops",
            unreadable,
        ),
        GuestTest::single(
            "rule-block-others",
            "a rule for root, and one that refuses all others, hold for connections of the machine to itself",
            others,
        ),
        GuestTest::single(
            "rule-block-ports-of-another",
            "who gets another's ports does not get past a rule that refuses him",
            ports_of_another,
        ),
        GuestTest::single(
            "rule-counters",
            "each rule counts the connections that it was the first to match",
            counters,
        ),
    ]
}

fn blocking(action: Action) -> Vec<Rule> {
    FAMILIES
        .into_iter()
        .map(|family| {
            let mut rule = Rule::any(family, &[]).to(original(family));
            rule.record.action = action;
            rule
        })
        .collect()
}

fn block() -> Result<()> {
    let asked = Asked::new()?;
    let blocked = || -> Result<u64> { Ok(asked.context.stats()?.packets_blocked) };
    asked.ensure(&WAYS, Landing::Original)?;
    for (action, expected) in [
        (Action::Drop, Landing::Nowhere),
        (Action::Reject, Landing::Refused),
        (Action::Drop, Landing::Nowhere),
    ] {
        let before = blocked()?;
        asked.context.configure(&blocking(action))?;
        asked
            .ensure(&WAYS, expected)
            .with_context(|| format!("{action:?}"))?;
        // One packet of each, and the SYNs that were sent again.
        ensure!(
            blocked()? >= before + 8,
            "{action:?}: {} blocked",
            blocked()? - before
        );
    }
    asked.context.configure(&[])?;
    asked.ensure(&WAYS, Landing::Original)?;
    // Connections that were there before go on.
    let family = FAMILIES[0];
    let (listener, client) = (
        listen(&asked.setup.layout.server, original(family))?,
        connect(
            &asked.setup.layout.client,
            client_address(Way::Forward, family),
            original(family),
        ),
    );
    let (client, (server, _)) = (client?, accept(&listener)?);
    asked.context.configure(&blocking(Action::Reject))?;
    exchange_streams(&client, &server, 1 << 14)?;
    asked.finish()
}

/// A port that nothing else uses.
const PORT: u16 = 9999;

fn drop_udp() -> Vec<Rule> {
    FAMILIES
        .into_iter()
        .map(|family| {
            let mut rule = Rule::any(family, &[]).ports(PORT, PORT);
            rule.record.action = Action::Drop;
            rule
        })
        .collect()
}

fn shared() -> Result<()> {
    let asked = Asked::new()?;
    for family in FAMILIES {
        let (any, all): (IpAddr, IpAddr) = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()),
            Family::V6 => (
                Ipv6Addr::UNSPECIFIED.into(),
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            ),
        };
        let server = udp(&asked.setup.layout.router, SocketAddr::new(any, PORT))?;
        let mut client = Channel::open(&asked.setup.layout.client, &CLIENT_LINK, family)?;
        let (one, each) = (mac_of(ROUTER_CLIENT_SIDE), MacAddr::broadcast());
        let own = ROUTER_CLIENT_SIDE.socket(family, PORT);
        for (rules, arrives) in [(vec![], true), (drop_udp(), false), (vec![], true)] {
            asked.context.configure(&rules)?;
            let before = asked.context.stats()?.packets_blocked;
            for (destination, to) in [(one, own), (each, own), (each, SocketAddr::new(all, PORT))] {
                let hop = Hop {
                    source: mac_of(WIRE_CLIENT),
                    destination,
                };
                // Another flow each time: what was begun before a rule goes on.
                let header = Header {
                    source: WIRE_CLIENT.socket(family, next_port()),
                    destination: to,
                    transport: Transport::Udp,
                };
                client.send(hop, &header, b"to all")?;
                let arrived = is_readable(&server, if arrives { PATIENCE } else { SILENCE })?;
                if arrived {
                    server.recv(&mut [0; 16])?;
                }
                ensure!(
                    arrived == arrives,
                    "to {destination} for {to}: arrived: {arrived}"
                );
            }
            let blocked = asked.context.stats()?.packets_blocked - before;
            ensure!(
                blocked == if arrives { 0 } else { 3 },
                "{family:?}: {blocked} were blocked"
            );
        }
    }
    asked.finish()
}

fn unreadable() -> Result<()> {
    let asked = Asked::new()?;
    let family = Family::V6;
    let mut client = Channel::open(&asked.setup.layout.client, &CLIENT_LINK, family)?;
    let mut server = Channel::open(&asked.setup.layout.server, &SERVER_LINK, family)?;
    let mut rule = Rule::any(family, &[]).to(WIRE_ORIGINAL.socket(family, ORIGINAL_PORT));
    rule.record.action = Action::Drop;
    // More options than are read, and ports that are cut off.
    for (what, frame, is_read) in [
        ("8 headers of options", options(8)?, true),
        ("9 headers of options", options(9)?, false),
        (
            "a port",
            with_body(family, IpNextHeaderProtocols::Udp, &[1, 2])?,
            false,
        ),
    ] {
        for (rules, arrives) in [(vec![], true), (vec![rule.clone()], false)] {
            asked.context.configure(&rules)?;
            let before = asked.context.stats()?;
            client.send_frame(&frame)?;
            let arrived = server.receive(&[mac_of(WIRE_ORIGINAL)])?.is_some();
            ensure!(arrived == arrives, "{what}, {arrives}: arrived: {arrived}");
            let after = asked.context.stats()?;
            let blocked = after.packets_blocked - before.packets_blocked;
            let malformed = after.malformed - before.malformed;
            ensure!(
                (blocked, malformed) == (u64::from(is_read && !arrives), u64::from(!is_read)),
                "{what}: {blocked} blocked, {malformed} malformed"
            );
        }
    }
    asked.finish()
}

/// A datagram behind headers of destination options that say nothing (RFC 8200, section 4.6).
fn options(count: usize) -> Result<Vec<u8>> {
    const OPTIONS: u8 = 60;
    let mut body = Vec::new();
    for left in (0..count).rev() {
        let next = if left == 0 {
            IpNextHeaderProtocols::Udp.0
        } else {
            OPTIONS
        };
        // PadN of four zeros.
        body.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    }
    // Another client's port each time, and no checksum, which a router does not look at.
    body.extend(next_port().to_be_bytes());
    body.extend(ORIGINAL_PORT.to_be_bytes());
    body.extend([0, 8, 0, 0]);
    with_body(
        Family::V6,
        pnet::packet::ip::IpNextHeaderProtocol(OPTIONS),
        &body,
    )
}

fn next_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(30_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Root's connections go where they want, and all others' are refused.
fn root_only(asked: &Asked) -> Result<()> {
    let mut rules = Vec::new();
    for family in FAMILIES {
        let mut refuse = Rule::any(family, &[]);
        refuse.record.action = Action::Reject;
        rules.extend([Rule::any(family, &[]), refuse]);
    }
    let mut all = configuration(Selection::RoundRobin, &rules);
    for rule in all.rules.iter_mut().step_by(2) {
        ensure!(
            rule.conditions.push(condition(Field::User, range(0, 0))),
            "too many conditions"
        );
    }
    asked.context.put(&all)?;
    Ok(())
}

fn others() -> Result<()> {
    let asked = Asked::new()?;
    let router = &asked.setup.layout.router;
    root_only(&asked)?;
    for server in [
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 4444),
        SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 4444),
        ROUTER_CLIENT_SIDE.socket(Family::V4, 4445),
        ROUTER_CLIENT_SIDE.socket(Family::V6, 4445),
    ] {
        let listener = listen(router, server)?;
        let echo = udp(router, server)?;
        let any = SocketAddr::new(server.ip(), 0);
        let connected = connect(router, any, server).context("root")?;
        let (accepted, _) = accept(&listener)?;
        exchange_streams(&connected, &accepted, 1 << 12)?;
        let client = udp(router, any)?;
        client.send_to(&[1], server).context("root's datagram")?;
        ensure!(
            is_readable(&echo, PATIENCE)?,
            "root's datagram to {server} did not arrive"
        );
        let (_, from) = echo.recv_from(&mut [0])?;
        echo.send_to(&[2], from).context("the answer")?;
        ensure!(
            is_readable(&client, PATIENCE)?,
            "root's answer from {server} did not arrive"
        );
        let somebody = As::new(SOMEBODY, 0);
        let refused = router.run(|| Ok(connect_here(any, server).is_err()));
        drop(somebody);
        ensure!(refused?, "{server}: a user was let through");
    }
    asked.finish()
}

/// A connection of this user from `local` to the server; `None` if it was refused.
fn connection(
    asked: &Asked,
    user: u32,
    local: SocketAddr,
    family: Family,
) -> Result<Option<TcpStream>> {
    let them = As::new(user, 0);
    let connected = asked
        .setup
        .layout
        .router
        .run(|| Ok(connect_here(local, original(family))));
    drop(them);
    match connected? {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => {
            let is_refused = format!("{error:#}").contains("ECONNREFUSED");
            ensure!(is_refused, "user {user}: {error:#}");
            Ok(None)
        }
    }
}

fn ports_of_another() -> Result<()> {
    let asked = Asked::new()?;
    root_only(&asked)?;
    for (number, family) in (0..).zip(FAMILIES) {
        let listener = listen(&asked.setup.layout.server, original(family))?;
        let mut local = client_address(Way::Local, family);
        for (ending, port) in [("reset", 20_000), ("closed by the server", 20_010)] {
            local.set_port(port + number);
            for round in 0..3 {
                let what = || format!("{family:?}, {ending}, round {round}");
                let first = connection(&asked, 0, local, family)?
                    .with_context(|| format!("{}: root was refused", what()))?;
                let (accepted, _) = accept(&listener)?;
                if ending == "reset" {
                    let now = nix::libc::linger {
                        l_onoff: 1,
                        l_linger: 0,
                    };
                    setsockopt(&first, sockopt::Linger, &now)?;
                    drop((first, accepted));
                } else {
                    drop(accepted);
                    ensure!(is_readable(&first, PATIENCE)?, "{}: no end", what());
                    drop(first);
                }
                let second = connection(&asked, SOMEBODY, local, family)?;
                ensure!(second.is_none(), "{}: another user was let through", what());
            }
        }
    }
    asked.finish()
}

fn counters() -> Result<()> {
    let asked = Asked::new()?;
    let mut configuration = redirecting(&[], &[])?;
    // The first rule of the machine's own only; those behind it are for what passes through.
    for rule in &mut configuration.rules {
        rule.hooks = HOOK_LOCAL_OUT;
    }
    let mut through = configuration.rules.clone();
    through.iter_mut().for_each(|rule| rule.hooks = 3);
    let count = through.len();
    configuration.rules.extend(through);
    asked.context.put(&configuration)?;
    asked.ensure(&WAYS, Landing::Upstream)?;
    asked.ensure(&[Way::Forward], Landing::Upstream)?;
    let counts = asked.context.client().counted(None)?.of_rules;
    let expected: Vec<u64> = [vec![1; count], vec![2; count]].concat();
    ensure!(counts == expected, "expected {expected:?}, got {counts:?}");
    // A new configuration counts anew.
    asked.context.put(&configuration)?;
    let counts = asked.context.client().counted(None)?.of_rules;
    ensure!(counts == vec![0; 2 * count], "{counts:?}");
    asked.finish()
}
