// SPDX-License-Identifier: MIT OR Apache-2.0

//! Beside the kernel's connection tracking: a firewall with state, and masquerade.

use std::net::SocketAddr;

use anyhow::{ensure, Context as _, Result};

use super::conversation::Servers;
use super::setup::{
    all_rules, client_address, ensure_no_loss, original, Setup, FAMILIES, PROTOCOLS, WAYS,
};
use super::sockets::{self, udp};
use super::GuestTest;
use mutexlab_guest::net::nft;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Way};
use mutexlab_protocol::addresses::ROUTER_SERVER_SIDE;

/// Messages of each conversation.
const MESSAGES: usize = 20;

/// Lets pass what belongs to a connection or begins one. What the module redirects is untracked.
const FIREWALL: &str = "
table inet firewall {
    chain passing {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        ct state new,untracked accept
    }
    chain incoming {
        type filter hook input priority filter; policy drop;
        ct state invalid drop
        ct state established,related,untracked accept
    }
}
";

/// Hides the client behind the router.
const MASQUERADE: &str = "
table inet hiding {
    chain leaving {
        type nat hook postrouting priority srcnat;
        oifname \"servers\" masquerade
    }
}
";

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "beside-firewall",
            "redirection works behind a firewall with connection tracking, for others too",
            beside_firewall,
        ),
        GuestTest::single(
            "beside-masquerade",
            "redirection works where others are masqueraded",
            beside_masquerade,
        ),
    ]
}

fn beside_firewall() -> Result<()> {
    with_rules(FIREWALL, |setup, family| {
        let seen = unredirected(setup, family)?;
        ensure!(
            seen.ip() == client_address(Way::Forward, family).ip(),
            "a connection that is not redirected comes from {seen}"
        );
        Ok(())
    })
}

fn beside_masquerade() -> Result<()> {
    with_rules(MASQUERADE, |setup, family| {
        let seen = unredirected(setup, family)?;
        // Otherwise nothing is masqueraded, and the test shows nothing.
        ensure!(
            seen.ip() == ROUTER_SERVER_SIDE.address(family),
            "a connection that is not redirected should be masqueraded, but comes from {seen}"
        );
        Ok(())
    })
}

/// Redirects connections of every sort while the router has the rules `ruleset`, and others, which
/// `control` looks at, pass beside.
fn with_rules(ruleset: &str, control: impl Fn(&Setup, Family) -> Result<()>) -> Result<()> {
    let setup = Setup::new()?;
    nft::load(&setup.layout.router, ruleset)?;
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut conversations = Vec::new();
    for servers in &servers {
        for way in WAYS {
            for protocol in PROTOCOLS {
                let conversation = servers.converse(protocol, way);
                conversations.push(conversation.with_context(|| format!("{way:?}"))?);
            }
        }
    }
    for turn in 0..MESSAGES {
        for conversation in &mut conversations {
            conversation
                .say()
                .with_context(|| format!("message {turn}"))?;
        }
        for family in FAMILIES {
            control(&setup, family).with_context(|| format!("turn {turn}, {family:?}"))?;
        }
    }
    let stats = context.stats()?;
    ensure_no_loss(&stats)?;
    ensure!(
        stats.flows_created == conversations.len() as u64,
        "expected a flow for each of {} connections, got {stats:?}",
        conversations.len()
    );
    drop(conversations);
    drop((servers, context));
    setup.finish()
}

/// Sends a datagram that no rule of the module's matches, and its answer. Returns whom the server
/// sees as its sender.
fn unredirected(setup: &Setup, family: Family) -> Result<SocketAddr> {
    let mut to = original(family);
    to.set_port(to.port() + 2);
    let server = udp(&setup.layout.server, to)?;
    let client = udp(&setup.layout.client, client_address(Way::Forward, family))?;
    let label = Label {
        flow: 4,
        sequence: 0,
    };
    let seen = sockets::send(&client, to, &server, label, 64)?;
    sockets::answer(&server, seen, &client, to, label, 64)?;
    Ok(seen)
}
