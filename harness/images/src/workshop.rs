// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the commits of a kernel's repository are built one after the other, each from what is left of the one
//! before: files that are the same keep their times, so that make builds what differs and no more.
//!
//! A workshop is a directory of the cache with `tree`, a work tree of that repository's, and `objects`, make's
//! output. What boots is copied out of it, and kept as an image: so a kernel of one commit stays as it is when the
//! next one is built. Modules are built here as well, while the objects are those of the commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use super::cache::{cleared, finish, lock_path, mark_used};
use super::catalog::{self, Catalog};
use super::key::key;
use super::lock::Lock;
use super::manifest::BOOTED;
use super::metadata::State;
use super::prepared::Kernel;
use super::store::Cache;
use super::toolchain::Toolchain;
use super::tree::{self, Revision};
use super::{build, modules, requirements};
use mutexlab_host::git::{Commit, Repository};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;

/// What of a build is kept of every commit: what boots, its symbols, and what tells about it.
const KEPT: [&str; 4] = [
    BOOTED,
    "vmlinux",
    ".config",
    "include/config/kernel.release",
];
/// Lines that make prints if next to nothing has changed, about; and if everything has.
const STEPS: [u64; 2] = [130, 1650];
/// Is there while make runs: what it leaves if it is killed is not to be trusted.
const AT_WORK: &str = "at-work";

/// The workshop of one repository.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// The kernel's repository, of which nothing is changed but its list of work trees.
    repository: &'a Repository,
    /// Ours, whose modules are built.
    module_repository: &'a Path,
    /// The kernel of the catalogue that commits are configured like.
    like: &'a str,
    catalog: Catalog,
    cache: Cache,
    toolchain: Toolchain,
    directory: PathBuf,
    interrupt: &'a Interrupt,
}

impl<'a> Workshop<'a> {
    /// The workshop for commits of `repository`, configured like the catalogue's kernel `like`; the modules and the
    /// catalogue are those of `module_repository`.
    ///
    /// # Errors
    /// If `repository` is none, or the toolchain cannot be asked.
    pub fn open(
        repository: &'a Repository,
        module_repository: &'a Path,
        like: &'a str,
        cache: &Cache,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let toolchain = Toolchain::detect(cache)?;
        let common = ["rev-parse", "--path-format=absolute", "--git-common-dir"];
        let common = repository.git(&common).with_context(|| {
            format!(
                "{} is no git repository: give a kernel's, cloned or made with git init",
                repository.directory().display()
            )
        })?;
        // Another toolchain finds nothing here that is of use to it.
        let name = Sha256::of(format!("{common}\n{like}\n{toolchain:?}"));
        Ok(Self {
            directory: directory(cache).join(name.short()),
            catalog: Catalog::load(module_repository)?,
            repository,
            module_repository,
            like,
            cache: cache.clone(),
            toolchain,
            interrupt,
        })
    }

    /// The kernel of `commit` with its modules, built unless that was done before.
    ///
    /// # Errors
    /// [`build::DoesNotBuild`] if the kernel, or [`modules::DoNotBuild`] if the modules against it do not build; if
    /// something is missing on this machine; or if the user interrupts.
    pub fn kernel(&self, commit: &Commit) -> Result<Kernel> {
        self.labelled(commit.short(), commit)
    }

