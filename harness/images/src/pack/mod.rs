// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images as single files, for CI's caches and for colleagues: what one machine has built, another
//! boots and builds modules against.
//!
//! Such a file is a tar archive, compressed by zstd. Its first member lists all others with their
//! hashes, and each is checked while it is unpacked. Of the kernel's source only what a module is
//! built with comes along, by the rules of the kernel's `scripts/package/install-extmod-build`.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{manifest::Manifest, metadata::Metadata};

pub use read::unpack;
pub use write::pack;

/// Raised when older programs must not unpack it.
const FORMAT: u32 = 1;

/// The first member.
const CONTENTS: &str = "contents.json";

/// Where the source is in an image that was unpacked: there a build has a link to it.
const SOURCE: &str = "source";

/// What is in the archive.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// [`FORMAT`].
    format: u32,
    /// What the image's directory is called, which has the beginning of its key.
    directory: String,
    /// Where it was, which its Makefile may know.
    built_in: PathBuf,
    /// What it was built from.
    metadata: Metadata,
    /// The image's files.
    image: Manifest,
    /// The source's.
    source: Manifest,
}
