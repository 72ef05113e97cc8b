// SPDX-License-Identifier: MIT OR Apache-2.0

//! Places to take a kernel's source from, as `images/kernels.toml` names them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use mutexlab_host::hash::Sha256;

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

    /// The one that has the suite, by its name.
    pub fn of_suite(suite: &str) -> Archive {
        if suite.ends_with("-security") {
            Archive::DebianSecurity
        } else {
            Archive::Debian
        }
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
    /// A tarball of kernel.org's.
    Tarball {
        /// Its path below `pub/linux/kernel`, such as `v7.x/linux-7.3.4.tar.xz`.
        path: String,
        /// Its hash.
        sha256: Sha256,
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

impl Source {
    /// With paths on this machine that start at `directory`.
    pub(super) fn relative_to(self, directory: &Path) -> Source {
        match self {
            Source::Pool { .. } | Source::Tarball { .. } => self,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    pool: Option<String>,
    archive: Option<Archive>,
    tarball: Option<String>,
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
                tarball: None,
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
                tarball: Some(path),
                sha256: Some(sha256),
                pool: None,
                file: None,
                tree: None,
                archive: None,
                bytes: None,
            } if path.starts_with('v') && path.contains('/') => {
                Ok(Source::Tarball { path, sha256 })
            }
            RawSource {
                tarball: Some(_), ..
            } => Err(
                "a source with 'tarball' (a path such as v7.x/linux-7.3.4.tar.xz) takes 'sha256', \
                 and nothing else",
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
            _ => Err("a source needs one of 'pool', 'tarball', 'file', 'tree'"),
        }
    }
}

/// Where the newest version of a series is looked for, once no pinned source is left.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// The Debian package with the source of all versions of the series.
    pub package: String,
    /// Debian's suites that may have it; one that ends in `-security` is in the security archive.
    pub suites: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "703e369ddd4cce971452f5a593ee55df3a5c10c83caf0fa0df039633ed181ee3";

    fn parse(body: &str) -> Result<Source, toml::de::Error> {
        toml::from_str(&body.replace("HASH", HASH))
    }

    #[test]
    fn a_source_is_one_of_four() {
        let Source::File { path, .. } = parse("file = 'x.deb'\nsha256 = 'HASH'")
            .unwrap()
            .relative_to(Path::new("/images"))
        else {
            panic!()
        };
        assert_eq!(path, Path::new("/images/x.deb"));
        let tarball = "tarball = 'v7.x/linux-7.3.4.tar.xz'\nsha256 = 'HASH'";
        assert!(matches!(parse(tarball), Ok(Source::Tarball { .. })));
        for wrong in [
            "file = 'x.deb'",
            "file = 'x.deb'\nsha256 = 'HASH'\ntree = 'y'",
            "file = 'x.deb'\nsha256 = '703E'",
            "tarball = 'v7.x/linux-7.3.4.tar.xz'",
            "tarball = 'linux-7.3.4.tar.xz'\nsha256 = 'HASH'",
            "tarball = 'v7.x/a'\nsha256 = 'HASH'\npool = 'pool/x'",
            "pool = 'pool/x.deb'\nsha256 = 'HASH'\narchive = 'debian'",
            "sha256 = 'HASH'",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_suite_has_an_archive() {
        assert_eq!(Archive::of_suite("sid"), Archive::Debian);
        assert_eq!(
            Archive::of_suite("trixie-security"),
            Archive::DebianSecurity
        );
    }
}
