// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mutexlab image`.

use crate::environment;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::json;
use crate::commands::image_list;
use mutexlab_draw::table::{Align, Style, Table};
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_images::manifest::Manifest;
use mutexlab_images::prune;
use mutexlab_images::prune::{Item, Removal, Rules};
use mutexlab_images::usage::{age, size};
use mutexlab_images::{pack, Cache, Catalog, Flavour, KernelName, Toolchain};

const DAY: u64 = 86_400;

/// List, build, find, check, pack and prune the kernels of images/kernels.toml.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mutexlab image list
  mutexlab image key 7.3:debug      changes whenever the image would
  mutexlab image build              the default kernel
  mutexlab image build 7.3:debug    with KASAN, lockdep and their like
  make LLVM=1 -C $(mutexlab image path 6.12) M=$PWD modules
  mutexlab image verify             every file of every image, by its hash
  mutexlab image pack 7.3 7.3.tar.zst
  mutexlab image unpack 7.3.tar.zst
  mutexlab image prune --older-than 30        what would go; with --yes it goes

Exit codes: 0 if all is well, 1 if an image is damaged, 2 if the command could not do its work, \
130 if interrupted.")]
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
    /// Compare every file of built kernels with its hash
    Verify {
        /// Which, as 7.3 (plain) or 7.3:debug [default: all]
        #[arg(value_name = "NAME[:FLAVOUR]")]
        name: Option<KernelName>,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Write a built kernel, with what modules are built with, as one compressed file
    Pack {
        /// Which, as 7.3 (plain) or 7.3:debug; it is built if it is not there
        #[arg(value_name = "NAME[:FLAVOUR]")]
        name: KernelName,
        /// The file, which is a tar archive compressed by zstd
        #[arg(value_name = "FILE.tar.zst")]
        file: PathBuf,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Take a kernel from a file that `pack` wrote
    ///
    /// Every file in it is checked against the list that came with it, which shows damage. It does
    /// not show who made it: programs of it run here whenever modules are built, so take it from
    /// nobody whom you would not take a program from.
    Unpack {
        /// The file
        #[arg(value_name = "FILE.tar.zst")]
        file: PathBuf,
        /// The SHA-256 that the file must have
        #[arg(long, value_name = "HASH")]
        sha256: Option<Sha256>,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Show what of the cache can go, or remove it
    ///
    /// What nothing can use can always go: what unfinished builds left, damaged images, sources of
    /// no image and no kernel. What another process uses stays.
    Prune {
        /// Also images and modules that nobody has used for so many days
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u64>,
        /// Also images of another source, configuration or toolchain than the current ones
        #[arg(long)]
        all_but_current: bool,
        /// Remove it, and do not only show it
        #[arg(long)]
        yes: bool,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

impl ImageCommand {
    /// Does it, for the repository at `root`, and returns the exit code.
    ///
    /// # Errors
    /// Whatever kept the command from doing its work.
    pub fn run(&self, root: &Path) -> Result<i32> {
        let catalog = Catalog::load(root)?;
        let cache = Cache::of(&environment::surroundings()?);
        match &self.action {
            Action::List { json } => {
                let listed = image_list::list(&catalog, &cache)?;
                if *json {
                    return print_json(&listed);
                }
                print!("{}", image_list::table(&listed, &cache));
                Ok(0)
            }
            Action::Key { name, json } => {
                let key = cache.key(catalog.find(&name.kernel, name.flavour)?)?;
                if *json {
                    let name = name.to_string();
                    return print_json(&Keyed { name, key });
                }
                println!("{key}");
                Ok(0)
            }
            Action::Build { name, json } => {
                let kernel = match name {
                    Some(name) => catalog.find(&name.kernel, name.flavour)?,
                    None => catalog.find(catalog.default_kernel(), Flavour::Plain)?,
                };
                let image = cache.ensure(kernel, &Interrupt::install()?)?;
                if *json {
                    return print_json(&image_list::ListedImage::of(&image));
                }
                println!(
                    "{} ({}) is in {}",
                    image.name,
                    image.metadata.release,
                    image.directory.display()
                );
                Ok(0)
            }
            Action::Path { name, json } => {
                let image = cache
                    .find(catalog.find(&name.kernel, name.flavour)?)?
                    .with_context(|| {
                        format!("{name} is not built for this toolchain; run 'mutexlab image build {name}'")
                    })?;
                if *json {
                    return print_json(&image_list::ListedImage::of(&image));
                }
                println!("{}", image.directory.display());
                Ok(0)
            }
            Action::Verify { name, json } => verify(&cache, name.as_ref(), *json),
            Action::Pack { name, file, json } => {
                let kernel = catalog.find(&name.kernel, name.flavour)?;
                let interrupt = Interrupt::install()?;
                let image = cache.ensure(kernel, &interrupt)?;
                let packed = pack::pack(&image, file, &interrupt)?;
                if *json {
                    return print_json(&packed);
                }
                println!(
                    "{}: {} of {}, SHA-256 {}",
                    packed.file.display(),
                    size(packed.bytes),
                    size(packed.unpacked_bytes),
                    packed.sha256
                );
                Ok(0)
            }
            Action::Unpack { file, sha256, json } => {
                let unpacked = pack::unpack(&cache, file, sha256.as_ref(), &Interrupt::install()?)?;
                let toolchain = Toolchain::detect(&cache)?;
                let mut current = Vec::new();
                for kernel in catalog.kernels() {
                    current.extend(cache.candidates(kernel, &toolchain)?);
                }
                let current = current.contains(&unpacked);
                if *json {
                    return print_json(&Unpacked {
                        directory: unpacked,
                        current,
                    });
                }
                println!("{}", unpacked.display());
                if !current {
                    eprintln!(
                        "no kernel of {} is of its source, configuration and toolchain, so nothing \
                         will use it",
                        root.display()
                    );
                }
                Ok(0)
            }
            Action::Prune {
                older_than,
                all_but_current,
                yes,
                json,
            } => {
                let rules = Rules {
                    older_than: older_than.map(|days| Duration::from_secs(days * DAY)),
                    all_but_current: *all_but_current,
                };
                let items = prune::plan(&cache, &catalog, &Toolchain::detect(&cache)?, rules)?;
                prune_items(&cache, &catalog, items, *yes, *json)
            }
        }
    }
}

/// What a kernel's image depends on, as one hash.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Keyed {
    /// The kernel and its flavour, as `7.3:plain`.
    name: String,
    /// The hash: another one whenever the image would be another.
    key: Sha256,
}

/// An image that was unpacked.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Unpacked {
    /// Where the image is now.
    directory: PathBuf,
    /// Whether a kernel of the catalogue is this image.
    current: bool,
}

/// An image whose files were compared with their hashes.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Verified {
    /// Where it is.
    directory: PathBuf,
    /// What is wrong with it, a line each; empty if it is whole.
    damages: Vec<String>,
}

fn print_json(value: &impl Serialize) -> Result<i32> {
    json::print(value)?;
    Ok(0)
}

/// Reads all files of images: those called `name`, whatever they are built with, or all.
fn verify(cache: &Cache, name: Option<&KernelName>, json: bool) -> Result<i32> {
    let mut verified = Vec::new();
    let mut directories = cache.image_directories();
    directories.sort();
    for directory in directories {
        let Some(metadata) = mutexlab_images::metadata::read(&directory) else {
            continue;
        };
        if name.is_some_and(|name| metadata.name != name.to_string()) {
            continue;
        }
        let damages = match Manifest::load(&directory) {
            Ok(Some(manifest)) => manifest
                .verify(&directory)
                .iter()
                .map(ToString::to_string)
                .collect(),
            Ok(None) => vec!["has no list of its files yet: using it makes one".to_owned()],
            Err(error) => vec![format!("{error:#}")],
        };
        verified.push(Verified { directory, damages });
    }
    if let Some(name) = name
        && verified.is_empty()
    {
        anyhow::bail!("no image of {name} is built");
    }
    let bad = verified.iter().any(|image| !image.damages.is_empty());
    if json {
        print_json(&verified)?;
    } else {
        for Verified { directory, damages } in &verified {
            let verdict = if damages.is_empty() {
                Style::Good.paint("whole  ")
            } else {
                Style::Bad.paint("damaged")
            };
            println!("{verdict} {}", directory.display());
            for damage in damages {
                println!("        {damage}");
            }
        }
    }
    Ok(i32::from(bad))
}

/// Something of the cache that can go.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pruned {
    /// What it is.
    #[serde(flatten)]
    item: Item,
    /// Whether it is gone now.
    removed: bool,
}

