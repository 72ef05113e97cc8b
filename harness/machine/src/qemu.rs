// SPDX-License-Identifier: MIT OR Apache-2.0

//! The virtual machine: what QEMU is told beyond what virtme-ng tells it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use duct::cmd;

use crate::taken::Taken;
use crate::tsc;
use mutexlab_host::guard;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_model::accelerator::Accelerator;

/// The program that virtme-ng starts.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// The Debian package that it is in.
pub const PACKAGE: &str = "qemu-system-x86";
/// Where a bzImage has its magic number, and which (Documentation/arch/x86/boot.rst).
const BZIMAGE_MAGIC: (u64, &[u8; 4]) = (0x202, b"HdrS");
/// The CPU of a virtual-mode guest, less what TCG cannot do and would warn about, and less the
/// hardware random numbers. `max` would be another CPU in every version of QEMU.
const CPU_MODEL: &str =
    "Haswell-v4,-pcid,-x2apic,-tsc-deadline,-invpcid,-spec-ctrl,-rdrand,-rdseed";
/// The plugin's file, beside this program.
const PLUGIN: &str = "libmutex_lens.so";

/// Memory of a guest in MiB whose order is about so many flows. More only where it is needed: by
/// its memory the kernel chooses the sizes of its own tables.
pub const fn memory_mib(flows: u32) -> u32 {
    if flows > 250_000 {
        2048
    } else {
        1024
    }
}

/// The model of the guest's CPU.
pub const fn cpu_model(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::TcgIcount | Accelerator::Tcg => CPU_MODEL,
        Accelerator::Kvm => "host",
    }
}

/// Arguments to QEMU behind virtme-ng's own. All random numbers that it gives the guest come from `seed`.
pub fn arguments(accelerator: Accelerator, seed: u32) -> String {
    match accelerator {
        // sleep=off lets an idle guest's clock jump to its next timer.
        Accelerator::TcgIcount => format!(
            "-icount shift=0,sleep=off -cpu {CPU_MODEL} -rtc base=2026-01-01,clock=vm -seed {seed}"
        ),
        // On one host thread. With one a CPU, kernels were seen to die of the breakpoint by which
        // they patch their own code (text_poke), at a static key of netfilter's, when hooks were
        // registered under traffic: presumably translated code that was stale by then.
        Accelerator::Tcg => format!("-accel tcg,thread=single -cpu {CPU_MODEL} -seed {seed}"),
        // virtme-ng picks KVM and `-cpu host` by itself.
        Accelerator::Kvm => String::new(),
    }
}

/// Arguments to the kernel behind virtme-ng's own.
pub fn kernel_arguments(accelerator: Accelerator) -> Vec<String> {
    let usual: &[&str] = match accelerator {
        // Without ACPI the kernel calibrates the local APIC's timer, and checks the timer's
        // interrupt, by spinning on PAUSE and RDTSC, each of which ends a translation block:
        // 15 of the 17 seconds that a boot took. The PIT serves as well for what little a
        // guest needs a timer.
        // The counter runs at 1 GHz by definition, and there is no other clock to watch it by:
        // unless told that it can be relied on, the kernel takes it for none that could serve
        // high-resolution timers (CLOCK_SOURCE_VALID_FOR_HRES), and sleepers wake at ticks only.
        // Programs lie at the same addresses each time.
        Accelerator::TcgIcount => &[
            "nolapic_timer",
            "no_timer_check",
            "tsc_early_khz=1000000",
            "tsc=reliable",
            "norandmaps",
        ],
        Accelerator::Tcg => return time_stamp_counter(tsc::khz()),
        Accelerator::Kvm => &[],
    };
    usual.iter().map(ToString::to_string).collect()
}

/// What has a kernel take the counter for a clock that runs at `khz`.
fn time_stamp_counter(khz: Option<u64>) -> Vec<String> {
    khz.map_or_else(Vec::new, |khz| {
        vec![format!("tsc_early_khz={khz}"), "tsc=reliable".to_owned()]
    })
}

/// The plugin that a repeatable machine needs, which was built with this program.
///
/// # Errors
/// If it is not there, or cannot be copied.
pub fn plugin(surroundings: &Surroundings) -> Result<Taken> {
    Taken::built_with_this(PLUGIN, surroundings)
}

/// What the plugin watches.
#[derive(Clone, Debug)]
pub struct Lens {
    /// Its settings: JSON of `mutexlab_lens_recording::settings::Settings`.
    settings: PathBuf,
}

impl Lens {
    /// With the settings in the file `settings`.
    ///
    /// # Errors
    /// If that is not there.
    pub fn new(settings: &Path) -> Result<Self> {
        let settings = settings
            .canonicalize()
            .with_context(|| format!("cannot find {}", settings.display()))?;
        Ok(Self { settings })
    }

    /// The file with its settings.
    pub fn settings(&self) -> &Path {
        &self.settings
    }
}

/// The first line of `qemu-system-x86_64 --version`.
///
/// # Errors
/// If QEMU is not installed.
pub fn version() -> Result<String> {
    let output = cmd!(PROGRAM, "--version").read().with_context(|| {
        format!("cannot run {PROGRAM}: install it, on Debian with `apt-get install {PACKAGE}`")
    })?;
    Ok(output.lines().next().unwrap_or_default().to_owned())
}

/// Where it is, in PATH, which is where virtme-ng looks.
///
/// # Errors
/// If it is not there; the message says how to get it.
pub fn find(surroundings: &Surroundings) -> Result<PathBuf> {
    surroundings.in_search_path(PROGRAM).with_context(|| {
        format!("{PROGRAM} is not in PATH: install it, on Debian with `apt-get install {PACKAGE}`")
    })
}

/// Whether a file is a kernel that QEMU can boot.
///
/// # Errors
/// If it cannot be read.
pub fn is_kernel(file: &Path) -> std::io::Result<bool> {
    let (offset, magic) = BZIMAGE_MAGIC;
    let mut there = [0; 4];
    match File::open(file)?.read_exact_at(&mut there, offset) {
        Ok(()) => Ok(there == *magic),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The process id of the QEMU that runs a guest somewhere below process `ancestor`; `None` if there is
/// none yet.
pub fn process_below(ancestor: u32) -> Option<u32> {
    guard::descendants(ancestor)
        .into_iter()
        .find(|&pid| has_guest(pid))
}

/// The command line of the QEMU that runs somewhere below process `ancestor`; `None` if there is
/// none yet.
pub fn command_line_below(ancestor: u32) -> Option<Vec<String>> {
    guard::descendants(ancestor)
        .into_iter()
        .find_map(guest_command_line)
}

/// Whether a process is a QEMU that runs a guest.
pub fn has_guest(pid: u32) -> bool {
    guest_command_line(pid).is_some()
}

/// The command line of a process, if it is a QEMU with a guest.
fn guest_command_line(pid: u32) -> Option<Vec<String>> {
    let arguments = command_line(pid)?;
    let program = arguments.first()?.rsplit('/').next()?;
    // virtme-ng first runs it to ask for its version.
    let boots = arguments.iter().any(|argument| argument == "-kernel");
    (program == PROGRAM && boots).then_some(arguments)
}

fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(
        text.trim_end_matches('\0')
            .split('\0')
            .map(str::to_owned)
            .collect(),
    )
}
