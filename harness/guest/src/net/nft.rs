// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules of nftables, loaded by the `nft` of the guest's root.

use anyhow::{bail, Context as _, Result};

use super::namespace::Namespace;

/// Runs `script` in `namespace`.
pub fn load(namespace: &Namespace, script: &str) -> Result<()> {
    // The child is made by this thread, and so is in its namespace.
    let output = namespace.run(|| {
        duct::cmd!("nft", "-f", "-")
            .stdin_bytes(script)
            .stderr_to_stdout()
            .stdout_capture()
            .unchecked()
            .run()
            .context("cannot run nft; the guest's root must have it and its libraries")
    })?;
    if !output.status.success() {
        bail!(
            "nft refuses the rules ({}):\n{}{script}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}
