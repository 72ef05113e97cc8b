// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is in an archive, as its first member tells it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;
use crate::metadata::Metadata;

/// Raised when older programs must not unpack it.
pub const FORMAT: u32 = 1;

/// The first member.
pub const CONTENTS: &str = "contents.json";

/// Where the source is in an image that was unpacked: there a build has a link to it.
pub const SOURCE: &str = "source";

/// What is in the archive.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// [`FORMAT`].
    pub format: u32,
    /// What the image's directory is called, which has the beginning of its key.
    pub directory: String,
    /// Where it was, which its Makefile may know.
    pub built_in: PathBuf,
    /// What it was built from.
    pub metadata: Metadata,
    /// The image's files.
    pub image: Manifest,
    /// The source's.
    pub source: Manifest,
}
