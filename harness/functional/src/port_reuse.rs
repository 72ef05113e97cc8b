// SPDX-License-Identifier: MIT OR Apache-2.0

//! One client port for one connection after the other, however the last one ended.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use nix::libc;
use nix::sys::socket::{self, sockopt};

use super::conversation::pass;
use super::redirector::{beside_nft, Redirection, Redirector, TimeOut};
use super::setup::{all_rules, client_address, original, upstream, Setup, FAMILIES};
use super::sockets::{accept, connect, is_readable, listen, PATIENCE};
use super::GuestTest;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::{Family, Way};

/// The client's port.
const PORT: u16 = 41_000;
/// Connections one after the other.
const CONNECTIONS: u32 = 200;
/// The same of those that are reset.
const RESETS: u32 = 50;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    [
        beside_nft(
            "port-reuse-closed",
            "200 connections from one port work, each closed by the server first",
            |redirector| each_family(redirector, closed_by_the_server),
        ),
        beside_nft(
            "port-reuse-reset",
            "50 connections from one port work, each reset by the client",
            |redirector| each_family(redirector, reset_by_the_client),
        ),
        beside_nft(
            "port-reuse-challenge",
            "a client that forgot its connection can open it anew: challenge ACK, RST, SYN",
            |redirector| each_family(redirector, challenged),
        ),
        beside_nft(
            "port-reuse-forgotten-fin",
            "a connection that both ends forgot, opened anew and closed, is taken for closed",
            |redirector| each_family(redirector, |one| forgotten(one, Ending::Fin)),
        ),
        beside_nft(
            "port-reuse-forgotten-reset",
            "a connection that both ends forgot, opened anew and reset, is taken for closed",
            |redirector| each_family(redirector, |one| forgotten(one, Ending::Reset)),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a test of this file works with.
struct Case<'a> {
    setup: &'a Setup,
    redirector: Redirector,
    redirection: &'a Redirection,
    family: Family,
    listener: TcpListener,
}

fn each_family(redirector: Redirector, run: fn(&Case<'_>) -> Result<()>) -> Result<()> {
    for family in FAMILIES {
        let setup = Setup::with_parameters(&[("gc_interval", "1")])?;
        let redirection = redirector.redirect(&setup, &all_rules())?;
        let case = Case {
            setup: &setup,
            redirector,
            redirection: &redirection,
            family,
            listener: listen(&setup.layout.server, upstream(family))?,
        };
        run(&case).with_context(|| format!("{family:?}"))?;
        drop(case);
        drop(redirection);
        setup.finish()?;
    }
    Ok(())
}

impl Case<'_> {
    /// A connection from the port, over which something was said.
    fn connect(&self, number: u32) -> Result<(TcpStream, TcpStream)> {
        let client = connect(
            self.setup.client(Way::Forward),
            self.from(),
            original(self.family),
        )?;
        let (server, _) = accept(&self.listener)?;
        let label = Label {
            flow: number,
            sequence: 0,
        };
        pass(&client, &server, Kind::Request, label)?;
        pass(&server, &client, Kind::Answer, label)?;
        Ok((client, server))
    }

    fn from(&self) -> SocketAddr {
        let mut from = client_address(Way::Forward, self.family);
        from.set_port(PORT);
        from
    }
}

fn closed_by_the_server(case: &Case<'_>) -> Result<()> {
    for number in 0..CONNECTIONS {
        let attempt = || -> Result<()> {
            let (client, server) = case.connect(number)?;
            server.shutdown(Shutdown::Write)?;
            ensure_ended(&client)?;
            client.shutdown(Shutdown::Write)?;
            ensure_ended(&server)
        };
        attempt().with_context(|| format!("connection {number}"))?;
    }
    Ok(())
}

fn ensure_ended(mut stream: &TcpStream) -> Result<()> {
    let length = stream.read(&mut [0])?;
    ensure!(length == 0, "expected the end, got data");
    Ok(())
}

fn reset_by_the_client(case: &Case<'_>) -> Result<()> {
    for number in 0..RESETS {
        let attempt = || -> Result<()> {
            let (client, server) = case.connect(number)?;
            reset(client)?;
            ensure_reset(&server)
        };
        attempt().with_context(|| format!("connection {number}"))?;
    }
    Ok(())
}

/// Closes with a RST.
fn reset(stream: TcpStream) -> Result<()> {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(socket::setsockopt(&stream, sockopt::Linger, &at_once)?)
}

fn ensure_reset(mut stream: &TcpStream) -> Result<()> {
    ensure!(is_readable(stream, PATIENCE)?, "no reset came");
    let result = stream.read(&mut [0]);
    ensure!(result.is_err(), "expected a reset, got {result:?}");
    Ok(())
}

/// Closes without a word.
fn forget(stream: TcpStream) -> Result<()> {
    socket::setsockopt(&stream, sockopt::TcpRepair, &1).context("TCP_REPAIR")
}

/// The client forgets, and the server does not: it challenges the new SYN (RFC 5961), the client
/// resets, and its next SYN is taken.
fn challenged(case: &Case<'_>) -> Result<()> {
    for number in 0..3 {
        let (client, server) = case.connect(2 * number)?;
        forget(client)?;
        let (client, again) = case
            .connect(2 * number + 1)
            .context("after the client forgot")?;
        ensure_reset(&server).context("the connection that the client forgot")?;
        reset(client)?;
        ensure_reset(&again)?;
    }
    Ok(())
}

/// How the second connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Fin,
    Reset,
}

fn forgotten(case: &Case<'_>, ending: Ending) -> Result<()> {
    let (setup, redirector) = (case.setup, case.redirector);
    let (client, server) = case.connect(0)?;
    forget(client)?;
    forget(server)?;
    // So that the new numbers are far from the old ones.
    thread::sleep(Duration::from_secs(2));
    let (client, server) = case.connect(1).context("after both forgot")?;
    let flows = live_flows(case)?;
    ensure!(
        flows == 1,
        "expected one flow of one connection, got {flows}"
    );
    redirector.set_time_out(setup, TimeOut::Fin, 1)?;
    redirector.set_time_out(setup, TimeOut::Close, 1)?;
    match ending {
        Ending::Fin => {
            client.shutdown(Shutdown::Write)?;
            ensure_ended(&server)?;
            server.shutdown(Shutdown::Write)?;
            ensure_ended(&client)?;
        }
        Ending::Reset => {
            reset(client)?;
            ensure_reset(&server)?;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let flows = live_flows(case)?;
        if flows == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{flows} flows are left of connections that have ended"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

/// Connections that are neither gone nor about to go: connection tracking tells its own even when their
/// time is over, until it meets them.
fn live_flows(case: &Case<'_>) -> Result<u64> {
    if case.redirector == Redirector::Module {
        return case.redirection.flows(case.setup);
    }
    let path = "/proc/thread-self/net/nf_conntrack";
    let text = case
        .setup
        .layout
        .router
        .run(|| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}")))?;
    // ipv4 2 tcp 6 SECONDS STATE src=…
    let lives = |line: &&str| {
        let seconds = line.split_whitespace().nth(4);
        seconds.and_then(|seconds| seconds.parse().ok()) > Some(2_u32)
    };
    Ok(text.lines().filter(lives).count() as u64)
}
