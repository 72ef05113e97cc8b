// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's root file system: just what an order needs.
//!
//! The host's own root would do for virtme-ng, but its guest init spends seconds of emulated time
//! on it, and what happens to be installed on a host must not matter to a result.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use duct::cmd;

use crate::agent::Agent;
use crate::baggage::Baggage;
use crate::guest_files::GuestFiles;
use crate::program;
use mutexlab_host::surroundings::Surroundings;
pub use mutexlab_images::modules::ModuleFiles;
use mutexlab_protocol::shell_files;
use mutexlab_protocol::{
    Order, Work, AGENT_PATH, IPROUTE2, MPROX, ORDER_PATH, PROBE_MODULE_PATH, PROXY_MODULE_PATH,
};

/// What the guest starts; see `START_SCRIPT`.
pub const START_PATH: &str = "/lab/start";

/// Directories that exist empty, to be mounted on or written to in memory.
const DIRECTORIES: &[&str] = &[
    "bin", "dev", "etc", "home", "lab", "lib", "lib64", "proc", "root", "run", "sbin", "sys",
    "tmp", "usr/bin", "usr/lib", "usr/sbin", "var/log", "var/tmp",
];

/// Files of `/etc` that virtme-ng's init reads or mounts over.
const ETC: &[(&str, &str)] = &[
    ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("group", "root:x:0:\ntty:x:5:\n"),
    ("fstab", ""),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("shadow", ""),
    ("sudoers", ""),
];

/// Programs of busybox's that virtme-ng's init and `START_SCRIPT` call.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "ip", "mkdir", "mount", "reboot", "sed", "umount",
];

/// More of them, for the scripts of subjects.
const MORE_APPLETS: &[&str] = &[
    "awk", "cp", "cut", "date", "env", "expr", "false", "find", "grep", "head", "kill", "ln", "ls",
    "mv", "nc", "od", "pidof", "ping", "printf", "ps", "rm", "rmdir", "seq", "sleep", "sort",
    "stat", "sysctl", "tail", "tee", "test", "touch", "tr", "true", "uname", "uniq", "wc", "xargs",
];

/// Runs the agent with its standard output on the virtio port that is virtme-ng's standard output,
/// apart from the console, on which the kernel writes in the middle of others' lines. virtme-ng
/// leaves finding the port to udev, of which there is none here. A reboot ends QEMU
/// (`-no-reboot`) even where a kernel without ACPI cannot power off. An agent that has ended, which it does not by
/// itself, has perhaps not looked at the log.
const START_SCRIPT: &str = "\
#!/bin/sh
for port in /sys/class/virtio-ports/*; do
    if [ \"$(cat \"$port/name\")\" = virtme.stdout ]; then
        exec >\"/dev/${port##*/}\"
    fi
done
/lab/agent run
echo \"mutexlab: agent ended with code $?\" >&2
/lab/agent look-at-log
reboot -f
";

