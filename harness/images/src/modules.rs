// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds the kernel modules against a kernel's tree, and keeps what was built by its content.

use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail, Context, Result};
use serde::{Deserialize, Serialize};

use crate::build::FULL_DISK;
use crate::call_graph::{CallGraph, Depth};
use crate::kept::{self, SENTINEL};
use crate::store::Cache;
use crate::toolchain::{rust_flags, search_path};
use mutexlab_host::files;
use mutexlab_host::hash::Sha256;
use mutexlab_host::interrupt::Interrupt;
use mutexlab_host::leash;

const PROXY: &str = "mutex_proxy.ko";
const PROBE: &str = "mutex_probe.ko";
/// Modules that the guest may load.
#[derive(Clone, Debug)]
pub struct ModuleFiles {
    /// mutex_proxy.ko.
    pub proxy: PathBuf,
    /// mutex_probe.ko.
    pub probe: PathBuf,
    /// The release of the kernel that they were built for, as `uname -r` tells it.
    pub release: String,
}

const LOG: &str = "build.log";

/// What of `module/` the kernel's build reads.
const SOURCES: [&str; 3] = ["rs", "c", "h"];
/// Directories below `module/` of which it reads nothing.
const HOST_ONLY: [&str; 3] = ["benches", "fuzz", "tests"];

/// The modules, built for one kernel.
#[derive(Clone, Debug)]
pub struct Modules {
    /// The proxy.
    pub proxy: PathBuf,
    /// The probe.
    pub probe: PathBuf,
    /// What they were made of.
    pub provenance: Provenance,
}

/// What a build of the modules was made of, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// SHA-256 over the names and contents of the sources.
    pub source_sha256: Sha256,
    /// SHA-256 of `mutex_proxy.ko`.
    pub proxy_sha256: Sha256,
    /// SHA-256 of `mutex_probe.ko`.
    pub probe_sha256: Sha256,
}

/// The modules of `repository`, built against the kernel tree `tree` unless they are in `cache`
/// already. `tree_key` names the tree's content.
///
/// # Errors
/// If the sources cannot be read, if the build fails, or if the user interrupts. The message of a failed
/// build has its first errors and names its log; a module that could panic in a softirq is one.
pub fn build(
    repository: &Path,
    cache: &Cache,
    tree: &Path,
    tree_key: &str,
    interrupt: &Interrupt,
) -> Result<Modules> {
    let module = repository.join("module");
    let sources = sources(&module)?;
    let source_sha256 = files::digest(&module, &sources)?;
    let directory = directory(cache, tree_key, &source_sha256);
    let whole = |directory: &Path| finished(directory, &source_sha256);
    let what = "building the modules";
    kept::ensure(cache, &directory, what, interrupt, whole, |partial| {
        files::copy(&module, &sources, partial)?;
        let path = search_path(cache)?;
        make(tree, partial, &path, interrupt)?;
        if !asserts(tree) {
            check_calls(partial, &path)?;
        }
        keep_results(partial)?;
        Ok(Provenance {
            source_sha256: source_sha256.clone(),
            proxy_sha256: Sha256::of_file(&partial.join(PROXY))?,
            probe_sha256: Sha256::of_file(&partial.join(PROBE))?,
        })
    })
}

/// The modules of `repository` against the kernel tree with this key, if they were built before.
///
/// # Errors
/// If the sources cannot be read.
pub fn find(repository: &Path, cache: &Cache, tree_key: &str) -> Result<Option<Modules>> {
    let module = repository.join("module");
    let source_sha256 = files::digest(&module, &sources(&module)?)?;
    let directory = directory(cache, tree_key, &source_sha256);
    Ok(kept::used(&directory, |directory| {
        finished(directory, &source_sha256)
    }))
}

fn directory(cache: &Cache, tree_key: &str, source_sha256: &Sha256) -> PathBuf {
    kept::directory(cache, &format!("{tree_key}\n{source_sha256}"))
}

// The modules in `directory`, if they were built to the end and are what they were then.
fn finished(directory: &Path, source_sha256: &Sha256) -> Option<Modules> {
    let sentinel = fs::read(directory.join(SENTINEL)).ok()?;
    let provenance: Provenance = serde_json::from_slice(&sentinel).ok()?;
    let modules = Modules {
        proxy: directory.join(PROXY),
        probe: directory.join(PROBE),
        provenance,
    };
    let same = modules.provenance.source_sha256 == *source_sha256
        && Sha256::of_file(&modules.proxy).ok()? == modules.provenance.proxy_sha256
        && Sha256::of_file(&modules.probe).ok()? == modules.provenance.probe_sha256;
    same.then_some(modules)
}

