// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who learns what from /proc/net/mutex_proxy/: nothing by which others' flows could be guessed.

use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

use anyhow::{bail, ensure, Context as _, Result};
use nix::errno::Errno;

use super::context::{keep_capabilities, CAP_NET_ADMIN};
use super::setup::{all_rules, Setup};
use super::GuestTest;
use mutexlab_guest::net::namespace::Namespace;
use mutexlab_guest::proxy::monitor;

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
            "monitor-pool-refused",
            "the file about the memory of all namespaces' flows is for the machine's administrators",
            of_the_machine,
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

fn of_the_machine() -> Result<()> {
    let setup = Setup::new()?;
    let context = setup.context(&all_rules())?;
    let router = &setup.layout.router;
    pool(router).context("with all capabilities")?;
    let refused = router.run_apart(|| {
        keep_capabilities(|kept| kept & !CAP_NET_ADMIN)?;
        Ok(pool(router))
    })?;
    let Err(error) = refused else {
        bail!("who may not administer the machine's network reads of all namespaces' flows");
    };
    let cause = error.downcast_ref::<io::Error>();
    ensure!(
        cause.and_then(io::Error::raw_os_error) == Some(Errno::EPERM as i32),
        "expected EPERM, got {error:#}"
    );
    drop(context);
    setup.finish()
}

fn pool(namespace: &Namespace) -> Result<String> {
    let mut text = String::new();
    monitor::open(namespace, "pool")?
        .context("there is no file pool")?
        .read_to_string(&mut text)?;
    Ok(text)
}
