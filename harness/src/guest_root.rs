// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's root file system: a directory with just what an order needs, shared read-only.
//!
//! The host's own root would do for virtme-ng, but its guest init spends seconds of emulated time
//! on it, and what happens to be installed on a host must not matter to a result.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use duct::cmd;

use crate::guest::protocol::{
    Order, Subject, MICROSOCKS, ORDER_PATH, PROBE_MODULE_PATH, PROXY_MODULE_PATH, REDSOCKS,
};
use crate::image::Cache;
use crate::paths;

/// What the guest starts; see [`START_SCRIPT`].
pub const START_PATH: &str = "/lab/start";
/// Where the harness lies in the guest.
const AGENT_PATH: &str = "/lab/mutexlab";

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

/// Programs of busybox's that virtme-ng's init and [`START_SCRIPT`] call.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "ip", "mkdir", "mount", "reboot", "sed", "umount",
];

/// Runs the agent with its standard output on the virtio port that is virtme-ng's standard output,
/// apart from the console, on which the kernel writes in the middle of others' lines. virtme-ng
/// leaves finding the port to udev, of which there is none here. A reboot ends QEMU
/// (`-no-reboot`) even where a kernel without ACPI cannot power off.
const START_SCRIPT: &str = "\
#!/bin/sh
for port in /sys/class/virtio-ports/*; do
    if [ \"$(cat \"$port/name\")\" = virtme.stdout ]; then
        exec >\"/dev/${port##*/}\"
    fi
done
/lab/mutexlab agent
echo \"mutexlab: agent ended with code $?\" >&2
reboot -f
";

/// Modules that the guest may load.
#[derive(Clone, Debug)]
pub struct ModuleFiles {
    /// mutex_proxy.ko.
    pub proxy: PathBuf,
    /// mutex_probe.ko.
    pub probe: PathBuf,
}

/// Lays out a root for `order` in the empty directory `root`.
///
/// # Errors
/// If a program that the order needs is not there, or `root` cannot be written.
pub fn build(root: &Path, order: &Order, modules: Option<&ModuleFiles>) -> Result<()> {
    for directory in DIRECTORIES {
        create_directory(&root.join(directory))?;
    }
    set_mode(&root.join("tmp"), 0o1777)?;
    for (name, text) in ETC {
        write(&root.join("etc").join(name), text.as_bytes(), 0o644)?;
    }
    install_busybox(root)?;
    let agent = paths::this_program();
    install_program(root, &agent, AGENT_PATH, None)?;
    let nft = find_program("nft", "nftables")?;
    install_program(root, &nft, "/usr/sbin/nft", None)?;
    if order.needs(Subject::Redsocks) {
        install_unpacked(root)?;
    }
    if let Some(modules) = modules {
        copy(&modules.proxy, &inside(root, PROXY_MODULE_PATH))?;
        copy(&modules.probe, &inside(root, PROBE_MODULE_PATH))?;
    }
    let order = serde_json::to_vec(order).context("cannot write the order as JSON")?;
    write(&inside(root, ORDER_PATH), &order, 0o644)?;
    write(&inside(root, START_PATH), START_SCRIPT.as_bytes(), 0o755)
}

/// What `nft --version` says.
///
/// # Errors
/// If it is not installed.
pub fn nft_version() -> Result<String> {
    let nft = find_program("nft", "nftables")?;
    cmd!(&nft, "--version")
        .read()
        .map(|text| text.trim().to_owned())
        .with_context(|| format!("cannot run {}", nft.display()))
}

/// Installs what `./just` has unpacked, or, where it does not do so, what this machine has.
fn install_unpacked(root: &Path) -> Result<()> {
    let unpacked = Cache::new()?.directory().join("tools/debian");
    let libraries = unpacked.join("usr/lib/x86_64-linux-gnu");
    for (name, path) in [("redsocks", REDSOCKS), ("microsocks", MICROSOCKS)] {
        let ours = inside(&unpacked, path);
        let program = if ours.is_file() {
            ours
        } else {
            find_program(name, name)
                .with_context(|| format!("./just unpacks {name}, but has not yet"))?
        };
        install_program(root, &program, path, Some(&libraries))?;
    }
    Ok(())
}

fn install_busybox(root: &Path) -> Result<()> {
    let busybox = find_program("busybox", "busybox-static")?;
    if !shared_libraries(&busybox, None)?.is_empty() {
        bail!(
            "{} is not static: install busybox-static, on Debian with `apt-get install busybox-static`",
            busybox.display()
        );
    }
    copy(&busybox, &root.join("bin/busybox"))?;
    for applet in APPLETS {
        let link = root.join("bin").join(applet);
        symlink("busybox", &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(())
}

/// Copies a program to `path` in the guest and its shared libraries to where they are here; those
/// in the directory `beside`, to where the dynamic linker looks.
fn install_program(root: &Path, program: &Path, path: &str, beside: Option<&Path>) -> Result<()> {
    copy(program, &inside(root, path))?;
    for library in shared_libraries(program, beside)? {
        let name = beside.and_then(|directory| library.strip_prefix(directory).ok());
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

/// What the dynamic linker would load for `program`, if it looked into the directory `beside`, too;
/// nothing if it is static.
fn shared_libraries(program: &Path, beside: Option<&Path>) -> Result<BTreeSet<PathBuf>> {
    // ldd fails for static programs and says so on either stream.
    let output = cmd!("ldd", program)
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .env("LC_ALL", "C")
        .env("LD_LIBRARY_PATH", beside.unwrap_or(Path::new("")))
        .run()
        .context("cannot run ldd, which is part of glibc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), missing.trim());
    }
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

/// Looks in PATH, and where Debian keeps the administrator's programs.
fn find_program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .with_context(|| {
            format!("cannot find {name}: install it, on Debian with `apt-get install {package}`")
        })
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
    use crate::guest::protocol::{Work, VERSION};

    #[test]
    fn root_holds_the_agent_its_libraries_and_the_order() {
        let directory = tempfile::tempdir().unwrap();
        let order = Order {
            version: VERSION,
            work: Work::Boot,
        };
        let root = directory.path();
        build(root, &order, None).unwrap();
        let read = fs::read(root.join("lab/order.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&read).unwrap(), order);
        let program = paths::this_program();
        for library in shared_libraries(&program, None).unwrap() {
            assert!(inside(root, &library.to_string_lossy()).is_file());
        }
        let mode = fs::metadata(root.join("lab/start"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, 0o111);
    }

    #[test]
    fn libraries_of_a_dynamic_program_are_found() {
        let libraries = shared_libraries(&paths::this_program(), None).unwrap();
        assert!(libraries
            .iter()
            .any(|library| library.to_string_lossy().contains("libc.so")));
        assert!(libraries.iter().all(|library| library.is_file()));
    }
}
