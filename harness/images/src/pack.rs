// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images as single files, for CI's caches and for colleagues: what one machine has built, another
//! boots and builds modules against.
//!
//! Such a file is a tar archive, compressed by zstd. Its first member lists all others with their
//! hashes, and each is checked while it is unpacked. Of the kernel's source only what a module is
//! built with comes along, by the rules of the kernel's `scripts/package/install-extmod-build`.

mod contents;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::unpack;
pub use write::{pack, Packed};
