// SPDX-License-Identifier: MIT OR Apache-2.0

//! Built kernels, each built once for a source, a configuration and a toolchain.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::{
    build,
    catalog::{Kernel, KernelName, Sha256, Source},
    config,
    download::digest,
    lock::Lock,
    source,
    toolchain::Toolchain,
};

/// Overrides where the cache is.
pub const CACHE_VARIABLE: &str = "MUTEXLAB_CACHE";

/// Its presence makes an image valid: it is written last.
const METADATA_FILE: &str = "image.json";

/// Raised when the way of building changes so that older images must not be used.
const RECIPE: u32 = 1;

/// Lines that make prints for a kernel, until one has been built.
const STEPS_ESTIMATE: u64 = 1650;

/// The directory with everything that is expensive to make: sources, images and tools.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// What an image was built from, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name of the kernel and its flavour, as `7.3:plain`.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// Hash of the source package or tarball; of a tree, of its files' names, sizes and times.
    pub source_sha256: Sha256,
    /// Where the source was unpacked; modules are built against it, too.
    pub source: PathBuf,
    /// Hash of the complete configuration.
    pub config_sha256: Sha256,
    /// What it was compiled with.
    pub toolchain: Toolchain,
    /// How long that took, in seconds, the source's unpacking included if it was necessary.
    pub build_seconds: f64,
    /// Lines that make printed.
    pub steps: u64,
    /// When it was finished, in seconds since 1970.
    pub built_at: u64,
}

/// A kernel that is ready to boot, and to build modules against.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name.
    pub name: KernelName,
    /// The output directory of its build: what `make -C` takes to build a module.
    pub directory: PathBuf,
    /// What it was built from.
    pub metadata: Metadata,
}

impl Image {
    /// The file that QEMU boots.
    pub fn kernel_image(&self) -> PathBuf {
        self.directory.join("arch/x86/boot/bzImage")
    }

    /// The kernel with its symbols.
    pub fn vmlinux(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }
}

impl Cache {
    /// The cache of this user: `$MUTEXLAB_CACHE`, else `mutexlab` under `$XDG_CACHE_HOME`, else
    /// under `~/.cache`. An error if none of them is known.
    pub fn new() -> Result<Cache> {
        let variable = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let directory = variable(CACHE_VARIABLE)
            .or_else(|| variable("XDG_CACHE_HOME").map(|path| path.join("mutexlab")))
            .or_else(|| variable("HOME").map(|path| path.join(".cache/mutexlab")))
            .with_context(|| format!("set {CACHE_VARIABLE}, since HOME is not set"))?;
        Ok(Cache::at(&directory))
    }

