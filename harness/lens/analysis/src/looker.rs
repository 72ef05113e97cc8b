// SPDX-License-Identifier: MIT OR Apache-2.0

//! One boot that the lens looks at: what the plugin is told, and what it recorded.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use mutexlab_lens_recording::recording::Recording;
use mutexlab_lens_recording::settings::{Caches, Settings};
use tempfile::TempDir;

use super::analysis::{Analysis, Origin};
use super::objects::{Objects, PROXY};
use super::symbols::Symbols;
use mutexlab_protocol::memory_map::MemoryMap;

/// The module that measures.
const PROBE: &str = "mutex_probe";
const SETTINGS: &str = "settings.json";

/// The files of the modules that are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Modules<'a> {
    /// Of the one that is looked at.
    pub proxy: &'a Path,
    /// Of the one that measures.
    pub probe: &'a Path,
}

/// Waits for what the plugin records of a boot's cells, one window each.
#[derive(Debug)]
pub struct Looker {
    /// The file that tells the plugin what to do.
    pub settings: PathBuf,
    /// The kernel's symbols, without those of modules, which are loaded anew for each cell.
    kernel: Symbols,
    /// The files of the modules, by their names.
    modules: Vec<(String, PathBuf)>,
    /// How many windows have been taken.
    taken: usize,
    directory: TempDir,
}

impl Looker {
    /// Gets ready to look at a boot of the kernel whose symbols are in `vmlinux`, with these caches; `others` are modules
    /// that may be loaded beside ours, by their names.
    ///
    /// # Errors
    /// If the kernel's symbols cannot be read, or the settings not written.
    pub fn new(
        caches: Caches,
        vmlinux: &Path,
        modules: Option<Modules<'_>>,
        others: Vec<(String, PathBuf)>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("mutexlab-lens-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let settings = Settings {
            directory: directory.path().to_owned(),
            caches,
        };
        let file = directory.path().join(SETTINGS);
        let json = serde_json::to_vec(&settings).context("cannot write settings as JSON")?;
        fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
        let mut symbols = Symbols::default();
        symbols
            .add_kernel(vmlinux)
            .context("the lens needs the kernel's symbols")?;
        let modules = modules.iter().flat_map(|modules| {
            [
                (PROXY, modules.proxy.to_owned()),
                (PROBE, modules.probe.to_owned()),
            ]
        });
        let modules = modules.map(|(name, file)| (name.to_owned(), file));
        Ok(Self {
            settings: file,
            kernel: symbols,
            modules: modules.chain(others).collect(),
            taken: 0,
            directory,
        })
    }

    /// What the plugin recorded of the cell that has just ended well, with names.
    ///
    /// # Errors
    /// If it recorded nothing, or nothing that can be understood.
    pub fn take(&mut self, map: &MemoryMap, origin: Origin<'_>) -> Result<Analysis> {
        let path = self.window(self.taken);
        let text = fs::read(&path).with_context(|| {
            format!(
                "the lens has recorded no window {}: QEMU's console may say why",
                self.taken
            )
        })?;
        let next = self.window(self.taken + 1);
        ensure!(
            !next.exists(),
            "the lens has recorded two windows of one cell"
        );
        // Recordings of many flows are large, and this was its only reader.
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        let recording: Recording = serde_json::from_slice(&text)
            .with_context(|| format!("cannot understand {}", path.display()))?;
        self.taken += 1;
        let mut symbols = self.kernel.clone();
        for (name, file) in &self.modules {
            if let Some(sections) = map.modules.get(name) {
                symbols.add_module(file, name, sections)?;
            }
        }
        Analysis::new(&recording, &symbols, &Objects::new(&symbols, map), origin)
    }

    /// What a cell that did not end well may have left.
    pub fn skip(&mut self) {
        if self.window(self.taken).exists() {
            self.taken += 1;
        }
    }

    /// Where the plugin puts the window of that number.
    fn window(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("{number}.json"))
    }
}
