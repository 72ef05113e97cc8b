// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whether a toolchain is what a kernel demands, found out before a build is begun.
//!
//! The least versions are those that the tree's own `scripts/min-tool-version.sh` prints.

use std::{fmt, path::Path, str::FromStr};

use anyhow::{bail, ensure, Context, Result};

use super::{
    catalog::Recipe,
    config::{self, Version},
    toolchain::Toolchain,
};

/// Set where C helpers are to be inlined into Rust code: their bitcode is linked with rustc's.
const INLINE_HELPERS: &str = "CONFIG_RUST_INLINE_HELPERS=y";

/// A tool's version: three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ToolVersion([u32; 3]);

impl FromStr for ToolVersion {
    type Err = anyhow::Error;

    /// The first word of the text that begins with three numbers: `rustc 1.95.0-nightly (…)`.
    fn from_str(text: &str) -> Result<Self> {
        text.split_whitespace()
            .find_map(|word| {
                let end = word.find(|c: char| c != '.' && !c.is_ascii_digit());
                let mut numbers = word.get(..end.unwrap_or(word.len()))?.split('.');
                let mut next = || numbers.next()?.parse().ok();
                Some(ToolVersion([next()?, next()?, next()?]))
            })
            .with_context(|| format!("'{text}' has no version such as 1.2.3"))
    }
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// A tool that a kernel demands in some version.
struct Tool<'a> {
    /// Its program.
    program: &'static str,
    /// How the kernel's script calls it.
    name: &'static str,
    /// What it says of itself.
    says: &'a str,
    /// How to get a newer one.
    remedy: &'static str,
}

/// Compares `toolchain` with what `kernel` demands, whose source is in `tree`.
///
/// # Errors
/// If something is too old, or does not fit together: the message has all of that with what to do.
pub fn check(kernel: &Recipe, tree: &Path, toolchain: &Toolchain) -> Result<()> {
    let llvm = "install clang-22, lld-22, llvm-22 and libclang-22-dev, or newer ones";
    let tools = [
        Tool {
            program: "rustc",
            name: "rustc",
            says: &toolchain.rustc,
            remedy: "`rustup update`, then `rustup component add rust-src`",
        },
        Tool {
            program: "bindgen",
            name: "bindgen",
            says: &toolchain.bindgen,
            remedy: "`./just doctor` shows how the one that is pinned is installed",
        },
        Tool {
            program: "clang",
            name: "llvm",
            says: &toolchain.clang,
            remedy: llvm,
        },
        Tool {
            program: "ld.lld",
            name: "llvm",
            says: &toolchain.lld,
            remedy: llvm,
        },
    ];
    let mut faults = Vec::new();
    for tool in tools {
        let found: ToolVersion = tool
            .says
            .parse()
            .with_context(|| format!("{} does not tell its version", tool.program))?;
        let least = least(tree, tool.name)?;
        if found < least {
            faults.push(format!(
                "{} {found} is too old, {least} is the least: {}",
                tool.program, tool.remedy
            ));
        }
    }
    let merged = config::merge(&kernel.fragments, kernel.version)?;
    if merged.lines().any(|line| line == INLINE_HELPERS) {
        faults.extend(llvms_differ(toolchain, kernel.version)?);
    }
    ensure!(
        faults.is_empty(),
        "{} ({}) cannot be built with the tools that are here:\n  {}",
        kernel.name,
        kernel.version,
        faults.join("\n  ")
    );
    Ok(())
}

/// Why C helpers cannot be inlined, if so: rustc must have the LLVM of clang, as the kernel's
/// `RUSTC_CLANG_LLVM_COMPATIBLE` demands it (`init/Kconfig`).
fn llvms_differ(toolchain: &Toolchain, version: Version) -> Result<Option<String>> {
    let clang: ToolVersion = toolchain.clang.parse()?;
    let rustc: ToolVersion = toolchain
        .rustc_llvm
        .parse()
        .context("rustc does not tell which LLVM it has")?;
    Ok((clang.0[0] != rustc.0[0]).then(|| {
        format!(
            "rustc has LLVM {rustc}, but clang is {clang}: {INLINE_HELPERS} of {version} links the \
             bitcode of both, so they must be of one major version; install clang-{0}, lld-{0} and \
             llvm-{0}, or the rustc that has LLVM {1}",
            rustc.0[0], clang.0[0]
        )
    }))
}

