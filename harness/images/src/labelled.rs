// SPDX-License-Identifier: MIT OR Apache-2.0

//! A kernel tree of the user's, built under a label.

use std::path::Path;

use anyhow::{Context, Result};

use super::catalog::Catalog;
use super::prepared::Kernel;
use super::store::Cache;
use super::tree::{self, Revision};
use super::workshop::Workshop;
use mutexlab_host::git::Repository;
use mutexlab_host::interrupt::Interrupt;

/// The kernel of the source in `directory`, called `label` and configured as the catalogue's `like`, with the modules of
/// `repository`; built if it was not. What git knows is built in the workshop of its repository, from what is left of
/// what was built there before; anything else at once.
///
/// # Errors
/// If it is no kernel's source, kernel or modules do not build, or the user interrupts.
pub fn kernel(
    label: &str,
    like: &str,
    directory: &Path,
    repository: &Path,
    cache: &Cache,
    interrupt: &Interrupt,
) -> Result<Kernel> {
    let recipe = tree::kernel(&Catalog::load(repository)?, label, like, directory)?;
    let Some(revision) = Revision::of(directory) else {
        let mut kernel = Kernel::of_image(label, &cache.ensure(&recipe, interrupt)?);
        kernel.add_modules(kernel.build_modules(cache, repository, interrupt)?);
        return Ok(kernel);
    };
    let theirs = Repository::new(directory);
    let scratch = tempfile::tempdir().context("cannot create a temporary directory")?;
    let files = theirs.snapshot(scratch.path())?;
    let workshop = Workshop::open(&theirs, repository, like, cache, interrupt)?;
    let mut kernel = workshop.labelled(label, &files)?;
    // The commit that people know, and not that of files that are not committed.
    kernel.revision = Some(revision);
    Ok(kernel)
}
