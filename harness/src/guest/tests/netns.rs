// SPDX-License-Identifier: MIT OR Apache-2.0

//! Namespaces come and go with their contexts, in every order.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::conversation::{of_every_sort, Servers};
use super::setup::all_rules;
use super::sockets::PATIENCE;
use super::GuestTest;
use crate::guest::kmod::{LoadedModule, Parameters};
use crate::guest::layout::{Layout, CLIENT_LINK, ROUTER_CLIENT_LINK};
use crate::guest::namespace::Namespace;
use crate::guest::netlink::RouteSocket;
use crate::guest::protocol::PROXY_MODULE_PATH;
use crate::guest::proxy::Context;

/// Namespaces in all.
const TURNS: usize = 100;
/// One in so many has traffic. Not a multiple of the orders' number, so that each order has some.
const TRAFFIC: usize = 10;
/// How many may be dying at the same time.
const DYING: usize = 20;

/// What goes first.
#[derive(Clone, Copy, Debug)]
enum First {
    /// The descriptor, then the namespace.
    Context,
    /// The namespace: from then on only the context holds it.
    Namespace,
    /// Neither: both at the same time, on two threads.
    Neither,
}

/// The test.
pub fn tests() -> Vec<GuestTest> {
    vec![GuestTest::single(
        "namespaces-come-and-go",
        "a hundred namespaces die before, after and together with a context in each",
        run,
    )]
}

fn run() -> Result<()> {
    let module = LoadedModule::load(PROXY_MODULE_PATH, &Parameters::new())?;
    let mut homes = Vec::new();
    for turn in 0..TURNS {
        let first = [First::Context, First::Namespace, First::Neither][turn % 3];
        let home = live_and_die(first, turn % TRAFFIC == 0)
            .with_context(|| format!("turn {turn}, first goes: {first:?}"))?;
        homes.push(home);
        if homes.len() == DYING {
            for home in homes.drain(..) {
                wait_until_alone(&home).with_context(|| format!("up to turn {turn}"))?;
            }
        }
    }
    module.unload()
}

/// Makes a namespace with a context and lets both go. Returns another namespace, whose only link
/// led there: it goes when the namespace is really dead.
fn live_and_die(first: First, with_traffic: bool) -> Result<Namespace> {
    let (home, dying, context) = if with_traffic {
        let layout = Layout::new()?;
        let context = Context::open(&layout.router)?;
        context.configure(&all_rules()).context("good rules")?;
        let servers = Servers::of_both(&layout)?;
        of_every_sort(&servers)?;
        // Its sockets would hold a namespace, but not the router's.
        drop(servers);
        (layout.client, layout.router, context)
    } else {
        let (home, dying) = (Namespace::new("home")?, Namespace::new("dying")?);
        RouteSocket::open(&dying)?.add_veth(&ROUTER_CLIENT_LINK, &CLIENT_LINK, &home)?;
        let context = Context::open(&dying)?;
        context.configure(&all_rules()).context("good rules")?;
        (home, dying, context)
    };
    ensure!(has_link(&home)?, "the link is gone already");
    match first {
        First::Context => {
            drop(context);
            drop(dying);
        }
        First::Namespace => {
            drop(dying);
            context
                .stats()
                .context("of a namespace that only the context holds")?;
            ensure!(
                has_link(&home)?,
                "the namespace died while a context was open in it"
            );
            drop(context);
        }
        First::Neither => thread::scope(|scope| {
            scope.spawn(|| drop(context));
            scope.spawn(|| drop(dying));
        }),
    }
    Ok(home)
}

fn has_link(home: &Namespace) -> Result<bool> {
    home.run(|| match if_nametoindex(CLIENT_LINK.name) {
        Ok(_) => Ok(true),
        Err(Errno::ENODEV) => Ok(false),
        Err(error) => Err(error).context("cannot look for the link"),
    })
}

/// Waits until the namespace at the other end of the link is dead.
fn wait_until_alone(home: &Namespace) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while has_link(home)? {
        ensure!(
            Instant::now() < deadline,
            "nobody holds the namespace any more, yet it lives after {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
