// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line of virtme-ng.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use duct::cmd;

use crate::boot::terms::Boot;
use crate::guest_root::START_PATH;
use crate::mp_table;
use crate::qemu;
use mutexlab_host::surroundings::Surroundings;
use mutexlab_model::accelerator::Accelerator;

/// An installation of virtme-ng.
#[derive(Clone, Debug)]
pub struct Virtme {
    /// The directory of `vng` and `virtme-run`.
    directory: PathBuf,
    /// PATH with that first.
    search_path: OsString,
}

impl Virtme {
    /// Looks in the tools' virtual environment in the cache, then in PATH.
    ///
    /// # Errors
    /// If it is in neither.
    pub fn find(surroundings: &Surroundings) -> Result<Self> {
        let tools = surroundings.cache.join("tools/venv/bin");
        let mut places = std::iter::once(&tools).chain(&surroundings.search_path);
        let directory = places.find(|directory| directory.join("vng").is_file());
        let directory = directory.with_context(|| {
            format!(
                "cannot find vng (virtme-ng) in {} nor in PATH: `./just doctor` says how to get it",
                tools.display()
            )
        })?;
        Ok(Self {
            search_path: surroundings.path_behind(std::slice::from_ref(directory))?,
            directory: directory.clone(),
        })
    }

    /// What `vng --version` says.
    ///
    /// # Errors
    /// If it does not run.
    pub fn version(&self) -> Result<String> {
        let vng = self.vng();
        cmd!(&vng, "--version")
            .read()
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("cannot run {}", vng.display()))
    }

    /// PATH with this installation first, since `vng` looks for `virtme-run` there.
    pub fn search_path(&self) -> &OsString {
        &self.search_path
    }

    /// The command for `boot` on `root`, which runs what is at [`START_PATH`]; `mp_table` is a file with
    /// the guest's [`mp_table`], if the firmware's would not do.
    ///
    /// # Errors
    /// If a path cannot go through the shell that `vng` puts its command line through.
    pub fn command(
        &self,
        boot: &Boot<'_>,
        root: &Path,
        mp_table: Option<&Path>,
    ) -> Result<Vec<OsString>> {
        let Boot {
            ref kernel,
            arguments,
            cpus,
            accelerator,
            seed,
            order,
            stub,
            attended,
            ..
        } = *boot;
        for path in [kernel.as_path(), root].into_iter().chain(mp_table) {
            let text = path.to_string_lossy();
            if !text
                .chars()
                .all(|char| char.is_ascii_alphanumeric() || "/._-+@%".contains(char))
            {
                bail!("virtme-ng cannot take the path {text:?}: use one without blanks and signs");
            }
        }
        let mut command = vec![self.vng().into_os_string()];
        let mut add = |arguments: &[&str]| command.extend(arguments.iter().map(OsString::from));
        add(&["--run", &kernel.to_string_lossy()]);
        add(&["--root", &root.to_string_lossy()]);
        add(&["--cpus", &cpus.to_string()]);
        let memory = attended
            .and_then(|attended| attended.memory_mib)
            .unwrap_or_else(|| qemu::memory_mib(order.flows().max));
        add(&["--memory", &format!("{memory}M")]);
        // virtio-fs would want a daemon; its threads would be one more thing that differs.
        add(&["--force-9p", "--user", "root", "--verbose"]);
        if accelerator != Accelerator::Kvm {
            add(&["--disable-kvm"]);
        }
        // Without CONFIG_BLOCK the kernel does not find a 9p root by itself.
        add(&["--append", "root=/dev/root"]);
        let of_accelerator = qemu::kernel_arguments(accelerator);
        let of_accelerator = of_accelerator.iter().map(String::as_str);
        for argument in of_accelerator.chain(arguments.iter().copied()) {
            add(&["--append", argument]);
        }
        for argument in attended.iter().flat_map(|attended| &attended.kernel) {
            add(&["--append", argument]);
        }
        // A kernel without ACPI finds its CPUs in the MP table, which lists the first of each socket
        // only, and QEMU would put them all into one.
        let mut qemu = qemu::arguments(accelerator, seed);
        let stub = stub.map(|stub| stub.qemu_arguments(true));
        let attended = attended.iter().flat_map(|attended| &attended.qemu);
        for argument in attended.chain(stub.iter().flatten()) {
            qemu += " ";
            qemu += argument;
        }
        let table = mp_table.map_or(String::new(), |file| {
            let (file, address) = (file.display(), mp_table::ADDRESS);
            format!(" -device loader,file={file},addr={address:#x},force-raw=on")
        });
        add(&[&format!(
            "--qemu-opts=-smp {cpus},sockets={cpus},cores=1,threads=1 {qemu}{table}"
        )]);
        add(&["--exec", START_PATH]);
        Ok(command)
    }

    fn vng(&self) -> PathBuf {
        self.directory.join("vng")
    }
}
