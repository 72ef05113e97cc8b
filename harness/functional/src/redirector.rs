// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module, and the kernel's own destination NAT with the same rules beside it. What passes with
//! nft and not with the module is a fault of the module; what passes with neither, of the test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{bail, Context as _, Result};
use mutex_abi::proxy::{self as abi, Action, HOOK_LOCAL_OUT, HOOK_PRE_ROUTING, NAME_SIZE};

use super::setup::Setup;
use super::GuestTest;
use mutexlab_guest::net::conntrack;
use mutexlab_guest::net::nft;
use mutexlab_guest::proxy::context::{Context, Rule};

/// The nft table of the rules.
const TABLE: &str = "redirector";

/// Who redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirector {
    /// The module.
    Module,
    /// nft's dnat.
    Nft,
}

/// A test of the module, and the same of nft, whose name ends with `-nft`.
pub fn beside_nft(name: &str, about: &str, run: fn(Redirector) -> Result<()>) -> [GuestTest; 2] {
    [
        GuestTest::new(name.to_owned(), about.to_owned(), move || {
            run(Redirector::Module)
        }),
        GuestTest::new(
            format!("{name}-nft"),
            format!("the same with nft dnat: {about}"),
            move || run(Redirector::Nft),
        ),
    ]
}

/// A time-out that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeOut {
    /// Of a SYN without an answer.
    Syn,
    /// Of an established TCP connection.
    Established,
    /// Of one that one side has closed.
    Fin,
    /// Of one that both have closed, or that was reset.
    Close,
    /// Of UDP in both directions.
    Udp,
    /// Of UDP that was not answered.
    UdpUnreplied,
}

impl TimeOut {
    const fn parameter(self) -> &'static str {
        match self {
            Self::Syn => "tcp_syn_timeout",
            Self::Established => "tcp_established_timeout",
            Self::Fin => "tcp_fin_timeout",
            Self::Close => "tcp_close_timeout",
            Self::Udp => "udp_timeout",
            Self::UdpUnreplied => "udp_unreplied_timeout",
        }
    }

    /// Below net.netfilter.nf_conntrack_.
    const fn sysctls(self) -> &'static [&'static str] {
        match self {
            Self::Syn => &["tcp_timeout_syn_sent", "tcp_timeout_syn_recv"],
            Self::Established => &["tcp_timeout_established"],
            Self::Fin => &[
                "tcp_timeout_fin_wait",
                "tcp_timeout_close_wait",
                "tcp_timeout_last_ack",
            ],
            Self::Close => &["tcp_timeout_time_wait", "tcp_timeout_close"],
            Self::Udp => &["udp_timeout_stream"],
            Self::UdpUnreplied => &["udp_timeout"],
        }
    }
}

impl Redirector {
    /// Puts `rules` to work in the router; they go with what is returned, or with the network.
    pub fn redirect(self, setup: &Setup, rules: &[Rule]) -> Result<Redirection> {
        let redirection = match self {
            Self::Module => Redirection::Module(setup.context(rules)?),
            Self::Nft => Redirection::Nft,
        };
        redirection.replace(setup, rules)?;
        Ok(redirection)
    }

    /// Sets a time-out of the router's.
    pub fn set_time_out(self, setup: &Setup, which: TimeOut, seconds: u32) -> Result<()> {
        match self {
            Self::Module => setup.set(which.parameter(), seconds),
            Self::Nft => which.sysctls().iter().try_for_each(|name| {
                let variable = format!("netfilter/nf_conntrack_{name}");
                let router = &setup.layout.router;
                router.set_sysctl(&variable, &seconds.to_string())
            }),
        }
    }
}

/// Rules at work.
pub enum Redirection {
    /// The module's context.
    Module(Context),
    /// A table in the router.
    Nft,
}

impl Redirection {
    /// Puts `rules` in the place of the former ones.
    pub fn replace(&self, setup: &Setup, rules: &[Rule]) -> Result<()> {
        match self {
            Self::Module(context) => context
                .configure(rules)
                .context("the module refuses good rules"),
            Self::Nft => nft::load(&setup.layout.router, &script(rules)?),
        }
    }

    /// How many connections the router knows.
    pub fn flows(&self, setup: &Setup) -> Result<u64> {
        match self {
            Self::Module(context) => Ok(context.stats()?.flows_current),
            Self::Nft => {
                let count = conntrack::count(&setup.layout.router)?;
                count.context("the kernel has no connection tracking")
            }
        }
    }
}

