// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where among the hooks of others the module's are.

use anyhow::{ensure, Context as _, Result};

use super::setup::{all_rules, client_address, original, upstream, Setup, FAMILIES};
use super::sockets::{ensure_silent, is_readable, udp, PATIENCE};
use super::GuestTest;
use mutexlab_guest::net::nft;
use mutexlab_model::traffic::{Family, Way};

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "priorities",
        "other hooks see packets translated or not, as the priorities say",
        run,
    )]
}

/// Loses what goes to the upstreams, if it says so when it comes to this chain's place.
fn blocker() -> String {
    let rules: String = FAMILIES
        .into_iter()
        .map(|family| {
            let version = match family {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            };
            let to = upstream(family);
            format!(
                "        {version} daddr {} udp dport {} drop\n",
                to.ip(),
                to.port()
            )
        })
        .collect();
    format!(
        "table inet blocker {{
    chain incoming {{
        type filter hook prerouting priority -300;
{rules}    }}
    chain outgoing {{
        type filter hook output priority -300;
{rules}    }}
}}
"
    )
}

fn run() -> Result<()> {
    // Before and after the chains.
    for (pre_routing, local_out) in [("-399", "-201"), ("-201", "-399"), ("-301", "-299")] {
        let setup = Setup::with_parameters(&[
            ("pre_routing_priority", pre_routing),
            ("local_out_priority", local_out),
        ])?;
        nft::load(&setup.layout.router, &blocker())?;
        let context = setup.context(&all_rules())?;
        for family in FAMILIES {
            for (way, priority) in [(Way::Forward, pre_routing), (Way::Local, local_out)] {
                let server = udp(&setup.layout.server, upstream(family))?;
                let client = udp(setup.client(way), client_address(way, family))?;
                // What the chain loses on its way out, the sender is told.
                let _ = client.send_to(b"?", original(family));
                let what = format!("{way:?}, {family:?}, at priority {priority}");
                if priority.parse::<i32>()? < -300 {
                    // The chain sees it translated.
                    ensure_silent(&server, "the upstream").context(what)?;
                } else {
                    let arrived = is_readable(&server, PATIENCE)?;
                    ensure!(arrived, "{what}: nothing arrived");
                }
            }
        }
        let created = context.stats()?.flows_created;
        ensure!(created == 4, "expected 4 flows, got {created}");
        drop(context);
        setup.finish()?;
    }
    Ok(())
}
