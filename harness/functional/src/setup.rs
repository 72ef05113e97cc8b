// SPDX-License-Identifier: MIT OR Apache-2.0

//! What every test starts from: the network, the module in its router, and where packets go.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use mutex_abi::proxy::Stats;
use nix::sys::resource::{setrlimit, Resource};

use super::sockets::{is_readable, udp, PATIENCE};
use mutexlab_guest::fault::{mount_debugfs, DEBUGFS};
use mutexlab_guest::kernel::module::{LoadedModule, Parameters};
use mutexlab_guest::net::layout::Layout;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::context;
use mutexlab_guest::proxy::context::{Context, Rule};
use mutexlab_model::traffic::{Family, Protocol, Way};
use mutexlab_protocol::addresses::{
    CLIENT, ORIGINAL, ORIGINAL_PORT, ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, UPSTREAM,
    UPSTREAM_PORT,
};
use mutexlab_protocol::PROXY_MODULE_PATH;

/// Both IP versions.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Both transport protocols.
pub const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Both places of the client.
pub const WAYS: [Way; 2] = [Way::Forward, Way::Local];

/// The network, once packets pass all of its links, and everybody knows their own addresses.
pub fn network() -> Result<Layout> {
    let layout = Layout::new()?;
    let Layout {
        client,
        router,
        server,
    } = &layout;
    for family in FAMILIES {
        for (here, near, there, far) in [
            (client, CLIENT, router, ROUTER_CLIENT_SIDE),
            (router, ROUTER_SERVER_SIDE, server, UPSTREAM),
            (router, ROUTER_SERVER_SIDE, server, ORIGINAL),
        ] {
            wait_for_way(
                (here, near.socket(family, 0)),
                (there, far.socket(family, 0)),
            )?;
        }
    }
    Ok(layout)
}

/// Waits until datagrams pass between two addresses (port 0: any), both ways. A link that has just
/// come up drops what is sent until a worker of the kernel's has given it a queue (linkwatch_do_dev()), and another
/// one has yet to put a new address of IPv6 among the routes (addrconf_dad_work()).
pub fn wait_for_way(here: (&Namespace, SocketAddr), there: (&Namespace, SocketAddr)) -> Result<()> {
    const TRY: Duration = Duration::from_millis(100);
    let sockets = [udp(here.0, here.1)?, udp(there.0, there.1)?];
    let addresses = [sockets[0].local_addr()?, sockets[1].local_addr()?];
    let passes = |from: usize, to: usize, number: u8| -> Result<bool> {
        // Who has no route yet is told so.
        if sockets[from].send_to(&[number], addresses[to]).is_err() {
            thread::sleep(TRY);
        }
        while is_readable(&sockets[to], TRY)? {
            let mut came = [0];
            sockets[to].recv(&mut came)?;
            // One that was given up may come late.
            if came == [number] {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let tries = PATIENCE.as_millis() / TRY.as_millis();
    for number in 0..u8::try_from(tries)? {
        if passes(0, 1, number)? && passes(1, 0, number)? {
            return Ok(());
        }
    }
    bail!("nothing passes between {addresses:?}")
}

/// The network with the module loaded and no context open. It is torn down when dropped; only
/// [`Self::finish`] makes sure that this works.
pub struct Setup {
    /// The network. Dropped first: contexts with names, which a test that fails may leave, go with their namespace, and keep the module
    /// until then.
    pub layout: Layout,
    module: LoadedModule,
}

impl Setup {
    /// Lays out the network and loads the module.
    pub fn new() -> Result<Self> {
        Self::with_parameters(&[])
    }

    /// The same with parameters for the module.
    pub fn with_parameters(parameters: &[(&str, &str)]) -> Result<Self> {
        let parameters: Parameters = parameters
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Self {
            layout: network()?,
            module: LoadedModule::load(PROXY_MODULE_PATH, &parameters)?,
        })
    }

    /// Changes a parameter of the module.
    pub fn set(&self, parameter: &str, value: impl Display) -> Result<()> {
        self.module.set(parameter, value)
    }

    /// Opens a context in the router.
    pub fn context(&self, rules: &[Rule]) -> Result<Context> {
        let context = Context::open(&self.layout.router)?;
        context
            .configure(rules)
            .context("the module refuses good rules")?;
        Ok(context)
    }

    /// The namespace of the client.
    pub fn client(&self, way: Way) -> &Namespace {
        match way {
            Way::Forward => &self.layout.client,
            Way::Local => &self.layout.router,
        }
    }

    /// Unloads the module and tears the network down. All contexts must be closed.
    pub fn finish(self) -> Result<()> {
        self.module.unload()?;
        self.layout.tear_down()
    }
}

/// `plain` on a kernel as it is meant to run, `debug` on one with checkers, which is many times as
/// slow: how much of something a test does.
pub fn sized<T>(plain: T, debug: T) -> Result<T> {
    mount_debugfs()?;
    let has_checkers = Path::new(DEBUGFS).join("kmemleak").exists();
    Ok(if has_checkers { debug } else { plain })
}

/// Lets this process have that many descriptors open.
pub fn allow_descriptors(count: usize) -> Result<()> {
    let count = count as u64;
    setrlimit(Resource::RLIMIT_NOFILE, count, count)
        .with_context(|| format!("cannot have {count} descriptors"))
}

/// Waits until the namespace of `context` has `expected` flows.
pub fn wait_for_flows(context: &Context, expected: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = context.stats()?;
        if stats.flows_current == expected {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "expected {expected} flows in the end, got {stats:?}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Address of the client's stack, with any port.
pub fn client_address(way: Way, family: Family) -> SocketAddr {
    match way {
        Way::Forward => CLIENT.socket(family, 0),
        Way::Local => ROUTER_SERVER_SIDE.socket(family, 0),
    }
}

/// Where clients send to.
pub fn original(family: Family) -> SocketAddr {
    ORIGINAL.socket(family, ORIGINAL_PORT)
}

/// Where redirected packets go.
pub fn upstream(family: Family) -> SocketAddr {
    UPSTREAM.socket(family, UPSTREAM_PORT)
}

/// The rule from [`original`] to [`upstream`].
pub fn rule(protocol: Protocol, family: Family) -> Rule {
    context::redirect(protocol, original(family), upstream(family))
}

/// The rules of both protocols and both IP versions.
pub fn all_rules() -> Vec<Rule> {
    PROTOCOLS
        .into_iter()
        .flat_map(|protocol| FAMILIES.map(|family| rule(protocol, family)))
        .collect()
}

/// Fails if the module dropped a packet or could not read one.
pub fn ensure_no_loss(stats: &Stats) -> Result<()> {
    let losses = [
        stats.dropped_no_memory,
        stats.dropped_table_full,
        stats.dropped_no_port,
        stats.dropped_no_route,
        stats.malformed,
    ];
    ensure!(
        losses.iter().all(|&count| count == 0),
        "the module lost packets: {stats:?}"
    );
    Ok(())
}
