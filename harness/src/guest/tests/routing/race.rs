// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two upstreams on two links, and the first datagrams of one flow at once on two CPUs: whichever upstream
//! the flow has, its packets leave on the link to that one.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};

use super::super::pinned::Pinned;
use super::super::setup::{client_address, original, sized, upstream};
use super::super::sockets::udp;
use super::super::GuestTest;
use super::by_family;
use super::fate::Link;
use super::lab::{each, server_on_second, version, Lab, Subject};
use crate::guest::layout::UPSTREAM_PORT;
use crate::guest::namespace::Namespace;
use crate::guest::protocol::{Family, Protocol, Way};
use crate::guest::proxy::{self, Rule};

/// So many are looked at before there are more.
const AT_ONCE: usize = 50;
/// Datagrams of each sender's in a flow: the first ones at once, and those that follow the kept route.
const DATAGRAMS: usize = 3;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let tests = by_family(
        "route-first-at-once",
        "first datagrams of two CPUs leave on the link to their flow's upstream, as with nft",
        |family| {
            each(
                [Subject::Nft, Subject::Module],
                |subject| format!("{subject:?}"),
                |&subject| run(family, subject),
            )
        },
    );
    tests.into_iter().map(GuestTest::long).collect()
}

fn run(family: Family, subject: Subject) -> Result<()> {
    let near = upstream(family);
    let far = SocketAddr::new(server_on_second(family), UPSTREAM_PORT);
    let mut lab = Lab::new(subject, family, &[])?;
    match subject {
        Subject::Module => {
            let upstreams = [near, far].map(|address| proxy::upstream(address, 0));
            let rule = Rule::any(family, &upstreams)
                .over(Protocol::Udp)
                .to(original(family));
            let context = lab.context.as_ref().context("the module's context")?;
            // Upstreams take turns.
            context.configure(&[rule]).context("good rules")?;
        }
        // Each CPU has its own, so that first packets of two CPUs always go different ways.
        Subject::Nft => lab.nft(&by_cpu(near, far))?,
    }
    lab.serve(far)?;
    // Few of them meet on both CPUs.
    let flows = sized(1000, 200)?;
    let mut wrong = 0;
    let mut seen = [0; 2];
    for _ in 0..flows / AT_ONCE {
        for _ in 0..AT_ONCE {
            send_at_once(&lab.layout().client, family)?;
        }
        // Two CPUs' queues have no common order: give them time.
        thread::sleep(Duration::from_millis(5));
        for (link, to) in lab.arrived()? {
            if to != near && to != far {
                continue;
            }
            let right = if to == near {
                Link::First
            } else {
                Link::Second
            };
            wrong += usize::from(link != right);
            seen[usize::from(to == far)] += 1;
        }
    }
    lab.finish()?;
    // Otherwise there was no race to lose.
    ensure!(
        seen.iter().all(|&count| count > flows / 10),
        "the two upstreams got {seen:?} datagrams"
    );
    ensure!(
        wrong == 0,
        "{wrong} of {} datagrams left on the link to the other upstream",
        seen[0] + seen[1]
    );
    Ok(())
}

/// Destination NAT by the CPU that has a flow's first packet.
fn by_cpu(first: SocketAddr, second: SocketAddr) -> String {
    let version = version(first.ip());
    let original = original(if first.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    });
    let (address, port) = (original.ip(), original.port());
    let matched = format!("{version} daddr {address} udp dport {port}");
    format!(
        "table inet by_cpu {{
    chain incoming {{
        type nat hook prerouting priority -100;
        meta cpu 0 {matched} dnat {version} to {first}
        {matched} dnat {version} to {second}
    }}
}}
"
    )
}

/// Two threads, each on its CPU, send from a new socket.
fn send_at_once(client: &Namespace, family: Family) -> Result<()> {
    let socket = udp(client, client_address(Way::Forward, family))?;
    let barrier = Barrier::new(2);
    let sender = |cpu| -> Result<()> {
        let _pinned = Pinned::to(cpu)?;
        barrier.wait();
        for _ in 0..DATAGRAMS {
            socket.send_to(&[0; 32], original(family))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| sender(1));
        let own = sender(0);
        other.join().map_err(|_| anyhow!("a sender panicked"))??;
        own
    })
}