pub(crate) fn make(
    tree: &Path,
    directory: &Path,
    path: &OsStr,
    interrupt: &Interrupt,
) -> Result<()> {
    log::info!("building the modules against {}", tree.display());
    let log = directory.join(LOG);
    let output =
        fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let (make, leash) = leash::tie([
        OsStr::new("make"),
        OsStr::new("LLVM=1"),
        OsStr::new("-C"),
        tree.as_os_str(),
        &join("M=", directory),
        &rust_flags(path, Some(directory))?,
        OsStr::new("modules"),
    ])?;
    let make = make
        .env("PATH", path)
        .stderr_to_stdout()
        .stdout_file(output)
        .unchecked();
    let ended = leash::hold(leash, interrupt, || make.run());
    interrupt.check()?;
    let status = ended.context("cannot run make")?.status;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let fault = DoNotBuild {
        status: status.to_string(),
        errors: errors(&text),
        log,
    };
    if text.contains(FULL_DISK) {
        return Err(anyhow!("{fault}"));
    }
    Err(fault.into())
}

/// Modules that make could not build against a kernel.
#[derive(Debug)]
pub struct DoNotBuild {
    status: String,
    errors: String,
    /// All that make said.
    pub log: PathBuf,
}

impl DoNotBuild {
    /// The first line that says why.
    pub fn first(&self) -> &str {
        self.errors.lines().next().unwrap_or_default().trim()
    }
}

impl fmt::Display for DoNotBuild {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            status,
            errors,
            log,
        } = self;
        let log = log.display();
        write!(
            f,
            "the modules do not build ({status}):\n{errors}\nthe whole log is in {log}"
        )
    }
}

impl std::error::Error for DoNotBuild {}

fn join(prefix: &str, path: &Path) -> std::ffi::OsString {
    let mut joined = std::ffi::OsString::from(prefix);
    joined.push(path);
    joined
}

