// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which hooks after the module's take established packets from its fast path, and that the others do not. While
//! `perf_enable_rcu` is off, the fast path locks a table once for each packet, and the slow path never: so the counter
//! of locks tells both apart.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::{Stats, HOOK_PRE_ROUTING};

use super::conversation::{Conversation, Servers};
use super::setup::{all_rules, ensure_no_loss, Setup, FAMILIES, PROTOCOLS};
use super::sockets::{accept, answer, connect, exchange_streams, listen, send, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::nft;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::Context;
use mutexlab_guest::traffic::payload::Label;
use mutexlab_model::traffic::{Protocol, Way};
use mutexlab_protocol::addresses::{ORIGINAL_PORT, ROUTER_SERVER_SIDE, UPSTREAM_PORT};

/// Within this, with room, the module notices hooks that come.
pub const NOTICED: Duration = Duration::from_millis(2500);
/// The fast path locks, and nothing else does: idle flows are searched for rarely.
const COUNTED: [(&str, &str); 2] = [("perf_enable_rcu", "0"), ("gc_interval", "3600")];
/// Messages of each conversation, each answered.
const MESSAGES: usize = 20;

/// Tables with NAT as routers have them, which leave untracked packets alone.
const NAT: [(&str, &str); 3] = [
    (
        "masquerading",
        "table ip nat {
    chain postrouting {
        type nat hook postrouting priority 100;
        masquerade
    }
}
table ip6 nat {
    chain postrouting {
        type nat hook postrouting priority 100;
        masquerade
    }
}
",
    ),
    (
        "dnat",
        "table ip nat {
    chain prerouting {
        type nat hook prerouting priority -100;
        udp dport 9 dnat to 198.51.100.2:9
    }
}
table ip6 nat {
    chain prerouting {
        type nat hook prerouting priority -100;
        udp dport 9 dnat to [2001:db8:2::2]:9
    }
}
",
    ),
    (
        "both, of both IP versions in one",
        "table inet nat {
    chain prerouting {
        type nat hook prerouting priority dstnat;
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        masquerade
    }
}
",
    ),
];

/// A chain that may do anything.
const MANGLE: &str = "table inet looking {
    chain incoming {
        type filter hook prerouting priority mangle;
        counter
    }
}
";

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "nat-tables",
            "tables with NAT leave established packets on the fast path, and a mangle chain does not",
            nat_tables,
        ),
        GuestTest::single(
            "redirected-from-lo",
            "connections of the router to itself are redirected as they come in through lo",
            from_loopback,
        ),
    ]
}

/// Says something in each conversation; how many packets the module translated meanwhile, and how often it locked.
fn say(context: &Context, conversations: &mut [Conversation<'_>]) -> Result<[u64; 2]> {
    let before = context.stats()?;
    for _ in 0..MESSAGES {
        conversations.iter_mut().try_for_each(Conversation::say)?;
    }
    let after = context.stats()?;
    let counts = [
        |stats: &Stats| stats.packets_original + stats.packets_reply,
        |stats: &Stats| stats.lock_acquisitions,
    ];
    Ok(counts.map(|count| count(&after) - count(&before)))
}

fn nat_tables() -> Result<()> {
    for (name, table) in NAT {
        let setup = Setup::with_parameters(&COUNTED)?;
        let context = setup.context(&all_rules())?;
        let servers = Servers::of_both(&setup.layout)?;
        let mut conversations = servers
            .iter()
            .map(|servers| servers.converse(Protocol::Udp, Way::Forward))
            .collect::<Result<Vec<_>>>()?;
        let packets = (2 * MESSAGES * conversations.len()) as u64;
        let told = |when: &str| format!("{name}, {when}");
        let counted = say(&context, &mut conversations).with_context(|| told("before"))?;
        ensure!(
            counted == [packets; 2],
            "without a table, expected {packets} packets on the fast path, got {counted:?}"
        );
        nft::load(&setup.layout.router, table)?;
        thread::sleep(NOTICED);
        let counted = say(&context, &mut conversations).with_context(|| told("beside it"))?;
        ensure!(
            counted == [packets; 2],
            "beside a table with NAT ({name}), expected {packets} packets on the fast path, got {counted:?}"
        );
        // That this is how to see it.
        nft::load(&setup.layout.router, MANGLE)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counted = say(&context, &mut conversations).with_context(|| told("mangled"))?;
            if counted == [packets, 0] {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "beside a mangle chain, expected {packets} packets on the slow path, got {counted:?}"
            );
        }
        drop(conversations);
        drop((servers, context));
        setup.finish()?;
    }
    Ok(())
}

/// What comes in through lo has the route that it left with.
fn from_loopback() -> Result<()> {
    let setup = Setup::new()?;
    let router = &setup.layout.router;
    // Where a packet goes that came in through lo, IPv4 finds out anew only then.
    router.set_sysctl("ipv4/conf/lo/accept_local", "1")?;
    for family in FAMILIES {
        let [to, upstream] =
            [ORIGINAL_PORT, UPSTREAM_PORT].map(|port| ROUTER_SERVER_SIDE.socket(family, port));
        let from = ROUTER_SERVER_SIDE.socket(family, 0);
        let rules = PROTOCOLS
            .map(|protocol| context::redirect(protocol, to, upstream).at(HOOK_PRE_ROUTING));
        let context = setup.context(&rules)?;
        let before = context.stats()?;
        let (server, client) = (udp(router, upstream)?, udp(router, from)?);
        let expected = client.local_addr()?;
        for sequence in 0..MESSAGES as u32 {
            let label = Label { flow: 1, sequence };
            let seen = send(&client, to, &server, label, 64)?;
            ensure!(seen == expected, "the upstream sees {seen}, not {expected}");
            answer(&server, seen, &client, to, label, 64)?;
        }
        let listener = listen(router, upstream)?;
        let stream = connect(router, from, to)?;
        let (accepted, seen) = accept(&listener)?;
        ensure!(
            seen == stream.local_addr()?,
            "the upstream sees {seen} for {stream:?}"
        );
        let asked = context.original(accepted.local_addr()?, seen)?;
        ensure!(
            asked == to,
            "the connection is said to have been meant for {asked}"
        );
        exchange_streams(&stream, &accepted, 300_000)?;
        let after = context.stats()?;
        ensure!(
            after.flows_created - before.flows_created == 2,
            "expected two flows more than of {before:?}, got {after:?}"
        );
        ensure_no_loss(&after)?;
        drop(context);
    }
    setup.finish()
}
