// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which kernels there are, and what is known of their images.

use std::path::{Path, PathBuf};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

use mutexlab_draw::table::{Align, Field, Style, Table};
use mutexlab_images::cache;
use mutexlab_images::catalog::{Catalog, Flavour, Recipe};
use mutexlab_images::metadata::{Image, Metadata, State};
use mutexlab_images::toolchain::Toolchain;
use mutexlab_images::usage::{age, disk_usage, size, unused};
use mutexlab_images::Cache;

/// A kernel in one flavour.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listed<'a> {
    /// Its name in the catalogue.
    kernel: &'a str,
    /// What it is configured for.
    flavour: Flavour,
    /// Its version.
    version: String,
    /// Whether it is what is measured with if nothing else is said.
    default: bool,
    /// Whether it is built.
    state: ListedState,
    /// Its image; null until it is built.
    image: Option<ListedImage>,
}

/// Whether a kernel is built.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum ListedState {
    /// It is.
    Built,
    /// It is, and must not be used.
    Damaged,
    /// It is not.
    NotBuilt,
}

/// An image that is there.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ListedImage {
    /// Where it is: the output directory of its build.
    directory: PathBuf,
    /// What it takes of the disk.
    bytes: u64,
    /// Since it was last used, in seconds.
    unused_seconds: u64,
    /// What it was built from.
    #[serde(flatten)]
    metadata: Metadata,
}

/// All kernels of the catalogue, with the images that fit this machine's toolchain.
///
/// # Errors
/// If the toolchain cannot be asked, or fragments contradict each other.
pub fn list<'a>(catalog: &'a Catalog, cache: &Cache) -> Result<Vec<Listed<'a>>> {
    let toolchain = Toolchain::detect(cache)?;
    catalog
        .kernels()
        .iter()
        .map(|kernel| {
            let mut listed = Listed {
                kernel: &kernel.name.kernel,
                flavour: kernel.name.flavour,
                version: kernel.version.to_string(),
                default: is_default(catalog, kernel),
                state: ListedState::NotBuilt,
                image: None,
            };
            for directory in cache.candidates(kernel, &toolchain)? {
                match State::of(&directory)? {
                    State::Absent => {}
                    State::Damaged(_) => listed.state = ListedState::Damaged,
                    State::Whole(metadata) => {
                        listed.state = ListedState::Built;
                        listed.image = Some(ListedImage::new(&directory, *metadata));
                        break;
                    }
                }
            }
            Ok(listed)
        })
        .collect()
}

fn is_default(catalog: &Catalog, kernel: &Recipe) -> bool {
    kernel.name.kernel == catalog.default_kernel() && kernel.name.flavour == Flavour::Plain
}

impl ListedImage {
    /// What there is to say of `image`.
    pub fn of(image: &Image) -> Self {
        Self::new(&image.directory, image.metadata.clone())
    }

    fn new(directory: &Path, metadata: Metadata) -> Self {
        let unused = unused(&cache::lock_path(directory)).unwrap_or_default();
        Self {
            bytes: disk_usage(directory),
            unused_seconds: unused.as_secs(),
            directory: directory.to_owned(),
            metadata,
        }
    }
}

/// The list as a table, with what the rest of the cache takes below it.
pub fn table(listed: &[Listed<'_>], cache: &Cache) -> String {
    let mut table = Table::new(&[
        ("kernel", Align::Left),
        ("release", Align::Left),
        ("built in", Align::Right),
        ("size", Align::Right),
        ("unused for", Align::Right),
        ("directory", Align::Left),
    ]);
    let mut notes = String::new();
    for kernel in listed {
        let star = if kernel.default { " *" } else { "" };
        let name = format!("{}:{}{star}", kernel.kernel, kernel.flavour);
        let none = || Field::styled("–", Style::Dim);
        let Some(image) = &kernel.image else {
            let what = match kernel.state {
                ListedState::Damaged => Field::styled("damaged", Style::Bad),
                ListedState::Built | ListedState::NotBuilt => {
                    Field::styled("not built", Style::Dim)
                }
            };
            table.row([
                name.as_str().into(),
                kernel.version.as_str().into(),
                none(),
                none(),
                none(),
                what,
            ]);
            continue;
        };
        let metadata = &image.metadata;
        table.row([
            name.as_str().into(),
            metadata.release.as_str().into(),
            format!("{:.0} s", metadata.build_seconds).as_str().into(),
            size(image.bytes).as_str().into(),
            age(std::time::Duration::from_secs(image.unused_seconds))
                .as_str()
                .into(),
            image.directory.display().to_string().as_str().into(),
        ]);
        if let Some(stand_in) = &metadata.stand_in {
            notes += &format!(
                "{name} is not of a pinned source, but of {}\n",
                stand_in.describe()
            );
        }
    }
    let images: u64 = listed
        .iter()
        .filter_map(|kernel| Some(kernel.image.as_ref()?.bytes))
        .sum();
    let all = |name: &str| disk_usage(&cache.directory().join(name));
    format!(
        "{table}* the default\n{notes}\n{} in {}: {} in other images, {} in sources, {} in downloads, \
         {} in modules, {} in tools; `mutexlab image prune` shows what can go\n",
        size(disk_usage(cache.directory())),
        cache.directory().display(),
        size(all("images").saturating_sub(images)),
        size(all("sources")),
        size(all("downloads")),
        size(all("modules")),
        size(all("tools")),
    )
}
