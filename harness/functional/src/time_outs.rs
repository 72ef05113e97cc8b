// SPDX-License-Identifier: MIT OR Apache-2.0

//! How long idle flows stay: each protocol and state has a time-out of its own.

use std::any::Any;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::setup::{
    all_rules, client_address, original, upstream, wait_for_flows, Setup, FAMILIES,
};
use super::sockets::{
    accept, answer, connect, is_readable, listen, send, start_connecting, udp, PATIENCE,
};
use super::GuestTest;
use mutexlab_guest::proxy::context;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{UPSTREAM_PORT, WIRE_UPSTREAM};

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "time-outs",
        "a flow stays as long as the time-out of its protocol and state says, and no other",
        run,
    )]
}

/// What holds a flow in the state for which it was made.
type Ends = Vec<Box<dyn Any>>;

/// A time-out, and how a flow gets to where it holds.
struct TimeOut {
    parameter: &'static str,
    reach: fn(&Setup, Family) -> Result<Ends>,
}

const TIME_OUTS: [TimeOut; 8] = [
    TimeOut {
        parameter: "tcp_syn_timeout",
        reach: |setup, family| {
            // Given up before it is sent again.
            let from = client_address(Way::Forward, family);
            let client = setup.client(Way::Forward);
            drop(client.run(|| start_connecting(from, silent(family)))?);
            Ok(Ends::new())
        },
    },
    TimeOut {
        parameter: "tcp_established_timeout",
        reach: |setup, family| {
            let (client, server) = connected(setup, family)?;
            Ok(vec![Box::new(client), Box::new(server)])
        },
    },
    TimeOut {
        parameter: "tcp_fin_timeout",
        reach: |setup, family| {
            let (client, server) = connected(setup, family)?;
            client.shutdown(Shutdown::Write)?;
            ensure_ended(&server)?;
            Ok(vec![Box::new(client), Box::new(server)])
        },
    },
    TimeOut {
        parameter: "tcp_close_timeout",
        reach: |setup, family| {
            let (client, server) = connected(setup, family)?;
            client.shutdown(Shutdown::Write)?;
            ensure_ended(&server)?;
            drop(server);
            ensure_ended(&client)?;
            Ok(Ends::new())
        },
    },
    TimeOut {
        parameter: "tcp_close_timeout",
        reach: |setup, family| {
            let (client, mut server) = connected(setup, family)?;
            // Who closes with something unread resets.
            server.write_all(b"unread")?;
            ensure!(is_readable(&client, PATIENCE)?, "nothing came");
            drop(client);
            let result = server.read(&mut [0]);
            ensure!(result.is_err(), "expected a reset, got {result:?}");
            Ok(Ends::new())
        },
    },
    TimeOut {
        parameter: "udp_timeout",
        reach: |setup, family| {
            let client = udp(
                setup.client(Way::Forward),
                client_address(Way::Forward, family),
            )?;
            let server = udp(&setup.layout.server, upstream(family))?;
            for sequence in 0..2 {
                let label = Label { flow: 1, sequence };
                let seen = send(&client, original(family), &server, label, 64)?;
                answer(&server, seen, &client, original(family), label, 64)?;
                if sequence == 0 {
                    thread::sleep(LASTS);
                }
            }
            Ok(Ends::new())
        },
    },
    TimeOut {
        parameter: "udp_transient_timeout",
        reach: |setup, family| ask(setup, family, transient(family)),
    },
    TimeOut {
        parameter: "udp_unreplied_timeout",
        reach: |setup, family| ask(setup, family, original(family)),
    },
];

/// After so long a flow of UDP whose client still sends is taken for one that lasts: two seconds, as the module's
/// clock of 2.56 s tells them.
const LASTS: Duration = Duration::from_millis(5300);

/// A server that is at no well-known port.
fn transient(family: Family) -> SocketAddr {
    let mut address = original(family);
    address.set_port(5000);
    address
}

/// Asks over UDP, and nobody answers.
fn ask(setup: &Setup, family: Family, whom: SocketAddr) -> Result<Ends> {
    let from = client_address(Way::Forward, family);
    let client = udp(setup.client(Way::Forward), from)?;
    let server = udp(&setup.layout.server, upstream(family))?;
    client.send_to(b"?", whom)?;
    ensure!(is_readable(&server, PATIENCE)?, "nothing came");
    Ok(Ends::new())
}

/// Where a SYN is sent on to who does not answer.
fn silent(family: Family) -> SocketAddr {
    let mut address = original(family);
    address.set_port(address.port() + 1);
    address
}

fn connected(setup: &Setup, family: Family) -> Result<(TcpStream, TcpStream)> {
    let listener = listen(&setup.layout.server, upstream(family))?;
    let from = client_address(Way::Forward, family);
    let client = connect(setup.client(Way::Forward), from, original(family))?;
    let (server, _) = accept(&listener)?;
    Ok((client, server))
}

/// Waits for the other end's FIN.
fn ensure_ended(mut stream: &TcpStream) -> Result<()> {
    let length = stream.read(&mut [0])?;
    ensure!(length == 0, "expected the end, got data");
    Ok(())
}

fn run() -> Result<()> {
    const LONG: u32 = 1000;
    /// Longer than any other flow would live.
    const STAYS: Duration = Duration::from_millis(2500);
    let setup = Setup::with_parameters(&[("gc_interval", "1")])?;
    let mut rules = all_rules();
    for family in FAMILIES {
        let nobody = WIRE_UPSTREAM.socket(family, UPSTREAM_PORT);
        rules.push(context::redirect(Protocol::Tcp, silent(family), nobody));
        rules.push(context::redirect(
            Protocol::Udp,
            transient(family),
            upstream(family),
        ));
    }
    let context = setup.context(&rules)?;
    let set_all = |seconds: u32| {
        TIME_OUTS
            .iter()
            .try_for_each(|one| setup.set(one.parameter, seconds))
    };
    for (number, one) in TIME_OUTS.iter().enumerate() {
        let attempt = || -> Result<()> {
            set_all(LONG)?;
            let mut ends = Vec::new();
            for family in FAMILIES {
                ends.extend((one.reach)(&setup, family).with_context(|| format!("{family:?}"))?);
            }
            // What acknowledges the last thing may still be under way.
            thread::sleep(Duration::from_millis(200));
            let flows = FAMILIES.len() as u64;
            wait_for_flows(&context, flows)?;
            set_all(1)?;
            setup.set(one.parameter, LONG)?;
            thread::sleep(STAYS);
            let now = context.stats()?.flows_current;
            ensure!(now == flows, "of {flows} flows {now} are left");
            setup.set(one.parameter, 1)?;
            wait_for_flows(&context, 0)
        };
        attempt().with_context(|| format!("{} ({number})", one.parameter))?;
    }
    drop(context);
    setup.finish()
}
