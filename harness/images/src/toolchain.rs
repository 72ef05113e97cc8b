// SPDX-License-Identifier: MIT OR Apache-2.0

//! The compilers that kernels and modules are built with.

use std::{
    ffi::{OsStr, OsString},
    io::PipeWriter,
    path::Path,
};

use anyhow::{ensure, Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::store::Cache;
use mutexlab_host::leash;

/// The LLVM whose bitcode rustc's own can be linked with: Debian keeps each in its own place.
const LLVM_DIRECTORY: &str = "/usr/lib/llvm-22/bin";

/// What each compiler says that it is. Another toolchain makes another image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Toolchain {
    /// First line of `rustc --version`.
    pub rustc: String,
    /// The version of LLVM in it, from `rustc --version --verbose`. It follows from the version of
    /// rustc, so no key has it; empty in images that were built before it was asked for.
    #[serde(default)]
    pub rustc_llvm: String,
    /// First line of `clang --version`.
    pub clang: String,
    /// First line of `ld.lld --version`.
    pub lld: String,
    /// First line of `bindgen --version`.
    pub bindgen: String,
}

impl Toolchain {
    /// Asks the programs. The error names the one that does not answer.
    pub fn detect(cache: &Cache) -> Result<Toolchain> {
        let path = search_path(cache)?;
        let ask = |program: &str, how: &[&str]| -> Result<String> {
            duct::cmd(program, how)
                .env("PATH", &path)
                .stderr_capture()
                .read()
                .with_context(|| {
                    format!(
                        "cannot run '{program} --version'; './just doctor' shows what is missing"
                    )
                })
        };
        let version = |program: &str| -> Result<String> {
            let output = ask(program, &["--version"])?;
            Ok(output.lines().next().unwrap_or_default().trim().to_owned())
        };
        let verbose = ask("rustc", &["--version", "--verbose"])?;
        let rustc_llvm = verbose
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "));
        Ok(Toolchain {
            rustc: version("rustc")?,
            rustc_llvm: rustc_llvm.unwrap_or_default().trim().to_owned(),
            clang: version("clang")?,
            lld: version("ld.lld")?,
            bindgen: version("bindgen")?,
        })
    }
}

/// `PATH` with the LLVM that the kernel is built with, and our own tools, before all else.
///
/// Whatever is built for an image needs it.
pub fn search_path(cache: &Cache) -> Result<OsString> {
    let first = [LLVM_DIRECTORY.into(), cache.directory().join("tools/bin")];
    cache.surroundings().path_behind(&first)
}

/// `make LLVM=1` in the kernel tree `source`, with `objects` as its output directory.
///
/// # Errors
/// If `PATH` cannot be extended, or rustc does not say where it is.
pub fn make(cache: &Cache, source: &Path, objects: &Path) -> Result<Make> {
    let path = search_path(cache)?;
    let rust = rust_flags(&path, None)?;
    Ok(Make {
        path,
        arguments: vec![
            "-C".into(),
            source.into(),
            "LLVM=1".into(),
            concat("O=", objects.as_os_str()),
            // The kernel's own warnings are nobody's concern here, and looking for them in the
            // inline functions of a thousand files is a quarter of the build's time.
            "KCFLAGS=-w".into(),
            rust,
        ]
        .into_iter()
        .chain(NOT_SANITIZED.map(OsString::from))
        .collect(),
    })
}

/// The variable of make that keeps the places of this machine out of Rust objects: that of the standard library's sources, and
/// `module` if a module outside the tree is built. A panic names the file that it is in, so of another length they would move all that
/// is behind them in the guest's memory.
///
/// # Errors
/// If the rustc of `path` does not say where its files are.
pub(crate) fn rust_flags(path: &OsStr, module: Option<&Path>) -> Result<OsString> {
    let sysroot = duct::cmd!("rustc", "--print", "sysroot")
        .env("PATH", path)
        .read()
        .context("cannot run 'rustc --print sysroot'")?;
    // As rust/Makefile finds them.
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    let mut flags = OsString::from("KRUSTFLAGS=");
    for (place, name) in [(Some(&*library), "/rust/library"), (module, ".")] {
        if let Some(place) = place {
            flags.push(" --remap-path-prefix=");
            flags.push(place);
            flags.push("=");
            flags.push(name);
        }
    }
    Ok(flags)
}

/// Variables of make that keep KASAN's checks out of what unwinds the stack, which KASAN itself has done whenever memory is allocated and freed:
/// in a debug kernel under traffic that was two fifths of all instructions. Without KASAN they change nothing.
pub const NOT_SANITIZED: [&str; 3] = [
    "KASAN_SANITIZE_unwind_frame.o=n",
    "KASAN_SANITIZE_stacktrace.o=n",
    "KASAN_SANITIZE_extable.o=n",
];

/// A call of the kernel's make, to be completed with targets.
pub struct Make {
    path: OsString,
    arguments: Vec<OsString>,
}

impl Make {
    /// The command for these targets and options.
    pub fn command(&self, targets: &[&str]) -> duct::Expression {
        let make = duct::cmd("make", self.arguments(targets)).stdin_null();
        self.with_environment(make)
    }

    /// The same on a [leash], for what takes long.
    ///
    /// # Errors
    /// If there cannot be a leash.
    pub fn on_leash(&self, targets: &[&str]) -> Result<(duct::Expression, PipeWriter)> {
        let make = std::iter::once("make".into());
        let (make, leash) = leash::tie(make.chain(self.arguments(targets)))?;
        Ok((self.with_environment(make), leash))
    }

    fn arguments<'a>(&'a self, targets: &'a [&str]) -> impl Iterator<Item = OsString> + 'a {
        let targets = targets.iter().map(Into::into);
        self.arguments.iter().cloned().chain(targets)
    }

    fn with_environment(&self, make: duct::Expression) -> duct::Expression {
        // The same image on every machine, and on every day.
        make.env("PATH", &self.path)
            .env("KBUILD_BUILD_USER", "mutexlab")
            .env("KBUILD_BUILD_HOST", "mutexlab")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01T00:00:00Z")
            // Empty is not unset: of a tree that git knows, the release would tell whether there is a tag.
            .env("LOCALVERSION", "")
            // Its messages are read by us, too.
            .env("LC_ALL", "C")
            // What a surrounding make or cargo would have the kernel's make do.
            .env_remove("MAKEFLAGS")
            .env_remove("MFLAGS")
            .env_remove("CARGO_MAKEFLAGS")
            .env_remove("RUSTFLAGS")
            // Where the standard library's sources are is known by the compiler: see `rust_flags`.
            .env_remove("RUST_LIB_SRC")
    }

    /// Fails with make's own words if this toolchain cannot build Rust for this kernel.
    pub fn check_rust(&self) -> Result<()> {
        let output = self
            .command(&["rustavailable"])
            .stderr_to_stdout()
            .stdout_capture()
            .unchecked()
            .run()
            .context("cannot run make")?;
        ensure!(
            output.status.success(),
            "the kernel finds no usable Rust ('make LLVM=1 rustavailable'):\n{}\n\
             './just doctor' shows what is missing",
            String::from_utf8_lossy(&output.stdout).trim()
        );
        Ok(())
    }
}

fn concat(prefix: &str, rest: &OsStr) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(rest);
    text
}