/// The root for `order`.
///
/// # Errors
/// If a program that the order needs is not there.
pub fn of(
    order: &Order,
    modules: Option<&ModuleFiles>,
    agent: &Agent,
    baggage: &Baggage,
    surroundings: &Surroundings,
) -> Result<GuestFiles> {
    let mut files = GuestFiles::default();
    for directory in DIRECTORIES {
        files.directory(directory, 0o755);
    }
    files.directory("tmp", 0o1777);
    for (name, text) in ETC {
        files.write(&format!("etc/{name}"), *text, 0o644);
    }
    install_busybox(&mut files, surroundings)?;
    install_program(&mut files, &agent.file(), AGENT_PATH, &[])?;
    let nft = program::find("nft", "nftables", surroundings)?;
    install_program(&mut files, &nft, "/usr/sbin/nft", &[])?;
    if matches!(order.work, Work::Test { .. }) {
        // Policy rules and devices of all sorts, of which busybox's knows a few.
        let ip = program::find("ip", "iproute2", surroundings)?;
        install_program(&mut files, &ip, IPROUTE2, &[])?;
    }
    let mprox_path = match order.work {
        Work::Test { .. } => Some(MPROX),
        // Of the guest's root nothing else is left there.
        Work::Shell(_) => Some(shell_files::MPROX),
        _ => None,
    };
    if let Some(path) = mprox_path {
        let mprox = surroundings.built.join("mprox");
        if !mprox.is_file() {
            bail!(
                "there is no {}: `cargo build --release` builds it",
                mprox.display()
            );
        }
        install_program(&mut files, &mprox, path, &[])?;
    }
    for program in &baggage.programs {
        let beside = program.libraries_beside();
        install_program(&mut files, &program.file, &program.path, &beside)?;
    }
    for packed in &baggage.files {
        install_program(&mut files, &packed.file, &packed.path, &[])?;
    }
    if let Some(modules) = modules {
        files.copy(&modules.proxy, PROXY_MODULE_PATH);
        files.copy(&modules.probe, PROBE_MODULE_PATH);
    }
    if matches!(order.work, Work::Shell(_)) {
        files.directory(shell_files::PROGRAMS, 0o755);
        for file in shell_files::ALL {
            files.write(file.path, file.text, file.mode);
        }
    }
    let order = serde_json::to_vec(order).context("cannot write the order as JSON")?;
    files.write(ORDER_PATH, order, 0o644);
    files.write(START_PATH, START_SCRIPT, 0o755);
    Ok(files)
}

/// What `nft --version` says.
///
/// # Errors
/// If it is not installed.
pub fn nft_version(surroundings: &Surroundings) -> Result<String> {
    let nft = program::find("nft", "nftables", surroundings)?;
    cmd!(&nft, "--version")
        .read()
        .map(|text| text.trim().to_owned())
        .with_context(|| format!("cannot run {}", nft.display()))
}

fn install_busybox(files: &mut GuestFiles, surroundings: &Surroundings) -> Result<()> {
    let busybox = program::find("busybox", "busybox-static", surroundings)?;
    if !program::shared_libraries(&busybox, &[])?.is_empty() {
        bail!(
            "{} is not static: install busybox-static, on Debian with `apt-get install busybox-static`",
            busybox.display()
        );
    }
    files.copy(&busybox, "bin/busybox");
    for applet in APPLETS.iter().chain(MORE_APPLETS) {
        files.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(())
}

/// Adds a program at `path` in the guest and its shared libraries where they are here; those
/// in the directories `beside`, where the dynamic linker looks.
fn install_program(
    files: &mut GuestFiles,
    program: &Path,
    path: &str,
    beside: &[PathBuf],
) -> Result<()> {
    files.copy(program, path);
    for library in program::shared_libraries(program, beside)? {
        let mut names = beside
            .iter()
            .filter_map(|directory| library.strip_prefix(directory).ok());
        let target = match names.next() {
            Some(name) => format!("usr/lib/x86_64-linux-gnu/{}", name.display()),
            None => library.to_string_lossy().into_owned(),
        };
        if !files.has(&target) {
            files.copy(&library, &target);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::paths;
    use mutexlab_protocol::{Work, VERSION};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn root_holds_the_agent_its_libraries_and_the_order() {
        let directory = tempfile::tempdir().unwrap();
        let order = Order {
            version: VERSION,
            work: Work::Boot,
        };
        let root = directory.path();
        let program = paths::this_program();
        let agent = Agent::copy_of(&program).unwrap();
        let surroundings = Surroundings::usual(root);
        let baggage = Baggage::default();
        let files = of(&order, None, &agent, &baggage, &surroundings).unwrap();
        files.lay_out(root).unwrap();
        let read = fs::read(root.join("lab/order.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&read).unwrap(), order);
        for library in program::shared_libraries(&program, &[]).unwrap() {
            assert!(files.has(&library.to_string_lossy()));
        }
        let start = fs::metadata(root.join("lab/start")).unwrap();
        assert_eq!(start.permissions().mode() & 0o111, 0o111);
    }
}
