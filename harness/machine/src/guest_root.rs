// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's root file system: a directory with just what an order needs, shared read-only.
//!
//! The host's own root would do for virtme-ng, but its guest init spends seconds of emulated time
//! on it, and what happens to be installed on a host must not matter to a result.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use duct::cmd;

use crate::agent::Agent;
use crate::baggage::Baggage;
use crate::program;
use mutexlab_host::surroundings::Surroundings;
pub use mutexlab_images::modules::ModuleFiles;
use mutexlab_protocol::shell_files;
use mutexlab_protocol::{Order, Work, IPROUTE2, ORDER_PATH, PROBE_MODULE_PATH, PROXY_MODULE_PATH};

/// What the guest starts; see `START_SCRIPT`.
pub const START_PATH: &str = "/lab/start";
/// Where the agent lies in the guest.
const AGENT_PATH: &str = "/lab/agent";

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

/// Lays out a root for `order` in the empty directory `root`.
///
/// # Errors
/// If a program that the order needs is not there, or `root` cannot be written.
pub fn build(
    root: &Path,
    order: &Order,
    modules: Option<&ModuleFiles>,
    agent: &Agent,
    baggage: &Baggage,
    surroundings: &Surroundings,
) -> Result<()> {
    for directory in DIRECTORIES {
        create_directory(&root.join(directory))?;
    }
    set_mode(&root.join("tmp"), 0o1777)?;
    for (name, text) in ETC {
        write(&root.join("etc").join(name), text.as_bytes(), 0o644)?;
    }
    install_busybox(root, surroundings)?;
    install_program(root, &agent.file(), AGENT_PATH, &[])?;
    let nft = program::find("nft", "nftables", surroundings)?;
    install_program(root, &nft, "/usr/sbin/nft", &[])?;
    if matches!(order.work, Work::Test { .. }) {
        // Policy rules and devices of all sorts, of which busybox's knows a few.
        let ip = program::find("ip", "iproute2", surroundings)?;
        install_program(root, &ip, IPROUTE2, &[])?;
    }
    for program in &baggage.programs {
        let beside = program.libraries_beside();
        install_program(root, &program.file, &program.path, &beside)?;
    }
    for packed in &baggage.files {
        install_program(root, &packed.file, &packed.path, &[])?;
    }
    if let Some(modules) = modules {
        copy(&modules.proxy, &inside(root, PROXY_MODULE_PATH))?;
        copy(&modules.probe, &inside(root, PROBE_MODULE_PATH))?;
    }
    if matches!(order.work, Work::Shell(_)) {
        create_directory(&inside(root, shell_files::PROGRAMS))?;
        for file in shell_files::ALL {
            write(&inside(root, file.path), file.text.as_bytes(), file.mode)?;
        }
    }
    let order = serde_json::to_vec(order).context("cannot write the order as JSON")?;
    write(&inside(root, ORDER_PATH), &order, 0o644)?;
    write(&inside(root, START_PATH), START_SCRIPT.as_bytes(), 0o755)
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

fn install_busybox(root: &Path, surroundings: &Surroundings) -> Result<()> {
    let busybox = program::find("busybox", "busybox-static", surroundings)?;
    if !program::shared_libraries(&busybox, &[])?.is_empty() {
        bail!(
            "{} is not static: install busybox-static, on Debian with `apt-get install busybox-static`",
            busybox.display()
        );
    }
    copy(&busybox, &root.join("bin/busybox"))?;
    for applet in APPLETS.iter().chain(MORE_APPLETS) {
        let link = root.join("bin").join(applet);
        symlink("busybox", &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(())
}

/// Copies a program to `path` in the guest and its shared libraries to where they are here; those
/// in the directories `beside`, to where the dynamic linker looks.
fn install_program(root: &Path, program: &Path, path: &str, beside: &[PathBuf]) -> Result<()> {
    let target = inside(root, path);
    if let Some(directory) = target.parent() {
        create_directory(directory)?;
    }
    copy(program, &target)?;
    install_libraries(root, program, beside)
}

fn install_libraries(root: &Path, program: &Path, beside: &[PathBuf]) -> Result<()> {
    for library in program::shared_libraries(program, beside)? {
        let mut names = beside
            .iter()
            .filter_map(|directory| library.strip_prefix(directory).ok());
        let name = names.next();
        let target = match name {
            Some(name) => root.join("usr/lib/x86_64-linux-gnu").join(name),
            None => inside(root, &library.to_string_lossy()),
        };
        if target.exists() {
            continue;
        }
        if let Some(directory) = target.parent() {
            create_directory(directory)?;
        }
        copy(&library, &target)?;
    }
    Ok(())
}

/// Where the guest's absolute `path` lies on the host.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn create_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    set_mode(file, mode)
}

fn set_mode(file: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", file.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::paths;
    use mutexlab_protocol::{Work, VERSION};

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
        build(root, &order, None, &agent, &baggage, &surroundings).unwrap();
        let read = fs::read(root.join("lab/order.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&read).unwrap(), order);
        for library in program::shared_libraries(&program, &[]).unwrap() {
            assert!(inside(root, &library.to_string_lossy()).is_file());
        }
        let mode = fs::metadata(root.join("lab/start"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111);
    }
}
