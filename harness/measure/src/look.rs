// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lens on a boot.

use anyhow::Result;

use mutexlab_images::prepared::Kernel;
use mutexlab_lens_analysis::looker::{Looker, Modules};
use mutexlab_machine::qemu::Lens;
use mutexlab_machine::taken::Taken;
use mutexlab_scenario::caches::Machine;

/// Gets ready to look at a boot of `kernel` with the caches of `machine`: what waits for recordings, and what QEMU
/// is told.
///
/// # Errors
/// If the kernel's symbols cannot be read, or the settings not written.
pub fn look(plugin: &Taken, machine: &Machine, kernel: &Kernel) -> Result<(Looker, Lens)> {
    let modules = kernel.modules.as_ref().map(|modules| Modules {
        proxy: &modules.proxy,
        probe: &modules.probe,
    });
    let looker = Looker::new(machine.caches(), &kernel.vmlinux(), modules)?;
    let lens = Lens::new(plugin, &looker.settings)?;
    Ok((looker, lens))
}
