// SPDX-License-Identifier: MIT OR Apache-2.0

//! What this process was started with: the one place that reads its environment and current directory.
#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::{env, io};

use anyhow::{Context, Result};
use mutexlab_host::paths;
use mutexlab_host::surroundings::{
    Surroundings, CACHE_VARIABLE, KEYRING_VARIABLE, MIRROR_VARIABLE, UPSTREAM_VARIABLE,
};

/// The root of the repository that the current directory is in.
///
/// # Errors
/// If it is in none.
pub fn repository() -> Result<PathBuf> {
    let here = env::current_dir().context("cannot find the current directory")?;
    paths::repository_above(&here)
}

/// What there is to work with. The cache is `$MUTEXLAB_CACHE`, else `mutexlab` under `$XDG_CACHE_HOME`, else under
/// `~/.cache`.
///
/// # Errors
/// If none of them is known.
pub fn surroundings() -> Result<Surroundings> {
    let path = |name| variable(name).map(PathBuf::from);
    let cache = path(CACHE_VARIABLE)
        .or_else(|| path("XDG_CACHE_HOME").map(|path| path.join("mutexlab")))
        .or_else(|| path("HOME").map(|path| path.join(".cache/mutexlab")))
        .with_context(|| format!("set {CACHE_VARIABLE}, since HOME is not set"))?;
    let program = env::current_exe().context("cannot find this program")?;
    Ok(Surroundings {
        search_path: env::split_paths(&variable("PATH").unwrap_or_default()).collect(),
        built: program.parent().map(PathBuf::from).unwrap_or_default(),
        debian_mirror: text(MIRROR_VARIABLE),
        kernel_mirror: text(UPSTREAM_VARIABLE),
        keyring: path(KEYRING_VARIABLE),
        ..Surroundings::usual(&cache)
    })
}

/// Only a terminal is shown colours, and only if `NO_COLOR` is not set (<https://no-color.org>).
pub fn colours() -> bool {
    use io::IsTerminal;
    variable("NO_COLOR").is_none() && io::stdout().is_terminal()
}

/// What a variable says, if it is text.
pub fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

/// A variable that says something.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
