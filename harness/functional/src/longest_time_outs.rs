// SPDX-License-Identifier: MIT OR Apache-2.0

//! Time-outs as long as their parameters take them: flows live.

use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::conversation::{of_every_sort, Servers};
use super::setup::{
    all_rules, client_address, original, wait_for_flows, Setup, FAMILIES, PROTOCOLS,
};
use super::sockets::{accept, connect, is_readable, listen, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::proxy::context;
use mutexlab_model::traffic::Way;
use mutexlab_protocol::addresses::UPSTREAM;

const PARAMETERS: [&str; 6] = [
    "tcp_syn_timeout",
    "tcp_established_timeout",
    "tcp_fin_timeout",
    "tcp_close_timeout",
    "udp_timeout",
    "udp_unreplied_timeout",
];
/// Of connections in other states than established.
const PORT: u16 = 7100;
/// Longer than it takes to look at every flow.
const STAYS: Duration = Duration::from_millis(3500);

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "time-outs-longest",
        "no time-out is so long that it wraps around: flows live",
        run,
    )]
}

fn run() -> Result<()> {
    let setup = Setup::with_parameters(&[("gc_interval", "1")])?;
    for parameter in PARAMETERS {
        let longest = longest(&setup, parameter)?;
        ensure!(
            longest > 3600,
            "{parameter} takes no more than {longest} seconds"
        );
    }
    let context = setup.context(&all_rules())?;
    let servers = Servers::of_both(&setup.layout)?;
    let mut conversations = of_every_sort(&servers)?;
    let mut flows = conversations.len() as u64;
    let (mut kept, mut contexts) = (Vec::new(), Vec::new());
    for family in FAMILIES {
        // One that is half closed, one that is closed, and one that nobody answers.
        let other = UPSTREAM.socket(family, PORT);
        let mut to = original(family);
        to.set_port(PORT);
        let rules = PROTOCOLS.map(|protocol| context::redirect(protocol, to, other));
        contexts.push(setup.context(&rules)?);
        let listener = listen(&setup.layout.server, other)?;
        for closed in [false, true] {
            let from = client_address(Way::Forward, family);
            let client = connect(setup.client(Way::Forward), from, to)?;
            let (server, _) = accept(&listener)?;
            client.shutdown(Shutdown::Write)?;
            if closed {
                ensure!(is_readable(&server, PATIENCE)?, "no FIN came");
                server.shutdown(Shutdown::Write)?;
            }
            kept.push((client, server));
        }
        let silent = udp(&setup.layout.server, other)?;
        let client = udp(
            setup.client(Way::Forward),
            client_address(Way::Forward, family),
        )?;
        client.send_to(b"?", to)?;
        ensure!(is_readable(&silent, PATIENCE)?, "nothing came");
        flows += 3;
    }
    wait_for_flows(&context, flows)?;
    thread::sleep(STAYS);
    let now = context.stats()?.flows_current;
    ensure!(now == flows, "of {flows} flows {now} are left");
    for conversation in &mut conversations {
        conversation.say().context("after a while")?;
    }
    drop(conversations);
    drop((servers, contexts, context));
    setup.finish()
}

/// Sets a parameter to the longest time that it takes, and returns that.
fn longest(setup: &Setup, parameter: &str) -> Result<u32> {
    let (mut taken, mut refused) = (1, u64::from(u32::MAX) + 1);
    while refused - taken > 1 {
        let middle = taken + (refused - taken) / 2;
        match setup.set(parameter, middle) {
            Ok(()) => taken = middle,
            Err(_) => refused = middle,
        }
    }
    setup.set(parameter, taken)?;
    Ok(u32::try_from(taken)?)
}
