// SPDX-License-Identifier: MIT OR Apache-2.0

//! A root with the host's programs and files, read-only, in the place of the guest's own small one.

use std::fs::{self, DirEntry};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::unistd::{chdir, pivot_root};

use mutexlab_protocol::visit::HOST_FILES;

/// Where the new root is put together: what virtme-ng's init has mounted there is in memory.
const NEW: &str = "/run/root";
/// Where all of the host's files are in the new root.
const HOST: &str = "host";
/// What the new root has of the old one.
const KEPT: [&str; 5] = ["proc", "sys", "dev", "run", "lab"];
/// What it has of its own, in memory.
const OWN: [&str; 2] = ["root", "tmp"];

/// Makes the host's files this process's root; those that it has open stay.
pub fn take_over() -> Result<()> {
    let new = Path::new(NEW);
    create(new)?;
    attach(Some("root"), new, Some("tmpfs"), MsFlags::empty(), None)?;
    let host = new.join(HOST);
    create(&host)?;
    attach(
        Some(HOST_FILES),
        &host,
        Some("9p"),
        MsFlags::MS_RDONLY,
        // Pages are kept: else each start of a program would bring all of it from the host again.
        Some("trans=virtio,version=9p2000.L,msize=524288,cache=loose"),
    )?;
    for entry in fs::read_dir(&host).with_context(|| format!("cannot list {}", host.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", host.display()))?;
        let name = entry.file_name();
        let ours = [HOST].iter().chain(&KEPT).chain(&OWN);
        if !ours.into_iter().any(|ours| name == *ours) {
            take(&entry, &new.join(&name))?;
        }
    }
    for name in KEPT {
        let target = new.join(name);
        create(&target)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        // Not again what is being put together.
        let flags = if name == "run" {
            MsFlags::MS_BIND
        } else {
            flags
        };
        attach(Some(&format!("/{name}")), &target, None, flags, None)?;
    }
    for name in OWN {
        create(&new.join(name))?;
    }
    fs::set_permissions(new.join("tmp"), fs::Permissions::from_mode(0o1777))
        .context("cannot set the mode of the guest's /tmp")?;
    enter(new)
}

/// Puts an entry of the host's root at `target`; what is neither directory nor link, nobody needs.
fn take(entry: &DirEntry, target: &Path) -> Result<()> {
    let path = entry.path();
    let kind = entry
        .file_type()
        .with_context(|| format!("cannot look at {}", path.display()))?;
    if kind.is_symlink() {
        let to = fs::read_link(&path).with_context(|| format!("cannot read {}", path.display()))?;
        symlink(&to, target).with_context(|| format!("cannot create {}", target.display()))
    } else if kind.is_dir() {
        create(target)?;
        attach(path.to_str(), target, None, MsFlags::MS_BIND, None)
    } else {
        Ok(())
    }
}

/// pivot_root(2), NOTES: the old root lies above the new one until it is taken off.
fn enter(new: &Path) -> Result<()> {
    chdir(new)
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .with_context(|| format!("cannot make {} the root", new.display()))
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

fn attach(
    what: Option<&str>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<()> {
    mount(what, target, kind, flags, options).with_context(|| {
        format!(
            "cannot mount {} at {}",
            what.unwrap_or("nothing"),
            target.display()
        )
    })
}
