// SPDX-License-Identifier: MIT OR Apache-2.0

//! A kernel that can be booted, wherever it comes from.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{bail, Context, Result};

use crate::catalog::{Catalog, Flavour};
use crate::lock::Lock;
use crate::metadata::Image;
use crate::modules;
use crate::modules::{ModuleFiles, Modules};
use crate::own;
use crate::store::Cache;
use crate::tree::Revision;
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_model::stand_in::StandIn;

/// Where a build leaves the kernel, below the tree.
const BZIMAGE: &str = "arch/x86/boot/bzImage";

/// Options that make a kernel several times as slow.
const DEBUG_OPTIONS: [&str; 2] = ["CONFIG_KASAN=y", "CONFIG_PROVE_LOCKING=y"];

/// A kernel's name and the tree that it was built in: `7.3=/path/to/linux`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTree {
    /// The name, as scenarios use it.
    pub name: String,
    /// The built tree.
    pub directory: PathBuf,
}

impl FromStr for NamedTree {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, directory)) = text.split_once('=') else {
            bail!("a tree is given as NAME=DIRECTORY, such as 7.3=../linux");
        };
        Ok(Self {
            name: name.to_owned(),
            directory: PathBuf::from(directory),
        })
    }
}

/// A built kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The name, as scenarios use it.
    pub name: String,
    /// What `uname -r` says.
    pub release: String,
    /// The tree that it was built in.
    pub directory: PathBuf,
    /// Hash of its source, unless somebody else has built it.
    pub source_sha256: Option<String>,
    /// The commit that its source is of, if git knows it.
    pub revision: Option<Revision>,
    /// What stood in for the pinned source, if that was gone.
    pub stand_in: Option<StandIn>,
    /// Whether it has sanitizers and validators.
    pub debug: bool,
    /// Modules built against it.
    pub modules: Option<ModuleFiles>,
    /// Keeps the catalog's image from being pruned meanwhile.
    _in_use: Option<Arc<Lock>>,
}

impl Kernel {
    /// The kernel called `name` in the flavour `flavour`, built if it was not: the user's tree if
    /// there is one of that name, else the catalog's.
    ///
    /// # Errors
    /// If there is none, it does not build, or the user interrupts.
    pub fn prepare(
        name: &str,
        flavour: Flavour,
        trees: &[NamedTree],
        repository: &Path,
        cache: &Cache,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let mut kernel = if let Some(tree) = trees.iter().find(|tree| tree.name == name) {
            Self::in_tree(tree)?
        } else {
            let catalog = Catalog::load(repository)?;
            Self::of_image(
                name,
                &cache.ensure(catalog.find(name, flavour)?, interrupt)?,
            )
        };
        kernel.add_modules(kernel.build_modules(cache, repository, interrupt)?);
        Ok(kernel)
    }

    pub(super) fn add_modules(&mut self, modules: Modules) {
        self.modules = Some(ModuleFiles {
            proxy: modules.proxy,
            probe: modules.probe,
            release: self.release.clone(),
        });
    }

    /// Has the proxy be that of another tree, `repository`. The probe, which is a part of what
    /// measures, stays.
    ///
    /// # Errors
    /// If it does not build, or the user interrupts.
    pub fn take_proxy_of(
        &mut self,
        repository: &Path,
        cache: &Cache,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let proxy = self.build_modules(cache, repository, interrupt)?.proxy;
        if let Some(files) = &mut self.modules {
            files.proxy = proxy;
        }
        Ok(())
    }

    /// A module of others', of the Kbuild directory `sources`, whose build gives `file`.
    ///
    /// # Errors
    /// If it does not build, or the user interrupts.
    pub fn build_own(
        &self,
        sources: &Path,
        file: &str,
        cache: &Cache,
        interrupt: &Interrupt,
    ) -> Result<PathBuf> {
        let key = self.modules_key()?;
        own::module(sources, file, cache, (&self.directory, &key), interrupt)
    }

    /// Whether it has the option, without `CONFIG_`, built in.
    ///
    /// # Errors
    /// If its configuration cannot be read.
    pub fn has_option(&self, option: &str) -> Result<bool> {
        let line = format!("CONFIG_{option}=y");
        Ok(read(&self.config())?.lines().any(|there| there == line))
    }

    pub(super) fn build_modules(
        &self,
        cache: &Cache,
        repository: &Path,
        interrupt: &Interrupt,
    ) -> Result<Modules> {
        modules::build(
            repository,
            cache,
            &self.directory,
            &self.modules_key()?,
            interrupt,
        )
    }

    /// Names what modules depend on of the kernel: the same configuration and release may be of other headers.
    pub(super) fn modules_key(&self) -> Result<String> {
        let source = match &self.source_sha256 {
            Some(sha256) => sha256.clone(),
            None => Sha256::of_file(&self.bzimage())?.into(),
        };
        Ok(String::from(Sha256::of_file(&self.config())?) + &self.release + &source)
    }

    pub(super) fn of_image(name: &str, image: &Image) -> Self {
        Self {
            name: name.to_owned(),
            release: image.metadata.release.clone(),
            directory: image.directory.clone(),
            source_sha256: Some(image.metadata.source_sha256.as_str().to_owned()),
            revision: None,
            stand_in: image.metadata.stand_in.clone(),
            debug: image.name.flavour == Flavour::Debug,
            modules: None,
            _in_use: image.in_use(),
        }
    }

    /// A kernel that someone has built in `tree`.
    ///
    /// # Errors
    /// If it is not built.
    pub fn in_tree(tree: &NamedTree) -> Result<Self> {
        let directory = fs::canonicalize(&tree.directory)
            .with_context(|| format!("cannot find {}", tree.directory.display()))?;
        let kernel = Self {
            name: tree.name.clone(),
            release: read(&directory.join("include/config/kernel.release"))?
                .trim()
                .to_owned(),
            debug: false,
            directory,
            source_sha256: None,
            revision: None,
            stand_in: None,
            modules: None,
            _in_use: None,
        };
        if !kernel.bzimage().is_file() {
            bail!(
                "{} is missing: build the kernel first",
                kernel.bzimage().display()
            );
        }
        let config = read(&kernel.config())?;
        let debug = config.lines().any(|line| DEBUG_OPTIONS.contains(&line));
        Ok(Self { debug, ..kernel })
    }

    /// The image to boot.
    pub fn bzimage(&self) -> PathBuf {
        self.directory.join(BZIMAGE)
    }

    /// The image with its symbols, which are at the addresses where it runs: no kernel here moves itself.
    pub fn vmlinux(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    /// What it is told beside what every kernel is.
    pub const fn arguments(&self) -> &'static [&'static str] {
        if self.debug {
            // Any check of the slab allocator's switches its sheaves off (per-CPU arrays of free
            // objects, in 7.x): they keep stale pointers to what they gave out, which kmemleak took
            // for references, so that it did not find a block that was just leaked.
            //
            // Two nodes, if the kernel knows of any: CPUs are shared out between them.
            &["slab_debug=F", "numa=fake=2"]
        } else {
            &[]
        }
    }

    /// The configuration that it was built with.
    pub fn config(&self) -> PathBuf {
        self.directory.join(".config")
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
