// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which kernels there are: `images/kernels.toml`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};

use super::config::{Fragment, Version};

/// Where the catalogue lies in the repository.
pub const CATALOG_PATH: &str = "images/kernels.toml";

/// What a kernel is configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// As a server would run it: what is measured with.
    Plain,
    /// With the kernel's own checkers, KASAN and lockdep among them: what is tested with.
    Debug,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Flavour; 2] = [Flavour::Plain, Flavour::Debug];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Plain => "plain",
            Flavour::Debug => "debug",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel and its flavour, written `7.3` (plain) or `7.3:debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelName {
    /// Name of the kernel in the catalogue.
    pub kernel: String,
    /// Its flavour.
    pub flavour: Flavour,
}

impl FromStr for KernelName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kernel, flavour) = match text.split_once(':') {
            None => (text, Flavour::Plain),
            Some((kernel, flavour)) => (
                kernel,
                *Flavour::ALL
                    .iter()
                    .find(|f| f.name() == flavour)
                    .with_context(|| format!("flavour '{flavour}' is none of plain, debug"))?,
            ),
        };
        ensure!(
            !kernel.is_empty(),
            "'{text}' names no kernel; write it as 7.3 or 7.3:debug"
        );
        Ok(KernelName {
            kernel: kernel.to_owned(),
            flavour,
        })
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.kernel, self.flavour)
    }
}

/// Which of Debian's archives a package is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archive {
    /// The main archive.
    Debian,
    /// The security archive.
    DebianSecurity,
}

impl Archive {
    /// The directory on a mirror that holds it.
    pub fn name(self) -> &'static str {
        match self {
            Archive::Debian => "debian",
            Archive::DebianSecurity => "debian-security",
        }
    }
}

/// A SHA-256 in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(String);

impl Sha256 {
    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the hash itself.
    pub fn from_bytes(bytes: [u8; 32]) -> Sha256 {
        Sha256(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Enough of them to name a directory.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for Sha256 {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        ensure!(
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            "'{text}' is not a SHA-256 of 64 lower-case hexadecimal digits"
        );
        Ok(Sha256(text))
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> String {
        hash.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place to take a kernel's source from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSource")]
pub enum Source {
    /// A package in Debian's pool.
    Pool {
        /// Its path in the archive, which starts with `pool/`.
        path: String,
        /// The archive.
        archive: Archive,
        /// Hash of the package.
        sha256: Sha256,
        /// Its size.
        bytes: u64,
    },
    /// A Debian package or a tarball on this machine.
    File {
        /// Its path.
        path: PathBuf,
        /// Its hash.
        sha256: Sha256,
    },
    /// A kernel tree on this machine, used where it is.
    Tree {
        /// Its path.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    pool: Option<String>,
    archive: Option<Archive>,
    file: Option<PathBuf>,
    tree: Option<PathBuf>,
    sha256: Option<Sha256>,
    bytes: Option<u64>,
}

impl TryFrom<RawSource> for Source {
    type Error = &'static str;

    fn try_from(raw: RawSource) -> Result<Self, Self::Error> {
        match raw {
            RawSource {
                pool: Some(path),
                archive: Some(archive),
                sha256: Some(sha256),
                bytes: Some(bytes),
                file: None,
                tree: None,
            } if path.starts_with("pool/") => Ok(Source::Pool {
                path,
                archive,
                sha256,
                bytes,
            }),
            RawSource { pool: Some(_), .. } => Err(
                "a source with 'pool' (a path that starts with pool/) takes 'archive', 'sha256' \
                 and 'bytes', and nothing else",
            ),
            RawSource {
                file: Some(path),
                sha256: Some(sha256),
                tree: None,
                archive: None,
                bytes: None,
                ..
            } => Ok(Source::File { path, sha256 }),
            RawSource { file: Some(_), .. } => {
                Err("a source with 'file' takes 'sha256', and nothing else")
            }
            RawSource {
                tree: Some(path),
                sha256: None,
                archive: None,
                bytes: None,
                ..
            } => Ok(Source::Tree { path }),
            RawSource { tree: Some(_), .. } => Err("a source with 'tree' takes nothing else"),
            _ => Err("a source needs one of 'pool', 'file', 'tree'"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalog {
    default: String,
    flavours: BTreeMap<Flavour, Vec<String>>,
    kernel: Vec<RawKernel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKernel {
    name: String,
    version: Version,
    source: Vec<Source>,
}

/// All kernels of the repository.
#[derive(Clone, Debug)]
pub struct Catalog {
    default: String,
    kernels: Vec<Kernel>,
}

/// A kernel in one flavour: what an image is built from, apart from the toolchain.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name.
    pub name: KernelName,
    /// Its version.
    pub version: Version,
    /// Places to take its source from, best first; not empty.
    pub sources: Vec<Source>,
    /// What it is configured with, in order.
    pub fragments: Vec<Fragment>,
}

impl Catalog {
    /// Reads the catalogue and the fragments of the repository at `root`.
    ///
    /// An error names the file, and the line and column if its text is at fault.
    pub fn load(root: &Path) -> Result<Catalog> {
        let path = root.join(CATALOG_PATH);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read the list of kernels {}", path.display()))?;
        Self::parse(&text, path.parent().unwrap_or(root))
            .with_context(|| format!("in {}", path.display()))
    }

    /// As [`Catalog::load`], with the file's text and its directory.
    fn parse(text: &str, directory: &Path) -> Result<Catalog> {
        let raw: RawCatalog = toml::from_str(text)?;
        let mut flavours = Vec::new();
        for (flavour, names) in raw.flavours {
            let fragments = names
                .iter()
                .map(|name| Fragment::load(&directory.join(format!("config/{name}.config"))))
                .collect::<Result<Vec<_>>>()
                .with_context(|| format!("flavour {flavour}"))?;
            flavours.push((flavour, fragments));
        }
        let mut kernels: Vec<Kernel> = Vec::new();
        for kernel in raw.kernel {
            let name = &kernel.name;
            ensure!(
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
                "kernel name '{name}' has characters other than letters, digits, '.', '_', '-'"
            );
            ensure!(!kernel.source.is_empty(), "kernel {name} has no source");
            if kernels.iter().any(|other| other.name.kernel == *name) {
                bail!("kernel {name} is there twice");
            }
            let sources: Vec<Source> = kernel
                .source
                .into_iter()
                .map(|source| source.relative_to(directory))
                .collect();
            for (flavour, fragments) in &flavours {
                kernels.push(Kernel {
                    name: KernelName {
                        kernel: name.clone(),
                        flavour: *flavour,
                    },
                    version: kernel.version,
                    sources: sources.clone(),
                    fragments: fragments.clone(),
                });
            }
        }
        let catalog = Catalog {
            default: raw.default,
            kernels,
        };
        catalog
            .find(&catalog.default, Flavour::Plain)
            .context("the default kernel")?;
        Ok(catalog)
    }

    /// The kernel that is meant where none is named.
    pub fn default_kernel(&self) -> &str {
        &self.default
    }

    /// All kernels in all flavours, in the catalogue's order.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// Looks a kernel up. The error lists those that there are.
    pub fn find(&self, kernel: &str, flavour: Flavour) -> Result<&Kernel> {
        self.kernels
            .iter()
            .find(|k| k.name.kernel == kernel && k.name.flavour == flavour)
            .with_context(|| {
                let known: Vec<_> = self.kernels.iter().map(|k| k.name.to_string()).collect();
                format!(
                    "no kernel {kernel}:{flavour}; there are {}",
                    known.join(", ")
                )
            })
    }
}

impl Source {
    fn relative_to(self, directory: &Path) -> Source {
        match self {
            Source::Pool { .. } => self,
            Source::File { path, sha256 } => Source::File {
                path: directory.join(path),
                sha256,
            },
            Source::Tree { path } => Source::Tree {
                path: directory.join(path),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "703e369ddd4cce971452f5a593ee55df3a5c10c83caf0fa0df039633ed181ee3";

    fn repository() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn parse_kernel(body: &str) -> Result<Catalog> {
        let text =
            format!("default = \"a\"\n[flavours]\nplain = []\n[[kernel]]\nname = \"a\"\n{body}\n");
        Catalog::parse(&text, Path::new("/images"))
    }

    #[test]
    fn the_repository_has_its_kernels() {
        let catalog = Catalog::load(&repository()).unwrap();
        let default = catalog
            .find(catalog.default_kernel(), Flavour::Debug)
            .unwrap();
        let Source::Pool { archive, .. } = &default.sources[0] else {
            panic!()
        };
        assert_eq!(*archive, Archive::Debian);
        assert_eq!(
            catalog
                .find("6.12", Flavour::Plain)
                .unwrap()
                .version
                .to_string(),
            "6.12.117"
        );
    }

    #[test]
    fn an_unknown_kernel_names_the_known_ones() {
        let catalog = Catalog::load(&repository()).unwrap();
        let error = catalog.find("2.6", Flavour::Plain).unwrap_err().to_string();
        assert!(
            error.contains("2.6:plain") && error.contains("6.12:debug"),
            "{error}"
        );
    }

    #[test]
    fn an_error_in_the_file_has_its_place() {
        let error = format!("{:#}", parse_kernel("version = \"7.x\"").unwrap_err());
        assert!(error.contains("line 6, column"), "{error}");
        assert!(error.contains("7.x"), "{error}");
        let error = format!("{:#}", parse_kernel("verison = \"7.3\"").unwrap_err());
        assert!(
            error.contains("line 6") && error.contains("verison"),
            "{error}"
        );
    }

    #[test]
    fn a_source_is_one_of_three() {
        let file = |extra: &str| {
            parse_kernel(&format!(
                "version = \"7.3\"\n[[kernel.source]]\nfile = \"x.deb\"\n{extra}"
            ))
        };
        let kernel = file(&format!("sha256 = \"{HASH}\"")).unwrap().kernels[0].clone();
        let Source::File { path, .. } = &kernel.sources[0] else {
            panic!()
        };
        assert_eq!(path, Path::new("/images/x.deb"));
        assert!(file("").is_err());
        assert!(file(&format!("sha256 = \"{HASH}\"\ntree = \"y\"")).is_err());
        assert!(file("sha256 = \"703E\"").is_err());
        assert!(parse_kernel("version = \"7.3\"\nsource = []").is_err());
    }

    #[test]
    fn a_name_has_a_flavour() {
        assert_eq!(
            "7.3".parse::<KernelName>().unwrap().to_string(),
            "7.3:plain"
        );
        assert_eq!(
            "7.3:debug".parse::<KernelName>().unwrap().flavour,
            Flavour::Debug
        );
        assert!("7.3:fast".parse::<KernelName>().is_err());
        assert!(":debug".parse::<KernelName>().is_err());
    }
}