/// What the tree says is the least version of a tool.
fn least(tree: &Path, tool: &str) -> Result<ToolVersion> {
    let script = tree.join("scripts/min-tool-version.sh");
    if !script.is_file() {
        bail!(
            "{} is no kernel tree: it has no {}",
            tree.display(),
            "scripts/min-tool-version.sh"
        );
    }
    duct::cmd!("sh", &script, tool)
        .env("ARCH", "x86_64")
        .env("SRCARCH", "x86")
        .stderr_to_stdout()
        .read()
        .with_context(|| format!("{} {tool} fails", script.display()))?
        .parse()
        .with_context(|| format!("{} {tool}", script.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sample;

    /// A repository with a kernel, whose tree demands rustc 1.85.0, bindgen 0.71.1 and LLVM 17.0.1.
    fn kernel(fragment: &str) -> (tempfile::TempDir, Recipe) {
        let (root, kernel) = sample::kernel(fragment, "7.3");
        let scripts = root.path().join("tree/scripts");
        fs::create_dir(&scripts).unwrap();
        fs::write(
            scripts.join("min-tool-version.sh"),
            "case \"$SRCARCH $1\" in\n\"x86 rustc\") echo 1.85.0 ;;\n\"x86 bindgen\") echo 0.71.1 ;;\n\
             \"x86 llvm\") echo 17.0.1 ;;\n*) exit 1 ;;\nesac\n",
        )
        .unwrap();
        (root, kernel)
    }

    fn toolchain() -> Toolchain {
        Toolchain {
            rustc: "rustc 1.95.0 (59807616e 2026-04-14)".into(),
            rustc_llvm: "22.1.2".into(),
            clang: "Debian clang version 22.1.8 (1~deb12u1)".into(),
            lld: "Debian LLD 22.1.8 (compatible with GNU linkers)".into(),
            bindgen: "bindgen 0.73.2".into(),
        }
    }

    fn error(root: &Path, kernel: &Recipe, toolchain: &Toolchain) -> String {
        check(kernel, &root.join("tree"), toolchain)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn versions_are_found_in_what_tools_say() {
        let version = |text: &str| text.parse::<ToolVersion>().unwrap().0;
        assert_eq!(version(&toolchain().clang), [22, 1, 8]);
        assert_eq!(version("rustc 1.97.0-nightly (abc 2026-05-01)"), [1, 97, 0]);
        assert!("bindgen".parse::<ToolVersion>().is_err());
        assert!("1.9.0".parse::<ToolVersion>().unwrap() < "1.10.0".parse().unwrap());
    }

    #[test]
    fn each_tool_that_is_too_old_is_named_with_what_to_do() {
        let (root, kernel) = kernel("");
        check(&kernel, &root.path().join("tree"), &toolchain()).unwrap();
        let old = Toolchain {
            rustc: "rustc 1.78.0 (9b00956e5 2024-04-29)".into(),
            lld: "LLD 16.0.6".into(),
            ..toolchain()
        };
        let error = error(root.path(), &kernel, &old);
        for part in [
            "k:plain (7.3)",
            "rustc 1.78.0 is too old, 1.85.0 is the least",
            "rustup update",
            "ld.lld 16.0.6 is too old, 17.0.1 is the least",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(
            !error.contains("bindgen") && !error.contains("clang 22"),
            "{error}"
        );
    }

    #[test]
    fn one_llvm_is_demanded_where_helpers_are_inlined() {
        let other = Toolchain {
            rustc_llvm: "21.1.8".into(),
            ..toolchain()
        };
        let (root, plain) = kernel("CONFIG_RUST=y\n");
        check(&plain, &root.path().join("tree"), &other).unwrap();
        let (root, inlining) = kernel("[since 7.0] CONFIG_RUST_INLINE_HELPERS=y\n");
        check(&inlining, &root.path().join("tree"), &toolchain()).unwrap();
        let error = error(root.path(), &inlining, &other);
        assert!(
            error.contains("rustc has LLVM 21.1.8, but clang is 22.1.8"),
            "{error}"
        );
        assert!(error.contains("clang-21"), "{error}");
    }

    #[test]
    fn a_directory_that_is_no_tree_is_named() {
        let (root, kernel) = kernel("");
        fs::remove_file(root.path().join("tree/scripts/min-tool-version.sh")).unwrap();
        assert!(error(root.path(), &kernel, &toolchain()).contains("is no kernel tree"));
    }
}
