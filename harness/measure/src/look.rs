// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lens on a boot.

use anyhow::Result;

use mutexlab_images::prepared::Kernel;
use mutexlab_lens_analysis::looker::{Looker, Modules};
use mutexlab_machine::baggage::Baggage;
use mutexlab_machine::qemu::Lens;
use mutexlab_scenario::caches::Machine;

/// Gets ready to look at a boot of `kernel` with the caches of `machine` and modules of `baggage`: what waits for recordings, and what QEMU
/// is told.
///
/// # Errors
/// If the kernel's symbols cannot be read, or the settings not written.
pub fn look(machine: &Machine, kernel: &Kernel, baggage: &Baggage) -> Result<(Looker, Lens)> {
    let modules = kernel.modules.as_ref().map(|modules| Modules {
        proxy: &modules.proxy,
        probe: &modules.probe,
    });
    let own = baggage.files.iter().filter_map(|packed| {
        let is_module = packed.file.extension().is_some_and(|end| end == "ko");
        // As Kbuild has it.
        let name = packed.file.file_stem()?.to_str()?.replace('-', "_");
        is_module.then(|| (name, packed.file.clone()))
    });
    let looker = Looker::new(machine.caches(), &kernel.vmlinux(), modules, own.collect())?;
    let lens = Lens::new(&looker.settings)?;
    Ok((looker, lens))
}