    /// A cache in another place.
    pub fn at(directory: &Path) -> Cache {
        // make changes its directory, so it needs an absolute path.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Cache { directory }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The image of `kernel` if there is one that fits its sources, its configuration and this
    /// machine's toolchain.
    pub fn find(&self, kernel: &Kernel) -> Result<Option<Image>> {
        self.find_for(kernel, &Toolchain::detect(self)?)
    }

    /// As [`Cache::find`], for a toolchain that is known.
    pub(super) fn find_for(&self, kernel: &Kernel, toolchain: &Toolchain) -> Result<Option<Image>> {
        for source in &kernel.sources {
            // A place that cannot be read has no image.
            let Ok(identity) = source::identity(source) else {
                continue;
            };
            let key = key(kernel, &identity, toolchain)?;
            if let Some(image) = self.read(kernel, &key)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// What the image of `kernel` depends on, as one hash: that of the image that there is, else
    /// that of the one that would be built first.
    ///
    /// # Errors
    /// If a compiler is missing, or no source of the kernel can be told from another.
    pub fn key(&self, kernel: &Kernel) -> Result<Sha256> {
        let toolchain = Toolchain::detect(self)?;
        let mut first = None;
        for source in &kernel.sources {
            let Ok(identity) = source::identity(source) else {
                continue;
            };
            let key = key(kernel, &identity, &toolchain)?;
            if self.read(kernel, &key)?.is_some() {
                return Ok(key);
            }
            first.get_or_insert(key);
        }
        first.with_context(|| format!("no source of {} can be read", kernel.name))
    }

    /// The image of `kernel`, built if there is none. Building takes minutes and shows its
    /// progress; another process that builds the same is waited for.
    ///
    /// An error names the file it is about: a download with the wrong hash, a log, a full disk.
    pub fn ensure(&self, kernel: &Kernel) -> Result<Image> {
        let toolchain = Toolchain::detect(self)?;
        if let Some(image) = self.find_for(kernel, &toolchain)? {
            return Ok(image);
        }
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make the cache {}", self.directory.display()))?;
        let (last, others) = kernel
            .sources
            .split_last()
            .with_context(|| format!("kernel {} has no source", kernel.name))?;
        for place in others {
            let started = Instant::now();
            match self.fetch(kernel, place) {
                Ok(tree) => return self.build(kernel, place, &tree, &toolchain, started),
                Err(error) => eprintln!("{error:#}\ntrying the next source of {}", kernel.name),
            }
        }
        let started = Instant::now();
        let tree = self.fetch(kernel, last)?;
        self.build(kernel, last, &tree, &toolchain, started)
    }

    fn fetch(&self, kernel: &Kernel, place: &Source) -> Result<PathBuf> {
        source::ensure(kernel, place, &self.directory)
            .with_context(|| format!("the source of {} cannot be had", kernel.name))
    }

    fn build(
        &self,
        kernel: &Kernel,
        place: &Source,
        tree: &Path,
        toolchain: &Toolchain,
        started: Instant,
    ) -> Result<Image> {
        let identity = source::identity(place)?;
        let key = key(kernel, &identity, toolchain)?;
        let directory = self.image_directory(kernel, &key);
        let _lock = Lock::acquire(
            &beside(&directory, "lock"),
            &format!("building {}", kernel.name),
        )?;
        if let Some(image) = self.read(kernel, &key)? {
            return Ok(image);
        }
        let partial = beside(&directory, "partial");
        for leftover in [&partial, &directory] {
            if leftover.exists() {
                fs::remove_dir_all(leftover)
                    .with_context(|| format!("cannot remove {}", leftover.display()))?;
            }
        }
        let name = directory
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let log = self.directory.join("logs").join(format!("{name}.log"));
        let built = build::build(self, kernel, tree, &partial, &log, self.steps(kernel))?;
        build::trim(&partial)?;
        let mut config_hash = sha2::Sha256::new();
        config_hash.update(&built.config);
        let metadata = Metadata {
            name: kernel.name.to_string(),
            release: built.release,
            source_sha256: identity,
            source: tree.to_owned(),
            config_sha256: digest(config_hash),
            toolchain: toolchain.clone(),
            build_seconds: started.elapsed().as_secs_f64(),
            steps: built.steps,
            built_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |t| t.as_secs()),
        };
        relocate(&partial, &directory)?;
        let path = partial.join(METADATA_FILE);
        fs::write(&path, serde_json::to_string_pretty(&metadata)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        fs::rename(&partial, &directory).with_context(|| {
            format!(
                "cannot rename {} to {}",
                partial.display(),
                directory.display()
            )
        })?;
        self.read(kernel, &key)?
            .with_context(|| format!("the image {} has vanished", directory.display()))
    }

    fn image_directory(&self, kernel: &Kernel, key: &Sha256) -> PathBuf {
        let KernelName { kernel, flavour } = &kernel.name;
        self.directory
            .join("images")
            .join(format!("{kernel}-{flavour}-{}", key.short()))
    }

    /// The image with this key, if it is complete.
    fn read(&self, kernel: &Kernel, key: &Sha256) -> Result<Option<Image>> {
        let directory = self.image_directory(kernel, key);
        let Some(metadata) = read_metadata(&directory)? else {
            return Ok(None);
        };
        // Modules need the source as well: without it the image must be made again.
        if !metadata.source.join("Makefile").exists() {
            return Ok(None);
        }
        Ok(Some(Image {
            name: kernel.name.clone(),
            directory,
            metadata,
        }))
    }

    /// How many lines make will print, by the newest image of the same name.
    fn steps(&self, kernel: &Kernel) -> u64 {
        let name = kernel.name.to_string();
        fs::read_dir(self.directory.join("images"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| read_metadata(&entry.path()).ok().flatten())
            .filter(|metadata| metadata.name == name)
            .max_by_key(|metadata| metadata.built_at)
            .map_or(STEPS_ESTIMATE, |metadata| metadata.steps)
    }
}

/// `directory.suffix`.
fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn read_metadata(directory: &Path) -> Result<Option<Metadata>> {
    let path = directory.join(METADATA_FILE);
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(None);
    };
    let metadata = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is damaged; remove {}",
            path.display(),
            directory.display()
        )
    })?;
    Ok(Some(metadata))
}

/// Identifies everything that an image depends on.
fn key(kernel: &Kernel, source: &Sha256, toolchain: &Toolchain) -> Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let merged = config::merge(&kernel.fragments, kernel.version)?;
    let Toolchain {
        rustc,
        clang,
        lld,
        bindgen,
    } = toolchain;
    for part in [
        &RECIPE.to_string(),
        source.as_str(),
        &merged,
        rustc,
        clang,
        lld,
        bindgen,
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Ok(digest(hash))
}

