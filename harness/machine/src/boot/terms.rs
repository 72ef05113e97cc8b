// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is to be booted, and what comes of it.

use std::path::Path;
use std::time::Duration;

use super::deadlines::Deadlines;
use crate::attended::Attended;
use crate::baggage::Baggage;
use crate::qemu::Lens;
use mutexlab_images::modules::ModuleFiles;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_model::complaint::Complaint;
use mutexlab_model::verdict::Ending;
use mutexlab_protocol::Order;

/// What to boot and how.
#[derive(Clone, Debug)]
pub struct Boot<'a> {
    /// The kernel, a bzImage.
    pub kernel: &'a Path,
    /// What this kernel is told beside what every kernel is.
    pub arguments: &'a [&'a str],
    /// Number of CPUs.
    pub cpus: u32,
    /// How instructions are executed.
    pub accelerator: Accelerator,
    /// What the agent is to do.
    pub order: &'a Order,
    /// Modules that the order needs.
    pub modules: Option<&'a ModuleFiles>,
    /// What else it needs.
    pub baggage: &'a Baggage,
    /// When to give up.
    pub deadlines: Deadlines,
    /// The plugin that watches its instructions, if one does.
    pub lens: Option<&'a Lens>,
    /// What is different if somebody sits in front of it.
    pub attended: Option<&'a Attended>,
    /// Where the console goes.
    pub console_log: &'a Path,
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