    /// As [`Self::kernel`], called `label`.
    ///
    /// # Errors
    /// As [`Self::kernel`].
    pub fn labelled(&self, label: &str, commit: &Commit) -> Result<Kernel> {
        let makefile = self
            .repository
            .git(&["show", &format!("{}:Makefile", commit.hash)])
            .unwrap_or_default();
        let version = tree::version(&makefile).with_context(|| {
            format!(
                "commit {} of {} is no kernel's: its Makefile has no VERSION and PATCHLEVEL",
                commit.short(),
                self.repository.directory().display()
            )
        })?;
        let recipe = tree::named(&self.catalog, label, self.like, version, &self.source())?;
        let identity = identity(self.repository, commit)?;
        let key = key(&recipe, &identity, &self.toolchain)?;
        let directory = self.cache.image_directory(&recipe, &key);
        let lock = lock_path(&self.directory);
        if let Some(kernel) = self.kept(&recipe, commit, &directory)?
            && let Some(modules) =
                modules::find(self.module_repository, &self.cache, &kernel.modules_key()?)?
        {
            // The next commit is built from what is left there.
            mark_used(&lock);
            return Ok(with(kernel, modules));
        }
        let _alone = Lock::acquire(&lock, "building commits of this repository", self.interrupt)?;
        mark_used(&lock);
        self.build(&recipe, commit, &identity, &directory)?;
        let kernel = self
            .kept(&recipe, commit, &directory)?
            .with_context(|| format!("{} went while it was in use", directory.display()))?;
        let modules = modules::build(
            self.module_repository,
            &self.cache,
            &self.objects(),
            &kernel.modules_key()?,
            self.interrupt,
        )?;
        Ok(with(kernel, modules))
    }

    /// Has the objects be those of `commit`, and what is kept of them in `directory`.
    fn build(
        &self,
        recipe: &catalog::Recipe,
        commit: &Commit,
        identity: &Sha256,
        directory: &Path,
    ) -> Result<()> {
        let started = Instant::now();
        self.check_out(commit)?;
        requirements::check(recipe, &self.source(), &self.toolchain)?;
        let objects = self.objects();
        let at_work = self.directory.join(AT_WORK);
        if at_work.exists() {
            log::info!(
                "what a build that was killed left in {} is built anew",
                objects.display()
            );
            mend(&objects)?;
        }
        fs::write(&at_work, "").with_context(|| format!("cannot write {}", at_work.display()))?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let log = self.cache.directory().join(format!("logs/{name}.log"));
        let [few, all] = STEPS;
        let steps = if objects.join("vmlinux").exists() {
            few
        } else {
            all
        };
        let (tree, cache) = (self.source(), &self.cache);
        let built = build::build(cache, recipe, &tree, &objects, &log, steps, self.interrupt);
        // make removes what it could not finish, unless it is killed.
        self.interrupt.check()?;
        fs::remove_file(&at_work)
            .with_context(|| format!("cannot remove {}", at_work.display()))?;
        let built = built?;
        // It may be kept already, and in use: then only modules are wanted.
        let is_kept = || Ok::<_, anyhow::Error>(matches!(State::of(directory)?, State::Whole(_)));
        if is_kept()? {
            return Ok(());
        }
        let _lock = Lock::acquire(&lock_path(directory), "using this kernel", self.interrupt)?;
        if is_kept()? {
            return Ok(());
        }
        let partial = cleared(directory)?;
        for kept in KEPT {
            copy(&objects.join(kept), &partial.join(kept))?;
        }
        let metadata = built.metadata(recipe, identity, &self.source(), &self.toolchain, started);
        finish(&partial, directory, &metadata)
    }

    /// What is kept of a commit, if that is whole.
    fn kept(
        &self,
        recipe: &catalog::Recipe,
        commit: &Commit,
        directory: &Path,
    ) -> Result<Option<Kernel>> {
        let image = self.cache.take(recipe, directory, self.interrupt)?;
        Ok(image.map(|image| {
            let mut kernel = Kernel::of_image(&recipe.name.kernel, &image);
            kernel.revision = Some(Revision {
                commit: commit.clone(),
                dirty: false,
            });
            kernel
        }))
    }

