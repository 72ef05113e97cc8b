// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is measured: put up in the router's namespace, and taken down again.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::Stats;

use super::direct;
use super::ruleset;
use crate::kernel::memory::Slabs;
use crate::kernel::module::{LoadedModule, Parameters};
use crate::net::conntrack;
use crate::net::layout::Layout;
use crate::net::namespace::Namespace;
use crate::net::nft;
use crate::proxy::buckets;
use crate::proxy::context;
use crate::proxy::context::Context;
use crate::proxy::monitor;
use crate::subjects::daemon::UserProxy;
use crate::traffic::target::{Arrival, Origin, Target};
use mutexlab_model::measured::Buckets;
use mutexlab_model::subject::Subject;
use mutexlab_model::traffic::{Family, Traffic};
use mutexlab_protocol::PROXY_MODULE_PATH;

/// Half of what is idle is given back each second.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

/// A port to which nobody sends.
const UNUSED_PORT: u16 = 9;

/// A subject that is up. Dropping it takes it down without a report; [`Self::down`] does it with
/// one.
pub enum Installed {
    /// There is nothing to take down.
    None,
    /// A table of nftables, which goes with the namespace.
    Nft {
        /// IP version of the table.
        family: Family,
        /// Whether packets take a short cut.
        flow_table: bool,
    },
    /// A proxy in user space.
    Proxy(UserProxy),
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
        layout: &Layout,
    ) -> Result<Self> {
        let router = &layout.router;
        let original = Target::Original.address(traffic);
        let upstream = Target::Upstream.address(traffic);
        match subject {
            Subject::None => Ok(Self::None),
            Subject::NftDnat => {
                nft::load(router, &ruleset::dnat(traffic))?;
                Ok(Self::Nft {
                    family: traffic.family,
                    flow_table: false,
                })
            }
            Subject::NftDnatDirect => {
                nft::load(router, &ruleset::dnat_direct(traffic))?;
                Ok(Self::Nft {
                    family: traffic.family,
                    flow_table: false,
                })
            }
            Subject::NftFlowtable => {
                nft::load(router, &ruleset::flow_table(traffic))?;
                Ok(Self::Nft {
                    family: traffic.family,
                    flow_table: true,
                })
            }
            Subject::Tproxy => Ok(Self::Proxy(UserProxy::splicing(traffic, layout)?)),
            Subject::Redsocks => Ok(Self::Proxy(UserProxy::redsocks(traffic, layout)?)),
            Subject::Module | Subject::ModuleUnmatched | Subject::ModuleDirect => {
                let module = LoadedModule::load(PROXY_MODULE_PATH, parameters)?;
                let context = Context::open(router)?;
                let rules = match subject {
                    Subject::ModuleDirect => direct::rules(traffic, upstream),
                    Subject::ModuleUnmatched => {
                        let other = SocketAddr::new(original.ip(), UNUSED_PORT);
                        vec![context::redirect(traffic.protocol, other, upstream)]
                    }
                    _ => vec![context::redirect(traffic.protocol, original, upstream)],
                };
                context
                    .configure(&rules)
                    .context("the module refuses the rule")?;
                Ok(Self::Module { context, module })
            }
        }
    }

    /// The subject's own counters, by name; empty if it has none.
    pub fn counters(&self, router: &Namespace) -> Result<BTreeMap<String, u64>> {
        let Self::Module { context, .. } = self else {
            return Ok(BTreeMap::new());
        };
        let stats = context.stats()?;
        let names = Stats::NAMES.iter().map(|name| (*name).to_owned());
        let mut counters: BTreeMap<String, u64> = names.zip(stats.values()).collect();
        if let Some(pool) = pool(router)? {
            for name in ["alloc_fast", "alloc_slow"] {
                let both =
                    pool.total(&format!("v4_{name}"))? + pool.total(&format!("v6_{name}"))?;
                counters.insert(name.to_owned(), both);
            }
        }
        Ok(counters)
    }

    /// The buckets of the module's table; `None` of other subjects.
    pub fn buckets(&self, traffic: &Traffic, router: &Namespace) -> Result<Option<Buckets>> {
        match self {
            Self::Module { .. } => buckets::lengths(router, traffic.family).map(Some),
            Self::None | Self::Nft { .. } | Self::Proxy(_) => Ok(None),
        }
    }

    /// The time that a proxy's processes have spent; `None` if there are none.
    pub fn proxy_time(&self) -> Result<Option<Duration>> {
        match self {
            Self::Proxy(proxy) => proxy.cpu_time().map(Some),
            Self::None | Self::Nft { .. } | Self::Module { .. } => Ok(None),
        }
    }

    /// Waits until the subject has done what it puts off when it gets many flows.
    pub fn settle(&self, traffic: &Traffic, router: &Namespace) -> Result<()> {
        match self {
            Self::Module { .. } => buckets::wait_for(router, traffic.family, traffic.flows),
            Self::None | Self::Nft { .. } | Self::Proxy(_) => Ok(()),
        }
    }

    /// Waits until the subject has given back what memory nobody asked for. The module does so second by
    /// second, and each time all that its CPUs found lately is forgotten.
    pub fn rest(&self, router: &Namespace) -> Result<()> {
        let Self::Module { .. } = self else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(pool) = pool(router)? else {
                return Ok(());
            };
            let idle = pool.total("v4_idle")? + pool.total("v6_idle")?;
            if idle == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the module still has memory for {idle} flows after {PATIENCE:?} without new ones"
            );
            thread::sleep(POLL);
        }
    }

    /// Bytes of the kernel's memory that the flows of `traffic` take, with the table in which they
    /// are found; `None` if there is none of them. What connection tracking allocates for some
    /// beside their entries is left out.
    pub fn flow_memory(&self, traffic: &Traffic, router: &Namespace) -> Result<Option<u64>> {
        let (cache, flows, heads) = match self {
            Self::None | Self::Proxy(_) => return Ok(None),
            Self::Nft { .. } => {
                let count = conntrack::count(router)?;
                ("nf_conntrack", count.unwrap_or(0), conntrack::buckets()?)
            }
            Self::Module { context, .. } => {
                let cache = match traffic.family {
                    Family::V4 => "mutex_flow_v4",
                    Family::V6 => "mutex_flow_v6",
                };
                let flows = context.stats()?.flows_current;
                (cache, flows, buckets::count(router, traffic.family)?)
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
            Self::None | Self::Proxy(_) => {}
            Self::Nft { .. } => {
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

    /// Fails unless a subject that may leave packets to something slower did what it is for; to be
    /// asked while the flows of the traffic are there.
    pub fn ensure_at_work(&self, router: &Namespace) -> Result<()> {
        match self {
            Self::Nft {
                flow_table: true, ..
            } => conntrack::ensure_offloaded(router),
            Self::Nft { .. } | Self::None | Self::Proxy(_) | Self::Module { .. } => Ok(()),
        }
    }

    /// Takes the subject down.
    pub fn down(self, router: &Namespace) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Nft { family, .. } => nft::load(router, &ruleset::removal(family)),
            Self::Proxy(proxy) => proxy.down(router),
            Self::Module { context, module } => {
                drop(context);
                module.unload()
            }
        }
    }
}

/// What the module tells of its memory; `None` if it tells nothing.
fn pool(router: &Namespace) -> Result<Option<monitor::Stats>> {
    let Some(mut file) = monitor::open(router, "pool")? else {
        return Ok(None);
    };
    let mut text = String::new();
    file.read_to_string(&mut text)
        .context("cannot read the module's file about its memory")?;
    monitor::Stats::parse_pool(&text).map(Some)
}

/// Where packets arrive while `subject` is up.
pub fn target(subject: Subject) -> Target {
    arrival(subject).target
}

/// Where packets arrive while `subject` is up, and from whom.
pub fn arrival(subject: Subject) -> Arrival {
    let target = if subject.redirects() {
        Target::Upstream
    } else {
        Target::Original
    };
    let from = match subject {
        Subject::Tproxy => Origin::Router,
        Subject::Redsocks => Origin::Upstream,
        _ => Origin::Client,
    };
    Arrival { target, from }
}
