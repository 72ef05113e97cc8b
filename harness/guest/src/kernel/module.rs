// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernel modules: loaded with parameters, unloaded when done.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Display;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{self, DeleteModuleFlags, ModuleInitFlags};

/// How long what a failed test has left may take to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Parameters of a module, by name.
pub type Parameters = BTreeMap<String, String>;

/// A loaded module. It is unloaded when this is dropped, or with a report of what went wrong by
/// [`Self::unload`].
#[derive(Debug)]
pub struct LoadedModule {
    name: CString,
    loaded: bool,
}

impl LoadedModule {
    /// Loads the module in the file `path`, which must be named like the module.
    pub fn load(path: &str, parameters: &Parameters) -> Result<Self> {
        let stem = Path::new(path)
            .file_stem()
            .and_then(|stem| stem.to_str())
            .with_context(|| format!("{path} is not named like a module"))?;
        // As Kbuild has it.
        let name = CString::new(stem.replace('-', "_"))?;
        let text: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let text = text.join(" ");
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        kmod::finit_module(
            &file,
            &CString::new(text.as_str())?,
            ModuleInitFlags::empty(),
        )
        .with_context(|| {
            format!("cannot load {path} with \"{text}\"; the kernel's log may say why")
        })?;
        Ok(Self { name, loaded: true })
    }

    /// Changes a parameter.
    pub fn set(&self, parameter: &str, value: impl Display) -> Result<()> {
        let path = format!(
            "/sys/module/{}/parameters/{parameter}",
            self.name.to_string_lossy()
        );
        fs::write(&path, value.to_string())
            .with_context(|| format!("cannot write {value} to {path}"))
    }

    /// Unloads the module; fails if it is in use.
    pub fn unload(mut self) -> Result<()> {
        self.try_unload()
            .with_context(|| format!("cannot unload {}", self.name.to_string_lossy()))
    }

    /// Unloads the module; if it is in use it stays as it was.
    pub fn try_unload(&mut self) -> Result<(), Errno> {
        kmod::delete_module(&self.name, DeleteModuleFlags::O_NONBLOCK)?;
        self.loaded = false;
        Ok(())
    }
}

impl Drop for LoadedModule {
    fn drop(&mut self) {
        // Something failed before this, and that is what will be reported. What that has left goes within a while.
        let deadline = Instant::now() + PATIENCE;
        while self.loaded && self.try_unload() == Err(Errno::EWOULDBLOCK) {
            if Instant::now() > deadline {
                break;
            }
            thread::sleep(PATIENCE / 50);
        }
    }
}