    /// Has the work tree be as `commit` is, and the files that are so already as they are.
    fn check_out(&self, commit: &Commit) -> Result<()> {
        let tree = self.source();
        let cannot = || {
            let (commit, tree) = (commit.short(), tree.display());
            format!("cannot check {commit} out into {tree}")
        };
        // Hooks of the user's are about the user's checkout.
        let git = |repository: &Repository, arguments: &[&str]| {
            let all = [&["-c", "core.hooksPath=/dev/null"], arguments].concat();
            repository.git(&all).with_context(cannot)
        };
        let ours = Repository::new(&tree);
        let git_path = [
            "rev-parse",
            "--path-format=absolute",
            "--git-path",
            "index.lock",
        ];
        let lock = tree
            .join(".git")
            .is_file()
            .then(|| ours.git(&git_path).ok())
            .flatten();
        let Some(lock) = lock else {
            // It is not there, or its repository has forgotten it.
            if tree.exists() {
                fs::remove_dir_all(&tree)
                    .with_context(|| format!("cannot remove {}", tree.display()))?;
            }
            log::info!("checking {} out into {}", commit.short(), tree.display());
            let path = tree.to_string_lossy();
            // Forced: git may still know one there that was removed.
            let add = [
                "worktree",
                "add",
                "--quiet",
                "--force",
                "--detach",
                &path,
                &commit.hash,
            ];
            return git(self.repository, &add).map(drop);
        };
        // Nobody else works here, so what locks the index was killed.
        fs::remove_file(lock).ok();
        git(
            &ours,
            &["checkout", "--quiet", "--force", "--detach", &commit.hash],
        )?;
        git(&ours, &["clean", "-ffdxq"]).map(drop)
    }

    /// Where sources are built from.
    pub fn source(&self) -> PathBuf {
        self.directory.join("tree")
    }

    fn objects(&self) -> PathBuf {
        self.directory.join("objects")
    }
}

/// Where all workshops are.
pub(super) fn directory(cache: &Cache) -> PathBuf {
    cache.directory().join("workshops")
}

/// Has the repository forget the work tree of the workshop in `directory`, which is about to be removed.
pub(super) fn forget(directory: &Path) {
    let tree = directory.join("tree");
    let path = tree.to_string_lossy();
    // A repository that is gone has nothing to forget.
    Repository::new(&tree)
        .git(&["worktree", "remove", "--force", &path])
        .ok();
}

/// Identifies the files of a commit: other commits with the same files are the same.
fn identity(repository: &Repository, commit: &Commit) -> Result<Sha256> {
    let tree = repository.git(&["rev-parse", &format!("{}^{{tree}}", commit.hash)])?;
    Ok(Sha256::of(format!("files that git calls {tree}")))
}

