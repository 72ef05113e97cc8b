// SPDX-License-Identifier: MIT OR Apache-2.0

//! Idle TCP connections whose ends send keepalives: the router remembers them for longer than it takes
//! until the first one comes, which the kernel's timers may delay.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use nix::sys::socket::{self, sockopt};

use super::conversation::pass;
use super::setup::{all_rules, client_address, original, upstream, Setup, FAMILIES};
use super::sockets::{accept, connect, listen};
use super::GuestTest;
use mutexlab_guest::traffic::payload::{Kind, Label};
use mutexlab_model::traffic::Way;

/// The kernel's default of net.ipv4.tcp_keepalive_time.
const DEFAULT: u32 = 7200;
/// What is made of it here: just what the kernel's timers, at 100 ticks a second, round by seconds.
const IDLE: u32 = 41;
/// By how much they may.
const SLACK: u32 = 6;
/// Connections of each IP version; the timers of some are rounded by more than those of others.
const CONNECTIONS: usize = 6;
const APART: Duration = Duration::from_millis(300);

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "keepalive",
        "keepalives of the kernel's default time come before an idle connection is forgotten",
        run,
    )]
}

fn run() -> Result<()> {
    let setup = Setup::with_parameters(&[("gc_interval", "1")])?;
    let path = "/sys/module/mutex_proxy/parameters/tcp_established_timeout";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let time_out: u32 = text.trim_end().parse()?;
    // As much shorter as the time of keepalives.
    let shortened = u64::from(time_out) * u64::from(IDLE) / u64::from(DEFAULT);
    setup.set("tcp_established_timeout", shortened)?;
    let context = setup.context(&all_rules())?;
    let mut connections = Vec::new();
    for family in FAMILIES {
        let listener = listen(&setup.layout.server, upstream(family))?;
        let from = client_address(Way::Forward, family);
        for _ in 0..CONNECTIONS {
            let client = connect(setup.client(Way::Forward), from, original(family))?;
            socket::setsockopt(&client, sockopt::TcpKeepIdle, &IDLE)?;
            socket::setsockopt(&client, sockopt::KeepAlive, &true)?;
            connections.push((client, accept(&listener)?.0));
            thread::sleep(APART);
        }
    }
    thread::sleep(Duration::from_secs((IDLE + SLACK).into()));
    let flows = context.stats()?.flows_current;
    let lost = connections
        .iter()
        .filter(|(client, server)| {
            let label = Label {
                flow: 1,
                sequence: 0,
            };
            pass(client, server, Kind::Request, label).is_err()
        })
        .count();
    ensure!(
        lost == 0,
        "{lost} of {} idle connections were lost, of which keepalives came after {IDLE} s, with a \
         time-out of {shortened} s; {flows} flows were left",
        connections.len()
    );
    drop(connections);
    drop(context);
    setup.finish()
}
