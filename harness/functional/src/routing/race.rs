// SPDX-License-Identifier: MIT OR Apache-2.0

//! Two upstreams on two links, and the first datagrams of one flow at once on two CPUs: whichever upstream
//! a datagram goes to, it leaves on the link to that one.
//!
//! Nft is asked for no more than that. On 7.2 as elsewhere each of two first datagrams that meet has a connection of its
//! own until it leaves, and so its own CPU's upstream. Connection tracking then keeps the later connection for a moment,
//! and for answers only (nf_ct_resolve_clash_harder()), or drops the later datagram. So one flow may be at both
//! upstreams, and not all of its datagrams need arrive: nobody counts them. What is counted is how often each CPU was
//! the first, which is about this test and not about nft.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::super::pinned::at_once;
use super::super::redirector::Redirector;
use super::super::setup::{client_address, original, sized, upstream};
use super::super::sockets::udp;
use super::super::GuestTest;
use super::by_family;
use super::fate::Link;
use super::lab::{each, server_on_second, version, Lab};
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Rule;
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::UPSTREAM_PORT;

/// So many flows are looked at before there are more: a packet socket takes 256 such small frames by default, and all
/// may leave on one link.
const AT_ONCE: usize = 40;
/// Datagrams of each sender's in a flow: the first ones at once, and those that follow the kept route.
const DATAGRAMS: usize = 3;

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    let tests = by_family(
        "route-first-at-once",
        "first datagrams of two CPUs leave on the link to their upstream, as with nft",
        |family| {
            each(
                [Redirector::Nft, Redirector::Module],
                |redirector| format!("{redirector:?}"),
                |&redirector| run(family, redirector),
            )
        },
    );
    let tests = tests.into_iter().map(GuestTest::long);
    tests.map(GuestTest::on_two_cpus).collect()
}

fn run(family: Family, redirector: Redirector) -> Result<()> {
    let near = upstream(family);
    let far = SocketAddr::new(server_on_second(family), UPSTREAM_PORT);
    let mut lab = Lab::new(redirector, family, &[])?;
    match redirector {
        Redirector::Module => {
            let upstreams = [near, far].map(|address| context::upstream(address, 0));
            let rule = Rule::any(family, &upstreams)
                .over(Protocol::Udp)
                .to(original(family));
            let context = lab.context.as_ref().context("the module's context")?;
            // Upstreams take turns.
            context.configure(&[rule]).context("good rules")?;
        }
        // Each CPU has its own, so that first packets of two CPUs always go different ways.
        Redirector::Nft => lab.nft(&by_cpu(near, far))?,
    }
    lab.serve(far)?;
    // Few of them meet.
    let flows = sized(1000, 200)?;
    let mut wrong = 0;
    let mut seen = [0; 2];
    for _ in 0..flows / AT_ONCE {
        send_at_once(&lab.layout().client, family)?;
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
    ensure!(
        wrong == 0,
        "{wrong} of {} datagrams left on the link to the other upstream",
        seen[0] + seen[1]
    );
    // Otherwise there was no race to lose: with nft one CPU, or nearly so, was the first in all flows.
    ensure!(
        seen.iter().all(|&count| count > flows / 10),
        "no race: of {flows} flows the two upstreams got {seen:?} datagrams"
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

/// Sends from [`AT_ONCE`] new sockets, one after the other, on both CPUs at once.
fn send_at_once(client: &Namespace, family: Family) -> Result<()> {
    let sockets = (0..AT_ONCE)
        .map(|_| udp(client, client_address(Way::Forward, family)))
        .collect::<Result<Vec<_>>>()?;
    at_once(AT_ONCE, |_, number| {
        for _ in 0..DATAGRAMS {
            sockets[number].send_to(&[0; 32], original(family))?;
        }
        Ok(())
    })
}
