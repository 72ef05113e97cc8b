// SPDX-License-Identifier: MIT OR Apache-2.0

//! What identifies an image: everything that it depends on.

use anyhow::Result;
use sha2::Digest;

use super::catalog::Recipe;
use super::config;
use super::toolchain::{Toolchain, NOT_SANITIZED};
use mutexlab_host::hash::Sha256;

/// Raised when the way of building changes so that older images must not be used.
const RECIPE: u32 = 2;

/// Identifies everything that an image of `kernel` depends on, if it is built from the source with
/// the hash `source`.
pub fn key(kernel: &Recipe, source: &Sha256, toolchain: &Toolchain) -> Result<Sha256> {
    let mut hash = sha2::Sha256::new();
    let merged = config::merge(&kernel.fragments, kernel.version)?;
    let Toolchain {
        rustc,
        // It follows from the version of rustc.
        rustc_llvm: _,
        clang,
        lld,
        bindgen,
    } = toolchain;
    for part in [
        &RECIPE.to_string(),
        source.as_str(),
        &merged,
        rustc,
        clang,
        lld,
        bindgen,
    ] {
        add(&mut hash, part);
    }
    if merged.lines().any(|line| line == "CONFIG_KASAN=y") {
        add(&mut hash, &NOT_SANITIZED.join(" "));
    }
    Ok(Sha256::digest(hash))
}

fn add(hash: &mut sha2::Sha256, part: &str) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn hash(byte: u8) -> Sha256 {
        Sha256::from_bytes([byte; 32])
    }

    #[test]
    fn the_key_changes_with_every_input() {
        let toolchain = sample::toolchain;
        let fragment = "CONFIG_A=y\n[since 7.0] CONFIG_B=y\n";
        let (_root, base) = sample::kernel(fragment, "7.3");
        let reference = key(&base, &hash(1), &toolchain()).unwrap();
        assert_eq!(key(&base, &hash(1), &toolchain()).unwrap(), reference);
        assert_ne!(key(&base, &hash(2), &toolchain()).unwrap(), reference);
        for change in [
            Toolchain {
                rustc: "x".into(),
                ..toolchain()
            },
            Toolchain {
                clang: "x".into(),
                ..toolchain()
            },
            Toolchain {
                lld: "x".into(),
                ..toolchain()
            },
            Toolchain {
                bindgen: "x".into(),
                ..toolchain()
            },
            // What moves from one part to the next is a change, too.
            Toolchain {
                rustc: "rc".into(),
                clang: "".into(),
                ..toolchain()
            },
        ] {
            assert_ne!(
                key(&base, &hash(1), &change).unwrap(),
                reference,
                "{change:?}"
            );
        }
        let (_root, other) = sample::kernel("CONFIG_A=y\n# CONFIG_B is not set\n", "7.3");
        assert_ne!(key(&other, &hash(1), &toolchain()).unwrap(), reference);
        let (_root, older) = sample::kernel(fragment, "6.12");
        assert_ne!(key(&older, &hash(1), &toolchain()).unwrap(), reference);
        // A comment is none.
        let (_root, commented) = sample::kernel(&format!("# why\n{fragment}"), "7.3");
        assert_eq!(key(&commented, &hash(1), &toolchain()).unwrap(), reference);
    }
}
