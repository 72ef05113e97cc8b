// SPDX-License-Identifier: MIT OR Apache-2.0

//! A kernel tree of the user's: what version it is, which commit, and the kernel that is built from it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::catalog::{Catalog, KernelName, Recipe};
use super::config::Version;
use super::place::Source;
use mutexlab_host::git::{Commit, Repository};

/// What of git's a kernel was built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The commit.
    pub commit: Commit,
    /// Whether files differed from it.
    pub dirty: bool,
}

impl Revision {
    /// What is checked out in `directory`; none if that is no work tree of git's.
    pub fn of(directory: &Path) -> Option<Self> {
        let repository = Repository::new(directory);
        // Of a directory below a work tree git would tell what is checked out above.
        let above = repository.git(&["rev-parse", "--show-prefix"]).ok()?;
        if !above.is_empty() {
            return None;
        }
        Some(Self {
            commit: repository.commit("HEAD").ok()?,
            dirty: repository.is_dirty().ok()?,
        })
    }
}

/// The kernel of the tree in `directory`, called `label`, and otherwise as `like` of the catalogue, with its flavour.
///
/// # Errors
/// If it is no kernel tree.
pub fn kernel(catalog: &Catalog, label: &str, like: &str, directory: &Path) -> Result<Recipe> {
    let directory = fs::canonicalize(directory).with_context(|| {
        format!(
            "{label}: cannot find the kernel tree {}",
            directory.display()
        )
    })?;
    let makefile = directory.join("Makefile");
    let text = fs::read_to_string(&makefile).unwrap_or_default();
    let version = version(&text).with_context(|| {
        format!(
            "{label}: {} is no kernel tree, since there is no {} with VERSION and PATCHLEVEL: give the \
             topmost directory of a kernel's source",
            directory.display(),
            makefile.display()
        )
    })?;
    named(catalog, label, like, version, &directory)
}

/// As [`kernel`], of a tree whose version is known.
pub(super) fn named(
    catalog: &Catalog,
    label: &str,
    like: &str,
    version: Version,
    directory: &Path,
) -> Result<Recipe> {
    let KernelName { kernel, flavour } = like.parse()?;
    let like = catalog.find(&kernel, flavour)?;
    Ok(Recipe {
        name: KernelName {
            kernel: label.to_owned(),
            flavour,
        },
        version,
        sources: vec![Source::Tree {
            path: directory.to_owned(),
        }],
        newest: None,
        fragments: like.fragments.clone(),
    })
}

/// The version that a kernel's topmost Makefile tells; none if it is not one.
pub(super) fn version(makefile: &str) -> Option<Version> {
    let number = |name: &str| {
        makefile.lines().find_map(|line| {
            let (left, right) = line.split_once('=')?;
            (left.trim() == name).then(|| right.trim().parse::<u32>().ok())?
        })
    };
    let (version, patchlevel) = (number("VERSION")?, number("PATCHLEVEL")?);
    let sublevel = number("SUBLEVEL").unwrap_or(0);
    format!("{version}.{patchlevel}.{sublevel}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use mutexlab_host::sample::with_history;

    const MAKEFILE: &str =
        "# SPDX\nVERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 1\nEXTRAVERSION = -rc2\n";

    #[test]
    fn a_makefile_tells_the_version() {
        let told = |text: &str| version(text).map(|version| version.to_string());
        assert_eq!(told(MAKEFILE).as_deref(), Some("7.4.1"));
        assert_eq!(
            told("VERSION = 6\nPATCHLEVEL = 12\n").as_deref(),
            Some("6.12.0")
        );
        for other in [
            "",
            "VERSION = 1\n",
            "VERSION = x\nPATCHLEVEL = 1\n",
            "all:\n\ttrue\n",
        ] {
            assert_eq!(told(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_tree_is_configured_as_the_kernel_that_it_stands_for_and_by_its_own_version() {
        let (root, like) = sample::kernel("CONFIG_A=y\n", "7.3");
        let file = root.path().join("images/kernels.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("plain =", "wide = [\"a\"]\nplain =")).unwrap();
        let catalog = Catalog::load(root.path()).unwrap();
        let tree = root.path().join("tree");
        let refused = kernel(&catalog, "after", "k", &tree)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("after: ") && refused.contains("is no kernel tree"),
            "{refused}"
        );
        fs::write(tree.join("Makefile"), MAKEFILE).unwrap();
        let built = kernel(&catalog, "after", "k", &tree).unwrap();
        assert_eq!(built.name.to_string(), "after:plain");
        assert_eq!(built.version.to_string(), "7.4.1");
        assert_eq!(built.fragments.len(), like.fragments.len());
        let wide = kernel(&catalog, "after", "k:wide", &tree).unwrap();
        assert_eq!(wide.name.to_string(), "after:wide");
        assert!(kernel(&catalog, "after", "l", &tree).is_err());
        let gone = kernel(&catalog, "after", "k", &root.path().join("gone"));
        assert!(format!("{:#}", gone.unwrap_err()).contains("cannot find the kernel tree"));
    }

    #[test]
    fn a_revision_is_of_a_work_tree_alone() {
        let (directory, _repository, commits) = with_history(&["a", "b"]);
        let revision = Revision::of(directory.path()).unwrap();
        assert_eq!((&revision.commit, revision.dirty), (&commits[1], false));
        fs::write(directory.path().join("module/a"), "c").unwrap();
        assert!(Revision::of(directory.path()).unwrap().dirty);
        assert_eq!(Revision::of(&directory.path().join("module")), None);
        assert_eq!(Revision::of(tempfile::tempdir().unwrap().path()), None);
    }
}
