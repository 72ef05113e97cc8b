// SPDX-License-Identifier: MIT OR Apache-2.0

//! One boot of a guest, from its first instruction to its verdict.

mod deadlines;
mod lines;
pub mod processes;
pub mod terms;
mod watch;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

pub use deadlines::Deadlines;
use processes::Guest;
pub use terms::{Boot, Booted};
use watch::Watch;

use crate::decode;
use crate::qemu;
use crate::tools::Tools;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_model::verdict::{Ending, Verdict};
use mutexlab_protocol::Event;

/// How deep below its tree a kernel's image lies: arch/x86/boot/bzImage.
const BZIMAGE_DEPTH: usize = 4;

impl Boot<'_> {
    /// Boots the guest and waits for its end, or ends it; no process of it is left afterwards.
    /// Hands each event on as it comes.
    ///
    /// # Errors
    /// If the guest cannot be started, the log cannot be written, or the user interrupts. What
    /// goes wrong in the guest is no error but a verdict.
    pub fn run(
        &self,
        tools: &Tools,
        interrupt: &Interrupt,
        on_event: &mut dyn FnMut(&Event) -> Result<()>,
    ) -> Result<Booted> {
        let started = Instant::now();
        if let Some(ending) = self.cannot_start(&tools.surroundings) {
            return Ok(Booted {
                ending,
                reports: Vec::new(),
                qemu: Vec::new(),
                duration: started.elapsed(),
            });
        }
        let mut watch = Watch::new(self, started)?;
        let mut guest = Guest::start(self, tools)?;
        let ending = watch.guest(&mut guest, interrupt, on_event);
        let qemu = std::mem::take(&mut guest.qemu);
        // Also when the watch was cut short: no guest survives this function.
        guest.stop()?;
        if !watch.scanner.reports().is_empty()
            && let Err(error) = decode::write(
                self.console_log,
                self.vmlinux().as_deref(),
                &tools.surroundings,
            )
        {
            // What the guest did counts as well without.
            log::info!("mutexlab: the console's log stays as it is: {error:#}");
        }
        Ok(Booted {
            ending: ending?,
            reports: watch.scanner.into_reports(),
            qemu,
            duration: started.elapsed(),
        })
    }

    /// The kernel with its symbols, if the image lies in the tree that it was built in.
    fn vmlinux(&self) -> Option<PathBuf> {
        let tree = self.kernel.ancestors().nth(BZIMAGE_DEPTH)?;
        Some(tree.join("vmlinux")).filter(|file| file.is_file())
    }

    /// The ending, if it is known before anything is started.
    fn cannot_start(&self, surroundings: &Surroundings) -> Option<Ending> {
        if let Err(error) = qemu::find(surroundings) {
            return Some(Ending::bad(Verdict::Infra, format!("{error:#}")));
        }
        let bad = |error: &dyn std::fmt::Display| {
            let reason = format!("{} cannot be booted: {error}", self.kernel.display());
            Some(Ending::bad(Verdict::Boot, reason))
        };
        match qemu::is_kernel(&self.kernel) {
            Ok(true) => None,
            Ok(false) => bad(&"it is no kernel (a bzImage, Documentation/arch/x86/boot.rst)"),
            Err(error) => bad(&error),
        }
    }
}
