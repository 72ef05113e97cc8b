// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who learns what from /proc/net/mutex_proxy/: nothing by which others' flows could be guessed.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use anyhow::{ensure, Context as _, Result};

use super::conversation::{of_every_sort, Servers};
use super::setup::{all_rules, Setup};
use super::GuestTest;
use crate::guest::monitor;
use crate::guest::namespace::Namespace;
use crate::guest::proxy::Context;

/// Files that tell what an attacker could use: collisions, and how long packets took.
const SECRET: [&str; 3] = ["hash", "latency", "pool"];

/// The tests.
pub fn tests() -> Vec<GuestTest> {
    vec![
        GuestTest::single(
            "monitor-modes",
            "files about the hash, the memory and others' packets are for root only",
            modes,
        ),
        GuestTest::single(
            "monitor-pool-own",
            "the file about the memory of flows tells of its own namespace only",
            own_pool,
        ),
    ]
}

fn modes() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let mut readable = Vec::new();
    for name in SECRET {
        let file = monitor::open(&setup.layout.router, name)?
            .with_context(|| format!("there is no file {name}"))?;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            readable.push(format!("{name} {mode:o}"));
        }
    }
    ensure!(
        readable.is_empty(),
        "others than root may read {readable:?}"
    );
    drop(context);
    setup.finish()
}

fn own_pool() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let layout = &setup.layout;
    let beside = Context::open(&layout.client)?;
    let (own, others) = (pool(&layout.router)?, pool(&layout.client)?);
    let servers = Servers::of_both(layout)?;
    let conversations = of_every_sort(&servers)?;
    ensure!(
        pool(&layout.router)? != own,
        "flows of a namespace change nothing in its own file"
    );
    let now = pool(&layout.client)?;
    ensure!(
        now == others,
        "flows of another namespace changed {others:?} to {now:?}"
    );
    drop(conversations);
    drop((servers, beside, context));
    setup.finish()
}

fn pool(namespace: &Namespace) -> Result<String> {
    let mut text = String::new();
    monitor::open(namespace, "pool")?
        .context("there is no file pool")?
        .read_to_string(&mut text)?;
    Ok(text)
}
