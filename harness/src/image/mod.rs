// SPDX-License-Identifier: MIT OR Apache-2.0

//! Kernels: which there are, how each is configured, and where it is once it is built.
//!
//! ```no_run
//! use mutexlab::image::{Cache, Catalog, Flavour};
//!
//! # fn main() -> anyhow::Result<()> {
//! let catalog = Catalog::load(std::path::Path::new("."))?;
//! let image = Cache::new()?.ensure(catalog.find("7.3", Flavour::Plain)?)?;
//! println!("{} is in {}", image.metadata.release, image.kernel_image().display());
//! # Ok(())
//! # }
//! ```

mod build;
mod cache;
mod catalog;
pub mod command;
mod config;
mod disk;
mod download;
pub mod lock;
mod mirror;
mod progress;
mod source;
mod toolchain;

pub use cache::{Cache, Image, Metadata, CACHE_VARIABLE};
pub use catalog::{Catalog, Flavour, Kernel, KernelName, Sha256, CATALOG_PATH};
pub use config::Version;
pub use disk::free;
pub use lock::Lock;
pub use mirror::MIRROR_VARIABLE;
pub use progress::Progress;
pub use toolchain::{search_path, Toolchain};
