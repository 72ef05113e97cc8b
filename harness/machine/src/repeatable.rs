// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine whose boots repeat to the instruction: it gets nothing from outside but what is there when it begins.
//!
//! - Its root is in its memory before the first instruction: an initramfs with agent, modules, programs and order. No file system of
//!   this machine's, which answers when it can.
//! - It has no device that waits for this machine: two serial ports, each into a file, which take a byte in a fixed virtual time.
//! - All clocks are virtual, and all random numbers of QEMU's from one seed.
//! - The virtual clock goes on in step with the CPUs: see the plugin's `turns`.
//!
//! virtme-ng has no options for such a machine: it shares a root, by 9p, virtio-fs or a disk, speaks by virtio-serial, and
//! tells the guest limits of this machine (`nr_open=`). It boots all others.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Result};

use crate::boot::terms::Boot;
use crate::mp_table;
use crate::qemu::{self, Lens};
use crate::taken::Taken;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_model::accelerator::Accelerator;
use mutexlab_protocol::{AGENT_PATH, GUEST_ARGUMENT};

/// What such a machine is made of: files below the directory of its boot.
#[derive(Clone, Debug)]
pub struct Files {
    /// Its root, an initramfs.
    pub root: PathBuf,
    /// What its kernel says.
    pub console: PathBuf,
    /// What its agent says.
    pub events: PathBuf,
}

impl Files {
    /// Those of a boot with this directory.
    pub fn below(directory: &Path) -> Self {
        Self {
            root: directory.join("root.cpio"),
            console: directory.join("console"),
            events: directory.join("events"),
        }
    }
}

/// Arguments to the kernel. An agent that is the first program takes its verb from behind `--`.
fn kernel_arguments(boot: &Boot<'_>) -> String {
    let rdinit = format!("rdinit={AGENT_PATH}");
    let always = [
        GUEST_ARGUMENT,
        &rdinit,
        "console=ttyS0",
        "earlyprintk=serial,ttyS0,115200",
        "loglevel=7",
        // Ends QEMU, by -no-reboot.
        "panic=-1",
    ];
    let of_accelerator = qemu::kernel_arguments(boot.accelerator);
    let of_accelerator = of_accelerator.iter().map(String::as_str);
    let all = always.into_iter().chain(of_accelerator);
    let all = all.chain(boot.arguments.iter().copied());
    let mut line = all.collect::<Vec<_>>().join(" ");
    line.push_str(" -- init");
    line
}

/// Why a boot would not repeat, if a line of QEMU's errors says that the library was left out that keeps the clock in step: the dynamic linker goes
/// on without (`do_preload()`, elf/rtld.c of glibc).
pub fn not_loaded(line: &str) -> Option<String> {
    let reason = line.strip_prefix("ERROR: ld.so: ")?;
    reason.contains(" cannot be preloaded").then(|| {
        format!("QEMU runs without the library that has boots repeat, which was built with mutexlab: {reason}")
    })
}

/// The command of QEMU for `boot` with such files; `mp_table` is a file with the guest's [`mp_table`], if the firmware's would
/// not do.
///
/// # Errors
/// If QEMU is not there.
pub fn command(
    boot: &Boot<'_>,
    files: &Files,
    mp_table: Option<&Path>,
    plugin: &Taken,
    surroundings: &Surroundings,
) -> Result<Vec<OsString>> {
    ensure!(
        boot.accelerator == Accelerator::TcgIcount && boot.attended.is_none(),
        "such a machine has virtual time, and nobody sits in front of it"
    );
    let preload = format!("LD_PRELOAD={}", plugin.file().display());
    let mut command: Vec<OsString> = vec!["env".into(), preload.into()];
    command.push(qemu::find(surroundings)?.into_os_string());
    let mut add = |arguments: &[&str]| command.extend(arguments.iter().map(OsString::from));
    let Boot {
        cpus, ref kernel, ..
    } = *boot;
    add(&["-nodefaults", "-no-user-config", "-no-reboot"]);
    add(&["-machine", "q35", "-display", "none", "-vga", "none"]);
    let memory = qemu::memory_mib(boot.order.flows().max);
    add(&["-m", &format!("{memory}M")]);
    add(&["-smp", &format!("{cpus},sockets={cpus},cores=1,threads=1")]);
    let machine = qemu::arguments(boot.accelerator, boot.seed);
    add(&machine.split(' ').collect::<Vec<_>>());
    for (id, file) in [("console", &files.console), ("events", &files.events)] {
        add(&["-chardev", &format!("file,id={id},path={}", quoted(file))]);
        add(&["-serial", &format!("chardev:{id}")]);
    }
    if let Some(lens) = boot.lens {
        add(&["-plugin", &plugin_argument(plugin, lens)]);
    }
    if let Some(table) = mp_table {
        let (table, address) = (quoted(table), mp_table::ADDRESS);
        add(&[
            "-device",
            &format!("loader,file={table},addr={address:#x},force-raw=on"),
        ]);
    }
    add(&["-kernel", &kernel.to_string_lossy()]);
    add(&["-initrd", &files.root.to_string_lossy()]);
    add(&["-append", &kernel_arguments(boot)]);
    let stub = boot.stub.map(|stub| stub.qemu_arguments(true));
    command.extend(stub.into_iter().flatten().map(OsString::from));
    Ok(command)
}

/// The plugin, which watches.
fn plugin_argument(plugin: &Taken, lens: &Lens) -> String {
    let (file, settings) = (quoted(&plugin.file()), quoted(lens.settings()));
    format!("file={file},settings={settings}")
}

/// A path as a value in one of QEMU's lists of options.
fn quoted(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_was_left_out_is_noticed() {
        let line = "ERROR: ld.so: object '/proc/7/fd/4' from LD_PRELOAD cannot be preloaded (invalid ELF header): ignored.";
        assert!(not_loaded(line).is_some_and(|reason| reason.contains("invalid ELF header")));
        assert_eq!(not_loaded("[    0.1] module: cannot be preloaded"), None);
        assert_eq!(not_loaded("ERROR: ld.so: something else"), None);
    }
}
