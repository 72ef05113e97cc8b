// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is to be booted, and what comes of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::deadlines::Deadlines;
use crate::attended::Attended;
use crate::baggage::Baggage;
use crate::qemu::Lens;
use crate::stub::Stub;
use mutexlab_images::modules::ModuleFiles;
use mutexlab_images::prepared::Kernel;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::complaint::Complaint;
use mutexlab_model::seed;
use mutexlab_model::verdict::Ending;
use mutexlab_protocol::Order;

/// What to boot and how.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// What this kernel is told beside what every kernel is.
    pub arguments: &'a [&'a str],
    /// Number of CPUs.
    pub cpus: u32,
    /// How instructions are executed.
    pub accelerator: Accelerator,
    /// What its random numbers come from.
    pub seed: u32,
    /// What the agent is to do.
    pub order: &'a Order,
    /// Modules that the order needs.
    pub modules: Option<&'a ModuleFiles>,
    /// What else it needs.
    pub baggage: &'a Baggage,
    /// When to give up.
    pub deadlines: Deadlines,
    /// What watches its instructions, if something does.
    pub lens: Option<&'a Lens>,
    /// Where a debugger attaches, for which the guest waits before its first instruction.
    pub stub: Option<&'a Stub>,
    /// What is different if somebody sits in front of it.
    pub attended: Option<&'a Attended>,
    /// Where the console goes.
    pub console_log: &'a Path,
}

/// What a guest gets that needs nothing more.
static NO_BAGGAGE: Baggage = Baggage {
    programs: Vec::new(),
    files: Vec::new(),
};

impl<'a> Boot<'a> {
    /// Of a kernel with its modules: one CPU, on which instructions are counted, and nobody in front of it.
    pub fn of(kernel: &'a Kernel, order: &'a Order, console_log: &'a Path) -> Self {
        Self {
            kernel: kernel.bzimage(),
            arguments: kernel.arguments(),
            cpus: 1,
            accelerator: Accelerator::TcgIcount,
            seed: seed::USUAL,
            order,
            modules: kernel.modules.as_ref(),
            baggage: &NO_BAGGAGE,
            deadlines: Deadlines::of(kernel.debug),
            lens: None,
            stub: None,
            attended: None,
            console_log,
        }
    }
}

/// How a boot went.
#[derive(Clone, Debug)]
pub struct Booted {
    /// How it ended.
    pub ending: Ending,
    /// What the kernel complained of.
    pub reports: Vec<Complaint>,
    /// Command line of QEMU; empty if it never ran.
    pub qemu: Vec<String>,
    /// How long it took, in time of the host.
    pub duration: Duration,
}
