// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernels and modules: which there are, how each is configured, and where it is once it is built.
//!
//! Must not know: guests, the protocol, what is measured.
//!
//! ```no_run
//! use mutexlab_images::{Cache, Catalog, Flavour};
//! use mutexlab_host::interrupt::Interrupt;
//!
//! # fn main() -> anyhow::Result<()> {
//! let catalog = Catalog::load(std::path::Path::new("."))?;
//! let kernel = catalog.find("7.3", Flavour::Plain)?;
//! let cache = Cache::at(std::path::Path::new("/var/cache/mutexlab"));
//! let image = cache.ensure(kernel, &Interrupt::install()?)?;
//! println!("{} is in {}", image.metadata.release, image.kernel_image().display());
//! # Ok(())
//! # }
//! ```
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

pub mod build;
pub mod cache;
pub mod call_graph;
pub mod catalog;
mod config;
mod debian_version;
mod disk;
mod download;
mod kept;
mod key;
pub mod labelled;
pub mod lock;
pub mod manifest;
pub mod metadata;
mod mirror;
pub mod modules;
mod newest;
pub mod own;
pub mod pack;
mod place;
pub mod prepared;
mod progress;
pub mod prune;
mod requirements;
#[cfg(test)]
mod sample;
mod source;
mod store;
pub mod toolchain;
pub mod tree;
pub mod usage;
pub mod workshop;

pub use catalog::{Catalog, Flavour, KernelName, Recipe, CATALOG_PATH};
pub use config::Version;
pub use disk::free;
pub use lock::Lock;
pub use metadata::{Image, Metadata};
pub use place::{Archive, Series, Source};
pub use progress::Progress;
pub use store::Cache;
pub use toolchain::{search_path, Toolchain};