/// What nft makes of `rules`: a NAT chain at each of the hooks.
fn script(rules: &[Rule]) -> Result<String> {
    let chain = |hook: u8| -> Result<String> {
        let rules = rules.iter().filter(|rule| rule.record.hooks & hook != 0);
        let lines = rules.map(|rule| statements(rule, hook));
        Ok(lines.collect::<Result<Vec<_>>>()?.concat())
    };
    Ok(format!(
        "table inet {TABLE}
flush table inet {TABLE}
table inet {TABLE} {{
    chain incoming {{
        type nat hook prerouting priority -100;
{}    }}
    chain own {{
        type nat hook output priority -100;
{}    }}
}}
",
        chain(HOOK_PRE_ROUTING)?,
        chain(HOOK_LOCAL_OUT)?
    ))
}

/// A rule as nft has it, once for each protocol.
fn statements(rule: &Rule, hook: u8) -> Result<String> {
    let record = &rule.record;
    let (version, protocol_family) = match record.family {
        abi::Family::V4 => ("ip", "ipv4"),
        abi::Family::V6 => ("ip6", "ipv6"),
    };
    let mut matches = format!("meta nfproto {protocol_family} ");
    for (field, network, prefix) in [
        ("daddr", &record.destination, record.destination_prefix),
        ("saddr", &record.source, record.source_prefix),
    ] {
        if prefix != 0 {
            let address = address(record.family, network);
            matches += &format!("{version} {field} {address}/{prefix} ");
        }
    }
    if record.interface != [0; NAME_SIZE] {
        let name = String::from_utf8_lossy(&record.interface);
        let key = match hook {
            HOOK_PRE_ROUTING => "iifname",
            _ => "oifname",
        };
        matches += &format!("{key} \"{}\" ", name.trim_end_matches('\0'));
    }
    let verdict = match (record.action, rule.upstreams.as_slice()) {
        (Action::Direct, _) => "accept".to_owned(),
        (Action::Drop, _) => "drop".to_owned(),
        // With a reset, if that is what the protocol has.
        (Action::Reject, _) => "reject".to_owned(),
        (Action::Redirect, [upstream]) => {
            let address = address(upstream.family, &upstream.address);
            match (address, upstream.port) {
                (address, 0) => format!("dnat {version} to {address}"),
                (IpAddr::V4(address), port) => format!("dnat ip to {address}:{port}"),
                (IpAddr::V6(address), port) => format!("dnat ip6 to [{address}]:{port}"),
            }
        }
        (Action::Redirect, others) => bail!("nft gets rules of one upstream, not {others:?}"),
    };
    let protocols = match record.protocol {
        Some(abi::Protocol::Tcp) => &["tcp"][..],
        Some(abi::Protocol::Udp) => &["udp"],
        None => &["tcp", "udp"],
    };
    let (first, last) = (record.port_first, record.port_last);
    Ok(protocols
        .iter()
        .map(|protocol| {
            let how = match (record.action, *protocol) {
                (Action::Reject, "tcp") => " with tcp reset",
                _ => "",
            };
            format!("        {matches}{protocol} dport {first}-{last} {verdict}{how}\n")
        })
        .collect())
}

fn address(family: abi::Family, octets: &[u8; 16]) -> IpAddr {
    match family {
        abi::Family::V4 => {
            let [a, b, c, d, ..] = *octets;
            Ipv4Addr::new(a, b, c, d).into()
        }
        abi::Family::V6 => Ipv6Addr::from(*octets).into(),
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use mutexlab_guest::proxy::context;
    use mutexlab_model::traffic::{Family, Protocol};

    #[test]
    fn rules_are_said_in_nft_words() {
        let upstream = context::upstream("[2001:db8::1]:7".parse().unwrap(), 0);
        let rules = [
            Rule::any(Family::V4, &[]).to("192.0.2.1:53".parse().unwrap()),
            Rule::any(Family::V6, &[upstream])
                .over(Protocol::Udp)
                .through("lan")
                .at(HOOK_PRE_ROUTING),
        ];
        let script = script(&rules).unwrap();
        for (line, times) in [
            (
                "meta nfproto ipv4 ip daddr 192.0.2.1/32 tcp dport 53-53 accept\n",
                2,
            ),
            (
                "meta nfproto ipv6 iifname \"lan\" udp dport 0-65535 dnat ip6 to [2001:db8::1]:7\n",
                1,
            ),
        ] {
            assert_eq!(script.matches(line).count(), times, "{script}");
        }
    }
}
