// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab image`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Cache, Catalog, Flavour, Image, Kernel, KernelName, Metadata, Toolchain};

/// List, build and find the kernels of images/kernels.toml.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mutexlab image list
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
    /// Fetch, configure and build a kernel, unless that is done
    Build {
        /// Which, as 7.3 (plain) or 7.3:debug [default: the catalogue's default]
        #[arg(value_name = "NAME[:FLAVOUR]")]
        name: Option<KernelName>,
    },
    /// Print the output directory of a kernel that is built
    Path {
        /// Which, as 7.3 (plain) or 7.3:debug
        #[arg(value_name = "NAME[:FLAVOUR]")]
        name: KernelName,
    },
}

impl ImageCommand {
    /// Does it, for the repository at `root`.
    pub fn run(&self, root: &Path) -> Result<()> {
        let catalog = Catalog::load(root)?;
        let cache = Cache::new()?;
        match &self.action {
            Action::List { json } => list(&catalog, &cache, *json),
            Action::Build { name } => {
                let kernel = match name {
                    Some(name) => catalog.find(&name.kernel, name.flavour)?,
                    None => catalog.find(catalog.default_kernel(), Flavour::Plain)?,
                };
                let image = cache.ensure(kernel)?;
                println!(
                    "{} ({}) is in {}",
                    image.name,
                    image.metadata.release,
                    image.directory.display()
                );
                Ok(())
            }
            Action::Path { name } => {
                let image = cache
                    .find(catalog.find(&name.kernel, name.flavour)?)?
                    .with_context(|| {
                        format!("{name} is not built for this toolchain; run 'mutexlab image build {name}'")
                    })?;
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
                image: image.map(
                    |Image {
                         directory,
                         metadata,
                         ..
                     }| ListedImage {
                        directory,
                        metadata,
                    },
                ),
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&listed)?);
        return Ok(());
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