// The first errors of a build's log with the lines around them, or its end if none is found.
pub(crate) fn errors(log: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    let start = lines
        .iter()
        .position(|line| line.contains("error"))
        .unwrap_or(lines.len().saturating_sub(LINES));
    let shown = lines.iter().skip(start).take(LINES);
    shown
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

// In a kernel that checks Rust's debug assertions every unsafe block of core can panic, on purpose.
fn asserts(tree: &Path) -> bool {
    fs::read_to_string(tree.join(".config")).is_ok_and(|config| {
        config
            .lines()
            .any(|line| line == "CONFIG_RUST_DEBUG_ASSERTIONS=y")
    })
}

/// What the kernel calls in softirqs, where a panic would take the machine down: netfilter's
/// hooks, RCU's callbacks and tasklets. A part of their mangled names.
const IN_SOFTIRQ: [&str; 3] = [
    "5hooks10trampoline",
    "10free_later4free",
    "7tasklet11run_tasklet",
];

/// What the modules may take of the kernel's stack, in bytes, anywhere and in a softirq. The stack has 16 KiB (THREAD_SIZE of x86-64), and
/// the kernel is on it before and after: with packets, the stacks of two devices and netfilter's other hooks.
const STACK: u64 = 6 << 10;
const STACK_IN_SOFTIRQ: u64 = 4 << 10;

/// What ends a ring of calls, as a part of mangled names: `batch::flush` of a queue that is being flushed finds it locked; and of the drop glue of two
/// types that is the same the compiler keeps one, so that rings show which are none.
const ENDS_RINGS: [&str; 2] = ["5batch5flush", "13drop_in_place"];

// Rust code that can panic refers to a function that does so. What runs in a softirq must not reach
// one; what runs for a system call may, through the kernel crate's own containers. Neither may take much of the stack, behind which is
// memory of others.
fn check_calls(directory: &Path, path: &OsStr) -> Result<()> {
    for module in [PROXY, PROBE] {
        let file = directory.join(module);
        let disassembly = duct::cmd!(
            "llvm-objdump",
            "--disassemble",
            "--reloc",
            "--no-show-raw-insn",
            &file
        )
        .env("PATH", path)
        .read()
        .with_context(|| format!("cannot disassemble {}", file.display()))?;
        let graph = CallGraph::parse(&disassembly);
        let in_softirq = |name: &str| IN_SOFTIRQ.iter().any(|part| name.contains(part));
        if !graph.functions().any(in_softirq) {
            bail!("{module} has no hook by the names that are looked for: mend IN_SOFTIRQ");
        }
        if let Some(path) = graph.path(in_softirq, |name| name.contains("panicking")) {
            bail!("{module} can panic in a softirq: {}", path.join(" calls "));
        }
        let ends_ring = |name: &str| ENDS_RINGS.iter().any(|part| name.contains(part));
        let deepest = |most, starts: &dyn Fn(&str) -> bool| match graph.deepest(starts, ends_ring) {
            Err(ring) => bail!(
                "{module} may take any amount of the kernel's stack: {}",
                ring.join(" calls ")
            ),
            Ok(Depth { bytes, way }) if bytes > most => bail!(
                "{module} takes {bytes} bytes of the kernel's stack, more than {most}: {}",
                way.join(" calls ")
            ),
            Ok(Depth { bytes, .. }) => {
                log::debug!("{module} takes {bytes} bytes of the kernel's stack");
                Ok(())
            }
        };
        deepest(STACK, &|_| true)?;
        deepest(STACK_IN_SOFTIRQ, &in_softirq)?;
    }
    Ok(())
}

// Removes what only the build needed.
fn keep_results(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if [PROXY, PROBE, LOG]
            .iter()
            .any(|kept| entry.file_name() == *kept)
        {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

// The sources below `module`, relative to it, in a fixed order.
fn sources(module: &Path) -> Result<Vec<PathBuf>> {
    files::below(module, |name, metadata| {
        Ok(match metadata.is_dir() {
            true => !HOST_ONLY.iter().any(|only| name.ends_with(only)),
            false => is_source(name),
        })
    })
}

fn is_source(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    path.file_name() == Some(OsStr::new("Kbuild"))
        || extension.is_some_and(|extension| SOURCES.contains(&extension))
}

/// The names of a built module's parameters: what its `.modinfo` says of them, as `modinfo` does.
///
/// # Errors
/// If the file cannot be read.
pub fn parameters(module: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    Ok(parameters_in(&bytes))
}

fn parameters_in(bytes: &[u8]) -> Vec<String> {
    let strings = bytes.split(|&byte| byte == 0);
    strings
        .filter_map(|string| {
            let description = std::str::from_utf8(string).ok()?.strip_prefix("parm=")?;
            Some(description.split_once(':')?.0.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutexlab_host::sample::tree;

    fn digest(files: &[(&str, &str)]) -> Sha256 {
        let tree = tree(files);
        files::digest(tree.path(), &sources(tree.path()).unwrap()).unwrap()
    }

    #[test]
    fn the_digest_sees_every_source_and_nothing_else() {
        let base = digest(&[("Kbuild", "a"), ("sys/x.rs", "b")]);
        assert_eq!(
            base,
            digest(&[("sys/x.rs", "b"), ("Kbuild", "a"), ("abi/Cargo.toml", "c")])
        );
        assert_eq!(
            base,
            digest(&[("Kbuild", "a"), ("sys/x.rs", "b"), ("sys/fuzz/y.rs", "c")])
        );
        for other in [
            digest(&[("Kbuild", "A"), ("sys/x.rs", "b")]),
            digest(&[("Kbuild", "a"), ("sys/x.rs", "B")]),
            digest(&[("Kbuild", "a"), ("sys/y.rs", "b")]),
            digest(&[("Kbuild", "a"), ("sys/x.rs", "b"), ("sys/y.h", "")]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_damaged_module_is_built_again() {
        let ko = "module";
        let (sha256, sources) = (Sha256::of(ko), Sha256::of("s"));
        let provenance = Provenance {
            source_sha256: sources.clone(),
            proxy_sha256: sha256.clone(),
            probe_sha256: sha256,
        };
        let sentinel = serde_json::to_string(&provenance).unwrap();
        let whole = tree(&[(PROXY, ko), (PROBE, ko), (SENTINEL, &sentinel)]);
        assert!(finished(whole.path(), &sources).is_some());
        assert!(finished(whole.path(), &Sha256::of("others")).is_none());
        let damaged = tree(&[(PROXY, "modulf"), (PROBE, ko), (SENTINEL, &sentinel)]);
        assert!(finished(damaged.path(), &sources).is_none());
        let unfinished = tree(&[(PROXY, ko), (PROBE, ko)]);
        assert!(finished(unfinished.path(), &sources).is_none());
    }

    #[test]
    fn the_first_errors_of_a_log_are_shown() {
        let log = format!(
            "{}error[E1]: bad\n  here\n{}",
            "fine\n".repeat(50),
            "more\n".repeat(50)
        );
        let shown = errors(&log);
        assert!(shown.starts_with("  error[E1]: bad\n    here\n"));
        assert_eq!(shown.lines().count(), 20);
        assert!(errors("no such word\n").contains("no such word"));
    }

    #[test]
    fn parameters_are_those_of_the_module_s_information() {
        let bytes = b"\x7fELF\0license=GPL\0parm=max_flows:How many (1 to 2)\0parm=b:c:d\0parm\0xparm=no:x\0";
        assert_eq!(parameters_in(bytes), ["max_flows", "b"]);
    }
}