fn prune_items(
    cache: &Cache,
    catalog: &Catalog,
    items: Vec<Item>,
    yes: bool,
    json: bool,
) -> Result<i32> {
    let mut pruned = Vec::new();
    for item in items {
        let removed = yes && prune::remove(cache, catalog, &item)? == Removal::Removed;
        pruned.push(Pruned { item, removed });
    }
    if json {
        return print_json(&pruned);
    }
    let mut table = Table::new(&[
        ("what", Align::Left),
        ("size", Align::Right),
        ("unused for", Align::Right),
        ("why", Align::Left),
    ]);
    for Pruned { item, removed } in &pruned {
        let path = item.path.strip_prefix(cache.directory());
        let path = path.unwrap_or(&item.path).display().to_string();
        let why = match (yes, removed) {
            (true, false) => "stays, since another process uses it",
            _ => item.why.as_str(),
        };
        table.row([
            path.as_str().into(),
            size(item.bytes).as_str().into(),
            age(Duration::from_secs(item.unused_seconds))
                .as_str()
                .into(),
            why.into(),
        ]);
    }
    if pruned.is_empty() {
        println!("nothing can go by these rules");
        return Ok(0);
    }
    print!("{table}");
    let bytes = pruned
        .iter()
        .filter(|pruned| pruned.removed || !yes)
        .map(|pruned| pruned.item.bytes)
        .sum();
    if yes {
        println!("{} removed", size(bytes));
    } else {
        println!("{} can go; --yes removes it", size(bytes));
    }
    Ok(0)
}
