// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ip` of iproute2, for what `netlink` has no request for: policy rules, routes of several tables, devices.

use anyhow::{bail, Context as _, Result};

use super::namespace::Namespace;
use mutexlab_model::traffic::Family;
use mutexlab_protocol::IPROUTE2;

/// Runs the lines of `script` in `namespace`, each an `ip` command without the `ip`, of one IP version.
pub fn run(namespace: &Namespace, family: Family, script: &str) -> Result<()> {
    let version = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let ip = duct::cmd!(IPROUTE2, version, "-batch", "-").stdin_bytes(script);
    let output = namespace
        .output(&ip)
        .context("cannot run ip; the guest's root must have it and its libraries")?;
    if !output.status.success() {
        bail!(
            "ip refuses a command ({}, {}):\n{}{script}",
            output.status,
            namespace.name(),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}
