// SPDX-License-Identifier: MIT OR Apache-2.0

//! For which architecture a program is, and which packages of Debian's it needs: what its ELF headers say of libraries.
//!
//! Both libraries here name each version of their symbols after the first of their releases that had it.

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context, Result};
use object::elf::{FileHeader64, DT_NEEDED, EM_AARCH64, EM_X86_64};
use object::read::elf::FileHeader;
use object::Endianness;

/// What a program needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Needs {
    /// Debian's name of the architecture.
    pub architecture: &'static str,
    /// As `Depends` lists them.
    pub depends: String,
}

impl Needs {
    /// What the program with these bytes needs.
    pub fn of(program: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(program)?;
        let endian = header.endian()?;
        let architecture = match header.e_machine(endian) {
            EM_X86_64 => "amd64",
            EM_AARCH64 => "arm64",
            other => bail!("Debian's name of ELF machine {other:?} is not known here"),
        };
        let sections = header.sections(endian, program)?;
        let mut packages: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let table = sections.dynamic_table(endian, program)?;
        for one in table.iter().filter(|one| one.tag == DT_NEEDED) {
            packages.entry(package(table.string(one)?)?.0).or_default();
        }
        if let Some((needs, link)) = sections.gnu_verneed(endian, program)? {
            let strings = sections.strings(endian, program, link)?;
            for need in needs {
                let (library, versions) = need?;
                let (package, prefix) = package(library.file(endian, strings)?)?;
                for one in versions {
                    let name = String::from_utf8_lossy(one?.name(endian, strings)?);
                    let version = version(&name, prefix)?;
                    let least = packages.entry(package).or_default();
                    *least = version.max(std::mem::take(least));
                }
            }
        }
        let list = packages.into_iter().map(|(package, least)| {
            let least: Vec<String> = least.iter().map(u32::to_string).collect();
            match least.is_empty() {
                true => package.to_owned(),
                false => format!("{package} (>= {})", least.join(".")),
            }
        });
        Ok(Self {
            architecture,
            depends: list.collect::<Vec<_>>().join(", "),
        })
    }
}

/// The package that has a library, and what the versions of its symbols begin with.
fn package(library: &[u8]) -> Result<(&'static str, &'static str)> {
    let name = String::from_utf8_lossy(library);
    match name.split(".so").next().unwrap_or("") {
        "libc" | "libm" | "ld-linux-x86-64" | "ld-linux-aarch64" => Ok(("libc6", "GLIBC_")),
        "libgcc_s" => Ok(("libgcc-s1", "GCC_")),
        _ => bail!("which package of Debian's has {name} is not known here"),
    }
}

fn version(name: &str, prefix: &str) -> Result<Vec<u32>> {
    // How relocations are packed, which says no number.
    if name == "GLIBC_ABI_DT_RELR" {
        return Ok(vec![2, 36]);
    }
    let numbers = name.strip_prefix(prefix).map(|text| text.split('.'));
    let numbers = numbers.and_then(|all| {
        all.map(|one| one.parse().ok())
            .collect::<Option<Vec<u32>>>()
    });
    let numbers = numbers.with_context(|| format!("{name} is no version of a release"))?;
    ensure!(!numbers.is_empty(), "{name} is no version of a release");
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert!(version("GLIBC_2.34", "GLIBC_").unwrap() > version("GLIBC_2.4", "GLIBC_").unwrap());
        assert_eq!(version("GCC_4.2.0", "GCC_").unwrap(), [4, 2, 0]);
        assert_eq!(version("GLIBC_ABI_DT_RELR", "GLIBC_").unwrap(), [2, 36]);
        assert!(version("GLIBC_PRIVATE", "GLIBC_").is_err());
    }

    #[test]
    fn a_library_of_nobody_is_told() {
        assert_eq!(package(b"libc.so.6").unwrap().0, "libc6");
        let error = package(b"libssl.so.3").unwrap_err();
        assert!(error.to_string().contains("libssl.so.3"), "{error}");
        assert!(Needs::of(b"#!/bin/sh\n").is_err());
    }
}