fn with(mut kernel: Kernel, modules: modules::Modules) -> Kernel {
    kernel.add_modules(modules);
    kernel
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent)
        .and_then(|()| fs::copy(from, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Removes what make may have been killed over. The kernel's build notes how a file was made, and of what, in a `.cmd`
/// file beside it, once it is made (scripts/Kbuild.include, `if_changed` and `cmd_and_fixdep`): a file without is made
/// again anyway, one that is newer may not be whole, and a note may itself be cut short, so that it lacks what the file
/// is to be made again for.
fn mend(objects: &Path) -> Result<()> {
    let modified = |path: &Path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    let mut directories = vec![objects.to_owned()];
    while let Some(directory) = directories.pop() {
        let unreadable = || format!("cannot read {}", directory.display());
        let Ok(entries) = fs::read_dir(&directory) else {
            // Nothing was built yet.
            return Ok(());
        };
        for entry in entries {
            let entry = entry.with_context(unreadable)?;
            if entry.file_type().with_context(unreadable)?.is_dir() {
                directories.push(entry.path());
                continue;
            }
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let target = name
                .strip_prefix('.')
                .and_then(|name| name.strip_suffix(".cmd"));
            let Some(target) = target.map(|target| directory.join(target)) else {
                continue;
            };
            let (noted, made) = (modified(&entry.path()), modified(&target));
            let note = fs::read(entry.path()).with_context(unreadable)?;
            if made.is_some() && (made > noted || !is_whole(&note)) {
                fs::remove_file(&target)
                    .with_context(|| format!("cannot remove {}", target.display()))?;
            }
        }
    }
    Ok(())
}

/// Whether a `.cmd` file was written to its end: fixdep (scripts/basic/fixdep.c) ends a list of what a file is made of,
/// `deps_FILE := …`, with a rule of that name, `$(deps_FILE):`.
fn is_whole(note: &[u8]) -> bool {
    let note = String::from_utf8_lossy(note);
    note.ends_with('\n') && (!note.contains("\ndeps_") || note.contains("\n$(deps_"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::sample;
    use mutexlab_host::sample::with_history;

    fn modified(path: &Path) -> SystemTime {
        fs::metadata(path).unwrap().modified().unwrap()
    }

    #[test]
    fn files_that_are_the_same_keep_their_times_and_the_users_are_not_touched() {
        let (user, repository, commits) = with_history(&["a", "", "b"]);
        fs::write(user.path().join("other"), "not committed").unwrap();
        let (root, _kernel) = sample::kernel("", "7.3");
        let interrupt = Interrupt::install().unwrap();
        let workshop = Workshop {
            repository: &repository,
            module_repository: root.path(),
            like: "k",
            catalog: Catalog::load(root.path()).unwrap(),
            cache: Cache::at(&root.path().join("cache")),
            toolchain: sample::toolchain(),
            directory: root.path().join("cache/workshops/a"),
            interrupt: &interrupt,
        };
        let tree = workshop.source();
        let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
        workshop.check_out(&commits[0]).unwrap();
        let first = modified(&tree.join("module/a"));
        fs::write(tree.join("left"), "by a build").unwrap();
        workshop.check_out(&commits[1]).unwrap();
        assert_eq!((read("module/a"), read("other")), ("a".into(), "1".into()));
        assert_eq!(modified(&tree.join("module/a")), first);
        assert!(!tree.join("left").exists());
        // What was killed over the index, and what was removed by hand.
        let git = Repository::new(&tree);
        let index = git.git(&["rev-parse", "--git-path", "index.lock"]).unwrap();
        fs::write(tree.join(index), "").unwrap();
        workshop.check_out(&commits[2]).unwrap();
        assert_eq!(read("module/a"), "b");
        fs::remove_dir_all(&tree).unwrap();
        workshop.check_out(&commits[0]).unwrap();
        assert_eq!(read("module/a"), "a");
        let users = fs::read_to_string(user.path().join("other")).unwrap();
        assert_eq!(users, "not committed");
        assert_eq!(repository.commit("HEAD").unwrap(), commits[2]);
        forget(&workshop.directory);
        let known = repository.git(&["worktree", "list"]).unwrap();
        assert_eq!(known.lines().count(), 1, "{known}");
    }

    #[test]
    fn commits_with_the_same_files_are_the_same() {
        let (_directory, repository, commits) = with_history(&["a", "b"]);
        let empty = ["commit", "--quiet", "--allow-empty", "-m", "Nothing"];
        repository.git(&empty).unwrap();
        let nothing = repository.commit("HEAD").unwrap();
        let of = |commit: &Commit| identity(&repository, commit).unwrap();
        assert_eq!(of(&nothing), of(&commits[1]));
        assert_ne!(of(&commits[0]), of(&commits[1]));
    }

    #[test]
    fn what_make_may_have_been_killed_over_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join("net").join(name);
        fs::create_dir(directory.path().join("net")).unwrap();
        for name in [
            "whole.o",
            ".whole.o.cmd",
            "half.o",
            ".half.o.cmd",
            "half-noted.o",
            ".half-noted.o.cmd",
            ".gone.o.cmd",
            "unnoted.h",
        ] {
            fs::write(path(name), "savedcmd_x := cc\n").unwrap();
        }
        let whole = "savedcmd_x := cc\n\ndeps_x := \\\n  a.h \\\n\nx: $(deps_x)\n\n$(deps_x):\n";
        fs::write(path(".whole.o.cmd"), whole).unwrap();
        for end in ["savedcmd_x := c", "savedcmd_x := cc\n\ndeps_x := \\\n"] {
            assert!(whole.starts_with(end) && !is_whole(end.as_bytes()), "{end}");
            fs::write(path(".half-noted.o.cmd"), end).unwrap();
        }
        let later = SystemTime::now() + Duration::from_secs(9);
        for name in [".whole.o.cmd", ".half-noted.o.cmd", "half.o"] {
            let file = fs::File::options().write(true).open(path(name)).unwrap();
            file.set_modified(later).unwrap();
        }
        mend(directory.path()).unwrap();
        assert!(path("whole.o").exists() && path("unnoted.h").exists());
        assert!(!path("half.o").exists() && !path("half-noted.o").exists());
        mend(&directory.path().join("nothing")).unwrap();
    }
}
