// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab image`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Cache, Catalog, Flavour, Image, Kernel, KernelName, Metadata, Sha256, Toolchain};
use crate::json;

/// List, build and find the kernels of images/kernels.toml.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mutexlab image list
  mutexlab image key 7.3:debug      changes whenever the image would
  mutexlab image build              the default kernel
  mutexlab image build 7.3:debug    with KASAN, lockdep and their like
  make LLVM=1 -C $(mutexlab image path 6.12) M=$PWD modules")]
pub struct ImageCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every kernel in every flavour, and whether it is built
    List {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Print what a kernel's image depends on, as one hash, without building it
    ///
    /// The hash is of the kernel's source, its configuration and the compilers that are here, and
    /// of nothing else: a cache of built images can go by it.
    Key {
        /// Which, as 7.3 (plain) or 7.3:debug
        #[arg(value_name = "NAME[:FLAVOUR]")]
        name: KernelName,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Fetch, configure and build a kernel, unless that is done
    Build {
        /// Which, as 7.3 (plain) or 7.3:debug [default: the catalogue's default]
        #[arg(value_name = "NAME[:FLAVOUR]")]
        name: Option<KernelName>,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print the output directory of a kernel that is built
    Path {
        /// Which, as 7.3 (plain) or 7.3:debug
        #[arg(value_name = "NAME[:FLAVOUR]")]
        name: KernelName,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

impl ImageCommand {
    /// Does it, for the repository at `root`.
    pub fn run(&self, root: &Path) -> Result<()> {
        let catalog = Catalog::load(root)?;
        let cache = Cache::new()?;
        match &self.action {
            Action::List { json } => list(&catalog, &cache, *json),
            Action::Key { name, json } => {
                let key = cache.key(catalog.find(&name.kernel, name.flavour)?)?;
                if *json {
                    let name = name.to_string();
                    return json::print(&Keyed { name, key });
                }
                println!("{}", key.as_str());
                Ok(())
            }
            Action::Build { name, json } => {
                let kernel = match name {
                    Some(name) => catalog.find(&name.kernel, name.flavour)?,
                    None => catalog.find(catalog.default_kernel(), Flavour::Plain)?,
                };
                let image = cache.ensure(kernel)?;
                if *json {
                    return json::print(&ListedImage::from(image));
                }
                println!(
                    "{} ({}) is in {}",
                    image.name,
                    image.metadata.release,
                    image.directory.display()
                );
                Ok(())
            }
            Action::Path { name, json } => {
                let image = cache
                    .find(catalog.find(&name.kernel, name.flavour)?)?
                    .with_context(|| {
                        format!("{name} is not built for this toolchain; run 'mutexlab image build {name}'")
                    })?;
                if *json {
                    return json::print(&ListedImage::from(image));
                }
                println!("{}", image.directory.display());
                Ok(())
            }
        }
    }
}

/// One line of the list.
#[derive(Serialize)]
struct Listed<'a> {
    kernel: &'a str,
    flavour: Flavour,
    version: String,
    default: bool,
    /// None until it is built.
    image: Option<ListedImage>,
}

#[derive(Serialize)]
struct ListedImage {
    directory: PathBuf,
    #[serde(flatten)]
    metadata: Metadata,
}

impl From<Image> for ListedImage {
    fn from(image: Image) -> Self {
        Self {
            directory: image.directory,
            metadata: image.metadata,
        }
    }
}

/// What an image depends on.
#[derive(Serialize)]
struct Keyed {
    name: String,
    key: Sha256,
}

fn list(catalog: &Catalog, cache: &Cache, json: bool) -> Result<()> {
    let toolchain = Toolchain::detect(cache)?;
    let images = catalog
        .kernels()
        .iter()
        .map(|kernel| Ok((kernel, cache.find_for(kernel, &toolchain)?)))
        .collect::<Result<Vec<(&Kernel, Option<Image>)>>>()?;
    let is_default = |name: &KernelName| {
        name.kernel == catalog.default_kernel() && name.flavour == Flavour::Plain
    };
    if json {
        let listed: Vec<_> = images
            .into_iter()
            .map(|(kernel, image)| Listed {
                kernel: &kernel.name.kernel,
                flavour: kernel.name.flavour,
                version: kernel.version.to_string(),
                default: is_default(&kernel.name),
                image: image.map(ListedImage::from),
            })
            .collect();
        return json::print(&listed);
    }
    println!(
        "{:<14} {:<10} {:>8}  DIRECTORY",
        "KERNEL", "VERSION", "BUILT IN"
    );
    for (kernel, image) in images {
        let star = if is_default(&kernel.name) { " *" } else { "" };
        let (seconds, directory) = match &image {
            Some(image) => (
                format!("{:.0} s", image.metadata.build_seconds),
                image.directory.display().to_string(),
            ),
            None => ("-".to_owned(), "not built".to_owned()),
        };
        let name = format!("{}{star}", kernel.name);
        println!(
            "{name:<14} {:<10} {seconds:>8}  {directory}",
            kernel.version.to_string()
        );
    }
    println!("* the default");
    Ok(())
}
