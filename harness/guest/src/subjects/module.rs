// SPDX-License-Identifier: MIT OR Apache-2.0

//! mutex_proxy.ko as a subject: loaded with parameters, and given rules.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use mutex_abi::proxy::Stats;

use super::direct;
use super::installed::Installed;
use crate::kernel::memory::Slabs;
use crate::kernel::module::{LoadedModule, Parameters};
use crate::net::layout::Layout;
use crate::net::namespace::Namespace;
use crate::proxy::buckets;
use crate::proxy::context;
use crate::proxy::context::Context;
use crate::proxy::monitor;
use crate::traffic::target::Target;
use mutexlab_model::measured::Buckets;
use mutexlab_model::subject::ModuleRules;
use mutexlab_model::traffic::{Family, Traffic};
use mutexlab_protocol::PROXY_MODULE_PATH;

/// Half of what is idle is given back each second.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

/// A port to which nobody sends.
const UNUSED_PORT: u16 = 9;

/// The module and its context. The order matters: the context holds the module.
pub struct MutexProxy {
    /// The rules' owner.
    context: Context,
    module: LoadedModule,
    rules: ModuleRules,
}

impl MutexProxy {
    /// Loads the module and gives it `rules` about `traffic`.
    pub fn up(
        rules: ModuleRules,
        parameters: &Parameters,
        traffic: &Traffic,
        router: &Namespace,
    ) -> Result<Self> {
        let original = Target::Original.address(traffic);
        let upstream = Target::Upstream.address(traffic);
        let module = LoadedModule::load(PROXY_MODULE_PATH, parameters)?;
        let context = Context::open(router)?;
        let records = match rules {
            ModuleRules::Direct => direct::rules(traffic, upstream),
            ModuleRules::Unmatched => {
                let other = SocketAddr::new(original.ip(), UNUSED_PORT);
                vec![context::redirect(traffic.protocol, other, upstream)]
            }
            ModuleRules::Redirect => vec![context::redirect(traffic.protocol, original, upstream)],
        };
        context
            .configure(&records)
            .context("the module refuses the rule")?;
        Ok(Self {
            context,
            module,
            rules,
        })
    }
}

impl Installed for MutexProxy {
    fn counters(&self, router: &Namespace) -> Result<BTreeMap<String, u64>> {
        let stats = self.context.stats()?;
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

    fn buckets(&self, traffic: &Traffic, router: &Namespace) -> Result<Option<Buckets>> {
        buckets::lengths(router, traffic.family).map(Some)
    }

    fn settle(&self, traffic: &Traffic, router: &Namespace) -> Result<()> {
        buckets::wait_for(router, traffic.family, traffic.flows)
    }

    // The module gives memory back second by second, and each time all that its CPUs found lately is forgotten.
    fn rest(&self, router: &Namespace) -> Result<()> {
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

    fn flow_memory(&self, traffic: &Traffic, router: &Namespace) -> Result<Option<u64>> {
        if self.rules != ModuleRules::Redirect {
            return Ok(None);
        }
        let cache = match traffic.family {
            Family::V4 => "mutex_flow_v4",
            Family::V6 => "mutex_flow_v6",
        };
        let flows = self.context.stats()?.flows_current;
        let table = buckets::count(router, traffic.family)? * size_of::<u64>() as u64;
        Ok(Some(Slabs::of(cache)?.hold(flows) + table))
    }

    fn ensure_kept(
        &self,
        traffic: &Traffic,
        _router: &Namespace,
        counters: &BTreeMap<String, u64>,
    ) -> Result<()> {
        let flows = u64::from(traffic.flows_in_all());
        let created = counters.get("flows_created");
        ensure!(
            created.is_none_or(|&created| created <= flows),
            "the module made {created:?} flows for {flows}"
        );
        Ok(())
    }

    fn down(self: Box<Self>, _layout: &Layout) -> Result<()> {
        let Self {
            context, module, ..
        } = *self;
        drop(context);
        module.unload()
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
