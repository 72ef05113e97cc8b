// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether KVM really works here. A device that opens is no proof: nested virtualization may let
//! a machine be made and then never run it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use serde::{Deserialize, Serialize};

use crate::boot::{Boot, Deadlines};
use crate::qemu;
use crate::tools::Tools;
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::prepared::Kernel;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_protocol::{Order, Work, VERSION};

const DEVICE: &str = "/dev/kvm";
/// A guest under working KVM is up within a fraction of this.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Whether a guest came up under KVM.
    pub works: bool,
    /// How that was found out, for a person.
    pub reason: String,
}

impl Probe {
    /// What is to be used.
    pub const fn accelerator(&self) -> Accelerator {
        if self.works {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        }
    }
}

/// Boots `kernel` under KVM against a deadline, unless the cache remembers how that went with this
/// kernel, this QEMU and this host.
///
/// # Errors
/// If the cache cannot be written, a guest cannot be started at all, or the user interrupts.
pub fn probe(kernel: &Kernel, tools: &Tools, interrupt: &Interrupt) -> Result<Probe> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) {
        return Ok(Probe {
            works: false,
            reason: format!("{DEVICE} cannot be opened: {error}"),
        });
    }
    let file = remembered(kernel, &tools.surroundings.cache)?;
    if let Some(probe) = fs::read(&file)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
    {
        return Ok(probe);
    }
    log::info!(
        "trying whether KVM really works, for {} s at most",
        DEADLINE.as_secs()
    );
    let order = Order {
        version: VERSION,
        work: Work::Boot,
    };
    let log = file.with_extension("console.log");
    let boot = Boot {
        accelerator: Accelerator::Kvm,
        modules: None,
        deadlines: Deadlines {
            up: DEADLINE,
            silence: DEADLINE,
            total: 2 * DEADLINE,
        },
        ..Boot::of(kernel, &order, &log)
    };
    let ending = boot.run(tools, interrupt, &mut |_| Ok(()))?.ending;
    let probe = Probe {
        works: ending.is_ok(),
        reason: if ending.is_ok() {
            format!("Linux {} came up under KVM", kernel.release)
        } else {
            format!(
                "Linux {} under KVM ended as {}: {}",
                kernel.release, ending.verdict, ending.reason
            )
        },
    };
    let text = serde_json::to_vec_pretty(&probe).context("cannot write JSON")?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(probe)
}

/// Where the cache remembers a probe.
fn remembered(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let host = uname().context("cannot ask for the kernel's release")?;
    let parts = [
        host.release().to_string_lossy().into_owned(),
        host.version().to_string_lossy().into_owned(),
        qemu::version()?,
        Sha256::of_file(&kernel.bzimage())?.into(),
    ];
    let key = Sha256::of(parts.map(|part| part + "\0").concat());
    let key = &key.as_str()[..16];
    let directory = cache.join("kvm");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory.join(format!("{key}.json")))
}
