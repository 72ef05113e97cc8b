// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is measured: put up in the router's namespace, and taken down again.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::Stats;

use super::chains;
use super::conntrack;
use super::kmod::{LoadedModule, Parameters};
use super::memory::Slabs;
use super::namespace::Namespace;
use super::nft;
use super::protocol::{Family, Protocol, Subject, Traffic, PROXY_MODULE_PATH};
use super::proxy::{self, Context};
use super::traffic::Target;

/// Name of the nftables table.
const TABLE: &str = "mutexlab";

/// A port to which nobody sends.
const UNUSED_PORT: u16 = 9;

/// A subject that is up. Dropping it takes it down without a report; [`Self::down`] does it with
/// one.
pub enum Installed {
    /// There is nothing to take down.
    None,
    /// A table of nftables, which goes with the namespace.
    NftDnat {
        /// IP version of the table.
        family: Family,
    },
    /// The module and its context. The order matters: the context holds the module.
    Module {
        /// The rules' owner.
        context: Context,
        /// The module.
        module: LoadedModule,
    },
}

impl Installed {
    /// Puts `subject` up so that it redirects `traffic`, if it is one that redirects.
    pub fn up(
        subject: Subject,
        parameters: &Parameters,
        traffic: &Traffic,
        router: &Namespace,
    ) -> Result<Self> {
        let original = Target::Original.socket(traffic.family);
        let upstream = Target::Upstream.socket(traffic.family);
        match subject {
            Subject::None => Ok(Self::None),
            Subject::NftDnat => {
                let family = traffic.family;
                nft::load(router, &ruleset(traffic.protocol, original, upstream))?;
                Ok(Self::NftDnat { family })
            }
            Subject::Module | Subject::ModuleUnmatched => {
                let module = LoadedModule::load(PROXY_MODULE_PATH, parameters)?;
                let context = Context::open(router)?;
                let mut original = original;
                if subject == Subject::ModuleUnmatched {
                    original.set_port(UNUSED_PORT);
                }
                context
                    .configure(&[proxy::redirect(traffic.protocol, original, upstream)])
                    .context("the module refuses the rule")?;
                Ok(Self::Module { context, module })
            }
        }
    }

    /// The subject's own counters, by name; empty if it has none.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let Self::Module { context, .. } = self else {
            return Ok(BTreeMap::new());
        };
        let stats = context.stats()?;
        let names = Stats::NAMES.iter().map(|name| (*name).to_owned());
        Ok(names.zip(stats.values()).collect())
    }

    /// Waits until the subject has done what it puts off when it gets many flows.
    pub fn settle(&self, traffic: &Traffic, router: &Namespace) -> Result<()> {
        match self {
            Self::Module { .. } => chains::wait_for(router, traffic.family, traffic.flows),
            Self::None | Self::NftDnat { .. } => Ok(()),
        }
    }

    /// Bytes of the kernel's memory that the flows of `traffic` take, with the table in which they
    /// are found; `None` if there is none of them. What connection tracking allocates for some
    /// beside their entries is left out.
    pub fn flow_memory(&self, traffic: &Traffic, router: &Namespace) -> Result<Option<u64>> {
        let (cache, flows, heads) = match self {
            Self::None => return Ok(None),
            Self::NftDnat { .. } => {
                let count = conntrack::count(router)?;
                ("nf_conntrack", count.unwrap_or(0), conntrack::buckets()?)
            }
            Self::Module { context, .. } => {
                let cache = match traffic.family {
                    Family::V4 => "mutex_flow_v4",
                    Family::V6 => "mutex_flow_v6",
                };
                let flows = context.stats()?.flows_current;
                (cache, flows, chains::count(router, traffic.family)?)
            }
        };
        let table = heads * size_of::<u64>() as u64;
        Ok(Some(Slabs::of(cache)?.hold(flows) + table))
    }

    /// Fails if the subject did not keep all flows of `traffic`, of which it would have made some
    /// anew; `counters` are those since there was none of them.
    pub fn ensure_kept(
        &self,
        traffic: &Traffic,
        router: &Namespace,
        counters: &BTreeMap<String, u64>,
    ) -> Result<()> {
        match self {
            Self::None => {}
            Self::NftDnat { .. } => {
                // Of those that others took the place of it may have forgotten some, and others may
                // have come and gone without a packet.
                let flows = u64::from(traffic.flows);
                let count = conntrack::count(router)?;
                ensure!(
                    count.is_some_and(|count| count >= flows),
                    "connection tracking knows {count:?} connections of {flows}"
                );
            }
            Self::Module { .. } => {
                let flows = u64::from(traffic.flows_in_all());
                let created = counters.get("flows_created");
                ensure!(
                    created.is_none_or(|&created| created <= flows),
                    "the module made {created:?} flows for {flows}"
                );
            }
        }
        Ok(())
    }

    /// Takes the subject down.
    pub fn down(self, router: &Namespace) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::NftDnat { family } => nft::load(
                router,
                &format!("delete table {} {TABLE}\n", nft_family(family)),
            ),
            Self::Module { context, module } => {
                drop(context);
                module.unload()
            }
        }
    }
}

/// Where packets arrive while `subject` is up.
pub fn target(subject: Subject) -> Target {
    if subject.redirects() {
        Target::Upstream
    } else {
        Target::Original
    }
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

// The same rule where packets come in and where the machine's own start, as the module has it.
fn ruleset(protocol: Protocol, original: SocketAddr, upstream: SocketAddr) -> String {
    let family = match original {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    let family = nft_family(family);
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let (address, port) = (original.ip(), original.port());
    let rule = format!("{family} daddr {address} {protocol} dport {port} dnat to {upstream}");
    format!(
        "table {family} {TABLE} {{\n\
         \tchain prerouting {{\n\
         \t\ttype nat hook prerouting priority -100;\n\
         \t\t{rule}\n\
         \t}}\n\
         \tchain output {{\n\
         \t\ttype nat hook output priority -100;\n\
         \t\t{rule}\n\
         \t}}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_the_right_addresses() {
        let rules = ruleset(
            Protocol::Tcp,
            Target::Original.socket(Family::V6),
            Target::Upstream.socket(Family::V6),
        );
        let rule = "ip6 daddr 2001:db8:2::c8 tcp dport 7 dnat to [2001:db8:2::64]:7007\n";
        assert_eq!(rules.matches(rule).count(), 2, "{rules}");
        let rules = ruleset(
            Protocol::Udp,
            Target::Original.socket(Family::V4),
            Target::Upstream.socket(Family::V4),
        );
        let rule = "ip daddr 198.51.100.200 udp dport 7 dnat to 198.51.100.100:7007\n";
        assert_eq!(rules.matches(rule).count(), 2, "{rules}");
    }
}
