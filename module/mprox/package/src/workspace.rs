// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sources, and the program that is built of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};
use serde_json::Value;

use crate::output::output;

/// Where the sources are, as cargo says.
#[derive(Debug)]
pub struct Workspace {
    /// The directory with `Cargo.lock`.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// Which version of `mprox` this is.
    pub version: String,
    // Where the sources of others are.
    elsewhere: BTreeSet<PathBuf>,
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    let found = value.get(key).and_then(Value::as_str);
    found.with_context(|| format!("cargo does not say {key}"))
}

impl Workspace {
    /// The one that `directory` is in.
    pub fn of(directory: &Path) -> Result<Self> {
        let arguments = ["metadata", "--format-version=1", "--locked"];
        let told = output(Command::new("cargo").args(arguments).current_dir(directory))?;
        let told: Value = serde_json::from_str(&told)?;
        let packages = told["packages"]
            .as_array()
            .context("cargo knows no packages")?;
        let ours = packages
            .iter()
            .find(|one| one["name"] == "mprox" && one["source"].is_null());
        let ours = ours.with_context(|| format!("{} has no mprox", directory.display()))?;
        let mut elsewhere = BTreeSet::new();
        for one in packages.iter().filter(|one| !one["source"].is_null()) {
            let manifest = Path::new(text(one, "manifest_path")?);
            elsewhere.extend(manifest.ancestors().nth(2).map(Path::to_owned));
        }
        Ok(Self {
            root: text(&told, "workspace_root")?.into(),
            target: text(&told, "target_directory")?.into(),
            version: text(ours, "version")?.to_owned(),
            elsewhere,
        })
    }

    /// Builds `mprox`: the program's path.
    pub fn build(&self) -> Result<PathBuf> {
        let flags = format!("build.rustflags={}", Value::from(self.flags()?));
        let arguments = ["build", "--locked", "--profile=dist", "--package=mprox"];
        let told = output(
            Command::new("cargo")
                .args(arguments)
                .args([
                    "--message-format=json-render-diagnostics",
                    "--config",
                    &flags,
                ])
                // They would be in the place of ours.
                .env_remove("RUSTFLAGS")
                .env_remove("CARGO_ENCODED_RUSTFLAGS")
                .current_dir(&self.root),
        )?;
        for line in told.lines() {
            let message: Value = serde_json::from_str(line)?;
            if message["target"]["name"] == "mprox"
                && let Some(path) = message["executable"].as_str()
            {
                return Ok(path.into());
            }
        }
        bail!("cargo built no mprox");
    }

    // Panics tell the paths of sources, which are others on another machine.
    fn flags(&self) -> Result<Vec<String>> {
        let rustc =
            |argument: &str| output(Command::new("rustc").arg(argument).current_dir(&self.root));
        let version = rustc("-vV")?;
        let hash = version
            .lines()
            .find_map(|line| line.strip_prefix("commit-hash: "));
        let hash = hash.context("rustc does not say of which commit it is")?;
        let library = Path::new(rustc("--print=sysroot")?.trim_end()).join("lib/rustlib/src/rust");
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        let mut flags = vec![remap(&self.root, "/mprox")];
        flags.extend(self.elsewhere.iter().map(|path| remap(path, "/crates")));
        // As the library that comes compiled with it has it.
        flags.push(remap(&library, &format!("/rustc/{hash}")));
        Ok(flags)
    }
}