/// Makes a build in `from` one that lies in `to`. An output directory knows its own path in at
/// most one place, the Makefile that stands in for the source's: newer kernels export it there,
/// older ones take make's working directory.
fn relocate(from: &Path, to: &Path) -> Result<()> {
    let path = from.join("Makefile");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = |directory: &Path| format!("export KBUILD_OUTPUT = {}\n", directory.display());
    let moved = text.replace(&line(from), &line(to));
    ensure!(
        !moved.contains(&from.display().to_string()),
        "{} names its directory in a way that is not known, so the build cannot be moved",
        path.display()
    );
    fs::write(&path, moved).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Catalog;

    fn kernel(fragment: &str, version: &str) -> (tempfile::TempDir, Kernel) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("images/config")).unwrap();
        fs::write(root.path().join("images/config/a.config"), fragment).unwrap();
        fs::create_dir(root.path().join("tree")).unwrap();
        let catalog = format!(
            "default = \"k\"\n[flavours]\nplain = [\"a\"]\n[[kernel]]\nname = \"k\"\n\
             version = \"{version}\"\nsource = [{{ tree = \"../tree\" }}]\n"
        );
        fs::write(root.path().join("images/kernels.toml"), catalog).unwrap();
        let catalog = Catalog::load(root.path()).unwrap();
        let kernel = catalog.kernels()[0].clone();
        (root, kernel)
    }

    fn toolchain() -> Toolchain {
        let text = |text: &str| text.to_owned();
        Toolchain {
            rustc: text("r"),
            clang: text("c"),
            lld: text("l"),
            bindgen: text("b"),
        }
    }

    fn hash(byte: u8) -> Sha256 {
        Sha256::from_bytes([byte; 32])
    }

    #[test]
    fn the_key_changes_with_every_input() {
        let fragment = "CONFIG_A=y\n[since 7.0] CONFIG_B=y\n";
        let (_root, base) = kernel(fragment, "7.3");
        let reference = key(&base, &hash(1), &toolchain()).unwrap();
        assert_eq!(key(&base, &hash(1), &toolchain()).unwrap(), reference);
        assert_ne!(key(&base, &hash(2), &toolchain()).unwrap(), reference);
        for change in [
            Toolchain {
                rustc: "x".into(),
                ..toolchain()
            },
            Toolchain {
                clang: "x".into(),
                ..toolchain()
            },
            Toolchain {
                lld: "x".into(),
                ..toolchain()
            },
            Toolchain {
                bindgen: "x".into(),
                ..toolchain()
            },
            // What moves from one part to the next is a change, too.
            Toolchain {
                rustc: "rc".into(),
                clang: "".into(),
                ..toolchain()
            },
        ] {
            assert_ne!(
                key(&base, &hash(1), &change).unwrap(),
                reference,
                "{change:?}"
            );
        }
        let (_root, other) = kernel("CONFIG_A=y\n# CONFIG_B is not set\n", "7.3");
        assert_ne!(key(&other, &hash(1), &toolchain()).unwrap(), reference);
        let (_root, older) = kernel(fragment, "6.12");
        assert_ne!(key(&older, &hash(1), &toolchain()).unwrap(), reference);
        // A comment is none.
        let (_root, commented) = kernel(&format!("# why\n{fragment}"), "7.3");
        assert_eq!(key(&commented, &hash(1), &toolchain()).unwrap(), reference);
    }

    #[test]
    fn an_image_is_valid_by_its_metadata_and_its_source() {
        let (root, kernel) = kernel("", "7.3");
        let cache = Cache::at(&root.path().join("cache"));
        let directory = cache.image_directory(&kernel, &hash(1));
        fs::create_dir_all(&directory).unwrap();
        assert!(cache.read(&kernel, &hash(1)).unwrap().is_none());
        let metadata = Metadata {
            name: kernel.name.to_string(),
            release: "7.3.0".to_owned(),
            source_sha256: hash(2),
            source: root.path().join("tree"),
            config_sha256: hash(3),
            toolchain: toolchain(),
            build_seconds: 1.0,
            steps: 7,
            built_at: 0,
        };
        fs::write(
            directory.join(METADATA_FILE),
            serde_json::to_string(&metadata).unwrap(),
        )
        .unwrap();
        assert!(
            cache.read(&kernel, &hash(1)).unwrap().is_none(),
            "its source is gone"
        );
        fs::write(root.path().join("tree/Makefile"), "").unwrap();
        assert_eq!(
            cache.read(&kernel, &hash(1)).unwrap().unwrap().metadata,
            metadata
        );
        assert_eq!(cache.steps(&kernel), 7);
        fs::write(directory.join(METADATA_FILE), "{").unwrap();
        let error = cache.read(&kernel, &hash(1)).unwrap_err().to_string();
        assert!(error.contains("image.json"), "{error}");
    }

    #[test]
    fn a_build_is_moved_with_the_place_it_knows() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (
            directory.path().join("a.partial"),
            directory.path().join("a"),
        );
        fs::create_dir(&from).unwrap();
        let makefile = |place: &Path| {
            format!(
                "# x\nexport KBUILD_OUTPUT = {}\ninclude /s/Makefile\n",
                place.display()
            )
        };
        fs::write(from.join("Makefile"), makefile(&from)).unwrap();
        relocate(&from, &to).unwrap();
        assert_eq!(
            fs::read_to_string(from.join("Makefile")).unwrap(),
            makefile(&to)
        );
        // 6.12 does not say where it lies, so there is nothing to change.
        let silent = "# x\ninclude /s/Makefile\n";
        fs::write(from.join("Makefile"), silent).unwrap();
        relocate(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(from.join("Makefile")).unwrap(), silent);
        fs::write(from.join("Makefile"), format!("O := {}\n", from.display())).unwrap();
        assert!(relocate(&from, &to).is_err());
    }
}
