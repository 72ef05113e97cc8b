// SPDX-License-Identifier: MIT OR Apache-2.0

//! Programs of others in user space that are a part of what is measured: where they are on this machine, and of
//! which version.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use duct::cmd;

use mutexlab_host::surroundings::Surroundings;
use mutexlab_protocol::datapath::program_path;

/// Where Debian keeps libraries: since all are below /usr, and before.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// Where programs lie below the place where packages are unpacked.
const DIRECTORIES: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// A program that the guest runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name; of one that was unpacked that of its Debian package, too.
    pub name: String,
    /// Where it lies in the guest.
    pub path: String,
    /// Where it lies here.
    pub file: PathBuf,
    // Below what it was unpacked; None if it is installed.
    unpacked: Option<PathBuf>,
}

impl Program {
    /// The program called `name` for a subject: what `./just` has unpacked, or, where it does not do so, what
    /// this machine has.
    ///
    /// # Errors
    /// If it is not there.
    pub fn of_subject(name: &str, surroundings: &Surroundings) -> Result<Self> {
        let place = surroundings.cache.join("tools/debian");
        let mut unpacked = DIRECTORIES
            .iter()
            .map(|directory| place.join(directory).join(name));
        let unpacked = unpacked.find(|file| file.is_file());
        let of_place = unpacked.is_some();
        let file = match unpacked {
            Some(file) => file,
            None => surroundings.program(name).with_context(|| {
                format!("cannot find {name}, which a subject runs: install the package that has it")
            })?,
        };
        Ok(Self {
            name: name.to_owned(),
            path: program_path(name),
            file,
            unpacked: of_place.then_some(place),
        })
    }

    /// The directories with libraries that came with it; none if it was not unpacked.
    pub fn libraries_beside(&self) -> Vec<PathBuf> {
        let places = self.unpacked.iter();
        places
            .flat_map(|place| LIBRARIES.map(|directory| place.join(directory)))
            .collect()
    }

    /// The version of its Debian package; `None` if it is of none.
    pub fn version(&self) -> Option<String> {
        match &self.unpacked {
            // Of a package that was not installed only its files are known. Its own log of changes is one
            // of them, and begins with its version (Debian Policy, sections 4.4 and 12.7).
            Some(place) => {
                let log = place
                    .join("usr/share/doc")
                    .join(&self.name)
                    .join("changelog.Debian.gz");
                newest(&cmd!("gzip", "-dc", log).stderr_null().read().ok()?)
            }
            None => {
                let owner = cmd!("dpkg-query", "--search", &self.file)
                    .stderr_null()
                    .read()
                    .ok()?;
                let package = owner.split(':').next()?;
                cmd!("dpkg-query", "--show", "--showformat=${Version}", package)
                    .stderr_null()
                    .read()
                    .ok()
                    .filter(|version| !version.is_empty())
            }
        }
    }
}

/// The version in the first line of a Debian package's log of changes: `redsocks (0.5-2) unstable; …`.
fn newest(log: &str) -> Option<String> {
    let (_, rest) = log.lines().next()?.split_once(" (")?;
    Some(rest.split_once(')')?.0.to_owned())
}

/// Looks for a program in PATH, and where Debian keeps the administrator's programs.
///
/// # Errors
/// If it is in neither; the message names the Debian package `package`.
pub fn find(name: &str, package: &str, surroundings: &Surroundings) -> Result<PathBuf> {
    surroundings.program(name).with_context(|| {
        format!("cannot find {name}: install it, on Debian with `apt-get install {package}`")
    })
}

/// What the dynamic linker would load for `program`, if it looked into the directories `beside`, too;
/// nothing if it is static.
///
/// # Errors
/// If ldd cannot be run, or a library is missing.
pub fn shared_libraries(program: &Path, beside: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    // ldd fails for static programs and says so on either stream.
    let output = cmd!("ldd", program)
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .env("LC_ALL", "C")
        .env("LD_LIBRARY_PATH", std::env::join_paths(beside)?)
        .run()
        .context("cannot run ldd, which is part of glibc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), missing.trim());
    }
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::paths;

    #[test]
    fn libraries_of_a_dynamic_program_are_found() {
        let libraries = shared_libraries(&paths::this_program(), &[]).unwrap();
        assert!(libraries
            .iter()
            .any(|library| library.to_string_lossy().contains("libc.so")));
        assert!(libraries.iter().all(|library| library.is_file()));
    }

    #[test]
    fn a_package_s_version_is_that_of_its_last_change() {
        let log = "redsocks (0.5-2+b1) sid; urgency=low\n\n  * x\n\nredsocks (0.5-1) unstable; u\n";
        assert_eq!(newest(log).as_deref(), Some("0.5-2+b1"));
        assert_eq!(newest("no version\n"), None);
        assert_eq!(newest(""), None);
    }
}
