// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which kernels there are: `images/kernels.toml`.

use std::{collections::BTreeMap, fmt, fs, path::Path, str::FromStr};

use anyhow::{bail, ensure, Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    config::{Fragment, Version},
    place::{Series, Source},
};

/// Where the catalogue lies in the repository.
pub const CATALOG_PATH: &str = "images/kernels.toml";

/// What a kernel is configured for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// As a server would run it: what is measured with.
    Plain,
    /// With the kernel's own checkers, KASAN and lockdep among them: what is tested with.
    Debug,
    /// As plain, with what only others' datapaths need: BPF, IPVS, SYNPROXY.
    Wide,
}

impl Flavour {
    /// All of them.
    pub const ALL: [Flavour; 3] = [Flavour::Plain, Flavour::Debug, Flavour::Wide];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Plain => "plain",
            Flavour::Debug => "debug",
            Flavour::Wide => "wide",
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

impl KernelName {
    /// As it is meant to run.
    pub fn plain(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            flavour: Flavour::Plain,
        }
    }
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
                    .with_context(|| {
                        format!("flavour '{flavour}' is none of plain, debug, wide")
                    })?,
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
    newest: Option<Series>,
}

/// All kernels of the repository.
#[derive(Clone, Debug)]
pub struct Catalog {
    default: String,
    kernels: Vec<Recipe>,
}

/// A kernel in one flavour: what an image is built from, apart from the toolchain.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: KernelName,
    /// Its version.
    pub version: Version,
    /// Places to take its source from, best first; not empty.
    pub sources: Vec<Source>,
    /// Where to look for another version once none of them is left.
    pub newest: Option<Series>,
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
        let mut kernels: Vec<Recipe> = Vec::new();
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
                kernels.push(Recipe {
                    name: KernelName {
                        kernel: name.clone(),
                        flavour: *flavour,
                    },
                    version: kernel.version,
                    sources: sources.clone(),
                    newest: kernel.newest.clone(),
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

    /// The flavour that a kernel is tested in unless one is named: the default one has all checkers, which
    /// take long, and the others are as they are meant to run.
    pub fn flavour_to_test(&self, kernel: &str) -> Flavour {
        if kernel == self.default {
            Flavour::Debug
        } else {
            Flavour::Plain
        }
    }

    /// All kernels in all flavours, in the catalogue's order.
    pub fn kernels(&self) -> &[Recipe] {
        &self.kernels
    }

    /// Looks a kernel up. The error lists those that there are.
    pub fn find(&self, kernel: &str, flavour: Flavour) -> Result<&Recipe> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> std::path::PathBuf {
        mutexlab_host::paths::repository_above(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
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
        assert!(matches!(default.sources[0], Source::Pool { .. }));
        for kernel in catalog.kernels() {
            let series = kernel.newest.as_ref().unwrap();
            assert_eq!(
                series.package,
                format!("linux-source-{}", kernel.name.kernel)
            );
        }
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
    fn a_kernel_has_a_source() {
        assert!(parse_kernel("version = \"7.3\"\nsource = []").is_err());
        let tree = "version = \"7.3\"\nsource = [{ tree = \"x\" }]";
        let kernel = &parse_kernel(tree).unwrap().kernels[0];
        assert_eq!(
            kernel.sources,
            [Source::Tree {
                path: "/images/x".into()
            }]
        );
        assert_eq!(kernel.newest, None);
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
